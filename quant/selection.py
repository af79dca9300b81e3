"""The token selector's and packager's integer steps beside its linear layers: pooling, decision, package.

Integers carried in float64, as in `functions`; the golden and the Brevitas model both call these.
"""

from __future__ import annotations

from dataclasses import dataclass

from array_api_compat import array_namespace

from quant.formats import Array, requantize
from quant.functions import HEAD_WEIGHT_BITS, PROBABILITY_BITS, divide, divide_frac_bits, sigmoid


@dataclass(frozen=True)
class Decision:
    """What the selector says of each candidate.

    keep         [n] 0 or 1
    probability  [n] Eq. 6's keep probability, 22 fraction bits, at least 1: the token's weight in the package
    weighted     [n] sum over heads of score * head weight, 37 fraction bits
    weights      [n] sum of the head weights, 15 fraction bits
    """

    keep: Array
    probability: Array
    weighted: Array
    weights: Array


def pool(features: Array, counted: Array | None = None) -> Array:
    """Mean over the tokens, in the features' own format. [n, d] -> [d]; zeros when there is no token.

    counted  [n, 1] of 0 and 1: the tokens that are there; None: all of them
    """
    xp = array_namespace(features)
    if counted is None:
        count = xp.ones_like(xp.sum(features, axis=0, keepdims=True)) * max(features.shape[0], 1)
    else:
        features = features * counted
        count = xp.clip(xp.sum(xp.ones_like(features) * counted, axis=0, keepdims=True), 1, None)
    total = xp.sum(features, axis=0, keepdims=True)
    return requantize(divide(total, count), divide_frac_bits())[0]


def decide(scores: Array, score_frac_bits: int, branch: Array, branch_frac_bits: int, threshold: int) -> Decision:
    """Keep a token iff its probability (Eq. 6) is at least the threshold, without dividing.

    scores     int16 [n, H], keep logit minus drop logit of each head
    branch     int16 [n, H], the head branch before its sigmoid
    threshold  22 fraction bits
    """
    xp = array_namespace(scores)
    score = sigmoid(scores, score_frac_bits)
    head_weight = requantize(sigmoid(branch, branch_frac_bits), PROBABILITY_BITS - HEAD_WEIGHT_BITS)
    weighted = xp.sum(score * head_weight, axis=1)
    weights = xp.sum(head_weight, axis=1)
    keep = xp.astype(weighted >= threshold * weights, xp.float64)  # no weight at all: keep
    ratio = divide(weighted[:, None], xp.clip(weights, 1, None)[:, None], PROBABILITY_BITS)[:, 0]
    probability = requantize(ratio, divide_frac_bits(PROBABILITY_BITS), PROBABILITY_BITS + 2)
    return Decision(keep, xp.clip(probability, 1, None), weighted, weights)


def package_token(dropped: Array, probability: Array) -> Array:
    """Eq. 8: the mean of the dropped tokens weighted with their keep probability. [q, C], [q] -> [C], q >= 1."""
    xp = array_namespace(dropped)
    total = xp.sum(dropped * probability[:, None], axis=0, keepdims=True)
    return requantize(divide(total, xp.clip(xp.sum(probability), 1, None)[None, None]), divide_frac_bits())[0]
