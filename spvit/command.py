"""A command's arguments: `Parser`, whose refusals are one sentence, as all of the project's are.

Enters: the command line. Leaves: a namespace; what is wrong raises ConfigError, for `exit_on_user_error`.
The board has this module too: the standard library alone, of Python 3.10.
"""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from spvit.errors import ConfigError
from spvit.schema import shown_text

MISSING = "the following arguments are required: "  # argparse's words
STRANGE = "unrecognized arguments: "


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
            raise ConfigError(f"{_asked(name)}{error.message}; {self._help}") from None  # it begins with the value

    def error(self, message: str) -> NoReturn:
        """What argparse finds beyond single options: some are missing, or strangers."""
        if message.startswith(MISSING):
            names = ", ".join(_asked(name).strip() for name in message.removeprefix(MISSING).split(", "))
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
            raise ConfigError(f"{_asked(name, value)} is unknown; choose from {', '.join(choices)}")

    @property
    def _help(self) -> str:
        return "make help lists what can be given" if _in_make() else f"{self.prog} --help lists what can be given"


def hint(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _in_make() -> bool:
    return "MAKELEVEL" in os.environ


def _asked(name: str, value: object = "") -> str:
    """An option as its giver knows it."""
    if _in_make():
        return f"{name.lstrip('-').replace('-', '_').upper()}={shown_text(str(value))}"
    return f"{name} {shown_text(str(value))}"
