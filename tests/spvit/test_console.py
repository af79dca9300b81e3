"""What a command prints is text, whatever names stand in it."""

import io
from pathlib import Path

import rich.console
from rich.table import Table

from spvit.console import Console, styled

ROOT = Path(__file__).parents[2]


def printed(*values, **options):
    output = io.StringIO()
    console = Console(file=output, width=200, **options)
    for value in values:
        console.print(value)
    return output.getvalue()


def test_brackets_are_no_style():
    table = Table(title="[/bold] on x")
    table.add_column("[red] and what else there is")
    table.add_row("[/x]")
    assert printed("build/[/bold]x", "[red]photo[/red].png 12") == "build/[/bold]x\n[red]photo[/red].png 12\n"
    assert all(text in printed(table) for text in ("[/bold] on x", "[red] and", "[/x]"))


def test_a_style_is_said_in_words():
    line = styled(("NOT bit-exact", "red"), ": 3 values of [/x]")
    assert printed(line) == "NOT bit-exact: 3 values of [/x]\n"
    assert (
        printed(line, force_terminal=True, color_system="standard")
        == "\x1b[31mNOT bit-exact\x1b[0m: 3 values of [/x]\n"
    )


def test_every_command_prints_so():
    for room in ("spvit", "quant", "hw", "sim", "host"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert path.name == "console.py" or "rich.console" not in text, path
    assert issubclass(Console, rich.console.Console)
