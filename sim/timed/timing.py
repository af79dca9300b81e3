"""The timed C-simulation: the kernels, run on a real image, count their cycles (sim/timed).

Enters: a design compiled with `build_library(..., timed=True)`, what to assume. Leaves: cycles of each step, and whom
each waits for. Raises CsimError when a loop asks more of a memory than its ports give or reads what has not landed, or
when streams block one another.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.facts import Facts
from hw.layout import Design
from hw.model.latency import Assumptions
from sim.bridge import Accelerator, CsimError, CsimResult, UnitResult

LOADING, STORING = "loading", "storing"
WEIGHTS = "weights"
"""The stream that waits for the engine."""


class _Row(ctypes.Structure):
    """A row of one of the clock's tables: names, then numbers."""

    def __init__(self, *values: str | int) -> None:
        super().__init__(*(value.encode() if isinstance(value, str) else value for value in values))


def _row(name: str, fields: str) -> type[_Row]:
    kinds = [(one.strip("*"), ctypes.c_char_p if one.startswith("*") else ctypes.c_int64) for one in fields.split()]
    return type(name, (_Row,), {"_fields_": kinds})


class _Table(ctypes.Structure):
    _fields_ = [("size", ctypes.c_int64), ("rows", ctypes.c_void_p)]


_ROWS = {
    "loops": _row("_Loop", "*name depth interval"),
    "spans": _row("_MemorySpan", "*loop *memory span"),
    "partitions": _row("_Partition", "*memory dim in_blocks factor"),
    "ports": _row("_Ports", "*memory reads writes together"),
    "aggregates": _row("_Aggregate", "*memory"),
    "dependences": _row("_Dependence", "*loop *memory distance"),
    "depths": _row("_Depth", "*stream words"),
}
_NUMBERS = (
    "beat_cost", "read_latency", "write_latency", "burst_beats", "outstanding", "stream_latency", "loop_entry",
    "scale_percent",
)  # fmt: skip
NONE = -1


class _Settings(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int64) for name in _NUMBERS), *((name, _Table) for name in _ROWS)]


def _tables(assumed: Assumptions, facts: Facts) -> dict[str, list[tuple[str | int, ...]]]:
    """By table, as sim/timed/settings.hpp describes them."""
    loops, scale = {*assumed.depths, *facts.loops}, assumed.scale_percent
    return {
        "loops": [(name, assumed.depths.get(name, NONE), facts.loops.get(name, 0)) for name in sorted(loops)],
        "spans": [(loop, memory, span) for (loop, memory), span in assumed.spans.items()],
        "partitions": [
            (memory, one.dim, int(one.kind == "block"), one.factor)
            for memory, parts in facts.partitions.items()
            for one in parts
        ],
        "ports": [(memory, one.reads, one.writes, one.together) for memory, one in facts.ports.items()],
        "aggregates": [(memory,) for memory in sorted(facts.aggregated)],
        "dependences": [
            (loop, memory, NONE if distance is None else distance * (scale if loop == "ENGINE" else 100) // 100)
            for (loop, memory), distance in facts.dependences.items()
        ],
        "depths": [(name, assumed.fifo_words if name == WEIGHTS else words) for name, words in facts.streams.items()],
    }


@dataclass(frozen=True)
class StepCycles:
    """Cycles of one step, from its first to the next one's first.

    tokens  a token enters the array
    fill    waiting until the next tile is filled
    fifo    waiting longer, for words of the weight stream
    drain   waiting for results to land
    other   in loops that are not the engine's, and between loops
    """

    name: str
    tokens: int
    fill: int
    fifo: int
    drain: int
    other: int

    @property
    def total(self) -> int:
        return self.tokens + self.fill + self.fifo + self.drain + self.other


@dataclass(frozen=True)
class Timing:
    """Cycles of a run: loading, the steps in order, storing."""

    steps: tuple[StepCycles, ...]

    @property
    def cycles(self) -> int:
        return sum(step.total for step in self.steps)

    def of(self, name: str) -> StepCycles:
        return next(step for step in self.steps if step.name == name)


class Clock:
    """Of a library that was compiled with `timed`."""

    def __init__(self, library: ctypes.CDLL, num_steps: int) -> None:
        self._library, self._num_steps = library, num_steps
        self._library.spvit_clock.restype = ctypes.c_int64

    def start(self, assumed: Assumptions, facts: Facts) -> NDArray[np.int64]:
        """Before a run; returns what the run will fill: [loading, steps ..., storing] [begin and parts]."""
        settings = _Settings(*(getattr(assumed, name) for name in _NUMBERS))
        self._arrays = []  # as long as the library may look at them
        for name, rows in _tables(assumed, facts).items():
            array = (_ROWS[name] * len(rows))(*(_ROWS[name](*row) for row in rows))
            self._arrays.append(array)
            setattr(settings, name, _Table(len(rows), ctypes.addressof(array)))
        self._settings = settings
        counters = np.zeros((self._num_steps + 2, 6), np.int64)
        self._library.spvit_configure_clock(
            ctypes.byref(self._settings), ctypes.c_void_p(counters.ctypes.data), len(counters)
        )
        return counters

    @property
    def cycles(self) -> int:
        """Of the last run."""
        return int(self._library.spvit_clock())


def check_depth(assumed: Assumptions, facts: Facts) -> None:
    """Raises CsimError where a pass's last tile is shorter than the pipeline that its results travel through."""
    held = facts.constants.value("Arch::kPipelineCycles") * assumed.scale_percent // 100
    depth = assumed.depths["ENGINE"]
    if depth > held:
        raise CsimError(
            f"loop ENGINE is {depth} cycles deep, kPipelineCycles is {held}: a pass would read what the one before it "
            "has not written yet; raise it (hw/model/latency.py)"
        )


class TimedAccelerator:
    """A design's timed C-simulation.

    assumed  may be changed between runs, to see what depends on it: the weight FIFO's words too
    facts    what its sources' pragmas say to synthesis (`hw.facts.read_top`); the library is compiled from the same
    """

    def __init__(self, design: Design, library: Path, assumed: Assumptions, facts: Facts) -> None:
        self.design, self.assumed, self.facts = design, assumed, facts
        self._accelerator = Accelerator(design, library)
        self._clock = Clock(ctypes.CDLL(str(library)), len(design.program.steps))

    def run(self, pixels: NDArray[np.uint8]) -> tuple[CsimResult, Timing]:
        """One image, uint8 [S, S, in_chans]. Raises CsimError."""
        counters = self._start()
        result = self._accelerator.run(pixels)
        return result, self._timing(counters, range(len(self.design.program.steps)))

    def run_unit(
        self, unit: str, index: int, x: NDArray[np.int16], num_packages: int = 0,
        selection: NDArray[np.int32] | None = None,
    ) -> tuple[UnitResult, Timing]:  # fmt: skip
        """One kernel's own top, see `Accelerator.run_unit`: loading, its own steps, storing."""
        counters = self._start()
        result = self._accelerator.run_unit(unit, index, x, num_packages, selection)
        return result, self._timing(counters, self.design.program.unit(unit, index))

    def _start(self) -> NDArray[np.int64]:
        check_depth(self.assumed, self.facts)
        return self._clock.start(self.assumed, self.facts)

    def _timing(self, counters: NDArray[np.int64], ran: range) -> Timing:
        """ran  the program's steps that the accelerator counted from 0"""
        names = [LOADING, *(self.design.program.steps[i].name for i in ran), STORING]
        rows = counters[: len(names)]
        steps = tuple(StepCycles(name, *map(int, row[1:])) for name, row in zip(names, rows, strict=True))
        timing = Timing(steps)
        assert timing.cycles == self._clock.cycles
        return timing
