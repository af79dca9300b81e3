"""The compiler: found, split into words, and tried before a long work."""

from __future__ import annotations

import re

import pytest

import sim.csim
from sim.compiler import Compiler
from spvit.errors import BuildError
from spvit_fpga.cli import run

NATIVE = ["-std=c++14", "-march=native"]


def refused(call):
    with pytest.raises(BuildError) as caught:
        call()
    return str(caught.value)


def test_words():
    assert Compiler.find("env A=1 g++ -DX='a b'").words == ("env", "A=1", "g++", "-DX=a b")
    assert str(Compiler.find("env 'A=1 2' g++")) == "env 'A=1 2' g++"


@pytest.mark.parametrize(("given", "words"), [(None, ("g++",)), ("", ("g++",)), ("env g++", ("env", "g++"))])
def test_cxx_is_the_default(monkeypatch, given, words):
    monkeypatch.delenv("CXX", raising=False)
    if given is not None:
        monkeypatch.setenv("CXX", given)
    assert Compiler.find().words == words


def test_clang_is_known_behind_another_word():
    assert Compiler(("ccache", "/usr/bin/clang++-16")).is_clang and not Compiler(("env", "g++")).is_clang


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("g++-99", "g++-99 not found: install it (Debian: apt-get install g++), or choose another compiler"),
        (
            "clang++-99 -x",
            "clang++-99 not found: install it (Debian: apt-get install clang), or choose another compiler",
        ),
        ("g++ 'x", "CXX=g++ 'x: is no command (No closing quotation); choose g++ or clang++"),
        (" ", "CXX= : names no compiler; leave it away, or choose g++ or clang++"),
    ],
)
def test_what_is_no_compiler(command, sentence):
    assert refused(lambda: Compiler.find(command)) == sentence


def test_gpp_compiles_and_links():
    Compiler.find("g++").check()
    Compiler.find("env g++").check()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("gcc", "undefined reference"),
        ("env g++-99", "g\\+\\+-99"),
        ("g++ --no-such-flag", "no-such-flag"),
        ("false", "word"),
    ],
)
def test_what_cannot_compile_and_link_is_named(command, reason):
    sentence = refused(Compiler.find(command).check)
    assert re.fullmatch(
        rf"CXX={re.escape(command)}: cannot compile and link C\+\+ \(.*{reason}.*\); "
        r"name a C\+\+ compiler, g\+\+ or clang\+\+",
        sentence,
    ), sentence


def test_csim_asks_before_the_long_work(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "gcc")
    monkeypatch.setattr(sim.csim, "ensure_network", lambda *_: pytest.fail("it quantizes"))
    arguments = ["--model", "micro", "--out", str(tmp_path / "build")]
    assert refused(lambda: run("csim", arguments)).startswith("CXX=gcc: cannot compile and link C++ (")


def test_the_identity_is_the_machines():
    """-march=native says what this CPU can do; another -march says another."""
    gpp = Compiler.find("g++")
    native = gpp.identity(NATIVE)
    assert b"__VERSION__" in native and native == gpp.identity(NATIVE)
    assert native != gpp.identity(["-std=c++14"])


@pytest.mark.needs("clang++")
def test_the_identity_is_the_compilers():
    assert Compiler.find("clang++").identity(NATIVE) != Compiler.find("g++").identity(NATIVE)
