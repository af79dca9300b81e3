"""The tools that a test may need and a machine may lack: `@pytest.mark.needs("yosys")`.

Without the tool the test is left out, loudly, and with CI set it fails. With it, the tool is on PATH for the tests that
name it and for no other: a test that uses one without saying so fails on every machine, not on the fresh one first.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LIST = Path(__file__).parents[1] / ".ci" / "tools"
MISSING = "{} missing"


def read_tools() -> dict[str, tuple[str, ...]]:
    """Debian package -> its command, and others that will do."""
    lines = (line.split() for line in LIST.read_text().splitlines() if not line.startswith("#"))
    return {package: tuple(commands) for package, *commands in lines}


TOOLS = read_tools()
COMMANDS = {commands[0]: commands for commands in TOOLS.values()}
HERE = {command: path for commands in TOOLS.values() for command in commands if (path := shutil.which(command))}


def find(tool: str) -> str | None:
    """The path of a tool, whatever its command is called here."""
    return next((HERE[command] for command in COMMANDS[tool] if command in HERE), None)


def install_line() -> str:
    """The one line that installs all that this machine lacks."""
    return "sudo apt-get install " + " ".join(package for package, (tool, *_) in TOOLS.items() if not find(tool))


def needed(item: pytest.Item) -> list[str]:
    """The tools that a test names; an unknown one is a mistake of the test."""
    names = [name for mark in item.iter_markers("needs") for name in mark.args]
    assert set(names) <= set(COMMANDS), f"{item.nodeid}: {names}; .ci/tools has {list(COMMANDS)}"
    return names


def require(item: pytest.Item) -> None:
    """Leave a test out, or fail it in CI, when a tool that it names is missing."""
    if lacking := [name for name in needed(item) if find(name) is None]:
        reason = MISSING.format(", ".join(lacking))
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI leaves nothing out: {install_line()}", pytrace=False)
        pytest.skip(reason)


def hide(folder: Path) -> str:
    """PATH without the tools: each of its folders that has some becomes a folder of links to the others."""
    hidden = {command for commands in TOOLS.values() for command in commands}
    entries = []
    for number, entry in enumerate(os.environ["PATH"].split(os.pathsep)):
        held = {path.name for path in Path(entry).iterdir()} if Path(entry).is_dir() else set[str]()
        if not held & hidden:
            entries.append(entry)
            continue
        links = folder / str(number)
        links.mkdir()
        for name in held - hidden:
            (links / name).symlink_to(Path(entry).absolute() / name)
        entries.append(str(links))
    return os.pathsep.join(entries)


class Tools:
    """The plugin: marks, PATH of each test, and what the summary says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, hide(folder)

    @contextmanager
    def of(self, names: Iterable[str]) -> Iterator[None]:
        """PATH with these tools."""
        before = os.environ["PATH"]
        entries = [self.path]
        for name in names:
            own = self.folder / name
            own.mkdir(exist_ok=True)
            if (path := find(name)) is not None:
                command = own / Path(path).name
                if not command.is_symlink():
                    command.symlink_to(Path(path).absolute())
                entries.insert(0, str(own))
        os.environ["PATH"] = os.pathsep.join(entries)
        try:
            yield
        finally:
            os.environ["PATH"] = before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        with self.of(needed(item)):
            return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        require(item)


def left_out(skipped: Iterable[Any]) -> list[str]:
    """What a run did not check, a line per reason, and what installs the tools: so that nobody takes it for a pass."""
    reasons = Counter(str(report.longrepr[-1]).removeprefix("Skipped: ") for report in skipped)
    lines = [f"LEFT OUT: {count} test{'' if count == 1 else 's'}: {reason}" for reason, count in reasons.items()]
    if any(reason.endswith(MISSING.format("")) for reason in reasons):
        lines.append(f"LEFT OUT: this installs what is missing: {install_line()}")
    return lines
