"""A command's options: each is a field of a dataclass, with its help and default; and a parser made of those.

Enters: the command line, or make's variables. Leaves: the dataclass; what is wrong raises ConfigError with one
sentence, for `exit_on_user_error`. The board has this module too: the standard library alone, of Python 3.10.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

from spvit.errors import ConfigError
from spvit.schema import Choice, Flag, Kind, Number, Whole, kinds, shown_text

MISSING_WORDS = "the following arguments are required: "  # argparse's words
STRANGE = "unrecognized arguments: "
MAKE = "make "  # begins the name of a command that make calls
_Options = TypeVar("_Options")


def option(help: str, default: Any = MISSING, metavar: str | None = None) -> Any:
    """A field of a command's options: `--name`, for make NAME=. Without a default it must be given."""
    return field(default=default, metadata={"help": help, "metavar": metavar})


def options_of(table: type, used: Collection[str] | None = None, title: str = "", help: str = "") -> Any:
    """A field that holds which fields of another dataclass were given; each is an option of its own.

    used  those that the command uses; None: all of them
    """
    return field(default_factory=dict, metadata={"table": table, "used": used, "title": title, "help": help})


def name_of(item: Field[Any]) -> str:
    return f"--{item.name.replace('_', '-')}"


def variable_of(item: Field[Any]) -> str:
    """What make calls it."""
    return item.name.upper()


def plain_options(options: type) -> list[Field[Any]]:
    """The fields that are one option each, those that must be given first."""
    every = [item for item in fields(options) if "table" not in item.metadata]
    return sorted(every, key=lambda item: not is_needed(item))


def is_needed(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def is_switch(item: Field[Any]) -> bool:
    return isinstance(item.default, bool)


def explained(item: Field[Any]) -> str:
    """The help, with the default where that is a value and not a sentence of the help's."""
    text = str(item.metadata["help"])
    says_itself = "(default" in text or is_needed(item) or item.default is None or is_switch(item)
    return text if says_itself else f"{text} (default: {item.default})"


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """An option for each field."""
    hints, found = get_type_hints(options), kinds(options)
    for item in plain_options(options):
        about: dict[str, Any] = {"help": explained(item).replace("%", "%%"), "dest": item.name}
        if is_switch(item):
            parser.add_argument(name_of(item), action="store_true", **about)
            continue
        about |= {"default": None if is_needed(item) else item.default, "required": is_needed(item)}
        as_path = Path if hints[item.name] in (Path, Path | None) else None
        _add(parser, name_of(item), found.get(item.name), item.metadata["metavar"], about, as_path)
    for item in fields(options):
        if "table" in item.metadata:
            _add_table(parser, item)


def _add_table(parser: argparse.ArgumentParser, holder: Field[Any]) -> None:
    group = parser.add_argument_group(holder.metadata["title"], holder.metadata["help"])
    found = kinds(holder.metadata["table"])
    for item in options_in(holder):
        about = {"help": f"{item.metadata['help']} ({item.default})".replace("%", "%%"), "default": None}
        _add(group, name_of(item), found[item.name], None, about | {"dest": f"{holder.name}.{item.name}"}, None)


def options_in(holder: Field[Any]) -> list[Field[Any]]:
    """The fields of the other dataclass that a field made by `options_of` takes."""
    used = holder.metadata["used"]
    return [item for item in fields(holder.metadata["table"]) if used is None or item.name in used]


def _add(
    group: Any, name: str, kind: Kind | None, metavar: str | None, about: dict[str, Any], as_path: type[Path] | None
) -> None:
    if isinstance(kind, Flag):
        group.add_argument(name, action=argparse.BooleanOptionalAction, **about)
    elif isinstance(kind, Choice):
        shown_as = metavar or "|".join(map(str, kind.choices))
        group.add_argument(name, choices=kind.choices, metavar=shown_as, **about)
    elif isinstance(kind, (Whole, Number)):
        group.add_argument(name, type=kind, metavar=metavar or ("N" if isinstance(kind, Whole) else "X"), **about)
    else:
        group.add_argument(name, type=as_path or str, metavar=metavar, **about)


def read_options(parser: Parser, options: type[_Options], arguments: Sequence[str]) -> _Options:
    """The options in a command line, whose parser `add_options` has filled. Raises ConfigError."""
    values = vars(parser.parse_args(arguments))
    read = {item.name: values[item.name] for item in plain_options(options)}
    for holder in fields(options):  # type: ignore[arg-type]
        if "table" in holder.metadata:
            given = {item.name: values[f"{holder.name}.{item.name}"] for item in options_in(holder)}
            read[holder.name] = {name: value for name, value in given.items() if value is not None}
    return options(**read)


class Parser(argparse.ArgumentParser):
    """argparse with sentences. An option is spoken of as it was given: CLOCK=abc to make, --clock abc otherwise."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, exit_on_error=False, **options)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Raises ConfigError."""
        try:
            return super().parse_args(args, namespace or argparse.Namespace())
        except argparse.ArgumentError as error:
            if error.argument_name is None:  # newer Pythons raise what they used to hand to `error`
                self.error(error.message)
            name = error.argument_name.split("/")[-1]
            if error.message.startswith("expected"):
                raise ConfigError(f"{name}: {error.message}; {self._help}") from None
            raise ConfigError(f"{self._asked(name)}{error.message}; {self._help}") from None  # it begins with the value

    def error(self, message: str) -> NoReturn:
        """What argparse finds beyond single options: some are missing, or strangers."""
        if message.startswith(MISSING_WORDS):
            names = ", ".join(self._asked(name).strip() for name in message.removeprefix(MISSING_WORDS).split(", "))
            raise ConfigError(f"{names} must be given; {self._help}")
        if message.startswith(STRANGE):
            stranger = shown_text(message.removeprefix(STRANGE).partition(" ")[0])
            known = [flag for action in self._actions for flag in action.option_strings]
            raise ConfigError(f"{stranger}: there is no such argument{hint(stranger, known) or f'; {self._help}'}")
        raise ConfigError(f"{shown_text(message)}; {self._help}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            name = action.option_strings[0] if action.option_strings else action.dest
            raise ConfigError(f"{self._asked(name, value)} is unknown; choose from {', '.join(choices)}")

    @property
    def _help(self) -> str:
        return "make help lists what can be given" if self._in_make else f"{self.prog} --help lists what can be given"

    @property
    def _in_make(self) -> bool:
        return self.prog.startswith(MAKE)

    def _asked(self, name: str, value: object = "") -> str:
        """An option as its giver knows it."""
        if self._in_make:
            return f"{name.lstrip('-').replace('-', '_').upper()}={shown_text(str(value))}"
        return f"{name} {shown_text(str(value))}"


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def handed_on(options: object, to: type[_Options]) -> _Options:
    """The options of one command as far as another has them, for that one."""
    shared = {item.name for item in fields(options)} & {item.name for item in fields(to)}  # type: ignore[arg-type]
    return to(**{name: getattr(options, name) for name in shared})
