"""Calls the compiled accelerator from Python and reads its trace."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.interface import STATUS_ERROR, STATUS_HEADER, UNWRITTEN, Error
from hw.layout import Design, Layout
from hw.program import Op, Step, build_program
from hw.render import design_digest, design_interface
from hw.weights import network_shapes, port_stripes, stream_checksum, unit_stream, weight_stream
from quant.network import QuantizedNetwork
from spvit.errors import BuildError

ERROR_SIZE = 512
UNTOUCHED = np.iinfo(np.int32).min
"""What stands in the trace where the accelerator wrote nothing."""


class _Sink(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("rows", ctypes.c_int32), ("lanes", ctypes.c_int32)]


@dataclass(frozen=True)
class CsimResult:
    """logits  int16 [classes]
    status  int32, the whole buffer (hw.interface)
    tokens  rows after each selector
    trace   by step: int32 [rows, lanes], padding included, `UNTOUCHED` where nothing was written
    """

    logits: NDArray[np.int16]
    status: NDArray[np.int32]
    tokens: list[int]
    trace: dict[str, NDArray[np.int32]]


@dataclass(frozen=True)
class UnitResult:
    """selection                 int32 [num_tokens, 2] keep, probability
    x                         int16 [num_tokens afterwards, C], the residual stream
    num_tokens, num_packages  afterwards
    trace                     see CsimResult
    """

    selection: NDArray[np.int32]
    x: NDArray[np.int16]
    num_tokens: int
    num_packages: int
    trace: dict[str, NDArray[np.int32]]


class CsimError(Exception):
    """The C-simulation stopped: a stream ran dry, a step wrote outside its destination."""


class Accelerator:
    """A design's C-simulation. Keeps the weight stream and the trace's memory between calls."""

    def __init__(self, design: Design, library: Path) -> None:
        self.design = design
        self._library = load_library(library)
        self._stripes = port_stripes(weight_stream(design)[0], design.architecture.weight_ports)
        self._interface = design_interface(design.layout)
        self._shapes = network_shapes(design, self.stripe_words)
        self._trace: dict[str, NDArray[np.int32]] = {}

    @property
    def stripe_words(self) -> int:
        return int(self._stripes.shape[1])

    @property
    def checksum(self) -> int:
        """Of the weights that it is given."""
        return stream_checksum(self._stripes.swapaxes(0, 1).reshape(self._stripes.shape[1], -1))

    def with_network(self, network: QuantizedNetwork) -> Accelerator:
        """The same C++ on another network. Raises ConfigError where it is too large for the design."""
        layout = Layout(network.model, self.design.architecture, self.design.layout.capacities)
        return self.with_design(Design(network, self.design.architecture, build_program(network), layout))

    def with_design(self, design: Design) -> Accelerator:
        """The same, of a network that is already lowered."""
        assert design_digest(design.layout) == design_digest(self.design.layout), "for another design"
        other = copy(self)
        other.design = design
        other._stripes = port_stripes(weight_stream(design)[0], design.architecture.weight_ports)
        other._shapes = network_shapes(design, other.stripe_words)
        return other

    def run(self, pixels: NDArray[np.uint8]) -> CsimResult:
        """One image, uint8 [S, S, in_chans]. Raises CsimError."""
        interface, shapes = self._interface, self._shapes
        sinks = self._sinks(range(len(self.design.program.steps)))
        logits, status = self._call(pixels, interface.registers_of(shapes), sinks)
        if status[STATUS_ERROR] != Error.NONE:
            raise CsimError(f"it refused its own design: {Error(int(status[STATUS_ERROR])).name}")
        tokens = status[STATUS_HEADER :: interface.stage_words][: shapes.num_stages].tolist()
        return CsimResult(logits, status, tokens, self._trace)

    def answer(self, **registers: int) -> NDArray[np.int32]:
        """The status buffer after a run by a host that writes something else to these registers."""
        return self._call(
            np.zeros(self._shapes.image, np.uint8), self._interface.registers_of(self._shapes) | registers, None
        )[1]

    def _call(
        self, pixels: NDArray[np.uint8], registers: Mapping[str, int], sinks: ctypes.Array[_Sink] | None
    ) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        """Logits and the status buffer."""
        logits = np.zeros(self._shapes.num_classes, np.int16)
        status = np.full(self._interface.status_words, UNWRITTEN, np.int32)
        image = np.ascontiguousarray(pixels)
        run_top(self._library, list(self._stripes), registers, (image, logits, status), sinks)
        return logits, status

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
        stripes = port_stripes(unit_stream(self.design, steps, x), self.design.architecture.weight_ports)
        chosen = np.zeros((len(x), 2), np.int32) if selection is None else np.ascontiguousarray(selection)
        x_out = np.zeros((self.design.layout.rows, self.design.layout.embed_lanes), np.int16)
        tokens = np.zeros(2, np.int32)
        error = ctypes.create_string_buffer(ERROR_SIZE)
        status = self._library.spvit_run_unit(
            _pointers(stripes), ctypes.c_int64(stripes.shape[1]), len(x), num_packages,
            _pointer(chosen), _pointer(x_out), _pointer(tokens), self._sinks(steps), error, ERROR_SIZE,
        )  # fmt: skip
        if status != 0:
            raise CsimError(error.value.decode())
        if tokens[0] < 0:
            raise CsimError(f"it refused its own steps: {Error(int(-tokens[0])).name}")
        left = x_out[: tokens[0], self.design.layout.embedding()]
        return UnitResult(chosen, left, int(tokens[0]), int(tokens[1]), self._trace)

    def _sinks(self, steps: range) -> ctypes.Array[_Sink]:
        """Fresh trace memory for these steps, which the accelerator counts from 0."""
        program = self.design.program
        sinks = (_Sink * len(program.steps))()
        self._trace = {}
        for place, i in enumerate(steps):
            step = program.steps[i]
            trace = np.full((_rows(self.design, step), self.design.layout.trace_lanes(step)), UNTOUCHED, np.int32)
            self._trace[step.name] = trace
            sinks[place] = _Sink(trace.ctypes.data, *trace.shape)
        return sinks


def _rows(design: Design, step: Step) -> int:
    return 1 if step.op is Op.POOL else design.layout.rows


def load_library(path: Path) -> ctypes.CDLL:
    """Raises BuildError."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"{path}: cannot be loaded ({error}); remove it and run again") from None


def run_top(
    library: ctypes.CDLL,
    stripes: Sequence[NDArray[np.generic]],
    registers: Mapping[str, int],
    buffers: tuple[NDArray[np.generic], NDArray[np.generic], NDArray[np.generic]],
    sinks: ctypes.Array[_Sink] | None = None,
) -> None:
    """The accelerator's top function on memory that the caller owns.

    stripes    each port's weights, whole words
    registers  those that are no addresses, as the host writes them
    buffers    image, logits and status
    Raises CsimError.
    """
    image, logits, status = buffers
    error = ctypes.create_string_buffer(ERROR_SIZE)
    stopped = library.spvit_run(
        _pointers(stripes), ctypes.c_int64(stripes[0].nbytes),
        ctypes.c_int32(registers["num_words"]), ctypes.c_uint32(registers["digest"]),
        _pointer(image), ctypes.c_int64(image.nbytes), ctypes.c_int32(registers["image_words"]),
        _pointer(logits), _pointer(status), sinks, error, ERROR_SIZE,
    )  # fmt: skip
    if stopped:
        raise CsimError(error.value.decode())


def _pointers(stripes: Iterable[NDArray[np.generic]]) -> ctypes.Array[ctypes.c_void_p]:
    addresses = [stripe.ctypes.data for stripe in stripes]
    return (ctypes.c_void_p * len(addresses))(*addresses)


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
