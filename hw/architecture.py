"""The engine's sizes, chosen for a target and held to what the kernels can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from hw.target import Target
from spvit.errors import ConfigError
from spvit.schema import Choice, Items, Whole, check_fields

PORT_LANES = 8  # int16 lanes of a 128-bit port
PARAM_LANES = 4  # a column's bias and shift in the weight stream, as int16
FIFO_WORDS = 4096
FIFO_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
URAM_MEMORIES = ("x", "work", "weights")  # wide and deep enough for 4096 x 72 bits: two memories and the weight FIFO
TILE_SIZES = (8, 16, 32, 64, 128)
INNER_PRODUCTS = ("fast", "direct")


@dataclass(frozen=True)
class Architecture:
    """Sizes of the matrix engine and its supply of weights.

    tile_in        activations that enter per cycle
    tile_out       sums that leave per cycle
    inner_product  `fast` (Winograd: tile_in * tile_out / 2 multipliers) or `direct`
    weight_ports   128-bit AXI ports that stream weights
    fifo_words     words of the weight stream that wait for their tile
    uram           memories in UltraRAM, of URAM_MEMORIES; the others are in block RAM
    """

    tile_in: Annotated[int, Choice(*TILE_SIZES)] = 64
    tile_out: Annotated[int, Choice(*TILE_SIZES)] = 64
    inner_product: Annotated[str, Choice(*INNER_PRODUCTS)] = "fast"
    weight_ports: Annotated[int, Whole(1, 64)] = 4
    fifo_words: Annotated[int, Choice(*FIFO_SIZES)] = FIFO_WORDS
    uram: Annotated[tuple[str, ...], Items(Choice(*URAM_MEMORIES), "memories", len(URAM_MEMORIES))] = ()

    def __post_init__(self) -> None:
        try:
            check_fields(self)
        except ConfigError as error:
            raise ConfigError(f"[engine] {error}") from None
        if self.tile_in % self.fill_lanes or self.tile_out * PARAM_LANES % self.fill_lanes:
            raise ConfigError(
                f"[engine] {self.weight_ports} ports bring {self.fill_lanes} weights per cycle, which must divide "
                f"tile_in={self.tile_in} and {PARAM_LANES} * tile_out={self.tile_out}; use fewer ports"
            )
        object.__setattr__(self, "uram", tuple(name for name in URAM_MEMORIES if name in self.uram))

    @classmethod
    def for_target(cls, target: Target, engine: Mapping[str, int | str]) -> Architecture:
        """The engine that a model's `[engine]` table asks for; without `weight_ports`, with as many as serve it."""
        values: dict[str, Any] = dict(engine)
        if isinstance(names := values.get("uram"), str):  # "x,work"
            values["uram"] = [name.strip() for name in names.split(",")] if names else []
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        if "weight_ports" not in values:
            sizes = cls(**{name: value for name, value in values.items() if name.startswith("tile_")}, weight_ports=1)
            values["weight_ports"] = most_ports(sizes.tile_in, sizes.tile_out, target.ports)
        architecture = cls(**values)
        if architecture.weight_ports > target.ports:
            raise ConfigError(
                f"[engine] weight_ports={architecture.weight_ports} is more than {target.name} has: {target.ports}"
            )
        if architecture.uram and not target.uram:
            raise ConfigError(
                f"[engine] uram={','.join(architecture.uram)!r}: {target.name} has no UltraRAM; leave it out"
            )
        return architecture

    @property
    def word(self) -> int:
        """Lanes of a memory word."""
        return max(self.tile_in, self.tile_out)

    @property
    def group(self) -> int:
        """Lanes of a memory's unit of access."""
        return min(self.tile_in, self.tile_out)

    @property
    def fill_lanes(self) -> int:
        """Weights that the ports bring per cycle."""
        return self.weight_ports * PORT_LANES

    @property
    def multipliers(self) -> int:
        """In the array."""
        return self.tile_in * self.tile_out // (2 if self.inner_product == "fast" else 1)

    @property
    def is_fast(self) -> bool:
        return self.inner_product == "fast"


def most_ports(tile_in: int, tile_out: int, available: int) -> int:
    """The most weight ports that serve a tile: what they bring per cycle is a part of its columns and parameters."""
    ports = available
    while ports > 1 and (tile_in % (ports * PORT_LANES) or tile_out * PARAM_LANES % (ports * PORT_LANES)):
        ports -= 1
    return ports
