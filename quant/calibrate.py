"""Which format each tensor gets: from the largest values that the folded float network shows on calibration images.

Enters: a `FoldedNetwork` and raw pixels uint8 [N, S, S, chans]. Leaves: `Formats`, whose shifts the engine can do:
for every layer and output channel, with f the fraction bits of the activations around it,

    0 <= f(source) + f(weight) - f(result) <= 31        what the accumulator drops
    0 <= f(source) + f(weight) - f(residual) <= 31      how far the residual is moved up to it
    0 <= f(source) + f(weight) - f(bias) <= 31          how far the bias is moved up to it
    0 <= f(context) - f(v) <= 8,  f(scores) <= f(q) + f(k)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.dataflow import Arithmetic, Observer, run_image
from quant.fold import FoldedLinear, FoldedNetwork
from quant.formats import MAX_FRAC_BITS, FixedPoint
from quant.functions import (
    EXP_MAX_FRAC_BITS,
    GELU_MAX_FRAC_BITS,
    GELU_MAX_OUTPUT_FRAC_BITS,
    SIGMOID_MAX_FRAC_BITS,
)
from quant.model import Formats
from quant.network import activation_names
from quant.wiring import Wire, wiring

MAX_SHIFT = 31
MAX_CONTEXT_UP = 8
MAX_WEIGHT_FRAC_BITS = 30
MAX_BIAS_FRAC_BITS = 44  # of a bias of zeros
UNSEEN_RANGE = 8.0  # of a tensor that no calibration image reached: a selector's, after one that dropped everything


@dataclass(frozen=True)
class Headroom:
    """Factors, at least 1, left free above the largest value that calibration saw."""

    residual: float = 1.25
    others: float = 1.1

    def of(self, name: str) -> float:
        return self.residual if is_residual(name) else self.others


def is_residual(name: str) -> bool:
    return name.endswith((".attn.proj", ".mlp.fc2")) or name == "patch_embed"


def float_arithmetic(folded: FoldedNetwork, observer: Observer | None = None) -> Arithmetic:
    """The folded network, as it is."""
    parameters = {name: (linear.weight, linear.bias) for name, linear in folded.linears.items()}
    return Arithmetic(parameters, folded.position, folded.thresholds, observer=observer)


@torch.no_grad()
def observe_ranges(folded: FoldedNetwork, pixels: Tensor) -> dict[str, float]:
    """The largest magnitude of each activation over all images; activations that never occur are missing."""
    largest = {"patch_embed": folded.position.abs().max().item()}

    def observe(name: str, value: Tensor, before: Tensor, frac_bits: int | None) -> None:
        largest[name] = max(largest.get(name, 0.0), value.abs().max().item())

    arithmetic = float_arithmetic(folded, observe)
    for image in pixels:
        run_image(folded.model, folded.pruning, arithmetic, image)
    return largest


def choose_formats(folded: FoldedNetwork, ranges: dict[str, float], headroom: Headroom | None = None) -> Formats:
    """The finest formats that hold `ranges` with their head-room, and that the engine can shift between."""
    headroom = headroom or Headroom()
    wires = wiring(folded.model, folded.pruning)
    finest_weights = {name: _finest_weights(linear) for name, linear in folded.linears.items()}
    activations = {
        name: FixedPoint.fitting(
            ranges.get(name, UNSEEN_RANGE), headroom=headroom.of(name), max_frac_bits=_cap(name)
        ).frac_bits
        for name in activation_names(folded.model, folded.pruning)
    }
    activations["pixels"] = 0
    _coarsen_to_shifts(activations, wires, folded, finest_weights)
    weights, biases = {}, {}
    for name, wire in wires.items():
        weights[name], biases[name] = _layer_formats(folded.linears[name], wire, activations, finest_weights[name])
    return Formats(activations, weights, biases)


def _cap(name: str) -> int:
    if name.endswith(".attn.scores"):
        return EXP_MAX_FRAC_BITS
    if name.endswith(".gelu"):
        return GELU_MAX_OUTPUT_FRAC_BITS
    if name.endswith((".fc3", ".head_branch.fc2")):
        return SIGMOID_MAX_FRAC_BITS
    return min(GELU_MAX_FRAC_BITS, MAX_FRAC_BITS)


def _finest_weights(linear: FoldedLinear) -> Tensor:
    """int64 [out]"""
    largest = linear.weight.abs().amax(dim=1).tolist()
    return torch.tensor([FixedPoint.fitting(w, max_frac_bits=MAX_WEIGHT_FRAC_BITS).frac_bits for w in largest])


def _coarsen_to_shifts(
    activations: dict[str, int], wires: dict[str, Wire], folded: FoldedNetwork, finest_weights: dict[str, Tensor]
) -> None:
    """Lower activations' fraction bits until every rule can be met. Formats only get coarser, so this ends."""
    products = {name: int(weights.min()) for name, weights in finest_weights.items()}
    biases = {name: _finest_bias(linear) for name, linear in folded.linears.items()}

    def bounds() -> Iterator[tuple[str, int]]:
        for name, wire in wires.items():
            ends = [wire.result] + ([] if wire.residual is None else [wire.residual])
            coarsest = min(biases[name], *(activations[end] for end in ends))
            for end in ends:
                yield end, activations[wire.source] + products[name]
                yield end, coarsest + MAX_SHIFT
        for block in range(folded.model.depth):
            attn = f"blocks.{block}.attn"
            yield f"{attn}.scores", activations[f"{attn}.q"] + activations[f"{attn}.k"]
            yield f"{attn}.context", activations[f"{attn}.v"] + MAX_CONTEXT_UP
            yield f"{attn}.v", activations[f"{attn}.context"]

    changed = True
    while changed:
        changed = False
        for name, bound in bounds():
            if activations[name] > bound:
                activations[name], changed = bound, True


def _layer_formats(linear: FoldedLinear, wire: Wire, activations: dict[str, int], finest: Tensor) -> tuple[Tensor, int]:
    """Fraction bits of the weights, int64 [out], and of the bias: coarsened until no shift is too long."""
    source = activations[wire.source]
    ends = [activations[wire.result]] + ([] if wire.residual is None else [activations[wire.residual]])
    weights = finest.clamp(max=min(ends) + MAX_SHIFT - source)
    bias = min(_finest_bias(linear), source + int(weights.min()))
    return weights.clamp(max=bias + MAX_SHIFT - source), bias


def _finest_bias(linear: FoldedLinear) -> int:
    return FixedPoint.fitting(linear.bias.abs().max().item(), max_frac_bits=MAX_BIAS_FRAC_BITS).frac_bits
