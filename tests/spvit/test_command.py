"""A command's arguments: refused with one sentence, whoever gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from spvit.command import Parser, add_options, handed_on, hint, option, options_of, plain_options
from spvit.errors import ConfigError
from spvit.schema import Flag, Number, Whole, check_given
from tests.options import read


def refused(*arguments, prog="spvit x"):
    parser = Parser(prog, "Does it.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--clock", type=Number(1, 1000))
    parser.add_argument("--batch-size", type=Whole(1, 64))
    parser.add_argument("--top", choices=("msa_block", "mlp_block"))
    with pytest.raises(ConfigError) as caught:
        parser.parse_args(arguments)
    return str(caught.value)


LISTS = "spvit x --help lists what can be given"


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
def test_make_is_answered_in_makes_words(arguments, sentence):
    assert refused(*arguments, prog="make x") == sentence


def test_what_is_right_is_read():
    parser = Parser("p", "d")
    parser.add_argument("--clock", type=Number(1, 1000))
    parser.add_argument("--calls", type=Whole(1, 64), default=3)
    read = parser.parse_args(["--clock", "1e2"])
    assert (read.clock, read.calls, type(read.clock)) == (100.0, 3, float)


def test_help_is_no_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        Parser("spvit x", "Does it.").parse_args(["--help"])
    assert stopped.value.code == 0 and "Does it." in capsys.readouterr().out


def test_hints():
    assert hint("KEP", ["KEEP", "MODEL"]) == "; did you mean KEEP?" and hint("zzz", ["KEEP"]) == ""


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: Annotated[float, Number(0, 1)] = field(default=0.5, metadata={"help": "how fast"})
    fuse: Annotated[bool, Flag()] = field(default=False, metadata={"help": "or not"})
    unused: Annotated[int, Whole(0, 9)] = field(default=1, metadata={"help": "nobody asks"})


@dataclass(frozen=True, kw_only=True)
class Options:
    out: Path | None = option("where to (default: here)", None, "FILE")
    model: str = option("which")
    deep_water: bool = option("or shallow", False)
    count: Annotated[int, Whole(1, 9)] = option("how many, 100% of them", 3)
    changes: Mapping[str, object] = options_of(Inner, ("rate", "fuse"), "inner", "what is within")

    def __post_init__(self):
        check_given(self)


def test_each_field_is_an_option():
    assert read(Options, "--model", "m") == Options(model="m")
    asked = read(Options, "--out", "a/b", "--model", "m", "--deep-water", "--count", "9", "--rate", "0.25", "--no-fuse")
    assert asked == Options(out=Path("a/b"), model="m", deep_water=True, count=9, changes={"rate": 0.25, "fuse": False})
    assert type(asked.out) is type(Path()) and hasattr(asked, "unused") is False
    with pytest.raises(ConfigError, match=r"^--unused: there is no such argument"):
        read(Options, "--model", "m", "--unused", "1")
    with pytest.raises(ConfigError, match=r"^--model must be given"):
        read(Options)


def test_from_python_the_same_bounds_hold():
    with pytest.raises(ConfigError, match=r"^count=0 must be a whole number from 1 to 9$"):
        Options(model="m", count=0)
    with pytest.raises(ConfigError, match=r"^count=None must be a whole number from 1 to 9$"):
        Options(model="m", count=None)


def test_the_help_says_each_default_once():
    parser = Parser("spvit x", "Does it.")
    add_options(parser, Options)
    text = " ".join(parser.format_help().split())
    assert "how many, 100% of them (default: 3)" in text and "where to (default: here)" in text
    assert "how fast (0.5)" in text and text.count("(default") == 2
    assert [item.name for item in plain_options(Options)] == ["model", "out", "deep_water", "count"]


def test_options_are_handed_on_as_far_as_another_has_them():
    assert handed_on(Options(model="m", count=5), Inner) == Inner()
    assert handed_on(Options(model="m", count=5), Options) == Options(model="m", count=5)
