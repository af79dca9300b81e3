from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from quant.functions import RECIPROCAL_ERROR, sigmoid
from quant.selection import Decision, decide, package_token, pool

HEADS = 3
logits = arrays.arrays(np.float64, (5, HEADS), elements=st.integers(-32768, 32767).map(float))
FIELDS = ("keep", "probability", "weighted", "weights")


def decide_in_both(scores: np.ndarray, branch: np.ndarray, threshold: int, frac_bits: int = 12) -> Decision:
    decision = decide(scores, frac_bits, branch, frac_bits, threshold)
    other = decide(torch.from_numpy(scores), frac_bits, torch.from_numpy(branch), frac_bits, threshold)
    assert all(np.array_equal(getattr(decision, name), getattr(other, name).numpy()) for name in FIELDS)
    return decision


WORST_RECIPROCAL = np.array([[624.0, -770.0, 2559.0]] * 5)


@given(scores=logits, branch=logits, threshold=st.integers(64, 2**22), frac_bits=st.integers(6, 12))
@example(scores=np.zeros((5, HEADS)), branch=WORST_RECIPROCAL, threshold=64, frac_bits=8)
def test_decide_compares_without_dividing_and_the_probability_is_eq_6(scores, branch, threshold, frac_bits):
    decision = decide_in_both(scores, branch, threshold, frac_bits)
    for token in range(len(scores)):
        t = [int(value) for value in sigmoid(scores[token], frac_bits)]
        a = [round(Fraction(int(value), 128)) for value in sigmoid(branch[token], frac_bits)]
        a = [min(value, 32767) for value in a]
        votes, weights = sum(x * y for x, y in zip(t, a, strict=True)), sum(a)
        assert decision.weighted[token] == votes and decision.weights[token] == weights
        assert decision.keep[token] == (votes >= threshold * weights)
        exact = Fraction(votes, max(weights, 1))
        bound = Fraction(3, 4) + exact * Fraction(RECIPROCAL_ERROR)
        assert abs(int(decision.probability[token]) - max(exact, 1)) <= bound


def test_a_token_without_any_head_weight_is_kept_and_weighs_least():
    decision = decide_in_both(np.full((1, HEADS), -32768.0), np.full((1, HEADS), -32768.0), 2**21, frac_bits=8)
    assert decision.weights[0] == 0
    assert decision.keep[0] == 1
    assert decision.probability[0] == 1


@pytest.mark.parametrize(("threshold", "kept"), [(64, 1), (2**21, 1), (2**21 + 2**10, 0), (2**22, 0)])
def test_an_even_token_is_kept_up_to_a_half(threshold, kept):
    decision = decide_in_both(np.full((1, HEADS), 1.0), np.zeros((1, HEADS)), threshold)
    assert decision.keep[0] == kept


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(4)), elements=st.integers(-32768, 32767).map(float))
)
def test_pool_is_the_mean(features):
    pooled = pool(features)
    assert np.array_equal(pool(torch.from_numpy(features)).numpy(), pooled)
    assert np.abs(pooled - features.mean(axis=0)).max() <= 0.75


def test_pool_of_nothing_is_zero():
    assert pool(np.zeros((0, 4))).tolist() == [0, 0, 0, 0]


@given(
    tokens=arrays.arrays(
        np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.integers(-32768, 32767).map(float)
    ),
    data=st.data(),
)
def test_package_is_the_weighted_mean_however_small_the_weights(tokens, data):
    size = data.draw(st.sampled_from([1, 3, 2**10, 2**22]))
    weights = data.draw(arrays.arrays(np.float64, len(tokens), elements=st.integers(1, size).map(float)))
    package = package_token(tokens, weights)
    assert np.array_equal(package_token(torch.from_numpy(tokens), torch.from_numpy(weights)).numpy(), package)
    exact = [
        sum(Fraction(int(w) * int(x)) for w, x in zip(weights, column, strict=True)) / int(weights.sum())
        for column in tokens.T
    ]
    assert max(abs(int(got) - want) for got, want in zip(package, exact, strict=True)) <= Fraction(3, 4)
