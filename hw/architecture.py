"""The engine's sizes, chosen for a target and held to what the kernels can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from hw.target import PORT_EFFICIENCY, Target
from spvit.errors import ConfigError
from spvit.schema import Choice, Items, Whole, check_fields

WEIGHT_BITS = 16
PARAM_LANES = 4  # a column's bias and shift in the weight stream, as int16
FIFO_WORDS = 4096
PORT_BITS = (128, 256, 512)
FILL_LANES = (8, 16, 32, 64, 128)
MOST_FILL_LANES = 64
"""That are chosen: beyond them a bus costs more than it brings."""
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
    weight_ports   AXI ports that stream weights
    port_bits      of each
    fill_lanes     weights that enter a tile per cycle, a word of the stream: one beat of all ports, or more of them;
                   0: one
    fifo_words     words of the weight stream that wait for their tile
    uram           memories in UltraRAM, of URAM_MEMORIES; the others are in block RAM
    """

    tile_in: Annotated[int, Choice(*TILE_SIZES)] = 64
    tile_out: Annotated[int, Choice(*TILE_SIZES)] = 64
    inner_product: Annotated[str, Choice(*INNER_PRODUCTS)] = "fast"
    weight_ports: Annotated[int, Whole(1, 64)] = 4
    fifo_words: Annotated[int, Choice(*FIFO_SIZES)] = FIFO_WORDS
    uram: Annotated[tuple[str, ...], Items(Choice(*URAM_MEMORIES), "memories", len(URAM_MEMORIES))] = ()
    port_bits: Annotated[int, Choice(*PORT_BITS)] = 128
    fill_lanes: Annotated[int, Choice(0, *FILL_LANES)] = 0

    def __post_init__(self) -> None:
        try:
            check_fields(self)
        except ConfigError as error:
            raise ConfigError(f"[engine] {error}") from None
        brought = self.weight_ports * self.port_lanes
        if not serves(brought, self.tile_in, self.tile_out):
            raise ConfigError(
                f"[engine] {self.weight_ports} ports bring {brought} weights per cycle, which must divide "
                f"tile_in={self.tile_in} and {PARAM_LANES} * tile_out={self.tile_out}; use fewer ports"
            )
        if self.fill_lanes == 0:
            object.__setattr__(self, "fill_lanes", brought)
        if self.fill_lanes % brought or not serves(self.fill_lanes, self.tile_in, self.tile_out):
            raise ConfigError(
                f"[engine] fill_lanes={self.fill_lanes} must be a multiple of the {brought} weights that "
                f"{self.weight_ports} ports bring, and divide tile_in={self.tile_in} and "
                f"{PARAM_LANES} * tile_out={self.tile_out}; leave it out"
            )
        object.__setattr__(self, "uram", tuple(name for name in URAM_MEMORIES if name in self.uram))

    @classmethod
    def for_target(cls, target: Target, engine: Mapping[str, int | str]) -> Architecture:
        """The engine that a model's `[engine]` table asks for. What it leaves out of the weights' way is chosen: a fill
        as wide as the tile allows, ports as narrow as bring what the memory is planned with, as many as serve it.
        """
        values: dict[str, Any] = dict(engine)
        if isinstance(names := values.get("uram"), str):  # "x,work"
            values["uram"] = [name.strip() for name in names.split(",")] if names else []
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        sizes = cls(**{name: value for name, value in values.items() if name.startswith("tile_")}, weight_ports=1)
        if "fill_lanes" not in values:
            values["fill_lanes"] = most_fill_lanes(sizes.tile_in, sizes.tile_out)
        values |= _ports(target, values)
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
    def port_lanes(self) -> int:
        """Weights in a port's beat."""
        return self.port_bits // WEIGHT_BITS

    @property
    def stripe_lanes(self) -> int:
        """Weights of a word that come through one port."""
        return self.fill_lanes // self.weight_ports

    @property
    def beats_per_word(self) -> int:
        """Of each port."""
        return self.stripe_lanes // self.port_lanes

    @property
    def multipliers(self) -> int:
        """In the array."""
        return self.tile_in * self.tile_out // (2 if self.inner_product == "fast" else 1)

    @property
    def is_fast(self) -> bool:
        return self.inner_product == "fast"


def serves(lanes: int, tile_in: int, tile_out: int) -> bool:
    """Whether so many weights at a time are a part of a tile's columns and of its parameters."""
    return tile_in % lanes == 0 and tile_out * PARAM_LANES % lanes == 0


def most_fill_lanes(tile_in: int, tile_out: int) -> int:
    return max(lanes for lanes in FILL_LANES if lanes <= MOST_FILL_LANES and serves(lanes, tile_in, tile_out))


def most_ports(fill_lanes: int, available: int, port_bits: int = PORT_BITS[0]) -> int:
    """The most weight ports whose beats make up a word of the stream; 0: one of them is too wide."""
    beat = port_bits // WEIGHT_BITS
    return max((ports for ports in range(1, available + 1) if fill_lanes % (ports * beat) == 0), default=0)


def _ports(target: Target, values: Mapping[str, Any]) -> dict[str, int]:
    """How many ports, and how wide, where `values` leave it out: the narrowest that bring what the memory is planned to
    deliver, or else the most."""
    best, most = {}, 0.0
    for bits in [values["port_bits"]] if "port_bits" in values else PORT_BITS:
        if bits not in PORT_BITS or values["fill_lanes"] not in FILL_LANES:
            return {}  # refused by the architecture
        ports = values.get("weight_ports", most_ports(values["fill_lanes"], target.ports, bits))
        if not isinstance(ports, int) or ports < 1 or values["fill_lanes"] % (ports * bits // WEIGHT_BITS):
            continue
        brought = min(ports * bits / 8 * target.clock_mhz / 1e3 * PORT_EFFICIENCY, target.bandwidth_gbps)
        if brought > most:
            best, most = {"weight_ports": ports, "port_bits": bits}, brought
    return best
