"""What a command prints is text, whatever names stand in it."""

import io
import re
from pathlib import Path

import pytest
import rich.console
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from spvit.console import Console, Table, stage, styled, track

ROOT = Path(__file__).parents[2]


def printed(*values, **options):
    output = io.StringIO()
    console = Console(file=output, width=200, **options)
    for value in values:
        console.print(value)
    return output.getvalue()


def test_brackets_are_no_style():
    table = Table("[/bold] on x", "[red] and what else there is", [])
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


# --- what is under way ---


@pytest.fixture(params=[False, True], ids=["redirected", "terminal"])
def terminal(request, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")
    return request.param


def lines_of(text):
    """Without what moves a terminal's cursor, and colours."""
    return [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").splitlines() if line]


def test_a_stage_is_one_line_where_nobody_watches_and_moves_on_a_terminal(terminal, capsys):
    with stage("compiling", 3) as under_way:
        under_way.advance()
        under_way.detail("[/x] top.cpp")
        with stage("linking"):
            pass
    said = capsys.readouterr()
    assert said.out == ""
    if not terminal:
        assert said.err == "compiling\n"
    else:
        assert re.fullmatch(r"compiling: \d+\.\d s", lines_of(said.err)[-1])
        assert any("compiling" in line and "0/3" in line for line in lines_of(said.err)[:-1])


def test_items_are_tracked_and_counted(terminal, capsys):
    assert list(track([1, 2, 3], "reading")) == [1, 2, 3]
    assert list(track(iter("ab"), "hidden", 2, shown=False)) == ["a", "b"]
    said = lines_of(capsys.readouterr().err)
    assert said[-1].startswith("reading") and not any("hidden" in line for line in said)


def test_what_fails_is_not_called_done(terminal, capsys):
    for _ in range(2):  # and leaves nothing behind that the next one would stand in
        with pytest.raises(ValueError, match=r"^why$"), stage("compiling"), stage("linking"):
            raise ValueError("why")
    said = lines_of(capsys.readouterr().err)
    assert not any(re.fullmatch(r"compiling: .* s", line) for line in said)
    if not terminal:
        assert said == ["compiling", "compiling"]


def test_lines_within_a_stage_stand_above_it(terminal, capsys):
    with stage("compiling"):
        Console().print("a result")
    said = capsys.readouterr()
    assert "a result" in lines_of(said.err if terminal else said.out)


def test_a_wait_leaves_no_line(terminal, capsys):
    with stage("loading", stays=False):
        pass
    lines = lines_of(capsys.readouterr().err)
    assert not any(re.fullmatch(r"loading: .* s", line) for line in lines) and bool(lines) == terminal


def test_what_is_printed_where_stdout_is_redirected_stays_there(terminal, capsys):
    with stage("compiling"):
        print("a result for a file")
    assert capsys.readouterr().out == "a result for a file\n"


# --- lines ---


def on_a_terminal(text, width=20):
    output = io.StringIO()
    Console(file=output, width=width, force_terminal=True, color_system=None).print(text)
    return output.getvalue()


def test_lines_end_between_words_and_paths_stay_whole():
    assert on_a_terminal("four words in 123456789 lines of text") == "four words in\n123456789 lines of\ntext\n"
    path = "build/a_long_name-zcu102/csim.json"
    assert on_a_terminal(f"written: {path} now") == f"written:\n{path}\nnow\n"
    assert on_a_terminal("  indented\n\n  again") == "  indented\n\n  again\n"
    assert on_a_terminal(styled(("NOT", "red"), " word word word word word")) == "NOT word word word\nword word\n"
    assert printed("word " * 100) == "word " * 100 + "\n"
    assert printed("a :smile: is text") == "a :smile: is text\n"


@given(st.lists(st.text("abcé界", min_size=1, max_size=30), min_size=1, max_size=12))
def test_no_word_is_broken(words):
    lines = on_a_terminal(" ".join(words)).splitlines()
    assert " ".join(lines).split() == words
    assert all(cell_len(line) <= 20 or " " not in line for line in lines)
