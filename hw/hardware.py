"""A design is hardware: an engine, and what it has room for. Which network runs on it is data.

By default the capacities are a model's own sizes. A family of models shares a file of `designs/`, or one of the user's:

    [capacities]   every field of `Capacities`
    [engine]       as in a model's file; without it, the target's
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from hw.architecture import Architecture
from hw.target import Target
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import ConfigError
from spvit.files import read_toml
from spvit.model_config import MOST_BLOCKS
from spvit.schema import Whole, check_fields, from_table, shown, shown_text

DESIGNS = Path(__file__).with_name("designs")
NUM_BANKS = 4
MAX_CHANNELS = 2047  # of a row: LayerNorm sums them in 27 bits, their squares in 42
MAX_ROWS = 1023  # the package's sum, of products with 37 bits, has 48
MAX_HEADS = 255  # the token selector sums their weights, of 16 bits, in 24
LEAST_SELECTORS = 4
"""A few token selectors more or less are no other design: each costs some words of the status buffer."""
MOST = Whole(1, 2**24)


@dataclass(frozen=True)
class Capacities:
    """Of each size the largest that fits.

    num_tokens     rows of X: prefix and patches
    hidden_dim     of the MLP
    patch_dim      pixels of a patch, of all channels
    line_dim       pixels of a patch's line, of all channels: what fits is a multiple of the image port's word
    image_dim      pixels of an image, of all channels
    num_selectors  token selectors
    num_blocks     of the encoder: for the step table, and the weight ports' depth in co-simulation
    """

    num_tokens: Annotated[int, Whole(2, MAX_ROWS)]
    embed_dim: Annotated[int, Whole(1, MAX_CHANNELS)]
    num_heads: Annotated[int, Whole(1, MAX_HEADS)]
    head_dim: Annotated[int, Whole(1, MAX_CHANNELS)]
    hidden_dim: Annotated[int, MOST]
    patch_dim: Annotated[int, MOST]
    line_dim: Annotated[int, MOST]
    image_dim: Annotated[int, MOST]
    num_classes: Annotated[int, MOST]
    num_selectors: Annotated[int, Whole(0, MOST_BLOCKS)]
    num_blocks: Annotated[int, Whole(1, MOST_BLOCKS)]

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, model: ModelConfig, num_selectors: int = 0) -> Capacities:
        """A model's own sizes. Raises ConfigError for one that no engine's sums have room for."""
        for name, value, most in (
            ("embed_dim", model.embed_dim, MAX_CHANNELS),
            ("num_heads", model.num_heads, MAX_HEADS),
            ("num_tokens", model.num_tokens, MAX_ROWS),
        ):
            if value > most:
                raise ConfigError(f"{model.name}: {name}={value} overflows the engine's sums; it has room for {most}")
        return cls(
            num_tokens=model.num_tokens,
            embed_dim=model.embed_dim,
            num_heads=model.num_heads,
            head_dim=model.head_dim,
            hidden_dim=model.hidden_dim,
            patch_dim=model.patch_size**2 * model.in_chans,
            line_dim=model.patch_size * model.in_chans,
            image_dim=model.img_size**2 * model.in_chans,
            num_classes=model.num_classes,
            num_selectors=max(LEAST_SELECTORS, num_selectors),
            num_blocks=model.depth,
        )


@dataclass(frozen=True)
class Hardware:
    """A design: its memories' sizes in lanes (int16) and rows (tokens) follow."""

    architecture: Architecture
    capacities: Capacities

    @property
    def rows(self) -> int:
        """Most tokens. A package only joins when at least one token left, so there are never more than at first."""
        return self.capacities.num_tokens

    @property
    def head_lanes(self) -> int:
        return round_up(self.capacities.head_dim, self.architecture.word)

    @property
    def embed_lanes(self) -> int:
        """From one row of X to the next."""
        return self.head_lanes * self.capacities.num_heads

    @property
    def bank_lanes(self) -> int:
        """One of WORK's four banks: Q, K or the scores fit one, hidden layer and patches all four.

        The logits are one row's: they may run on, in the last bank, over the rows behind it.
        """
        word, room = self.architecture.word, self.capacities
        row = ceil_div(max(room.hidden_dim, room.patch_dim), NUM_BANKS)
        logits = ceil_div(round_up(room.num_classes, word), NUM_BANKS - 1 + self.rows)
        return max(self.embed_lanes, *(round_up(lanes, word) for lanes in (self.rows, row, logits)))

    @property
    def image_lanes(self) -> int:
        """Pixels per word of the image port: the largest power of two that cuts a patch's line evenly."""
        lanes = min(16, self.architecture.group)
        while self.capacities.line_dim % lanes:
            lanes //= 2
        return lanes

    @property
    def max_steps(self) -> int:
        """Of the program."""
        room, passes = self.capacities, 6  # beside the heads': K, V, Q, projection, MLP
        blocks = room.num_blocks * (passes + 2 * room.num_heads)
        selectors = room.num_selectors * (5 * room.num_heads + 8)
        return round_up(2 + blocks + selectors, 256)

    @property
    def most_words(self) -> int:
        """Of a weight stream, a power of two above what the capacities can make: as deep are the ports in
        co-simulation."""
        room, lanes = self.capacities, self.embed_lanes
        block = 4 * lanes * lanes + 2 * lanes * room.hidden_dim
        selector = 5 * lanes * self.head_lanes + lanes * lanes
        rest = (room.patch_dim + room.num_tokens + 2 * room.num_classes) * lanes
        weights = room.num_blocks * block + room.num_selectors * selector + rest
        return 1 << (5 * weights // (4 * self.architecture.fill_lanes)).bit_length()

    def misfits(self, model: ModelConfig, pruning: PruningConfig) -> str:
        """What of a network is too large, in words; nothing where it fits: `embed_dim=768 (room for 384), ...`"""
        asked = vars(Capacities.of(model, pruning.num_selectors))
        line = asked.pop("line_dim")
        room = vars(self.capacities)
        found = [f"{name}={size} (room for {room[name]})" for name, size in asked.items() if size > room[name]]
        if line % self.image_lanes:
            found.append(f"a patch's line of {line} pixels (must be a multiple of {self.image_lanes})")
        return ", ".join(found)


def design_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in DESIGNS.glob("*.toml")))


def resolve_design(name: str, target: Target) -> Hardware:
    """The family called `name`, or the one described by the TOML file of that path. Raises ConfigError."""
    is_path = name.lower().endswith(".toml")
    if not is_path and name not in design_names():
        raise ConfigError(
            f"DESIGN={shown_text(name)} is unknown; choose one of {', '.join(design_names())}, or give the path of a "
            ".toml with [capacities]"
        )
    path = Path(name) if is_path else DESIGNS / f"{name}.toml"
    document = read_toml(path, f"DESIGN= takes its path, or one of {', '.join(design_names())}", ConfigError)
    for key, table in document.items():
        if key not in ("capacities", "engine"):
            raise ConfigError(f"{path}: there is no [{shown_text(key)}]; it knows [capacities] and [engine]")
        if not isinstance(table, Mapping):
            raise ConfigError(f"{path}: {key}={shown(table)} must be a table, [{key}]")
    if "capacities" not in document:
        raise ConfigError(f"{path}: [capacities] is missing")
    capacities = from_table(Capacities, document["capacities"], f"{path}: [capacities]")
    engine: dict[str, Any] = dict(document.get("engine", {}))
    try:
        return Hardware(Architecture.for_target(target, engine), capacities)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    return ceil_div(a, b) * b
