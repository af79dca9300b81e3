"""What commands say: lines, tables, and what is under way. The one place that knows of terminals and of rich.

Results go to stdout, what is under way to stderr. A terminal's lines end between words, and what lasts moves: a
spinner, or a bar, with the time; when it is done, its line stays. Where the output is redirected there is a line per
stage, as it begins, and every line is as long as it is. No name and no number is cut or broken: a table that is too
wide for a terminal has the names in lines of their own.

Names of files, models and images stand in what commands say, and `[x]` or `:x:` in one of them is no style and no
picture. What has a colour says so with `styled`.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import rich.console
import rich.table
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.progress import TimeElapsedColumn as Elapsed
from rich.segment import Segment
from rich.text import Text

Item = TypeVar("Item")
ARROW = " → "
"""Between numbers of tokens. What an output's encoding has no letter for is spelt (`spvit.errors.spelt`)."""
UNLIMITED = 1_000_000  # columns


class Console(rich.console.Console):
    """Without markup, without colours and pictures that it thinks up itself; words stay whole."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """In lines of a terminal's width, between words; of any width where the output is redirected."""
        if self.is_terminal:
            options = {"overflow": "ignore", "crop": False, **options}
            objects = tuple(_wrapped(one, self.width) if isinstance(one, (str, Text)) else one for one in objects)
        else:
            options = {"soft_wrap": True, **options}
        above = bool(_live) and self.is_terminal
        rich.console.Console.print(_live[-1].console if above else self, *objects, **options)


def _wrapped(text: str | Text, width: int) -> Text:
    """Lines that end between words; a word that is longer than a line, a path, stays in one piece."""
    lines: list[Text] = []
    for line in (Text(text) if isinstance(text, str) else text).split(allow_blank=True):
        breaks, column = [], 0
        for word in re.finditer(r"\s*\S+", line.plain):
            if column and column + cell_len(word[0]) > width:
                breaks.append(word.end() - len(word[0].lstrip()))
                column = -(len(word[0]) - len(word[0].lstrip()))
            column += cell_len(word[0])
        lines += line.divide(breaks)
    for line in lines[:-1]:
        line.rstrip()
    return Text("\n").join(lines)


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line of parts, with a style each or none: `styled(("NOT bit-exact", "red"), ": 3 values")`."""
    return Text.assemble(*parts)


def tokens(counts: Iterable[float]) -> str:
    """`197 → 125 → 81`."""
    return ARROW.join(f"{count:.0f}" for count in counts)


class Table:
    """A table in the style of all commands: names to the left, figures to the right, units below the headings.

    title    a line above it; "" for none
    name     heading of the first column, whose cells are names
    columns  headings of the others, each a text or (text, unit)
    left     positions of those, from 0, that hold words
    """

    def __init__(
        self, title: str, name: str, columns: Iterable[str | tuple[str, str]], left: Sequence[int] = ()
    ) -> None:
        self.title, self.name, self.left = title, name, left
        self.headings = ["\n".join((column,) if isinstance(column, str) else column) for column in columns]
        self.rows: list[tuple[Text, list[Text], str]] = []

    def add_row(self, name: str | Text, *cells: str | Text, style: str = "") -> None:
        assert len(cells) == len(self.headings), (name, cells)
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in (name, *cells)]
        self.rows.append((texts[0], texts[1:], style))

    def __rich_console__(
        self, console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> rich.console.RenderResult:
        room = options.max_width if console.is_terminal else UNLIMITED
        if self.title:
            yield _wrapped(Text(self.title, style="bold", overflow="ignore"), room)
        whole = self._grid(with_names=True)
        if (width := _width(whole, console, options)) <= room:
            yield from whole.__rich_console__(console, options.update_width(width))
            return
        figures = self._grid(with_names=False)
        lines = console.render_lines(figures, options.update_width(_width(figures, console, options)), pad=False)
        for place, line in enumerate(lines, len(self.rows) - len(lines)):
            if place >= 0:
                yield Text(self.rows[place][0].plain, style=self.rows[place][2], overflow="ignore")
            yield from line
            yield Segment.line()

    def _grid(self, with_names: bool) -> rich.table.Table:
        table = rich.table.Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        headings = [self.name, *self.headings] if with_names else self.headings
        words = {0, *(place + 1 for place in self.left)} if with_names else set(self.left)
        for place, heading in enumerate(headings):
            table.add_column(heading, justify="left" if place in words else "right", no_wrap=True)
        for name, cells, style in self.rows:
            table.add_row(*([name] if with_names else []), *cells, style=style)
        return table


def _width(table: rich.table.Table, console: rich.console.Console, options: rich.console.ConsoleOptions) -> int:
    return Measurement.get(console, options.update_width(UNLIMITED), table).maximum


class Stage:
    """Something under way: `advance` says how far it is, `detail` what may be said of it at the moment."""

    def __init__(self, task: int | None) -> None:
        self._task = task

    def advance(self, steps: float = 1) -> None:
        if self._task is not None:
            _shown().update(self._task, advance=steps)  # type: ignore[arg-type]

    def detail(self, text: str) -> None:
        if self._task is not None:
            _shown().update(self._task, detail=text)  # type: ignore[arg-type]


class _Count(MofNCompleteColumn):
    """How many of how many; nothing where nobody knows."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None else Text("")


class _Bar(ProgressColumn):
    """A bar; nothing where nobody knows how far it is."""

    def __init__(self) -> None:
        super().__init__()
        self._bar = BarColumn(bar_width=20)

    def render(self, task: Task) -> Any:
        return self._bar.render(task) if task.total is not None else Text("")


_live: list[Progress] = []  # at most one: what is drawn at the terminal's end
_depth = 0


def _shown() -> Progress:
    return _live[-1]


@contextmanager
def stage(
    what: str, total: float | None = None, done: float = 0, shown: bool = True, stays: bool = True
) -> Iterator[Stage]:
    """While it lasts, a terminal shows that it does; stages within stages are shown below it.

    total, done  steps, where they are known: how many, and how many were done before
    shown        False: nothing is said, as in all processes but the first
    stays        False: no line of it remains; only who watches is told to wait
    """
    global _depth
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        if shown and stays and not _depth:
            console.print(what)
        _depth += 1
        try:
            yield Stage(None)
        finally:
            _depth -= 1
        return
    start = time.monotonic()
    if not _live:
        detail = TextColumn("{task.fields[detail]}", markup=False)
        name = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), name, _Bar(), _Count(), Elapsed(), detail)
        both = sys.stdout.isatty()  # else what is printed there is no terminal's
        _live.append(Progress(*columns, console=console, transient=True, redirect_stdout=both))
        _live[-1].start()
    task = _shown().add_task(what, total=total, completed=done, detail="")  # type: ignore[arg-type]
    _depth += 1
    try:
        yield Stage(task)
    finally:
        _depth -= 1
        _shown().remove_task(task)
        if not _depth:
            _live.pop().stop()
    if stays and not _depth:
        console.print(f"{what}: {time.monotonic() - start:.1f} s")


def track(items: Iterable[Item], what: str, total: float | None = None, shown: bool = True) -> Iterator[Item]:
    """The items, while a stage tells how many of them are done."""
    if total is None and isinstance(items, Sequence):
        total = len(items)
    with stage(what, total, shown=shown) as under_way:
        for item in items:
            yield item
            under_way.advance()
