"""Which format each tensor gets: from the largest values that the folded float network shows on calibration images.

Enters: a `FoldedNetwork` and raw pixels uint8 [N, S, S, chans]. Leaves: `Formats`, whose shifts the engine can do:
for every layer and output channel, with f the fraction bits of the activations around it,

    8 <= f(source) + f(weight) - f(result) <= 23        what the accumulator drops
    8 <= f(q) + f(k) - f(scores) <= 23                  likewise
    -6 <= f(result) - f(residual) <= 1                  how far the residual is moved
    0 <= f(source) + f(weight) - f(bias) <= 31          how far the bias is moved up to the accumulator
    0 <= f(context) - f(v) <= 4                         what softmax's division drops less
    6 <= f(GELU) <= 13                                  what leaves it, as far as it is not larger than any network's

All scores have one format, and so has all that enters a GELU: the coarsest that one of them needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from quant.dataflow import Arithmetic, Observer, run_image
from quant.fold import FoldedLinear, FoldedNetwork
from quant.formats import (
    MAX_FRAC_BITS,
    MAX_RESIDUAL_UP,
    MAX_SHIFT,
    MIN_SHIFT,
    RESIDUAL_GUARD_BITS,
    FixedPoint,
)
from quant.functions import (
    EXP_MAX_FRAC_BITS,
    GELU_MAX_FRAC_BITS,
    GELU_MAX_OUTPUT_FRAC_BITS,
    MAX_CONTEXT_UP,
    SIGMOID_MAX_FRAC_BITS,
)
from quant.model import Formats
from quant.modules import WEIGHT_BITS
from quant.network import activation_names
from quant.wiring import Wire, wiring

MAX_BIAS_SHIFT = 31
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


def choose_formats(
    folded: FoldedNetwork,
    ranges: dict[str, float],
    headroom: Headroom | None = None,
    weight_bits: Mapping[str, int] | None = None,
) -> Formats:
    """The finest formats that hold `ranges` with their head-room, and that the engine can shift between.

    weight_bits  by layer, where there are less than 16
    """
    weight_bits = weight_bits or {}
    headroom = headroom or Headroom()
    wires = wiring(folded.model, folded.pruning)
    finest_weights = {
        name: _finest_weights(linear, weight_bits.get(name, WEIGHT_BITS)) for name, linear in folded.linears.items()
    }
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
    return Formats(activations, weights, biases, weight_bits)


def gelu_inputs(names: Iterable[str]) -> list[str]:
    """Those of the activations that a GELU takes."""
    known = set(names)
    return sorted(name for name in known if f"{name}.gelu" in known)


def _cap(name: str) -> int:
    if name.endswith(".attn.scores"):
        return EXP_MAX_FRAC_BITS
    if name.endswith(".gelu"):
        return GELU_MAX_OUTPUT_FRAC_BITS
    if name.endswith((".fc3", ".head_branch.fc2")):
        return SIGMOID_MAX_FRAC_BITS
    return min(GELU_MAX_FRAC_BITS, MAX_FRAC_BITS)


def _finest_weights(linear: FoldedLinear, bits: int) -> Tensor:
    """Of weights with so many bits, as int16: int64 [out]"""
    largest, more = linear.weight.abs().amax(dim=1).tolist(), WEIGHT_BITS - bits
    formats = [FixedPoint.fitting(w, bits, max_frac_bits=MAX_WEIGHT_FRAC_BITS - more) for w in largest]
    return torch.tensor([one.frac_bits + more for one in formats])


def _coarsen_to_shifts(
    activations: dict[str, int], wires: dict[str, Wire], folded: FoldedNetwork, finest_weights: dict[str, Tensor]
) -> None:
    """Lower activations' fraction bits until every rule can be met. Formats only get coarser, so this ends."""
    products = {name: int(weights.min()) for name, weights in finest_weights.items()}
    biases = {name: _finest_bias(linear) for name, linear in folded.linears.items()}

    one_format = [[name for name in activations if name.endswith(".scores")], gelu_inputs(activations)]

    def bounds() -> Iterator[tuple[str, int]]:
        for name, wire in wires.items():
            yield wire.result, activations[wire.source] + products[name] - MIN_SHIFT
            yield wire.result, biases[name] + MAX_BIAS_SHIFT - MIN_SHIFT
            if wire.residual is not None:
                yield wire.result, activations[wire.residual] + MAX_RESIDUAL_UP
                yield wire.residual, activations[wire.result] + RESIDUAL_GUARD_BITS
        for block in range(folded.model.depth):
            attn = f"blocks.{block}.attn"
            q, k, scores = (activations[f"{attn}.{name}"] for name in ("q", "k", "scores"))
            yield f"{attn}.scores", q + k - MIN_SHIFT
            yield f"{attn}.q", scores + MAX_SHIFT - k
            yield f"{attn}.context", activations[f"{attn}.v"] + MAX_CONTEXT_UP
            yield f"{attn}.v", activations[f"{attn}.context"]
        for group in one_format:
            coarsest = min(activations[name] for name in group)
            yield from ((name, coarsest) for name in group)

    changed = True
    while changed:
        changed = False
        for name, bound in bounds():
            if activations[name] > bound:
                activations[name], changed = bound, True


def _layer_formats(linear: FoldedLinear, wire: Wire, activations: dict[str, int], finest: Tensor) -> tuple[Tensor, int]:
    """Fraction bits of the weights, int64 [out], and of the bias: coarsened until no shift is too long."""
    source = activations[wire.source]
    weights = finest.clamp(max=activations[wire.result] + MAX_SHIFT - source)
    bias = min(_finest_bias(linear), source + int(weights.min()))
    return weights.clamp(max=bias + MAX_BIAS_SHIFT - source), bias


def _finest_bias(linear: FoldedLinear) -> int:
    return FixedPoint.fitting(linear.bias.abs().max().item(), max_frac_bits=MAX_BIAS_FRAC_BITS).frac_bits
