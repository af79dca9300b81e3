"""How long operators and loops take: the assumptions under every cycle that is counted, in one table with sources.

No synthesis has confirmed them; a csynth report that says otherwise is right. Cycles are those of the accelerator's
clock, at most 200 MHz (5 ns) on a speed grade -2 UltraScale+.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hw.architecture import FIFO_WORDS, Architecture
from hw.target import PORT_EFFICIENCY, Target


@dataclass(frozen=True)
class Operator:
    cycles: int
    source: str


OPERATORS = {
    "memory": Operator(2, "UG573: block RAM read with its output register"),
    "large memory": Operator(3, "UG573: UltraRAM read with its cascade and output registers"),
    "table": Operator(2, "as a block RAM; distributed ROMs are one cycle faster"),
    "product": Operator(4, "UG579: DSP48E2 with A/B, AD, M and P registers"),
    "wide product": Operator(5, "UG579: two cascaded DSP48E2, one register more"),
    "add": Operator(1, "UG574: 48 bits are six CARRY8, below 2 ns; DS925"),
    "shift": Operator(1, "48-bit barrel shifter: three levels of LUT6, below 3 ns"),
    "requantize": Operator(3, "shift, add the rounding, saturate: one cycle each"),
    "select": Operator(1, "a multiplexer before a register"),
    "broadcast": Operator(2, "activations to 64 columns: a register per group of 8 columns"),
    "fifo": Operator(2, "block RAM FIFO: a word can be read two cycles after it was written"),
    "axi read": Operator(64, "assumed: 320 ns from request to first beat; what the interface pragmas tell Vitis HLS"),
    "axi write": Operator(64, "assumed, as for reads: until the response"),
    "loop entry": Operator(3, "assumed: a state for the call, one for bounds, one to enter the pipeline"),
}

BURST_BEATS = 16
"""AXI3 ports of the Zynq UltraScale+ (UG1085)."""
POSITION_LANES = 16
"""Of X, that are loaded per cycle (kPositionLanes)."""
OUTSTANDING_READS = 16
"""Per port: what the interface pragmas ask for."""
STRIPE_WORDS = 64
"""FIFO behind each port (weight_stream.hpp)."""
COST_FRACTION = 256
"""The memory's time is counted in 1/256 cycles."""
RMW_CYCLES = 8
"""Shortest tile (kRmwCycles)."""
PACKAGE_SUM_CYCLES = 4
"""The packager takes as many for a row at least (kPackageSumCycles)."""
COLUMNS_PER_GROUP = 8
"""That share the registers of a broadcast (kColumnsPerGroup)."""
MARGIN = 1.5
"""Of kPipelineCycles over the expected depth of ENGINE: if synthesis makes it deeper, the results are wrong."""


def cycles(*names: str) -> int:
    """Of operators one behind the other."""
    return sum(OPERATORS[name].cycles for name in names)


def engine_depth(architecture: Architecture) -> int:
    """Of the loop ENGINE, from a token's address to its result's place in memory, along the longest path.

    Not below what the kernels do: sums count as trees of two operands, though they add three at a time, and the bias as
    an addition of its own, though it enters with the products.
    """
    inputs = architecture.tile_in // 2 if architecture.is_fast else architecture.tile_in
    read = cycles("add", "large memory" if {"x", "work"} & set(architecture.uram) else "memory", "select")
    variance = cycles("wide product", "add", "add")
    reciprocal_sqrt = cycles("shift", "shift", "table", "product", "requantize")
    prologue = variance + reciprocal_sqrt + cycles("wide product", "requantize", "select")
    array = (
        cycles("broadcast", "add", "product", "add") + _tree(inputs)
        if architecture.is_fast
        else (cycles("broadcast", "product") + _tree(inputs))
    )
    accumulate = cycles("add", "select")
    epilogue = cycles("shift", "add", "add", "requantize")  # bias, residual
    gelu = cycles("shift", "table", "product", "add", "requantize")
    statistics = _tree(architecture.tile_out) + cycles("add", "select")
    return read + prologue + array + accumulate + epilogue + gelu + statistics


def pipeline_cycles(architecture: Architecture) -> int:
    """kPipelineCycles: how long a pass's last tile lasts at least; the depth of ENGINE and a margin, in eights."""
    return max(RMW_CYCLES, int(-(-engine_depth(architecture) * MARGIN // 8)) * 8)


def loop_depths(architecture: Architecture) -> dict[str, int]:
    """Of every pipelined loop, by its label: cycles from an iteration's begin to its end."""
    sigmoid = cycles("shift", "table", "product", "requantize")
    divide = cycles("requantize", "wide product", "requantize")
    reciprocal = cycles("shift", "shift", "table", "product", "requantize")
    return {
        "ENGINE": engine_depth(architecture),
        "LOAD_HEADER": cycles("select", "select"),
        "LOAD_PROGRAM": cycles("select", "select", "select"),
        "CHECK_PROGRAM": cycles("memory", "add", "add", "product", "add", "select"),
        "LOAD_INPUTS": cycles("select", "select", "product", "memory") + _tree(position_lanes(architecture)),
        "LOAD_POSITION": cycles("select", "select", "product", "memory") + _tree(position_lanes(architecture)),
        "POOL_FEATURES": cycles("select", "select") + divide,
        "DECIDE": cycles("memory", "select") + sigmoid + cycles("product", "add", "wide product", "add")
        + reciprocal + divide,
        "COMPACT": cycles("memory", "select", "product", "add", "select"),
        "WRITE_PACKAGE": cycles("memory", "select") + divide + cycles("add", "product", "add", "memory"),
        "KEEP_FLAGS": cycles("memory", "select", "axi write"),
        "LOGITS": cycles("memory", "select", "axi write"),
        "DISCARD": cycles("select"),
        "READ_PORT": cycles("select", "select"),
        "READ_IMAGE": cycles("select", "select"),
        "JOIN_PORTS": cycles("select", "select"),
        "CHECKSUM": cycles("select", "select", "select") + _tree(architecture.fill_lanes) - _tree(8),  # words are XORed
    }  # fmt: skip


def position_lanes(architecture: Architecture) -> int:
    """Of X, that are loaded per cycle."""
    return min(architecture.fill_lanes, POSITION_LANES)


def memory_spans() -> dict[tuple[str, str], int]:
    """(loop, array): cycles from a read to when what that iteration writes can be read, where it is less than the whole
    pipeline: read, change, write."""
    rmw = cycles("memory", "add", "select")
    return {
        ("ENGINE", "accumulators"): rmw,
        ("ENGINE", "exp_sum"): rmw,
        ("ENGINE", "partial_row_statistics"): rmw,
        ("ENGINE", "partial_head_statistics"): rmw,
        ("ENGINE", "partial_score_max"): rmw,
        ("COMPACT", "package_sum"): rmw,
    }


@dataclass(frozen=True)
class Assumptions:
    """What the clock takes for granted.

    beat_cost        1/256 cycles of the memory per beat of a weight port
    read_latency     cycles from a burst's request to its first beat
    outstanding      bursts that a port may have requested
    stream_latency   cycles from a word's write to its read
    loop_entry       cycles to start a loop
    depths           of each pipelined loop
    spans            (loop, memory): cycles of read, change, write
    scale_percent    of the kernels' own kPipelineCycles and kRmwCycles
    fifo_words       of the weight FIFO
    """

    beat_cost: int
    read_latency: int
    write_latency: int
    burst_beats: int
    outstanding: int
    stream_latency: int
    loop_entry: int
    depths: Mapping[str, int]
    spans: Mapping[tuple[str, str], int]
    scale_percent: int = 100
    fifo_words: int = FIFO_WORDS

    def with_bandwidth(self, factor: float) -> Assumptions:
        """Memory that is so many times as fast."""
        return replace(self, beat_cost=round(self.beat_cost / factor))

    def with_deeper_pipelines(self, factor: int = 2) -> Assumptions:
        """Every loop, and each read-change-write of ENGINE, so many times as deep; the kernels' constants with them."""
        return replace(
            self,
            depths={loop: factor * depth for loop, depth in self.depths.items()},
            spans={key: factor * span if key[0] == "ENGINE" else span for key, span in self.spans.items()},
            scale_percent=factor * self.scale_percent,
        )


def assumptions(architecture: Architecture, target: Target) -> Assumptions:
    """The table of `hw.model.latency`, and what the target's memory and the weight ports bring, whichever is less."""
    memory = target.bandwidth_gbps * 1e3 / (architecture.port_bits / 8 * target.clock_mhz)
    beats_per_cycle = min(memory, PORT_EFFICIENCY * architecture.weight_ports)
    return Assumptions(
        beat_cost=round(COST_FRACTION / beats_per_cycle),
        read_latency=cycles("axi read"),
        write_latency=cycles("axi write"),
        burst_beats=BURST_BEATS,
        outstanding=OUTSTANDING_READS,
        stream_latency=cycles("fifo"),
        loop_entry=cycles("loop entry"),
        depths=loop_depths(architecture),
        spans=memory_spans(),
        fifo_words=architecture.fifo_words,
    )


def _tree(operands: int) -> int:
    """Cycles of a tree of adders."""
    return max(operands - 1, 0).bit_length() * OPERATORS["add"].cycles
