"""What could be done where the weight stream is the limit: `spvit means --model deit_s --target zcu102`.

Enters: the build's arguments (`quant.build`), the quantized network that `make hls` left. Leaves a table: what each
means would win by the closed form, and what it would cost. docs/weight_stream.md draws the conclusions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hw.architecture import FIFO_SIZES, Architecture
from hw.generate import make_design
from hw.layout import Design, Layout
from hw.model.cycles import Pass, Walk
from hw.model.estimate import Estimate, make_estimate
from hw.model.latency import Assumptions, assumptions
from hw.model.memory import bram36, on_chip_arrays
from hw.model.resources import HEADROOM
from hw.options import ClockedOptions
from hw.program import Op, Weights
from hw.target import Target, resolve_target, with_clock
from hw.weights import step_tiles
from quant.build import model_spec, network_folder
from quant.network import load_network
from spvit.console import Console, Table, stage

PL_DDR_GBPS = 3.6
"""The ZCU102's second memory, on the programmable logic's side: 16 bits of DDR4-2400, 4.8 GB/s in theory (UG1182), at
75% as its first."""
GROUP_LANES = 8
"""Weights that share a width, at the finest."""
HEADER_BITS = 4
"""That say how wide a group of packed weights is."""
WEIGHT_BITS = 16


@dataclass(frozen=True)
class Means:
    """One of them: milliseconds per image, and what it takes."""

    name: str
    latency_ms: float
    takes: str


class TwoImages(Walk):
    """Two images with equal token counts, for each pass over the weights.

    A tile of streamed weights stays for both images' tokens. Keys and values are each image's own, so attention's tiles
    come twice, as do the loops beside the engine.
    """

    def tile(self, one: Pass, words: int, taken: int, count: int, least: int, front: int = 0) -> None:
        if one.taken:
            super().tile(replace(one, rows=2 * one.rows), words, taken, count, least, front)
            return
        super().tile(one, one.words, 0, count, least)
        super().tile(one, words, taken, count, least, front)

    def other(self, count: float) -> None:
        super().other(2 * count)


def two_images_ms(estimate: Estimate, assumed: Assumptions) -> float:
    """Of each of the two."""
    walk = TwoImages(estimate.program, estimate.layout, estimate.spec.pruning, assumed)
    walk.image(estimate.kept)
    cycles = sum(step.total for step in walk.steps)
    return cycles / 2 / estimate.target.clock_mhz / 1e3


def two_images_bram36(layout: Layout) -> float:
    """With every memory of activations twice as deep; weights wait, and functions are tabulated, once."""
    doubled = [
        array if array.name.startswith(("weight FIFO", "table", "program")) else replace(array, depth=2 * array.depth)
        for array in on_chip_arrays(layout)
    ]
    more = sum(array.bram18 for array in doubled) - sum(array.bram18 for array in on_chip_arrays(layout))
    return bram36(layout) + more / 2


# --- lossless packing ---


def tiles(design: Design) -> Iterator[NDArray[np.int16]]:
    """Every tile of the stream, parameters left out. [tile_out, tile_in]"""
    architecture = design.architecture
    for step in design.program.steps:
        if step.op is Op.ENGINE and step.weights is Weights.STREAM:
            yield from step_tiles(design, step).reshape(-1, architecture.tile_out, architecture.tile_in)


def width(values: NDArray[np.int16]) -> NDArray[np.int64]:
    """Bits of two's complement that hold each row's values. [..., n] -> [...]"""
    wide = values.astype(np.int64)
    magnitude = np.where(wide < 0, ~wide, wide).max(axis=-1)
    bits: NDArray[np.int64] = 1 + np.ceil(np.log2(magnitude + 1)).astype(np.int64)
    return bits


def packed_shares(design: Design) -> dict[str, float]:
    """What is left of the weights' bits, by how many of them share a width; at best, each has a prefix code of its own.

    The last is a bound: the length's entropy and the bits behind the first.
    """
    sums = {"by tile": 0.0, "by column": 0.0, f"by {GROUP_LANES} weights": 0.0, "by Huffman code": 0.0}
    lengths = np.zeros(WEIGHT_BITS + 1, np.int64)
    total = 0
    for tile in tiles(design):
        total += tile.size
        sums["by tile"] += float(width(tile.reshape(1, -1))[0]) * tile.size + HEADER_BITS
        sums["by column"] += float((width(tile) * tile.shape[1] + HEADER_BITS).sum())
        sums[f"by {GROUP_LANES} weights"] += float(
            (width(tile.reshape(-1, GROUP_LANES)) * GROUP_LANES + HEADER_BITS).sum()
        )
        lengths += np.bincount(width(tile.reshape(-1, 1)), minlength=WEIGHT_BITS + 1)
    share = lengths[lengths > 0] / total
    entropy = -float((share * np.log2(share)).sum())
    raw = float((lengths * np.maximum(np.arange(WEIGHT_BITS + 1) - 1, 0)).sum()) / total
    sums["by Huffman code"] = (entropy + raw) * total
    return {name: bits / (WEIGHT_BITS * total) for name, bits in sums.items()}


# --- all of them ---


def evaluate(estimate: Estimate, design: Design) -> list[Means]:
    """Each by itself."""
    architecture, target = estimate.layout.architecture, estimate.target
    assumed = assumptions(architecture, target)

    def latency(other: Assumptions) -> float:
        return estimate.with_assumed(other).latency_ms(target.clock_mhz)

    found = [Means("as it is", estimate.latency_ms, _bram(estimate.layout, target))]
    for words in FIFO_SIZES:
        if words > architecture.fifo_words:
            deeper = Layout(estimate.spec.model, replace(architecture, fifo_words=words))
            found.append(
                Means(f"FIFO of {words:,} words", latency(replace(assumed, fifo_words=words)), _bram(deeper, target))
            )
    for name, share in packed_shares(design).items():
        found.append(Means(f"packed {name}", latency(assumed.with_bandwidth(1 / share)), f"{1 - share:.1%} fewer bits"))
    more = (target.bandwidth_gbps + PL_DDR_GBPS) / target.bandwidth_gbps
    found.append(
        Means("PL-side DDR4 beside", latency(assumed.with_bandwidth(more)), f"{PL_DDR_GBPS:g} GB/s, a controller")
    )
    found.append(Means("memory without limit", latency(replace(assumed, beat_cost=1)), "what filling tiles leaves"))
    brams = two_images_bram36(estimate.layout)
    takes = f"{brams:g} BRAM36, {brams / target.bram36:.0%}; latency doubles"
    found.append(Means("two images per pass", two_images_ms(estimate, assumed), takes))
    return found


def _bram(layout: Layout, target: Target) -> str:
    share = bram36(layout) / target.bram36
    return f"{bram36(layout):g} BRAM36, {share:.0%}" + ("" if share <= HEADROOM["bram36"] else ": tight")


def show(estimate: Estimate, found: Sequence[Means], console: Console) -> None:
    """The table, for people."""
    target = estimate.target
    title = (
        f"{estimate.spec.model.name} on {target.name} at {target.clock_mhz:g} MHz, kept {list(estimate.kept)}: estimate"
    )
    table = Table(title, "means", (("latency", "ms"), ("faster", "%"), "takes"), left=[2])
    for one in found:
        faster = 100 * (1 - one.latency_ms / estimate.latency_ms)
        table.add_row(one.name, f"{one.latency_ms:.3f}", f"{faster:.1f}", one.takes)
    console.print(table)


def run(args: ClockedOptions) -> None:
    spec, target = model_spec(args), with_clock(resolve_target(args.target), args.clock)
    design = make_design(load_network(network_folder(args)), Architecture.for_target(target, spec.engine))
    estimate = make_estimate(spec, target)
    with stage("packing the weights, and evaluating each means"):
        found = evaluate(estimate, design)
    show(estimate, found, Console())
