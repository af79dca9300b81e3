"""On-chip memories of a design, in block RAMs and UltraRAMs.

An estimate from each array's shape and partitioning and the device's real block shapes; no synthesis has seen it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.hardware import NUM_BANKS, Hardware
from hw.step_table import RECORD_BITS
from quant.functions import (
    EXP_MAX_FRAC_BITS,
    GELU_LIMIT,
    GELU_SEGMENT_BITS,
    reciprocal_table,
    rsqrt_table,
    sigmoid_table,
)

LANE_BITS = 16
GELU_SEGMENTS = GELU_LIMIT << GELU_SEGMENT_BITS
ACCUMULATOR_BITS = 48
STATISTICS_BITS = 27 + 42
BRAM18_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Depth and width of an 18 Kbit block in simple dual port mode (UG573)."""
URAM_SHAPE = (4096, 72)
"""Depth and width of an UltraRAM (UG573)."""
AXI_PORT_WORDS = 256
"""A read adapter's buffer: 16 bursts of 16 beats."""
RESULT_PORT_BITS = 128
"""Of the image's and the result's, at most."""
LUTRAM_DEPTH = 64
"""Shallower arrays go to LUTs."""
LOOK_UPS = {"reciprocal": 4, "rsqrt": 1, "sigmoid": 2}
"""Calls in the kernels, each with a ROM of its own: they stand in functions that run side by side."""


@dataclass(frozen=True)
class Array:
    """`banks` memories of `depth` words of `width` bits.

    kernel  what the kernels call the arrays that it is; none for tables of constants
    """

    name: str
    banks: int
    depth: int
    width: int
    in_uram: bool = False
    kernel: tuple[str, ...] = ()

    @property
    def bram18(self) -> int:
        if self.depth <= LUTRAM_DEPTH or self.in_uram:
            return 0
        blocks = min(-(-self.depth // depth) * -(-self.width // width) for depth, width in BRAM18_SHAPES)
        return self.banks * blocks

    @property
    def uram(self) -> int:
        depth, width = URAM_SHAPE
        return self.banks * -(-self.depth // depth) * -(-self.width // width) if self.in_uram else 0


def on_chip_arrays(layout: Hardware) -> tuple[Array, ...]:
    """Every array that block RAMs or UltraRAMs hold."""
    architecture, heads, uram = layout.architecture, layout.capacities.num_heads, layout.architecture.uram
    word, rows = architecture.word, layout.rows
    group, image_lanes = architecture.group, layout.image_lanes
    key_blocks = -(-rows // word)
    return (
        Array(
            "residual stream",
            word // group,
            rows * layout.embed_lanes // word,
            group * LANE_BITS,
            "x" in uram,
            ("Memory::x",),
        ),
        Array(
            "work",
            NUM_BANKS * (word // image_lanes),
            rows * layout.bank_lanes // word,
            image_lanes * LANE_BITS,
            "work" in uram,
            ("Memory::work",),
        ),
        Array("values, skewed", word, key_blocks * layout.embed_lanes, LANE_BITS, kernel=("Memory::v",)),
        Array("accumulators", 1, rows, architecture.tile_out * ACCUMULATOR_BITS, kernel=("accumulators",)),
        Array("weight FIFO", 1, architecture.fifo_words, architecture.fill_lanes * LANE_BITS, "weights" in uram),
        Array("row statistics, partial too", 2, rows, STATISTICS_BITS, kernel=_both("row_statistics")),
        Array("head statistics, partial too", 2, rows * heads, STATISTICS_BITS, kernel=_both("head_statistics")),
        Array("score maximum, partial too", 2, rows, LANE_BITS, kernel=_both("score_max")),
        Array("sum of exponentials", 1, rows, 27, kernel=("Memory::exp_sum",)),
        Array("keep flags", 1, rows, 2, kernel=("Memory::keep",)),
        Array("probabilities", 1, rows, 24, kernel=("Memory::probability",)),
        Array("program", 1, layout.max_steps, RECORD_BITS, kernel=("Memory::program",)),
        # constant, with two read ports of at most 18 bits: a block serves two lanes
        Array("table of 2^-t", architecture.tile_in // 2, 1 << EXP_MAX_FRAC_BITS, 18),
        Array("tables of GELU: base of 19 bits, slope", architecture.tile_out // 2 * (2 + 1), GELU_SEGMENTS, 18),
        *_lookup_tables(),
    )


def _both(name: str) -> tuple[str, str]:
    return f"Memory::{name}", f"Memory::partial_{name}"


def _lookup_tables() -> Iterator[Array]:
    """Of the interpolated functions that are not in the lanes: base and slope, for each place that looks one up."""
    tables = {"reciprocal": reciprocal_table(), "rsqrt": rsqrt_table(), "sigmoid": sigmoid_table()}
    for name, table in tables.items():
        for part in ("base", "slope"):
            values = getattr(table, part)
            yield Array(f"table of {name}: {part}", LOOK_UPS[name], len(values), _bits(values))


def _bits(values: NDArray[np.int64]) -> int:
    """That hold each of `values`, with a sign where one is negative."""
    least, most = int(values.min()), int(values.max())
    return max(most.bit_length(), (-least - 1).bit_length() if least < 0 else 0) + (least < 0)


def bram18_by_memory(layout: Hardware) -> dict[str, int]:
    """Estimated 18 Kbit blocks of each array, and of the AXI adapters."""
    architecture = layout.architecture
    widths = [architecture.port_bits] * architecture.weight_ports + [RESULT_PORT_BITS] * 2  # image, result
    adapters = sum(Array("AXI adapter", 1, AXI_PORT_WORDS, bits).bram18 for bits in widths)
    return {array.name: array.bram18 for array in on_chip_arrays(layout)} | {"AXI adapters": adapters}


def bram36(layout: Hardware) -> float:
    """Estimated 36 Kbit blocks, AXI adapters included."""
    return sum(bram18_by_memory(layout).values()) / 2


def uram(layout: Hardware) -> int:
    """Estimated UltraRAMs."""
    return sum(array.uram for array in on_chip_arrays(layout))
