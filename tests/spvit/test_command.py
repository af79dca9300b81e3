"""A command's arguments: refused with one sentence, whoever gave them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from spvit.command import Parser, hint
from spvit.errors import ConfigError
from spvit.schema import Number, Whole

ROOT = Path(__file__).parents[2]
ROOMS = ("spvit", "quant", "hw", "sim", "host")


@pytest.fixture(autouse=True)
def no_make(monkeypatch):
    monkeypatch.delenv("MAKELEVEL", raising=False)


def refused(*arguments):
    parser = Parser("python -m x.y", "Does it.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--clock", type=Number(1, 1000))
    parser.add_argument("--batch-size", type=Whole(1, 64))
    parser.add_argument("--top", choices=("msa_block", "mlp_block"))
    with pytest.raises(ConfigError) as caught:
        parser.parse_args(arguments)
    return str(caught.value)


LISTS = "python -m x.y --help lists what can be given"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], f"--model must be given; {LISTS}"),
        (["--model", "m", "--clock", "abc"], f"--clock abc must be a number from 1 to 1,000; {LISTS}"),
        (["--model", "m", "--clock", "inf"], f"--clock inf must be a number from 1 to 1,000; {LISTS}"),
        (["--model", "m", "--clock", "nan"], f"--clock nan must be a number from 1 to 1,000; {LISTS}"),
        (["--model", "m", "--batch-size", "2.5"], f"--batch-size 2.5 must be a whole number from 1 to 64; {LISTS}"),
        (
            ["--model", "m", "--batch-size", "9" * 5000],
            f"--batch-size '{'9' * 39}… (5,002 characters) must be a whole number from 1 to 64; {LISTS}",
        ),
        (["--model", "m", "--top", "msa"], "--top msa is unknown; choose from msa_block, mlp_block"),
        (["--model"], f"--model: expected one argument; {LISTS}"),
        (["--model", "m", "--modle", "m"], "--modle: there is no such argument; did you mean --model?"),
        (["--model", "m", "--xyz"], f"--xyz: there is no such argument; {LISTS}"),
        (["--mod", "m"], f"--model must be given; {LISTS}"),
    ],
)
def test_one_sentence(arguments, sentence):
    assert refused(*arguments) == sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "MODEL= must be given; make help lists what can be given"),
        (
            ["--model", "m", "--clock", "abc"],
            "CLOCK=abc must be a number from 1 to 1,000; make help lists what can be given",
        ),
        (
            ["--model", "m", "--batch-size", "x"],
            "BATCH_SIZE=x must be a whole number from 1 to 64; make help lists what can be given",
        ),
        (["--model", "m", "--top", "msa"], "TOP=msa is unknown; choose from msa_block, mlp_block"),
    ],
)
def test_make_is_answered_in_makes_words(monkeypatch, arguments, sentence):
    monkeypatch.setenv("MAKELEVEL", "1")
    assert refused(*arguments) == sentence


def test_what_is_right_is_read():
    parser = Parser("p", "d")
    parser.add_argument("--clock", type=Number(1, 1000))
    parser.add_argument("--calls", type=Whole(1, 64), default=3)
    read = parser.parse_args(["--clock", "1e2"])
    assert (read.clock, read.calls, type(read.clock)) == (100.0, 3, float)


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        Parser("python -m x.y", "Does it.").parse_args(["--help"])
    assert stopped.value.code == 0 and "Does it." in capsys.readouterr().out


def test_hints():
    assert hint("KEP", ["KEEP", "MODEL"]) == "; did you mean KEEP?" and hint("zzz", ["KEEP"]) == ""


def commands():
    """Every module that is run."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if '__name__ == "__main__"' in path.read_text() or path.name == "__main__.py":
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("module", list(commands()))
def test_every_command_ends_in_a_sentence(module):
    text = Path(str(importlib.import_module(module).__file__)).read_text()
    assert re.search(r"^    exit_on_user_error\(main\)$", text, flags=re.MULTILINE)
    assert "ArgumentParser(" not in text
