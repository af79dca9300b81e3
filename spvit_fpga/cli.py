"""The console script: `spvit csim --model deit_s --target zcu102`.

Enters: a command line. Leaves: what the command leaves, and its exit status; what is wrong ends in one sentence and
status 2. `spvit completion bash` prints what lets a shell complete commands and options.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager

from spvit.command import Parser, add_options, hint, name_of, plain_options, read_options, variable_of
from spvit.errors import ConfigError, UserError, exit_on_user_error
from spvit.schema import shown_text
from spvit_fpga.commands import COMMANDS, GROUPS, Command

PROGRAM = "spvit"
COMPLETION = "completion"
SHELLS = ("bash", "zsh", "tcsh")
WIDTH = 80


def main() -> None:
    exit_on_user_error(lambda: in_console_words(sys.argv[1:]))


def run(name: str, arguments: Sequence[str], face: str = PROGRAM) -> int | None:
    """Do what a command line asks for. Raises UserErrors.

    face  who asks, as a person knows it: spvit or make
    """
    command = COMMANDS[name]
    options = read_options(parser_of(command, face), command.options, arguments)
    with waiting():
        function = command.load()
    return function(options)


def waiting() -> AbstractContextManager[object]:
    """While modules are imported, torch among them. rich is only there where the environment is."""
    from spvit.console import stage

    return stage("loading", stays=False)


def parser_of(command: Command, face: str = PROGRAM) -> Parser:
    lines = ["examples:", *(f"  {face} {command.name} {one}" for one in command.examples), command.note]
    epilog = "\n".join(lines).rstrip() + "\n" if command.examples else None
    form = argparse.RawDescriptionHelpFormatter  # the examples keep their lines
    parser = Parser(f"{face} {command.name}", command.help, epilog=epilog, formatter_class=form)
    add_options(parser, command.options)
    return parser


def in_console_words(arguments: Sequence[str]) -> int | None:
    """`run`, for the console. Raises UserErrors whose sentences say --keep where make's say KEEP=."""
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        print(overview())
        return 0
    if name == COMPLETION:
        print(completion(arguments[1:]))
        return 0
    if name not in COMMANDS:
        near = hint(name, [*COMMANDS, COMPLETION]) or f"; {PROGRAM} --help lists them"
        raise ConfigError(f"{shown_text(name)}: there is no such command{near}")
    try:
        return run(name, arguments[1:])
    except UserError as error:
        raise type(error)(spoken(str(error))) from None


def spoken(sentence: str) -> str:
    """A sentence in the console's words: `KEEP=none` is `--keep none`, `make hls` is `spvit hls`."""
    names = {
        variable_of(item): name_of(item) for command in COMMANDS.values() for item in plain_options(command.options)
    }
    options = re.compile(rf"(?<![\w-])({'|'.join(names)})=(?=(\w|[./~\"'])?)")
    sentence = options.sub(lambda found: names[found[1]] + (" " if found[2] else ""), sentence)
    return re.sub(rf"\bmake (?=({'|'.join(COMMANDS)})\b)", f"{PROGRAM} ", sentence)


def overview() -> str:
    """The commands, by group."""
    lines = [f"usage: {PROGRAM} COMMAND [options]", ""]
    for group, commands in GROUPS.items():
        lines.append(group)
        for command in commands:
            lines += textwrap.wrap(
                command.help, WIDTH, initial_indent=f"  {command.name:<11} ", subsequent_indent=" " * 14
            )
        lines.append("")
    lines.append(f"{PROGRAM} COMMAND --help lists its options, with examples.")
    lines.append(f"{PROGRAM} {COMPLETION} bash (zsh, tcsh) prints what lets that shell complete them.")
    return "\n".join(lines)


def completion(arguments: Sequence[str]) -> str:
    """What a shell sources to complete commands, options and files. Raises ConfigError."""
    import shtab

    parser = Parser(f"{PROGRAM} {COMPLETION}", "print what lets a shell complete commands and options")
    parser.add_argument("shell", choices=SHELLS, help=f'eval "$({PROGRAM} {COMPLETION} bash)"')
    shell = parser.parse_args(arguments).shell
    every = Parser(PROGRAM, "from a vision transformer to an FPGA")
    branches = every.add_subparsers(parser_class=Parser)
    for command in COMMANDS.values():
        branch = branches.add_parser(command.name, description=command.help, help=command.help)
        add_options(branch, command.options)
        for action in branch._actions:
            if action.metavar in ("FILE", "FOLDER", "NAME|TOML", "T"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return str(shtab.complete(every, shell))
