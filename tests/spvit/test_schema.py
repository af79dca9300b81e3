"""Each kind takes what it says, refuses the rest with one short line, and costs no time whatever it is given."""

import argparse
import json
import math
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spvit.config import ModelConfig, PruningConfig
from spvit.errors import BundleError, ConfigError
from spvit.schema import (
    FLAG,
    LINE,
    NAME,
    SHA256,
    Choice,
    Entries,
    Items,
    Number,
    Whole,
    check_fields,
    choices,
    from_table,
    kinds,
    shown,
    shown_text,
)
from spvit.training.recipe import Recipe

HUGE = 10**5000
DEEP: list[object] = []
for _ in range(5000):
    DEEP = [DEEP]
HOSTILE = [
    None, True, False, 0, -1, HUGE, -HUGE, 0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, 5e-324, "", "a" * 100_000, "\0",
    "a\nb", "../x", "\u2028", "\ud800", "*/", "]", "$x", "[exec]", "\\", '"', "{{ x }}", b"x", (), [], {}, DEEP, [HUGE], {"a": HUGE},
    (HUGE,), ("a\nb",), object(),
]  # fmt: skip


def refusal(kind, value):
    with pytest.raises(ConfigError) as error:
        kind.check("field", value)
    return str(error.value)


@pytest.mark.parametrize(
    ("kind", "taken", "refused", "sentence"),
    [
        (Whole(0, 5), [0, 5], [-1, 6, 0.0, True, "0", None, HUGE], "must be a whole number from 0 to 5"),
        (Number(0, 1), [0, 1, 0.5, 5e-324], [-1e-9, 1.1, math.nan, math.inf, True, "0", HUGE], "must be a number from 0 to 1"),
        (Number(0, 1e4, above=True), [1e4, 1], [0, 0.0, HUGE], "must be a number above 0 and at most 10000"),
        (FLAG, [True, False], [0, 1, "yes", None], "must be true or false"),
        (Choice("a", "b"), ["a"], ["c", 1, ["a"], None], "must be one of a, b"),
        (Choice(8, 16), [8], [8.0, "8", True], "must be one of 8, 16"),
        (Items(Whole(0, 5), "numbers", 2), [(), (1, 2)], [[1], (1, 2, 3), 1, "12"], "must be a list of at most 2 numbers"),
        (Items(Whole(0, 5), "numbers", 2), [], [(6,)], "field=6 must be a whole number from 0 to 5"),
        (Entries(LINE, "texts", 2, ("a",)), [{"a": "x"}], [{}, {"b": "x"}, [], "a"], "must be a table of at most 2 texts, a among them"),
        (Entries(LINE, "texts", 2), [], [{"a": 1}], "field.a=1 must be a line of text, of at most 1,000 characters"),
        (NAME, ["a", "deit_s.2-x", "0" * 64], ["", "-a", ".a", "a b", "é", "a\n", "a" * 65, 1], "must be a name for folders: "),
        (LINE, ["a b → é", "x" * 1000], ["", "a\nb", "\t", "\x7f", "\u2028", "x" * 1001], "must be a line of text, of at most "),
        (SHA256, ["0" * 64], ["0" * 63, "G" * 64, "0" * 64 + "\n"], "must be a SHA-256 in hexadecimal digits, of at most 64 "),
    ],
)  # fmt: skip
def test_what_a_kind_takes(kind, taken, refused, sentence):
    for value in taken:
        kind.check("field", value)
    for value in refused:
        assert sentence in refusal(kind, value)


@pytest.mark.parametrize("kind", {repr(kind): kind for table in (ModelConfig, PruningConfig, Recipe) for kind in kinds(table).values()}.values(), ids=repr)  # fmt: skip
def test_whatever_comes_is_taken_or_refused_on_one_short_line(kind):
    for value in HOSTILE:
        if not kind.takes(value):
            assert len(refusal(kind, value)) < 300 and refusal(kind, value).isprintable()


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text() | st.binary(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))  # fmt: skip
def test_a_value_is_shown_on_one_short_line(value):
    assert len(shown(value)) < 100 and shown(value).isprintable()
    assert len(shown_text(str(value))) < 100 and shown_text(str(value)).isprintable()


def test_what_cannot_be_printed_is_shown_in_words():
    assert shown(HUGE) == "a number of thousands of digits"
    assert shown(DEEP) == shown([HUGE]) == "something too large to print"
    assert shown("x" * 100) == "'" + "x" * 39 + "… (102 characters)"
    assert shown_text("a-b") == "a-b" and shown_text("a\nb") == r"'a\nb'"


@dataclass(frozen=True)
class Part:
    size: Annotated[int, Whole(1, 9)]
    name: Annotated[str, NAME] = "a"
    kept: Annotated[tuple[float, ...], Items(Number(0, 1), "fractions", 3)] = ()
    notes: str = field(default="no kind", metadata={})

    def __post_init__(self):
        check_fields(self)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({}, "x.toml: field size is missing"),
        ({"size": 1, "sise": 2}, "x.toml: has no sise; did you mean size? it knows size, name, kept, notes"),
        ({"size": 1, "a\nb": 2}, r"x.toml: has no 'a\nb'; it knows size, name, kept, notes"),
        ({"size": 0}, "x.toml: size=0 must be a whole number from 1 to 9"),
        ({"size": 1, "kept": [2]}, "x.toml: kept=2 must be a number from 0 to 1"),
    ],
)
def test_a_table_that_cannot_be(table, sentence):
    with pytest.raises(BundleError) as error:
        from_table(Part, table, "x.toml:", BundleError)
    assert str(error.value) == sentence


def test_a_table_becomes_its_dataclass():
    assert from_table(Part, {"size": 2, "kept": [0, 0.5]}, "x") == Part(2, kept=(0, 0.5))
    assert choices(PruningConfig, "package") == ("append", "add", "none")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(Whole(0, 5), "3", 3), (Number(0, 5), "2.5", 2.5), (Number(0, 5), "1e-3", 0.001)],
)
def test_an_argument_is_read(kind, text, value):
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize("text", ["", "x", "6", "-1", "nan", "inf", "1e400", "9" * 5000, "0x1", "a\nb", "½"])
@pytest.mark.parametrize("kind", [Whole(0, 5), Number(0, 5)])
def test_an_argument_that_cannot_be(kind, text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        kind(text)
    assert str(error.value) == f"{shown_text(text)} must be {kind.wanted}"


def test_every_field_of_what_people_write_has_a_kind():
    for table in (ModelConfig, PruningConfig, Recipe):
        assert set(kinds(table)) == set(table.__dataclass_fields__)


def test_defaults_are_taken():
    """A default beyond its range would show in no table."""
    for table in (ModelConfig, PruningConfig, Recipe):
        for name, kind in kinds(table).items():
            default = table.__dataclass_fields__[name].default
            if name != "name":
                kind.check(name, default)


def test_the_board_reads_it_with_the_standard_library_alone():
    code = "import sys, spvit.schema, json; print(json.dumps([m for m in sys.modules if m.split('.')[0] in ('numpy', 'torch', 'pydantic')]))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(found) == []
