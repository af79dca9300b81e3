"""Options as a command line gives them, for tests of what takes them."""

from __future__ import annotations

from typing import TypeVar

from spvit.command import Parser, add_options, read_options

_Options = TypeVar("_Options")


def read(options: type[_Options], *words: object) -> _Options:
    """The dataclass of a command line, as the commands read it."""
    parser = Parser("spvit x", "It does x.")
    add_options(parser, options)
    return read_options(parser, options, [str(word) for word in words])
