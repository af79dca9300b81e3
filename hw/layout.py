"""Where everything lies on chip, lane by lane: the one place that knows of padding.

The embedding is stored head by head, each head padded to whole memory words; all else lies as it is and is padded at
its end. Padding lanes of weights are zero, so what stands in padding lanes of activations never matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.architecture import Architecture
from hw.program import Buffer, Op, Program, Step
from quant.network import QuantizedNetwork
from spvit.config import ModelConfig
from spvit.errors import ConfigError

NUM_BANKS = 4
MAX_CHANNELS = 2047  # of a row: LayerNorm sums them in 27 bits, their squares in 42
MAX_ROWS = 1023  # the package's sum, of products with 37 bits, has 48
MAX_HEADS = 255  # the token selector sums their weights, of 16 bits, in 24
MAX_SELECTORS = 4
BUFFER_BANK = {
    Buffer.PATCHES: 0,
    Buffer.Q: 0,
    Buffer.CONTEXT: 0,
    Buffer.K: 1,
    Buffer.SCORES: 2,
    Buffer.HIDDEN: 0,
    Buffer.FEATURES: 0,
    Buffer.FC1: 1,
    Buffer.FC2: 2,
    Buffer.TOKEN_SCORES: 3,
    Buffer.BRANCH_HIDDEN: 0,
    Buffer.BRANCH: 1,
    Buffer.LOGITS: 0,
}
EMBEDDED = (Buffer.X, Buffer.Q, Buffer.K, Buffer.V, Buffer.CONTEXT)


@dataclass(frozen=True)
class Layout:
    """Sizes of the on-chip memories in lanes (int16) and rows (tokens)."""

    model: ModelConfig
    architecture: Architecture

    def __post_init__(self) -> None:
        model = self.model
        for name, value, largest in (
            ("embed_dim", model.embed_dim, MAX_CHANNELS),
            ("num_heads", model.num_heads, MAX_HEADS),
            ("num_tokens", model.num_tokens, MAX_ROWS),
        ):
            if value > largest:
                raise ConfigError(
                    f"{model.name}: {name}={value} overflows the engine's sums; it has room for {largest}"
                )

    @property
    def rows(self) -> int:
        """A package only joins when at least one token left, so there are never more rows than at first."""
        return self.model.num_tokens

    @property
    def head_lanes(self) -> int:
        return _round_up(self.model.head_dim, self.architecture.word)

    @property
    def embed_lanes(self) -> int:
        return self.head_lanes * self.model.num_heads

    @property
    def bank_lanes(self) -> int:
        """One of WORK's four banks: Q, K or the scores fit one, hidden layer and patches all four.

        The logits are one row's: they may run on, in the last bank, over the rows behind it.
        """
        word, model = self.architecture.word, self.model
        row = _ceil_div(max(model.hidden_dim, model.patch_size**2 * model.in_chans), NUM_BANKS)
        logits = _ceil_div(_round_up(model.num_classes, word), NUM_BANKS - 1 + self.rows)
        return max(self.embed_lanes, *(_round_up(lanes, word) for lanes in (self.rows, row, logits)))

    @property
    def max_steps(self) -> int:
        """Of the program: a few token selectors more or less are no other design."""
        heads, passes = self.model.num_heads, 6  # beside the heads': K, V, Q, projection, MLP
        blocks = self.model.depth * (passes + 2 * heads)
        selectors = MAX_SELECTORS * (5 * heads + 8)
        return _round_up(2 + blocks + selectors, 256)

    @property
    def image_lanes(self) -> int:
        """Pixels per word of the image port: the largest power of two that cuts a patch's line evenly."""
        lanes = min(16, self.architecture.group)
        while self.model.patch_size * self.model.in_chans % lanes:
            lanes //= 2
        return lanes

    def first_lane(self, buffer: Buffer, head: int | None = None) -> int:
        """Of a buffer, or of one head's part of it, within a row of its memory."""
        lane = 0 if buffer in (Buffer.X, Buffer.V) else BUFFER_BANK[buffer] * self.bank_lanes
        if head is None:
            return lane
        if buffer in EMBEDDED:
            return lane + head * self.head_lanes
        return lane + head * self.architecture.word if buffer is Buffer.TOKEN_SCORES else lane

    def in_columns(self, step: Step) -> NDArray[np.int64]:
        """Lane of each input feature, from the step's first source lane on."""
        if step.source in EMBEDDED and step.head is None:
            copies = range(step.in_features // self.model.embed_dim) if step.in_features else range(0)
            return np.concatenate([self.embedding() + copy * self.embed_lanes for copy in copies])
        return np.arange(self.rows if step.in_features is None else step.in_features)

    def out_columns(self, step: Step) -> NDArray[np.int64]:
        """Lane of each output feature, from the step's first destination lane on."""
        if step.op is Op.PACKAGE or (step.dest in EMBEDDED and step.head is None and step.op is Op.ENGINE):
            return self.embedding()
        if step.op is Op.DECIDE:
            return np.arange(2)  # keep, probability
        return np.arange(self.rows if step.out_features is None else step.out_features)

    def in_tiles(self, step: Step) -> int:
        """Tiles of input features; 0 where the tokens are the input."""
        if step.in_features is None:
            return 0
        return _ceil_div(int(self.in_columns(step)[-1]) + 1, self.architecture.tile_in)

    def out_tiles(self, step: Step) -> int:
        """Tiles of output features; 0 where the tokens are the output."""
        if step.out_features is None:
            return 0
        if step.dest in EMBEDDED and step.head is None:
            return self.embed_lanes // self.architecture.tile_out  # whole rows: their padding stays zero
        return _ceil_div(step.out_features, self.architecture.tile_out)

    def trace_lanes(self, step: Step) -> int:
        """Lanes of what a step leaves, padding included."""
        if step.op is Op.ENGINE:
            tile_out = self.architecture.tile_out
            return (self.out_tiles(step) or _ceil_div(self.rows, tile_out)) * tile_out
        return {Op.POOL: self.head_lanes, Op.DECIDE: 2, Op.PACKAGE: self.embed_lanes}[step.op]

    def embedding(self) -> NDArray[np.int64]:
        """Lane of each channel of the embedding. [C]"""
        channel = np.arange(self.model.embed_dim)
        return channel // self.model.head_dim * self.head_lanes + channel % self.model.head_dim


@dataclass(frozen=True)
class Design:
    """All that is rendered: network, engine, program and layout belong together."""

    network: QuantizedNetwork
    architecture: Architecture
    program: Program
    layout: Layout


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _round_up(a: int, b: int) -> int:
    return _ceil_div(a, b) * b
