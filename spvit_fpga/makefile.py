"""What the Makefile asks of the one list of commands: `python3 -m spvit_fpga.makefile ...`.

    names GOALS -- NAME=value...  the commands, on one line; or `error: ` and a sentence, where make must not go on
    help                          make help
    run COMMAND                   the command, whose options are make's variables, in the environment

The first two need Python alone: there may be no environment yet.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from spvit.command import explained, is_needed, is_switch, name_of, plain_options, variable_of
from spvit.errors import exit_on_user_error
from spvit_fpga.commands import COMMANDS, GROUPS, Command

MAKEFILE = Path("Makefile")
OWN = "Working on the project"  # the group to which the Makefile's own goals belong
PYTHON = {"PYTHON": ["the Python 3.11 that makes the environment"]}
WIDTH = 80


def variables() -> dict[str, list[str]]:
    """What each variable is, by its name: what most commands mean by it, then what others do."""
    found: dict[str, dict[str, list[str]]] = {}
    for command in COMMANDS.values():
        for item in plain_options(command.options):
            text = f"1: {explained(item)}" if is_switch(item) else explained(item)
            found.setdefault(variable_of(item), {}).setdefault(text, []).append(command.name)
    lines = {}
    for name, texts in found.items():
        most, *others = sorted(texts, key=lambda text, texts=texts: -len(texts[text]))  # type: ignore[misc]
        lines[name] = [most, *(f"{', '.join(texts[text])}: {text}" for text in others)]
    return lines | PYTHON


def refusal(goals: Sequence[str], given: Mapping[str, str], environment: Mapping[str, str]) -> str | None:
    """Why make must not begin, as a sentence.

    given  make's variables of the command line
    """
    known = variables()
    for name in given:
        if name not in known:
            close = [name.upper()] if name.upper() in known else difflib.get_close_matches(name.upper(), known, 2)
            near = " or ".join(f"{one}=" for one in close)
            return f"there is no variable {name}=; {f'did you mean {near}?' if near else 'make help lists them all'}"
    command = next((COMMANDS[goal] for goal in goals if goal in COMMANDS), None)
    if command is None:
        return None
    values = {**environment, **given}
    missing = [item for item in plain_options(command.options) if is_needed(item) and not _value(item, values)]
    if missing:
        names = " and ".join(f"{variable_of(item)}=" for item in missing)
        example = f", for example: make {command.name} {as_variables(command.examples[0])}" if command.examples else ""
        return f"make {command.name} needs {names}{example}"
    for name, value in given.items():
        if name in _switches() and value not in ("", "1"):
            return f"{name}={value} must be 1, or be left away"
    return None


def idle(goals: Sequence[str], given: Mapping[str, str]) -> str | None:
    """Which variables nobody reads, as a sentence."""
    commands = [COMMANDS[goal] for goal in goals if goal in COMMANDS]
    read = {variable_of(item) for command in commands for item in plain_options(command.options)} | set(PYTHON)
    unread = [f"{name}=" for name in given if name not in read]
    if not commands or not unread:
        return None
    return f"make {commands[0].name} takes no {' and no '.join(unread)}; make help says who takes what"


def arguments(command: Command, environment: Mapping[str, str]) -> list[str]:
    """The command line that make's variables are."""
    given = [(item, value) for item in plain_options(command.options) if (value := _value(item, environment))]
    return [name_of(item) if is_switch(item) else f"{name_of(item)}={value}" for item, value in given]


def as_variables(options: str) -> str:
    """`--model deit_s --target zcu102` as make takes it."""
    words = re.sub(r"--([a-z-]+) (?!--)(\S+)", lambda found: f"{_variable(found[1])}={found[2]}", options)
    return re.sub(r"--([a-z-]+)", lambda found: f"{_variable(found[1])}=1", words)


def help_text(makefile: str) -> str:
    """The commands by group, with the variables that they take; the Makefile's own goals; the variables."""
    lines = []
    for group, commands in GROUPS.items():
        lines.append(group)
        for command in commands:
            lines += _entry(command.name, command.help)
            items = plain_options(command.options)
            taken = [f"{variable_of(item)}=" if is_needed(item) else f"[{variable_of(item)}=]" for item in items]
            lines += textwrap.wrap(" ".join(taken), WIDTH, initial_indent=" " * 18, subsequent_indent=" " * 18)
        if group == OWN:
            for name, text in re.findall(r"^([a-z-]+):.*? ## (.*)$", makefile, flags=re.MULTILINE):
                lines += _entry(name, text)
        lines.append("")
    lines.append("Variables; those in brackets may be left away")
    for name, texts in variables().items():
        for first, text in enumerate(texts):
            indent = " " * 18 if first else f"  {name + '=':<15} "
            lines += textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=" " * 20)
    return "\n".join(lines)


def main() -> None:
    exit_on_user_error(lambda: _answer(sys.argv[1:]))


def _answer(words: Sequence[str]) -> int | None:
    if words[0] == "help":
        print(help_text(MAKEFILE.read_text(encoding="utf-8")))
    elif words[0] == "run":
        from spvit_fpga.cli import run

        return run(words[1], arguments(COMMANDS[words[1]], os.environ), "make")
    else:
        cut = words.index("--")
        goals, given = words[1:cut], dict(word.split("=", 1) for word in words[cut + 1 :])
        sentence = refusal(goals, given, os.environ)
        print(f"error: {sentence}" if sentence else " ".join(COMMANDS))
        if not sentence and (warning := idle(goals, given)):
            print(warning, file=sys.stderr)
    return 0


def _entry(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  make {name:<10} ", subsequent_indent=" " * 18)


def _value(item: object, values: Mapping[str, str]) -> str:
    return values.get(variable_of(item), "").strip()  # type: ignore[arg-type]


def _variable(option: str) -> str:
    return option.replace("-", "_").upper()


def _switches() -> set[str]:
    every = (item for command in COMMANDS.values() for item in plain_options(command.options))
    return {variable_of(item) for item in every if is_switch(item)}


if __name__ == "__main__":
    main()
