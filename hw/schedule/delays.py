"""How long each operation takes: the one table, with where its figures come from, and the models made of it.

Nanoseconds on an UltraScale+ of speed grade -2, as Vitis HLS 2021.2 prints them in public schedule reports of an
xczu7ev-2 and of a 300 MHz UltraScale+ design; no tool was run here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

UNCERTAINTY = 0.27
"""Share of the period that Vitis HLS keeps free: its default clock uncertainty (UG1399)."""
DSP_WIDTHS = (27, 18)
"""Operands of one DSP48E2's multiplier (UG579)."""


@dataclass(frozen=True)
class Delay:
    """Of one kind of operation, by model: at the narrowest and at the widest that the sources show, in ns.

    widths  bits at which the two hold; between them, by the logarithm of the width
    """

    optimistic: tuple[float, float]
    nominal: tuple[float, float]
    cautious: tuple[float, float]
    widths: tuple[int, int]
    source: str


def _same(low: float, high: float, source: str, widths: tuple[int, int] = (1, 32)) -> Delay:
    """optimistic: the lowest figure seen; nominal: by width; cautious: the highest one."""
    return Delay((low, low), (low, high), (high, high), widths, source)


DELAYS = {
    "icmp": _same(0.45, 0.86, "schedule reports, 2021.2, xczu7ev-2: .45 to .86 by width", (2, 32)),
    "add": Delay((0.70, 0.70), (0.70, 1.00), (0.79, 1.00), (8, 32), "as above: .70 to .79, 32 bits about 1.0"),
    "sub": Delay((0.79, 0.79), (0.79, 1.08), (1.08, 1.08), (8, 32), "as above: 1.08"),
    "logic": _same(0.29, 0.29, "as above: and, or, xor .29"),
    "select": _same(0.29, 0.45, "as above: .29 to .45 by width"),
    "shift": _same(1.54, 1.54, "as above: a variable shift, 1.54"),
    "count zeros": _same(1.54, 1.54, "no figure was found: as a variable shift"),
    "carry": Delay((0.0, 0.0), (0.43, 0.43), (0.43, 0.43), (1, 32), "as above: a store to a carried variable, .43"),
    "phi": Delay((0.0, 0.0), (0.0, 0.0), (0.39, 0.39), (1, 32), "as above: the multiplexer of a phi, .39"),
    "block ram": _same(1.24, 1.24, "as above: BRAM's output 1.24; a load takes two states"),
    "lut ram": _same(0.68, 0.68, "as above: LUTRAM .68; two states"),
    "rom": _same(0.65, 0.65, "as above: a small ROM .65; two states"),
    "store": Delay((0.0, 0.0), (0.68, 0.68), (1.24, 1.24), (1, 32), "as a load's, before the clock's edge"),
    "fifo read": _same(1.64, 1.64, "schedule reports of a 300 MHz UltraScale+ design: 1.64"),
    "fifo write": _same(1.84, 1.84, "as above: 1.84"),
}
PRODUCT_STAGES = {"optimistic": 3, "nominal": 4, "cautious": 5}
"""Of a product in one DSP48E2 (UG579: A/B, AD, M and P registers); each further DSP48E2 takes one more."""
LOAD_STATES = 2


@dataclass(frozen=True)
class Timing:
    """Of one operation: chained, or over several states.

    states  that it begins in and passes through before its result is there; 0: within its state
    before  ns that it takes of the state it begins in
    after   ns into the state in which its result is there
    """

    states: int
    before: float
    after: float


@dataclass(frozen=True)
class Model:
    """One way to see the delays.

    column        of the table
    fifo_waits    whether a FIFO's status is known only behind the condition under which it is read
    """

    name: str
    column: str
    fifo_waits: bool = False

    def timing(self, kind: str, width: int) -> Timing:
        return _timing(self.column, kind, width)


MODELS = (
    Model("optimistic", "optimistic"),
    Model("nominal", "nominal"),
    Model("cautious", "cautious"),
    Model("fifo_behind_predicate", "cautious", fifo_waits=True),
)


@cache
def _timing(column: str, kind: str, width: int) -> Timing:
    family, _, detail = kind.partition(":")
    if family in ("wire", "start"):
        return Timing(0, 0.0, 0.0)
    if family == "load":
        return Timing(LOAD_STATES - 1, 0.0, _delay(column, detail, width))
    if family == "product":
        return Timing(PRODUCT_STAGES[column] + int(detail) - 1, 0.0, 0.0)
    if family == "divide":
        return Timing(width + 3, 0.0, 0.0)  # a radix-2 divider, a bit a stage
    if family == "axi":
        return Timing(1, 0.0, 0.0)  # a state of its own
    if family == "tree":  # a small or constant product, in adders
        return Timing(0, 0.0, int(detail) * _delay(column, "add", width))
    if family == "mux":
        return Timing(0, 0.0, _levels(int(detail)) * _delay(column, "select", width))
    if family == "choice":  # between paths: two at a time
        return Timing(0, 0.0, max(1, math.ceil(math.log2(max(int(detail), 2)))) * _delay(column, "select", width))
    if family == "signed division":
        return Timing(0, 0.0, _delay(column, "add", width) + _delay(column, "select", width))
    return Timing(0, 0.0, _delay(column, family, width))


def _levels(inputs: int) -> int:
    """Of 4:1 multiplexers, a LUT6 each."""
    return max(1, math.ceil(math.log(max(inputs, 2), 4)))


def _delay(column: str, kind: str, width: int) -> float:
    entry = DELAYS[kind]
    low, high = {"optimistic": entry.optimistic, "nominal": entry.nominal, "cautious": entry.cautious}[column]
    narrow, wide = entry.widths
    share = math.log2(max(width, 1) / narrow) / math.log2(wide / narrow)
    return low + (high - low) * max(0.0, share) if width > narrow else low


def product_kind(a: int, b: int) -> str:
    """Of a product of two numbers with so many bits."""
    wide, narrow = max(a, b), min(a, b)
    if narrow <= 4:
        return f"tree:{max(1, math.ceil(math.log2(max(narrow, 2))))}"
    big, small = DSP_WIDTHS
    blocks = math.ceil(wide / big) * math.ceil(narrow / small)
    return f"product:{min(blocks - 1, 3)}"


ModelTiming = Callable[[str, int], Timing]
