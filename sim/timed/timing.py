"""The timed C-simulation: the kernels, run on a real image, count their cycles (sim/timed).

Enters: a design compiled with `build_library(..., timed=True)`, what to assume. Leaves: cycles of each step, and whom
each waits for. Raises CsimError when a loop asks more of a memory than its ports give or reads what has not landed, or
when streams block one another.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.layout import Design
from hw.model.latency import Assumptions
from sim.bridge import Accelerator, CsimResult, UnitResult

LOADING, STORING = "loading", "storing"


class _LoopDepth(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("depth", ctypes.c_int64)]


class _MemorySpan(ctypes.Structure):
    _fields_ = [("loop", ctypes.c_char_p), ("memory", ctypes.c_char_p), ("span", ctypes.c_int64)]


class _Settings(ctypes.Structure):
    _fields_ = [
        ("beat_cost", ctypes.c_int64),
        ("read_latency", ctypes.c_int64),
        ("write_latency", ctypes.c_int64),
        ("burst_beats", ctypes.c_int64),
        ("outstanding", ctypes.c_int64),
        ("stream_latency", ctypes.c_int64),
        ("loop_entry", ctypes.c_int64),
        ("scale_percent", ctypes.c_int64),
        ("fifo_words", ctypes.c_int64),
        ("num_loops", ctypes.c_int64),
        ("loops", ctypes.POINTER(_LoopDepth)),
        ("num_spans", ctypes.c_int64),
        ("spans", ctypes.POINTER(_MemorySpan)),
    ]


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

    def start(self, assumed: Assumptions) -> NDArray[np.int64]:
        """Before a run; returns what the run will fill: [loading, steps ..., storing] [begin and parts]."""
        loops = (_LoopDepth * len(assumed.depths))(
            *(_LoopDepth(loop.encode(), depth) for loop, depth in assumed.depths.items())
        )
        spans = (_MemorySpan * len(assumed.spans))(
            *(_MemorySpan(loop.encode(), memory.encode(), span) for (loop, memory), span in assumed.spans.items())
        )
        values = {one.name: getattr(assumed, one.name) for one in fields(assumed)}
        numbers = {key: value for key, value in values.items() if isinstance(value, int)}
        self._settings = _Settings(**numbers, num_loops=len(loops), loops=loops, num_spans=len(spans), spans=spans)
        self._tables = loops, spans  # as long as the library may look at them
        counters = np.zeros((self._num_steps + 2, 6), np.int64)
        self._library.spvit_configure_clock(
            ctypes.byref(self._settings), ctypes.c_void_p(counters.ctypes.data), len(counters)
        )
        return counters

    @property
    def cycles(self) -> int:
        """Of the last run."""
        return int(self._library.spvit_clock())


class TimedAccelerator:
    """A design's timed C-simulation."""

    def __init__(self, design: Design, library: Path, assumed: Assumptions) -> None:
        self.design, self.assumed = design, assumed
        self._accelerator = Accelerator(design, library)
        self._clock = Clock(ctypes.CDLL(str(library)), len(design.program.steps))

    def run(self, pixels: NDArray[np.uint8]) -> tuple[CsimResult, Timing]:
        """One image, uint8 [S, S, in_chans]."""
        counters = self._clock.start(self.assumed)
        result = self._accelerator.run(pixels)
        return result, self._timing(counters)

    def run_unit(
        self, unit: str, index: int, x: NDArray[np.int16], num_packages: int = 0,
        selection: NDArray[np.int32] | None = None,
    ) -> tuple[UnitResult, Timing]:  # fmt: skip
        """One kernel's own top, see `Accelerator.run_unit`."""
        counters = self._clock.start(self.assumed)
        result = self._accelerator.run_unit(unit, index, x, num_packages, selection)
        return result, self._timing(counters)

    def _timing(self, counters: NDArray[np.int64]) -> Timing:
        names = [LOADING, *(step.name for step in self.design.program.steps), STORING]
        steps = tuple(StepCycles(name, *map(int, row[1:])) for name, row in zip(names, counters, strict=True))
        timing = Timing(steps)
        assert timing.cycles == self._clock.cycles
        return timing
