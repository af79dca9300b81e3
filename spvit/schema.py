"""What a field may hold: its type, its range, and the sentence that says so. The one description of each.

A dataclass whose fields are `Annotated` with a kind validates itself with `check_fields` in its `__post_init__`, and is
read from a table of a file with `from_table`. No library for schemas: the board has numpy and Pillow alone, and Python
3.10, and reads its manifest with this, too.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from spvit.errors import ConfigError, UserError

SHOWN_CHARACTERS = 60
MOST_NAME = 64
MOST_SEED = 2**32 - 1
_Table = TypeVar("_Table")


def shown(value: object) -> str:
    """A value for a sentence: on one line, and not longer than one reads."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python prints no integers of thousands of digits
        return "a number of thousands of digits" if isinstance(value, int) else "something too large to print"
    if len(text) <= SHOWN_CHARACTERS:
        return text
    return f"{text[: SHOWN_CHARACTERS - 20]}… ({len(text):,} characters)"


def shown_text(text: str) -> str:
    """A text of a person's for a sentence: as it is, where it reads well."""
    return text if text.isprintable() and len(text) <= SHOWN_CHARACTERS else shown(text)


def _bound(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


class Kind:
    """What values a field may hold.

    wanted  the end of "must be ..."
    """

    wanted: str

    def takes(self, value: object) -> bool:
        raise NotImplementedError

    def check(self, name: str, value: object, error: type[UserError] = ConfigError) -> None:
        """Raise `error` unless the field `name` may hold the value."""
        if not self.takes(value):
            raise error(f"{name}={shown(value)} must be {self.wanted}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.wanted})"


class Whole(Kind):
    """An integer within bounds, both included."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.wanted = f"a whole number from {_bound(least)} to {_bound(most)}"

    def takes(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.least <= value <= self.most

    def __call__(self, text: str) -> int:
        """As the `type` of a command's argument."""
        with suppress(ValueError):
            if self.takes(value := int(text)):
                return value
        raise argparse.ArgumentTypeError(f"{shown_text(text)} must be {self.wanted}")


class Number(Kind):
    """An integer or a float within bounds, both included unless `above` is set; never NaN or infinite."""

    def __init__(self, least: float, most: float, above: bool = False) -> None:
        self.least, self.most, self.above = least, most, above
        bounds = f"above {_bound(least)} and at most" if above else f"from {_bound(least)} to"
        self.wanted = f"a number {bounds} {_bound(most)}"

    def takes(self, value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        return self.least <= value <= self.most and not (self.above and value == self.least)

    def __call__(self, text: str) -> float:
        """As the `type` of a command's argument."""
        with suppress(ValueError):
            if self.takes(value := float(text)):
                return value
        raise argparse.ArgumentTypeError(f"{shown_text(text)} must be {self.wanted}")


class Flag(Kind):
    """True or false, nothing that could be taken for one."""

    wanted = "true or false"

    def takes(self, value: object) -> bool:
        return isinstance(value, bool)


class Choice(Kind):
    """One of a few values."""

    def __init__(self, *choices: str | int) -> None:
        self.choices = choices
        self.wanted = f"one of {', '.join(map(str, choices))}"

    def takes(self, value: object) -> bool:
        return any(type(value) is type(choice) and value == choice for choice in self.choices)


class Text(Kind):
    """A text that matches a pattern.

    words  what that is, as the end of "must be ..."
    """

    def __init__(self, pattern: str, words: str, most: int) -> None:
        self.pattern, self.most = re.compile(pattern), most
        self.wanted = f"{words}, of at most {most:,} characters"

    def takes(self, value: object) -> bool:
        return isinstance(value, str) and len(value) <= self.most and self.pattern.fullmatch(value) is not None


class Items(Kind):
    """A tuple, which is a list in a file, whose items are all of a kind.

    words  what they are, as the end of "must be a list of ..."
    """

    def __init__(self, kind: Kind, words: str, most: int) -> None:
        self.kind, self.most = kind, most
        self.wanted = f"a list of at most {most:,} {words}"

    def takes(self, value: object) -> bool:
        return isinstance(value, tuple) and len(value) <= self.most

    def check(self, name: str, value: object, error: type[UserError] = ConfigError) -> None:
        super().check(name, value, error)
        assert isinstance(value, tuple)
        for item in value:
            self.kind.check(name, item, error)


class Entries(Kind):
    """A table whose values are all of a kind.

    words     what they are, as the end of "must be a table of ..."
    required  keys that it must have
    """

    def __init__(self, kind: Kind, words: str, most: int, required: tuple[str, ...] = ()) -> None:
        self.kind, self.most, self.required = kind, most, required
        self.wanted = f"a table of at most {most:,} {words}"
        if required:
            self.wanted += f", {', '.join(required)} among them"

    def takes(self, value: object) -> bool:
        return isinstance(value, Mapping) and len(value) <= self.most and set(self.required) <= set(value)

    def check(self, name: str, value: object, error: type[UserError] = ConfigError) -> None:
        super().check(name, value, error)
        assert isinstance(value, Mapping)
        for key, item in value.items():
            self.kind.check(f"{name}.{shown_text(key)}", item, error)


NAME = Text(
    r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a name for folders: letters, digits, _, - and ., a letter or digit first", MOST_NAME
)
LINE = Text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+", "a line of text", 1000)
SHA256 = Text(r"[0-9a-f]{64}", "a SHA-256 in hexadecimal digits", 64)
SEED = Whole(0, MOST_SEED)
FLAG = Flag()


@cache
def kinds(table: type) -> dict[str, Kind]:
    """Of the fields of a dataclass that have one."""
    found: dict[str, Kind] = {}
    for name, hint in get_type_hints(table, include_extras=True).items():
        described = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        found.update((name, kind) for kind in described if isinstance(kind, Kind))
    return found


def check_fields(instance: object, error: type[UserError] = ConfigError) -> None:
    """Raise `error` unless each field of a dataclass holds what its kind takes."""
    for name, kind in kinds(type(instance)).items():  # type: ignore[arg-type]
        kind.check(name, getattr(instance, name), error)


def check_given(instance: object, error: type[UserError] = ConfigError) -> None:
    """`check_fields`, of a dataclass some of whose fields may be left away: they are None then, and by default."""
    defaults = {item.name: item.default for item in fields(instance)}  # type: ignore[arg-type]
    for name, kind in kinds(type(instance)).items():  # type: ignore[arg-type]
        if (value := getattr(instance, name)) is not None or defaults[name] is not None:
            kind.check(name, value, error)


def from_table(
    table_type: type[_Table], table: Mapping[str, Any], where: str, error: type[UserError] = ConfigError
) -> _Table:
    """The dataclass in a table of a file, whose lists become tuples and its tables dataclasses. Raises `error`.

    where  begins each sentence: the file, the table
    """
    check_known(table_type, table, where, error)
    for item in fields(table_type):  # type: ignore[arg-type]
        if item.name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise error(f"{where} field {item.name} is missing")
    hints = get_type_hints(table_type)
    values: dict[str, Any] = {}
    for name, value in table.items():
        if is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise error(f"{where} {name}={shown(value)} must be a table")
            values[name] = from_table(hints[name], value, f"{where} {name}:", error)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    try:
        return table_type(**values)
    except UserError as problem:
        raise error(f"{where} {problem}") from None


def check_known(table_type: type, table: Mapping[str, Any], where: str, error: type[UserError] = ConfigError) -> None:
    """Raise `error` for a key of a table of a file that the dataclass does not have."""
    known = [item.name for item in fields(table_type)]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise error(f"{where} has no {shown_text(key)}; {hint}it knows {', '.join(known)}")


def choices(table: type, name: str) -> tuple[str | int, ...]:
    """Of a field that is one of a few."""
    kind = kinds(table)[name]
    assert isinstance(kind, Choice), f"{name} is {kind}"
    return kind.choices
