"""The engine's sizes, chosen for a target and held to what the kernels can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hw.target import Target
from spvit.errors import ConfigError

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

    tile_in: int = 64
    tile_out: int = 64
    inner_product: str = "fast"
    weight_ports: int = 4
    fifo_words: int = FIFO_WORDS
    uram: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tile_in", "tile_out"):
            if getattr(self, name) not in TILE_SIZES:
                raise ConfigError(
                    f"[engine] {name}={getattr(self, name)!r} is no size of the engine; "
                    f"choose one of {', '.join(map(str, TILE_SIZES))}"
                )
        if self.inner_product not in INNER_PRODUCTS:
            raise ConfigError(f"[engine] inner_product={self.inner_product!r} is unknown; choose fast or direct")
        if self.weight_ports < 1 or self.tile_in % self.fill_lanes or self.tile_out * PARAM_LANES % self.fill_lanes:
            raise ConfigError(
                f"[engine] {self.weight_ports} ports bring {self.fill_lanes} weights per cycle, which must divide "
                f"tile_in={self.tile_in} and {PARAM_LANES} * tile_out={self.tile_out}; use fewer ports"
            )
        if self.fifo_words not in FIFO_SIZES:
            raise ConfigError(
                f"[engine] fifo_words={self.fifo_words!r} is no depth of the weight FIFO; "
                f"choose one of {', '.join(map(str, FIFO_SIZES))}"
            )
        unknown = [name for name in self.uram if name not in URAM_MEMORIES]
        if unknown:
            raise ConfigError(
                f"[engine] uram={unknown[0]!r} is no memory that UltraRAM can hold; "
                f"choose of {', '.join(URAM_MEMORIES)}"
            )
        object.__setattr__(self, "uram", tuple(name for name in URAM_MEMORIES if name in self.uram))

    @classmethod
    def for_target(cls, target: Target, engine: Mapping[str, int | str]) -> Architecture:
        """The engine that a model's `[engine]` table asks for; without `weight_ports`, with as many as serve it."""
        tile_in = engine.get("tile_in", cls.tile_in)
        tile_out = engine.get("tile_out", cls.tile_out)
        inner_product = engine.get("inner_product", cls.inner_product)
        if not isinstance(tile_in, int) or not isinstance(tile_out, int) or not isinstance(inner_product, str):
            raise ConfigError(f"[engine] {dict(engine)}: tile_in and tile_out are numbers, inner_product is a word")
        fifo_words, uram = engine.get("fifo_words", cls.fifo_words), engine.get("uram", "")
        ports = engine.get("weight_ports", most_ports(tile_in, tile_out, target.ports))
        if not isinstance(fifo_words, int) or not isinstance(ports, int) or not isinstance(uram, str):
            raise ConfigError(
                f'[engine] {dict(engine)}: fifo_words and weight_ports are numbers, uram is names with commas, "x,work"'
            )
        if ports > target.ports:
            raise ConfigError(f"[engine] weight_ports={ports} is more than {target.name} has: {target.ports}")
        if uram and not target.uram:
            raise ConfigError(f"[engine] uram={uram!r}: {target.name} has no UltraRAM; leave it out")
        memories = tuple(name.strip() for name in uram.split(",")) if uram else ()
        return cls(tile_in, tile_out, inner_product, ports, fifo_words, memories)

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
