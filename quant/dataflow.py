"""One image through the folded network, written once: in float for calibration, in 16-bit integers after it.

Enters: raw pixels uint8 [S, S, chans] and an `Arithmetic`, which says what a linear layer and a rounding are.
Leaves: logits [classes]. Dropped tokens are really removed, as on the accelerator.
Shapes: n tokens (they change from block to block), C channels, H heads of d = C / H channels, q candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from quant import straight_through as st
from quant.functions import PROBABILITY_BITS
from quant.network import SELECTOR_LAYER_NORM_EPS
from quant.wiring import stream_before
from spvit.config import ModelConfig, PruningConfig

NOT_THERE = -(2.0**20)  # a score so low that its exponential is 0, whatever the others are


class Observer(Protocol):
    def __call__(self, name: str, value: Tensor, before: Tensor, frac_bits: int | None) -> None:
        """See the tensor `name`: its value, what it was `before` rounding, its format (None: float)."""


class Rounding(Protocol):
    """An activation's quantizer."""

    @property
    def frac_bits(self) -> int: ...

    def __call__(self, x: Tensor) -> Tensor: ...


@dataclass
class Arithmetic:
    """What the data flow computes with.

    parameters  weight [out, in] and bias [out] of each linear layer
    position    [prefix + patches, C]
    thresholds  per selector
    roundings   quantizer of each activation; empty: float
    """

    parameters: Mapping[str, tuple[Tensor, Tensor]]
    position: Tensor
    thresholds: tuple[float, ...]
    roundings: Mapping[str, Rounding] = field(default_factory=dict)
    observer: Observer | None = None

    def linear(self, name: str, x: Tensor) -> Tensor:
        """The exact accumulator with its bias."""
        return functional.linear(x, *self.parameters[name])

    def frac_bits(self, name: str) -> int | None:
        return self.roundings[name].frac_bits if self.roundings else None

    def round(self, name: str, x: Tensor) -> Tensor:
        """The activation `name`: `x` in its format."""
        value = self.roundings[name](x) if self.roundings else x
        self.observe(name, value, x, self.frac_bits(name))
        return value

    def observe(self, name: str, value: Tensor, before: Tensor, frac_bits: int | None) -> None:
        if self.observer is not None:
            self.observer(name, value, before, frac_bits)


def run_image(model: ModelConfig, pruning: PruningConfig, a: Arithmetic, pixels: Tensor) -> Tensor:
    """Logits [classes] of one image, uint8 [S, S, chans]."""
    prefix = model.num_prefix_tokens
    position = a.roundings["patch_embed"](a.position) if a.roundings else a.position
    patches = a.round("pixels", cut_patches(pixels, model.patch_size).to(position.dtype))
    branch = a.linear("patch_embed.proj", patches)
    x = a.round("patch_embed", torch.cat([position[:prefix], branch + position[prefix:]]))  # (n, C)
    num_patches = model.num_patches  # of the original ones, alive
    for block in range(model.depth):
        if block in pruning.locations and num_patches:
            x, num_patches = _prune(model, pruning, a, pruning.locations.index(block), x, num_patches)
        x = attention(model, a, block, x)
        x = mlp(model, a, block, x)
    rows = st.layer_norm(x[:prefix], a.frac_bits(stream_before(model.depth)), model.layer_norm_eps)
    features = a.round("norm", rows).reshape(1, -1)  # (1, C), or (1, 2C) with a distillation token
    return a.round("head", a.linear("head", features))[0]


def cut_patches(pixels: Tensor, patch_size: int) -> Tensor:
    """[S, S, chans] -> [patches, P * P * chans], a patch's pixels in (y, x, channel) order."""
    size, _, channels = pixels.shape
    grid = size // patch_size
    patches = pixels.reshape(grid, patch_size, grid, patch_size, channels).permute(0, 2, 1, 3, 4)
    return patches.reshape(grid * grid, patch_size * patch_size * channels)


def attention(model: ModelConfig, a: Arithmetic, block: int, x: Tensor, alive: Tensor | None = None) -> Tensor:
    """The residual stream (n, C) after the block's attention.

    alive  (n) bool: the tokens that may be attended to; None: all of them
    """
    attn, stream = f"blocks.{block}.attn", stream_before(block)
    normed = a.round(f"blocks.{block}.norm1", st.layer_norm(x, a.frac_bits(stream), model.layer_norm_eps))
    q, k, v = (
        a.round(f"{attn}.{name}", a.linear(f"{attn}.{name}", normed))
        .unflatten(-1, (model.num_heads, -1))
        .transpose(0, 1)
        for name in ("q", "k", "v")
    )  # each (H, n, d)
    scores = a.round(f"{attn}.scores", q @ k.transpose(1, 2))  # (H, n, n), in powers of two
    if alive is not None:
        scores = torch.where(alive, scores, NOT_THERE)
    weights = st.softmax_numerator(scores, a.frac_bits(f"{attn}.scores"))
    context = st.weighted_mean(weights @ v, weights.sum(dim=-1, keepdim=True), a.frac_bits(f"{attn}.v"))
    context = a.round(f"{attn}.context", context.transpose(0, 1).flatten(1))  # (n, C)
    return a.round(f"{attn}.proj", a.linear(f"{attn}.proj", context) + x)


def mlp(model: ModelConfig, a: Arithmetic, block: int, x: Tensor) -> Tensor:
    """The residual stream (n, C) after the block's MLP."""
    name = f"blocks.{block}.mlp"
    normed = st.layer_norm(x, a.frac_bits(f"blocks.{block}.attn.proj"), model.layer_norm_eps)
    hidden = _gelu(a, f"{name}.fc1", a.linear(f"{name}.fc1", a.round(f"blocks.{block}.norm2", normed)))
    return a.round(f"{name}.fc2", a.linear(f"{name}.fc2", hidden) + x)


def _gelu(a: Arithmetic, activation: str, x: Tensor) -> Tensor:
    rounded = a.round(activation, x)
    return a.round(f"{activation}.gelu", st.gelu(rounded, a.frac_bits(activation)))


def _prune(
    model: ModelConfig, pruning: PruningConfig, a: Arithmetic, index: int, x: Tensor, num_patches: int
) -> tuple[Tensor, int]:
    """Select among the patches of x (n, C), package the others. Returns the tokens left and how many are patches."""
    selector, stream = f"selectors.{index}", stream_before(pruning.locations[index])
    prefix, patches, packages = x.tensor_split((model.num_prefix_tokens, model.num_prefix_tokens + num_patches))
    keep, probability = decide(model, pruning, a, index, patches)
    a.observe(f"{selector}.keep", keep.to(x.dtype), keep.to(x.dtype), 0)
    a.observe(f"{selector}.probability", probability, probability, PROBABILITY_BITS if a.roundings else None)
    if pruning.package != "none" and not keep.all():
        package = st.package_token(patches[~keep], probability[~keep], a.frac_bits(stream))[None]
        if pruning.package == "add" and len(packages):
            packages = st.add_packages(packages, package, a.frac_bits(stream))
        else:
            packages = torch.cat([packages, package])
    x = torch.cat([prefix, patches[keep], packages])
    a.observe(f"{selector}.x", x, x, a.frac_bits(stream))
    return x, int(keep.sum())


def decide(
    model: ModelConfig, pruning: PruningConfig, a: Arithmetic, index: int, patches: Tensor, alive: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A selector's decision on patches (q, C): which to keep, (q) bool, and their keep probabilities (q).

    alive  (q) bool: those that are there, which alone are pooled over; None: all of them
    """
    selector = f"selectors.{index}"
    scores = _score(model, pruning, a, index, patches, alive)  # (q, H)
    branch = _gelu(a, f"{selector}.head_branch.fc1", a.linear(f"{selector}.head_branch.fc1", patches))
    branch = a.round(f"{selector}.head_branch.fc2", a.linear(f"{selector}.head_branch.fc2", branch))  # (q, H)
    return st.decide(
        scores,
        a.frac_bits(f"{selector}.fc3"),
        branch,
        a.frac_bits(f"{selector}.head_branch.fc2"),
        a.thresholds[index],
    )


def _score(
    model: ModelConfig, pruning: PruningConfig, a: Arithmetic, index: int, patches: Tensor, alive: Tensor | None
) -> Tensor:
    """Each head's keep logit minus its drop logit, (q, H), from its own slice of the patches (q, C)."""
    selector, stream = f"selectors.{index}", stream_before(pruning.locations[index])
    slices = patches.unflatten(-1, (model.num_heads, -1))  # (q, H, d)
    normed = a.round(f"{selector}.norm", st.layer_norm(slices, a.frac_bits(stream), SELECTOR_LAYER_NORM_EPS))

    def layer(name: str, x: Tensor) -> Tensor:
        """(q, H, in) -> (q, H, out), with one scorer for all heads or each its own."""
        if pruning.share_heads:
            return a.linear(f"{selector}.scorers.0.{name}", x)
        heads = [a.linear(f"{selector}.scorers.{head}.{name}", x[:, head]) for head in range(model.num_heads)]
        return torch.stack(heads, dim=1)

    features = _gelu(a, f"{selector}.embed", layer("embed", normed))  # (q, H, d): half local, half to be pooled
    frac_bits = a.frac_bits(f"{selector}.embed.gelu")
    counted = None if alive is None else alive.to(features.dtype)[:, None, None]
    pooled = st.pool(features, frac_bits, counted)  # (H, d)
    a.observe(f"{selector}.pool", pooled, pooled, frac_bits)
    half = model.head_dim // 2
    both = torch.cat([features[..., :half], pooled[None, :, half:].expand(len(features), -1, -1)], dim=-1)
    hidden = _gelu(a, f"{selector}.fc1", layer("fc1", both))
    hidden = _gelu(a, f"{selector}.fc2", layer("fc2", hidden))
    return a.round(f"{selector}.fc3", layer("fc3", hidden))[..., 0]
