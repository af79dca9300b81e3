"""The house's floors: no arrow runs up. Each room imports what lies below it, and nothing above."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "spvit": (),
    "quant": ("spvit",),
    "hw": ("spvit", "quant"),
    "host": ("spvit", "quant", "hw"),
    "sim": ("spvit", "quant", "hw", "host"),
    "spvit_fpga": ("spvit", "quant", "hw", "host", "sim"),
}
# On the emulated device, the board's runtime runs on the C-simulation.
LAZY = {("host", "sim")}


def imported(path):
    """(room, at the file's top?) of each import of ours in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if (room := name.split(".")[0]) in BELOW:
                yield room, node in tree.body


@pytest.mark.parametrize("room", BELOW)
def test_no_arrow_runs_up(room):
    found = {
        (path.relative_to(ROOT).as_posix(), other)
        for path in (ROOT / room).rglob("*.py")
        for other, at_top in imported(path)
        if other != room and other not in BELOW[room] and (at_top or (room, other) not in LAZY)
    }
    assert found == set()


def test_every_room_is_in_the_plan():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms - {"tests"} == set(BELOW)
