"""Every function against the real one, to the bounds that `quant/functions.py` states, and against int64 arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant import functions
from quant.formats import FixedPoint, requantize
from quant.functions import (
    GELU_FRAC_BITS,
    GELU_MAX_OUTPUT_FRAC_BITS,
    PROBABILITY_BITS,
    RECIPROCAL_ERROR,
    divide_frac_bits,
    layer_norm_epsilon,
)
from tests.quant import integers

INT16 = np.arange(-(2**15), 2**15, dtype=np.float64)
erf = np.vectorize(math.erf)
ERF_GELU = {bits: INT16 * 2.0**-bits * (1 + erf(INT16 * 2.0**-bits / math.sqrt(2))) / 2 for bits in (8, 10, 12, 14)}


def same_in_torch_and_int64(function, witness, x, *arguments):
    """The function's value, once NumPy, torch and the int64 witness are found to agree."""
    value = function(x, *arguments)
    assert np.array_equal(function(torch.from_numpy(x), *arguments).numpy(), value)
    assert np.array_equal(witness(x.astype(np.int64), *arguments), value)
    return value


@pytest.mark.parametrize("frac_bits", range(11))
def test_exp2_negative_is_within_its_bound(frac_bits):
    t = np.arange(2**16, dtype=np.float64)
    value = same_in_torch_and_int64(functions.exp2_negative, integers.exp2_negative, t, frac_bits)
    assert np.abs(value - 32767 * 2.0 ** -(t * 2.0**-frac_bits)).max() <= 0.57
    assert value[0] == 32767 and value.min() >= 0
    assert (np.diff(value) <= 0).all()
    assert (value[t >= 16 * 2.0**frac_bits] == 0).all()


@pytest.mark.parametrize("frac_bits", sorted(ERF_GELU))
@pytest.mark.parametrize(("out_bits", "bound"), [(13, 0.92), (12, 0.72)])
def test_gelu_is_within_its_bound(frac_bits, out_bits, bound):
    value = same_in_torch_and_int64(functions.gelu, integers.gelu, INT16, frac_bits)
    rounded = requantize(value, GELU_FRAC_BITS - out_bits, width=40)
    assert np.abs(rounded - ERF_GELU[frac_bits] * 2.0**out_bits).max() <= bound


def test_gelu_of_zero_rounds_to_zero():
    assert requantize(functions.gelu(np.zeros(1), 12), GELU_FRAC_BITS - GELU_MAX_OUTPUT_FRAC_BITS)[0] == 0


def divide_everywhere(pair, ratio_bits=15):
    """pair[0] / pair[1]"""
    return same_in_torch_and_int64(
        lambda x: functions.divide(x[0], x[1], ratio_bits), lambda x: integers.divide(x[0], x[1], ratio_bits), pair
    )


@given(
    divisor=st.integers(0, 40).flatmap(lambda e: st.integers(2**e, min(2 ** (e + 1) - 1, 2**40))),
    fraction=st.fractions(-1, 1),
)
def test_divide_is_within_three_quarters_of_an_lsb(divisor, fraction):
    dividend = math.trunc(fraction * divisor * 2**15)
    value = divide_everywhere(np.array([[dividend], [divisor]], float))
    rounded = int(requantize(value, divide_frac_bits(), width=20)[0])
    assert abs(rounded - Fraction(dividend, divisor)) <= Fraction(3, 4)


def test_divide_is_within_its_bound_for_every_mantissa():
    divisor = np.repeat(np.arange(2**12, 2**13) * 2.0**10, 2) + np.tile([0, 2**10 - 1], 2**12)  # 23 bits
    for ratio in (32767.0, 32766.4, -32767.5, 20000.3, 1.5, 0.5):
        dividend = np.rint(divisor * ratio)
        value = divide_everywhere(np.stack([dividend, divisor]))
        error = requantize(value, divide_frac_bits(), width=20) - dividend / divisor
        assert np.abs(error).max() <= 0.75, ratio


@given(weights=st.integers(1, 2**19), votes=st.fractions(0, 1))
def test_divide_gives_probabilities_22_bits(weights, votes):
    weighted = math.trunc(votes * weights * 2**PROBABILITY_BITS)
    value = divide_everywhere(np.array([[weighted], [weights]], float), PROBABILITY_BITS)
    rounded = int(requantize(value, divide_frac_bits(PROBABILITY_BITS), PROBABILITY_BITS + 2)[0])
    exact = Fraction(weighted, weights)
    assert abs(rounded - exact) <= Fraction(3, 4) + exact * Fraction(RECIPROCAL_ERROR)


def test_the_reciprocals_error_for_every_mantissa():
    divisor = np.arange(2.0**22, 2.0**23)
    quotient = functions.divide(divisor * 2.0**21, divisor, PROBABILITY_BITS)
    error = np.abs(quotient * 2.0 ** -(21 + divide_frac_bits(PROBABILITY_BITS)) - 1)
    assert 0.99 * RECIPROCAL_ERROR < error.max() <= RECIPROCAL_ERROR


def test_layer_norm_is_within_three_quarters_of_an_lsb():
    random = np.random.default_rng(0)
    for channels in (8, 64, 192, 384, 768):
        spread = 2.0 ** random.uniform(0, 15, (400, 1))
        heavy = np.where(random.random((400, channels)) < 0.02, 8.0, 1.0)  # as residual streams have
        x = np.clip(
            np.rint(random.normal(random.normal(0, 300, (400, 1)), spread / 8, (400, channels)) * heavy), -32768, 32767
        )
        for eps, frac_bits in ((1e-6, 11), (1e-5, 8)):
            check_layer_norm(x, eps, frac_bits)


@given(
    row=st.lists(st.integers(-32768, 32767), min_size=2, max_size=12),
    scale=st.sampled_from([1, 2**-4, 2**-12]),
    frac_bits=st.integers(-2, 14),
)
def test_layer_norm_of_any_row(row, scale, frac_bits):
    check_layer_norm(np.trunc(np.array([row], float) * scale), 1e-6, frac_bits)


def check_layer_norm(x, eps, frac_bits):
    channels = x.shape[-1]
    epsilon = layer_norm_epsilon(eps, channels, frac_bits)
    value = functions.layer_norm(x, epsilon)
    assert np.array_equal(functions.layer_norm(torch.from_numpy(x), epsilon).numpy(), value)
    total, squares = x.sum(-1, keepdims=True), (x * x).sum(-1, keepdims=True)
    variance = np.maximum(channels * squares - total * total + epsilon, 1)
    exact = (channels * x - total) / np.sqrt(variance)
    out = FixedPoint.fitting(float(np.abs(exact).max()))
    rounded = requantize(value, -out.frac_bits)
    assert np.array_equal(integers.layer_norm(x.astype(np.int64), epsilon, out.frac_bits), rounded)
    assert np.abs(rounded - exact * 2.0**out.frac_bits).max() <= 0.75


def test_layer_norm_of_a_constant_row_is_zero():
    assert (functions.layer_norm(np.full((2, 48), -32768.0), 0) == 0).all()
    assert (functions.layer_norm(np.full((2, 48), 77.0), 3) == 0).all()


def test_layer_norm_epsilon_stands_beside_the_scaled_variance():
    assert layer_norm_epsilon(1e-6, 384, 12) == round(1e-6 * 384**2 * 4**12)


@pytest.mark.parametrize("frac_bits", range(13))
def test_sigmoid_is_within_its_bound(frac_bits):
    value = same_in_torch_and_int64(functions.sigmoid, integers.sigmoid, INT16, frac_bits)
    real = INT16 * 2.0**-frac_bits
    exact = 1 / (1 + np.exp(-np.clip(real, -700, 700)))
    error = np.abs(value * 2.0**-PROBABILITY_BITS - exact)
    assert error.max() <= 0.20 * 2.0**-15
    tail = (real < -3) & (real > -8)
    assert (error[tail] <= 0.001 * exact[tail] + 2.0**-PROBABILITY_BITS / 2).all()
    opposite = value[1:] + value[1:][::-1]  # sigmoid(x) + sigmoid(-x); both are 1/2, and rounded alike, at 0
    assert (opposite[INT16[1:] != 0] == 2.0**PROBABILITY_BITS).all()
    assert value.min() >= 0 and value.max() <= 2**PROBABILITY_BITS
