"""What a training says as it goes: loss, rate and accuracy, for spreadsheets, for TensorBoard, and as a curve.

Enters: rows, as they come. Leaves, beside the weights: `<weights>-log.csv`, some 20 rows an epoch and one for each look
at the test images; `<weights>-events/<phase>/`, the same for TensorBoard (`tensorboard --logdir`);
`<weights>-curve.png`. A training that goes on from its state goes on here, too: what came after the state is dropped.
"""

import csv
import io
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

from spvit.figures import write_figure
from spvit.files import read_text, write_whole

ROWS_PER_EPOCH = 20


@dataclass(frozen=True)
class Row:
    """One line of the log.

    epoch          the running one, from 1
    step           steps of the phase that are done
    loss           mean over the steps since the row before, of all processes; None in a row of an accuracy
    rate           largest learning rate of the parameter groups
    test_accuracy  fraction of the test images right, thresholds not yet calibrated
    seconds        since this process began to log
    """

    phase: str
    epoch: int
    step: int
    loss: float | None
    rate: float
    test_accuracy: float | None
    seconds: float


COLUMNS = tuple(item.name for item in fields(Row))


class Log:
    """The log beside the weights; `Log(None)` keeps none."""

    def __init__(self, weights: Path | None, resumed: bool = False) -> None:
        self.rows: list[Row] = []
        self._writers: dict[str, Any] = {}
        self._begun = time.monotonic()
        self._losses: list[float] = []
        self.path = None if weights is None else weights.with_name(f"{weights.stem}-log.csv")
        self.events = None if weights is None else weights.with_name(f"{weights.stem}-events")
        self.curve = None if weights is None else weights.with_name(f"{weights.stem}-curve.png")
        if self.path is not None and resumed and self.path.is_file():
            self.rows = _read(self.path)
        elif self.events is not None:
            shutil.rmtree(self.events, ignore_errors=True)

    def begin(self, phase: str, step: int) -> None:
        """A phase goes on behind this step; 0: it begins."""
        self._losses = []
        self.rows = [row for row in self.rows if row.phase != phase or row.step <= step]
        if self.path is None or self.events is None:
            return
        write_whole(self.path, _text(self.rows, header=True))
        folder = self.events / re.sub(r"[^A-Za-z0-9_-]+", "-", phase)
        self._writers[phase] = SummaryWriter(str(folder), purge_step=step + 1)

    def add_loss(self, phase: str, epoch: int, step: int, loss: float, rate: float, steps_per_epoch: int) -> None:
        """A step's loss; a row now and then, and at each epoch's end."""
        self._losses.append(loss)
        in_epoch = step % steps_per_epoch
        if in_epoch and in_epoch % max(1, steps_per_epoch // ROWS_PER_EPOCH):
            return
        mean = sum(self._losses) / len(self._losses)
        self._losses = []
        self._add(Row(phase, epoch, step, mean, rate, None, self._seconds))

    def add_accuracy(self, phase: str, epoch: int, step: int, rate: float, accuracy: float) -> None:
        self._add(Row(phase, epoch, step, None, rate, accuracy, self._seconds))

    def finish(self) -> None:
        """The phase is over: the curve so far, and TensorBoard's files closed."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
        if self.curve is not None and self.rows:
            write_figure(self.curve, draw(self.rows))

    @property
    def _seconds(self) -> float:
        return round(time.monotonic() - self._begun, 3)

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_text([row]))
        writer = self._writers[row.phase]
        for name in ("loss", "rate", "test_accuracy"):
            if (value := getattr(row, name)) is not None:
                writer.add_scalar(name, value, row.step)


def _text(rows: Sequence[Row], header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _read(path: Path) -> list[Row]:
    """The rows of a log; a last one that was torn is dropped."""
    rows = []
    for cells in csv.DictReader(io.StringIO(read_text(path, "remove it"))):
        try:
            loss, accuracy = (float(cells[name]) if cells[name] else None for name in ("loss", "test_accuracy"))
            numbers = int(cells["epoch"]), int(cells["step"]), loss, float(cells["rate"]), accuracy
            rows.append(Row(cells["phase"], *numbers, float(cells["seconds"])))
        except (KeyError, TypeError, ValueError):
            break
    return rows


def draw(rows: Sequence[Row]) -> Figure:
    """The loss of each phase, one behind the other, and the accuracy on the test images."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    beside = axes.twinx()
    begin = 0
    for number, phase in enumerate(dict.fromkeys(row.phase for row in rows)):
        own = [row for row in rows if row.phase == phase]
        colour = f"C{number % 10}"
        losses = [(begin + row.step, row.loss) for row in own if row.loss is not None]
        tested = [(begin + row.step, 100 * row.test_accuracy) for row in own if row.test_accuracy is not None]
        if losses:
            axes.plot(*zip(*losses, strict=True), color=colour, linewidth=1.2, label=f"loss, {phase}")
        if tested:
            beside.plot(*zip(*tested, strict=True), color=colour, marker=".", linestyle="dashed", linewidth=0.8)
        begin += max(row.step for row in own)
    axes.set(xlabel="step", ylabel="loss")
    beside.set(ylabel="test accuracy, % (dashed)", ylim=(0, 100))
    axes.legend(loc="upper right", fontsize=8)
    return figure
