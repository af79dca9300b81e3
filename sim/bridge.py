"""Calls the compiled accelerator from Python and reads its trace."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.layout import Design
from hw.program import Op, Step
from hw.weights import port_stripes, row_words, step_words, weight_stream
from spvit.errors import BuildError

UNTOUCHED = np.iinfo(np.int32).min
"""What stands in the trace where the accelerator wrote nothing."""
ERROR_SIZE = 512


class _Sink(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("rows", ctypes.c_int32), ("lanes", ctypes.c_int32)]


@dataclass(frozen=True)
class CsimResult:
    """logits  int16 [classes]
    tokens  rows after each selector
    trace   by step: int32 [rows, lanes], padding included, `UNTOUCHED` where nothing was written
    """

    logits: NDArray[np.int16]
    tokens: list[int]
    trace: dict[str, NDArray[np.int32]]


@dataclass(frozen=True)
class UnitResult:
    """selection                 int32 [num_tokens, 2] keep, probability
    num_tokens, num_packages  afterwards
    trace                     see CsimResult
    """

    selection: NDArray[np.int32]
    num_tokens: int
    num_packages: int
    trace: dict[str, NDArray[np.int32]]


class CsimError(Exception):
    """The C-simulation stopped: a stream ran dry, a step wrote outside its destination."""


class Accelerator:
    """A design's C-simulation. Keeps the weight stream and the trace's memory between calls."""

    def __init__(self, design: Design, library: Path) -> None:
        self.design = design
        try:
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise BuildError(f"{library}: cannot be loaded ({error}); remove it and run again") from None
        self._stripes = port_stripes(weight_stream(design)[0])
        self._trace: dict[str, NDArray[np.int32]] = {}

    def run(self, pixels: NDArray[np.uint8]) -> CsimResult:
        """One image, uint8 [S, S, in_chans]. Raises CsimError."""
        model, pruning = self.design.network.model, self.design.network.pruning
        logits = np.zeros(model.num_classes, np.int16)
        tokens = np.zeros(max(pruning.num_selectors, 1), np.int32)
        image = np.ascontiguousarray(pixels)
        error = ctypes.create_string_buffer(ERROR_SIZE)
        status = self._library.spvit_run(
            _pointer(self._stripes), ctypes.c_int64(self._stripes.shape[1]), _pointer(image), _pointer(logits),
            _pointer(tokens), self._sinks(range(len(self.design.program.steps))), error, ERROR_SIZE,
        )  # fmt: skip
        if status != 0:
            raise CsimError(error.value.decode())
        return CsimResult(logits, tokens[: pruning.num_selectors].tolist(), self._trace)

    def run_unit(
        self,
        unit: str,
        index: int,
        x: NDArray[np.int16],
        num_packages: int = 0,
        selection: NDArray[np.int32] | None = None,
    ) -> UnitResult:
        """One kernel's own top.

        x             int16 [num_tokens, C]: the residual stream as it enters
        num_packages  of its last rows
        selection     int32 [num_tokens, 2] keep, probability; for the token packager
        """
        steps = self.design.program.unit(unit, index)
        words = [row_words(self.design, x), *(step_words(self.design, self.design.program.steps[i]) for i in steps)]
        stripes = port_stripes(np.concatenate(words))
        chosen = np.zeros((len(x), 2), np.int32) if selection is None else np.ascontiguousarray(selection)
        tokens = np.zeros(2, np.int32)
        error = ctypes.create_string_buffer(ERROR_SIZE)
        status = self._library.spvit_run_unit(
            _pointer(stripes), ctypes.c_int64(stripes.shape[1]), index, len(x), num_packages,
            _pointer(chosen), _pointer(tokens), self._sinks(steps), error, ERROR_SIZE,
        )  # fmt: skip
        if status != 0:
            raise CsimError(error.value.decode())
        return UnitResult(chosen, int(tokens[0]), int(tokens[1]), self._trace)

    def _sinks(self, steps: range) -> ctypes.Array[_Sink]:
        """Fresh trace memory for these steps; the others are not recorded."""
        program = self.design.program
        sinks = (_Sink * len(program.steps))()
        self._trace = {}
        for i in steps:
            step = program.steps[i]
            trace = np.full((_rows(self.design, step), self.design.layout.trace_lanes(step)), UNTOUCHED, np.int32)
            self._trace[step.name] = trace
            sinks[i] = _Sink(trace.ctypes.data, *trace.shape)
        return sinks


def _rows(design: Design, step: Step) -> int:
    return 1 if step.op is Op.POOL else design.layout.rows


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
