"""The accelerator's non-linear functions in PyTorch: forwards the exact integer algorithm, backwards the real function.

Enters: real values that are integers times 2^-frac_bits, in float64. Leaves: exact, unrounded real values, so that the
next quantizer rounds once. With `frac_bits=None` each is the real function itself: that is the folded float network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from quant import functions, selection
from quant.formats import saturate
from quant.functions import PROBABILITY_BITS, divide_frac_bits

FracBits = int | None


def straight_through(exact: Callable[[], Tensor], real: Callable[[], Tensor]) -> Tensor:
    """The value of `exact` with the gradient of `real`, which is evaluated only where a gradient is wanted."""
    with torch.no_grad():
        value = exact()
    return _Substitute.apply(real(), value) if torch.is_grad_enabled() else value


class _Substitute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def layer_norm(x: Tensor, frac_bits: FracBits, eps: float) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over the last axis; scale and shift are folded into what follows."""

    def real() -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], eps=eps)

    if frac_bits is None:
        return real()
    epsilon = functions.layer_norm_epsilon(eps, int(x.shape[-1]), frac_bits)
    return straight_through(lambda: functions.layer_norm(x * 2.0**frac_bits, epsilon), real)


def gelu(x: Tensor, frac_bits: FracBits) -> Tensor:
    if frac_bits is None:
        return functional.gelu(x)
    return straight_through(
        lambda: functions.gelu(x * 2.0**frac_bits, frac_bits) * 2.0**-functions.GELU_FRAC_BITS,
        lambda: functional.gelu(x),
    )


def softmax_numerator(scores: Tensor, frac_bits: FracBits) -> Tensor:
    """2^(score - largest score of the row), scaled by 32767; the denominator is its sum, divided by later."""
    distance = scores.amax(dim=-1, keepdim=True).detach() - scores  # the shift cancels, and so does its gradient

    def real() -> Tensor:
        return functions.EXP_ONE * torch.exp2(-distance)

    if frac_bits is None:
        return real()
    return straight_through(lambda: functions.exp2_negative(distance * 2.0**frac_bits, frac_bits), real)


def weighted_mean(weighted: Tensor, weights: Tensor, frac_bits: FracBits) -> Tensor:
    """weighted / weights: softmax's division, after the product with V.

    weighted   [..., d], sums of weight * value, with the values' `frac_bits`
    weights    [..., 1] whole numbers
    """
    if frac_bits is None:
        return weighted / weights
    return straight_through(
        lambda: functions.divide(weighted * 2.0**frac_bits, weights) * 2.0 ** -(divide_frac_bits() + frac_bits),
        lambda: weighted / weights,
    )


def pool(features: Tensor, frac_bits: FracBits, counted: Tensor | None = None) -> Tensor:
    """Mean over the tokens, in the features' own format. [n, ...] -> [...], n >= 1

    counted  [n, 1, ...] of 0 and 1: the tokens that are there; None: all of them
    """

    def real() -> Tensor:
        if counted is None:
            return features.mean(dim=0)
        return (features * counted).sum(dim=0) / counted.sum(dim=0).clamp(min=1)

    if frac_bits is None:
        return real()
    return straight_through(lambda: selection.pool(features * 2.0**frac_bits, counted) * 2.0**-frac_bits, real)


def decide(
    scores: Tensor, score_frac_bits: FracBits, branch: Tensor, branch_frac_bits: FracBits, threshold: float
) -> tuple[Tensor, Tensor]:
    """Which tokens stay (no gradient), and each one's keep probability (Eq. 6): (keep [n] bool, probability [n]).

    scores     [n, H], keep logit minus drop logit
    branch     [n, H], the head branch before its sigmoid
    """
    if score_frac_bits is None or branch_frac_bits is None:
        votes, weights = _votes(scores, branch)
        return votes >= threshold * weights, votes / weights.clamp(min=torch.finfo(weights.dtype).tiny)
    with torch.no_grad():
        decision = selection.decide(
            scores * 2.0**score_frac_bits,
            score_frac_bits,
            branch * 2.0**branch_frac_bits,
            branch_frac_bits,
            threshold_integer(threshold),
        )

    def real() -> Tensor:
        votes, weights = _votes(scores, branch)
        return votes / weights

    return decision.keep.bool(), straight_through(lambda: decision.probability * 2.0**-PROBABILITY_BITS, real)


def threshold_integer(threshold: float) -> int:
    """The threshold with the 22 fraction bits of a keep probability."""
    return round(threshold * 2**PROBABILITY_BITS)


def package_token(dropped: Tensor, probability: Tensor, frac_bits: FracBits) -> Tensor:
    """Eq. 8: mean of the dropped tokens, weighted with their keep probabilities. [q, C], [q] -> [C], q >= 1"""

    def real() -> Tensor:
        return (dropped * probability[:, None]).sum(dim=0) / probability.sum()

    if frac_bits is None:
        return real()
    return straight_through(
        lambda: (
            selection.package_token(dropped * 2.0**frac_bits, probability * 2.0**PROBABILITY_BITS) * 2.0**-frac_bits
        ),
        real,
    )


def add_packages(older: Tensor, new: Tensor, frac_bits: FracBits) -> Tensor:
    """The sum, saturated to the stream's format."""
    if frac_bits is None:
        return older + new
    return straight_through(
        lambda: saturate((older + new) * 2.0**frac_bits) * 2.0**-frac_bits,
        lambda: older + new,
    )


def _votes(scores: Tensor, branch: Tensor) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of Eq. 6."""
    weights = torch.sigmoid(branch)
    return (torch.sigmoid(scores) * weights).sum(dim=1), weights.sum(dim=1)
