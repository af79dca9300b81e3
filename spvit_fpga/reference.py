"""docs/commands.md, from the one list of commands: `.venv/bin/python -m spvit_fpga.reference`.

A test holds the page to the list.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from spvit.command import explained, is_switch, name_of, options_in, plain_options, variable_of
from spvit.errors import exit_on_user_error
from spvit.files import write_whole
from spvit_fpga.commands import GROUPS, Command

PAGE = Path("docs/commands.md")
WIDTH = 99
INTRODUCTION = """\
Each is a command of the console script, `.venv/bin/spvit hls --model deit_s`, and a target of make, `make hls
MODEL=deit_s`: an option's value is the variable's, and a switch is set with 1. `.venv/bin/spvit hls --help` says the
same. `.venv/bin/python -m spvit_fpga.reference` writes this page.
"""


def page() -> str:
    """The whole of it."""
    parts = ["# Every command and its options", textwrap.fill(INTRODUCTION, WIDTH, break_on_hyphens=False)]
    for group, commands in GROUPS.items():
        parts.append(f"## {group}")
        for command in commands:
            parts += _section(command)
    return "\n\n".join(parts) + "\n"


def _section(command: Command) -> Iterator[str]:
    yield f"### {command.name}"
    words = f"{command.help[0].upper()}{command.help[1:]}.".replace("<", "&lt;")
    yield textwrap.fill(words, WIDTH, break_on_hyphens=False)
    if command.examples:
        lines = [f".venv/bin/spvit {command.name} {one}" for one in command.examples]
        yield "\n".join(["```sh", *lines, "```"])
    if rows := [_row(item) for item in plain_options(command.options)]:
        yield "\n".join(["| option | for make | what it is |", "|---|---|---|", *rows])
    for holder in fields(command.options):
        if "table" in holder.metadata:
            names = ", ".join(f"`{name_of(item)}`" for item in options_in(holder))
            described = "[configuration.md](configuration.md#a-recipe)"
            yield f"And of {holder.metadata['title']}, as {described} has it: {names}."


def _row(item: Field[Any]) -> str:
    text, value = explained(item).replace("|", "\\|").replace("<", "&lt;"), "1" if is_switch(item) else ""
    return f"| `{name_of(item)}` | `{variable_of(item)}={value}` | {text} |"


def main() -> None:
    write_whole(PAGE, page())


if __name__ == "__main__":
    exit_on_user_error(main)
