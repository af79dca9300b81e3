"""Where everything lies on chip, lane by lane: the one place that knows of padding.

The embedding is stored head by head, each head padded to whole memory words; all else lies as it is and is padded at
its end. Padding lanes of weights are zero, so what stands in padding lanes of activations never matters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.architecture import Architecture
from hw.hardware import Capacities, Hardware, ceil_div
from hw.program import Buffer, Op, Program, Step
from quant.network import QuantizedNetwork
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import ConfigError

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


@dataclass(frozen=True, init=False)
class Layout(Hardware):
    """A model's place in a design's memories.

    capacities  by default the model's own sizes
    Raises ConfigError for a model that is too large.
    """

    model: ModelConfig

    def __init__(self, model: ModelConfig, architecture: Architecture, capacities: Capacities | None = None) -> None:
        super().__init__(architecture, capacities or Capacities.of(model))
        object.__setattr__(self, "model", model)
        if found := self.misfits(model, PruningConfig().without()):
            raise ConfigError(f"{model.name} does not fit the design: {found}")

    @property
    def model_lanes(self) -> int:
        """Of a row of X, that the model's heads fill."""
        return self.head_lanes * self.model.num_heads

    @property
    def image_words(self) -> int:
        """Of the model's image."""
        return self.model.img_size**2 * self.model.in_chans // self.image_lanes

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
        return np.arange(self.model.num_tokens if step.in_features is None else step.in_features)

    def out_columns(self, step: Step) -> NDArray[np.int64]:
        """Lane of each output feature, from the step's first destination lane on."""
        if step.op is Op.PACKAGE or (step.dest in EMBEDDED and step.head is None and step.op is Op.ENGINE):
            return self.embedding()
        if step.op is Op.DECIDE:
            return np.arange(2)  # keep, probability
        return np.arange(self.model.num_tokens if step.out_features is None else step.out_features)

    def in_tiles(self, step: Step) -> int:
        """Tiles of input features; 0 where the tokens are the input."""
        if step.in_features is None:
            return 0
        return ceil_div(int(self.in_columns(step)[-1]) + 1, self.architecture.tile_in)

    def out_tiles(self, step: Step) -> int:
        """Tiles of output features; 0 where the tokens are the output."""
        if step.out_features is None:
            return 0
        if step.dest in EMBEDDED and step.head is None:
            return self.model_lanes // self.architecture.tile_out  # whole rows: their padding stays zero
        return ceil_div(step.out_features, self.architecture.tile_out)

    def trace_lanes(self, step: Step) -> int:
        """Lanes of what a step leaves, padding included."""
        if step.op is Op.ENGINE:
            tile_out = self.architecture.tile_out
            return (self.out_tiles(step) or ceil_div(self.model.num_tokens, tile_out)) * tile_out
        return {Op.POOL: self.head_lanes, Op.DECIDE: 2, Op.PACKAGE: self.model_lanes}[step.op]

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
