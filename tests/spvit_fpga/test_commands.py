"""The one list of commands: each is there, takes what its function takes, and is explained."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from spvit.command import plain_options
from spvit_fpga.cli import parser_of
from spvit_fpga.commands import COMMANDS, GROUPS

ROOT = Path(__file__).parents[2]


def test_the_list_needs_the_standard_library_alone():
    """`make help` reads it on a machine where nothing is installed."""
    code = "import spvit_fpga.makefile, spvit_fpga.cli; print('heard')"
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "heard")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_takes_its_options(name):
    command = COMMANDS[name]
    function = command.load()
    parameters = list(inspect.signature(function).parameters)
    wanted = get_type_hints(function)[parameters[0]]
    assert len(parameters) == 1 and issubclass(command.options, wanted)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_explained(name):
    command = COMMANDS[name]
    text = parser_of(command).format_help()
    assert command.help.split(":")[0] in " ".join(text.split())
    assert all(example in text for example in command.examples)
    assert all(item.metadata["help"] for item in plain_options(command.options))
    assert command.examples or command in GROUPS["Working on the project"]


def test_one_variable_is_one_thing():
    """What make calls NAME= is of one kind in every command, so that it can be exported to several at once."""
    kinds = {}
    for command in COMMANDS.values():
        for item in plain_options(command.options):
            kinds.setdefault(item.name, set()).add(isinstance(item.default, bool))
    assert {name for name, found in kinds.items() if len(found) > 1} == set()
