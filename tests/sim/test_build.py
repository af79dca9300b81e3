"""Compiling: without a word, from a cache, with errors that say what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sim.bridge import Accelerator
from sim.build import BRIDGE, build_library, compile_flags, header_folder, unit_names
from spvit.errors import BuildError
from tests.sim.networks import MICRO, design_of, micro, quantized, random_images

UNITS = ["mlp_block", "msa_block", "token_packager", "token_selector"]


@pytest.fixture(scope="module")
def sources(simulators) -> Path:
    return simulators.folder(design_of(micro())) / "src"


@pytest.mark.parametrize("trace", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("compiler", "exact"),
    [
        ("g++", False),
        pytest.param("clang++", False, marks=pytest.mark.needs("clang++")),
        pytest.param("clang++", True, marks=pytest.mark.needs("clang++")),
        pytest.param("g++", True, marks=pytest.mark.slow),  # by default it builds, see test_csim_taps.py
    ],
)
def test_compilers_have_nothing_to_say(sources, compiler, exact, trace):
    """With all warnings: C-simulation's build, and what synthesis sees, without the trace; each kernel's top too."""
    flags = compile_flags(exact, compiler=compiler)
    assert {"-std=c++14", "-Wall", "-Wextra"} <= set(flags) and "-w" not in flags
    inputs = [sources / "top.cpp", BRIDGE] if trace else [sources / f"{top}.cpp" for top in ["top", *UNITS]]
    flags = [flag for flag in flags if trace or flag != "-DSPVIT_TRACE"]
    command = [compiler, *flags, "-fsyntax-only", f"-I{sources}", *map(str, inputs)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", pytest.param("clang++", marks=pytest.mark.needs("clang++"))])
@pytest.mark.parametrize("exact", [False, True], ids=["native", "exact"])
@pytest.mark.parametrize("unit", [None, "token_selector"])
def test_a_whole_build_prints_nothing(simulators, capfd, compiler, exact, unit):
    simulators(design_of(quantized(MICRO.model, MICRO.pruning)[1]), unit=unit, exact=exact, compiler=compiler)
    assert capfd.readouterr() == ("", "")


def test_every_kernel_has_a_top(sources):
    assert unit_names(sources) == UNITS


def test_a_kernel_that_the_design_has_not(simulators):
    folder = simulators.folder(design_of(micro()))
    with pytest.raises(BuildError) as refused:
        build_library(folder / "src", unit="stem")
    assert str(refused.value) == f"TOP=stem is no kernel of this design; choose one of {', '.join(UNITS)}"


@pytest.fixture
def compiler(tmp_path):
    """A compiler that notes what it compiles, writes what it is told to, and says which machine it is for."""
    path = tmp_path / "fake++"
    (tmp_path / "machine").write_text("#define __AVX512F__ 1\n")
    path.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *-dM*) cat {tmp_path}/machine; exit 0;; esac\n'
        f'echo "$@" >> {tmp_path}/calls\n'
        f"[ -e {tmp_path}/fail ] && {{ echo 'x.cpp:3: error: no such thing' >&2; exit 1; }}\n"
        'while [ "$1" != -o ]; do shift; done; echo library > "$2"\n'
    )
    path.chmod(0o755)
    return path


def copied(sources: Path, folder: Path) -> Path:
    shutil.copytree(sources, folder / "design" / "src")
    return folder / "design" / "src"


def test_it_compiles_once_until_something_changes(sources, compiler, tmp_path):
    folder = copied(sources, tmp_path)

    def calls():
        return len((tmp_path / "calls").read_text().splitlines())

    first = build_library(folder, compiler=str(compiler))
    assert first.parent == folder.parent / "csim" and first.read_text() == "library\n"
    assert build_library(folder, compiler=str(compiler)) == first and calls() == 1
    assert build_library(folder, compiler=str(compiler), exact=True) != first and calls() == 2
    assert build_library(folder, compiler=str(compiler), sanitize=True) != first and calls() == 3
    assert build_library(folder, compiler=str(compiler), unit="msa_block") != first and calls() == 4
    header = folder / "engine.hpp"
    header.write_text(header.read_text() + "\n")
    assert build_library(folder, compiler=str(compiler)) != first and calls() == 5
    assert len(list(first.parent.glob("*.so"))) == 5
    assert len(list(first.parent.iterdir())) == 10  # each with its digest
    last = build_library(folder, compiler=str(compiler))
    for damage in ("librar\n", "librarz\n"):  # cut short: the system would end the process with SIGBUS
        before = calls()
        last.write_text(damage)
        assert build_library(folder, compiler=str(compiler)) == last
        assert calls() == before + 1 and last.read_text() == "library\n"


def test_another_cpu_or_another_compiler_compiles_anew(sources, compiler, tmp_path):
    """What was compiled for one with AVX-512 ends with an illegal instruction on one without."""
    folder = copied(sources, tmp_path)
    here = build_library(folder, compiler=str(compiler))
    (tmp_path / "machine").write_text("#define __AVX2__ 1\n")
    there = build_library(folder, compiler=str(compiler))
    assert there != here and here.exists() and there.exists()
    (tmp_path / "machine").write_text("#define __AVX512F__ 1\n")
    assert build_library(folder, compiler=str(compiler)) == here
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_a_compiler_may_have_arguments(sources, compiler, tmp_path, monkeypatch):
    folder = copied(sources, tmp_path)
    build_library(folder, compiler=f"env A=1 {compiler} --mine 'a b'")
    assert (tmp_path / "calls").read_text().startswith("--mine a b -std=c++14 ")
    monkeypatch.setenv("CXX", f"{compiler} --from-cxx")
    build_library(folder)
    assert (tmp_path / "calls").read_text().splitlines()[-1].startswith("--from-cxx -std=c++14 ")


def test_a_compiler_that_fails_leaves_nothing(sources, compiler, tmp_path):
    folder = copied(sources, tmp_path)
    (tmp_path / "fail").touch()
    with pytest.raises(BuildError) as refused:
        build_library(folder, compiler=str(compiler))
    assert str(refused.value) == f"{compiler} could not compile {folder}: x.cpp:3: error: no such thing"
    assert list((folder.parent / "csim").iterdir()) == []


@pytest.mark.parametrize(("compiler", "package"), [("g++-99", "g++"), ("clang++-99", "clang")])
def test_a_missing_compiler_is_named(sources, compiler, package):
    with pytest.raises(BuildError) as refused:
        build_library(sources, compiler=compiler)
    assert str(refused.value) == (
        f"{compiler} not found: install it (Debian: apt-get install {package}), or choose another compiler"
    )


def test_a_broken_library_is_named(tmp_path):
    (tmp_path / "torn.so").write_bytes(b"\x7fELF")
    with pytest.raises(BuildError, match=r"torn\.so: cannot be loaded \(.*\); remove it and run again"):
        Accelerator(design_of(micro()), tmp_path / "torn.so")


def test_vitis_headers_come_first(tmp_path, monkeypatch):
    assert (header_folder() / "ap_int.h").exists() and "hls4ml" in str(header_folder())
    (tmp_path / "include").mkdir()
    monkeypatch.setenv("XILINX_HLS", str(tmp_path))
    assert "hls4ml" in str(header_folder())  # no ap_int.h there
    (tmp_path / "include" / "ap_int.h").touch()
    assert header_folder() == tmp_path / "include"


def test_without_any_headers_it_says_so(monkeypatch):
    monkeypatch.delenv("XILINX_HLS", raising=False)
    monkeypatch.setattr("sim.build.find_spec", lambda name: None)
    with pytest.raises(BuildError) as refused:
        header_folder()
    assert str(refused.value).startswith("ap_int.h not found: neither Vitis HLS (XILINX_HLS) nor the hls4ml package")


def test_two_designs_in_one_process_are_two(simulators):
    """Their C++ has the same names; each runs its own program."""
    pixels = random_images(MICRO.model, 1)[0]
    designs = [design_of(micro()), design_of(micro(locations=(), keep=()))]
    accelerators = [simulators(design) for design in designs]
    for accelerator, design in [*zip(accelerators, designs, strict=True)] * 2:
        assert accelerator.run(pixels).trace.keys() == {step.name for step in design.program.steps}
