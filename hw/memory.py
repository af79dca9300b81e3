"""On-chip memories of a design, in block RAMs, and whether the target has as many.

An estimate from each array's shape and partitioning and the device's real block shapes; no synthesis has seen it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hw.architecture import FIFO_WORDS, Architecture
from hw.layout import NUM_BANKS, Layout
from hw.target import Target
from spvit.config import ModelConfig
from spvit.errors import ConfigError

LANE_BITS = 16
ACCUMULATOR_BITS = 48
STATISTICS_BITS = 27 + 42
BRAM18_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Depth and width of an 18 Kbit block in simple dual port mode (UG573)."""
AXI_PORT_BRAM18 = 4
"""A read adapter's buffer: 16 bursts of 16 words of 128 bits."""
LUTRAM_DEPTH = 64
"""Shallower arrays go to LUTs."""


@dataclass(frozen=True)
class Array:
    """`banks` memories of `depth` words of `width` bits."""

    name: str
    banks: int
    depth: int
    width: int

    @property
    def bram18(self) -> int:
        if self.depth <= LUTRAM_DEPTH:
            return 0
        blocks = min(-(-self.depth // depth) * -(-self.width // width) for depth, width in BRAM18_SHAPES)
        return self.banks * blocks


def on_chip_arrays(layout: Layout) -> tuple[Array, ...]:
    """Every array that block RAMs hold."""
    architecture, heads = layout.architecture, layout.model.num_heads
    word, rows = architecture.word, layout.rows
    group, image_lanes = architecture.group, layout.image_lanes
    key_blocks = -(-rows // word)
    return (
        Array("residual stream", word // group, rows * layout.embed_lanes // word, group * LANE_BITS),
        Array("work", NUM_BANKS * (word // image_lanes), rows * layout.bank_lanes // word, image_lanes * LANE_BITS),
        Array("values, skewed", word, key_blocks * layout.embed_lanes, LANE_BITS),
        Array("accumulators", 1, rows, architecture.tile_out * ACCUMULATOR_BITS),
        Array("weight FIFO", 1, FIFO_WORDS, architecture.fill_lanes * LANE_BITS),
        Array("row statistics, partial too", 2, rows, STATISTICS_BITS),
        Array("head statistics, partial too", 2, rows * heads, STATISTICS_BITS),
        Array("score maximum, partial too", 2, rows, LANE_BITS),
        Array("sum of exponentials", 1, rows, 27),
        Array("keep and probability", 1, rows, 2 + 24),
    )


def bram36(layout: Layout) -> float:
    """Estimated 36 Kbit blocks, AXI adapters included."""
    ports = layout.architecture.weight_ports + 2  # image, result
    return (sum(array.bram18 for array in on_chip_arrays(layout)) + ports * AXI_PORT_BRAM18) / 2


def check_fits(layout: Layout, target: Target) -> None:
    """Raises ConfigError, saying by how much it is too large and what would fit."""
    needed = bram36(layout)
    if needed <= target.bram36:
        return
    model = layout.model
    raise ConfigError(
        f"{model.name} with a {layout.architecture.tile_in}x{layout.architecture.tile_out} engine needs an estimated "
        f"{needed:g} BRAM36 on chip, {target.name} has {target.bram36}: {needed - target.bram36:g} too many; "
        f"{_what_fits(layout, target)}"
    )


def _what_fits(layout: Layout, target: Target) -> str:
    model, architecture = layout.model, layout.architecture
    for image in range(model.img_size - model.patch_size, 0, -model.patch_size):
        smaller = Layout(_replace(model, img_size=image), architecture)
        if bram36(smaller) <= target.bram36:
            return f"it would fit with img_size={image} ({smaller.rows} tokens, {bram36(smaller):g} BRAM36)"
    for heads in range(model.num_heads - 1, 0, -1):
        narrower = Layout(_replace(model, num_heads=heads, embed_dim=heads * model.head_dim), architecture)
        if bram36(narrower) <= target.bram36:
            return f"it would fit with embed_dim={heads * model.head_dim} and num_heads={heads}"
    smallest = Layout(model, Architecture(8, 8, architecture.inner_product, 1))
    return f"not even an 8x8 engine fits ({bram36(smallest):g} BRAM36): choose a larger board"


def _replace(model: ModelConfig, **fields: int) -> ModelConfig:
    return replace(model, **fields)  # type: ignore[arg-type]
