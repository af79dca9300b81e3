"""functions.hpp against quant/functions.py: every int16, every mantissa, in both builds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant import functions as f
from quant.formats import requantize

INT16 = np.arange(-(2**15), 2**15)


def same(got, expected, arguments):
    wrong = np.flatnonzero(got != expected)
    assert not len(wrong), f"{arguments[wrong[0]]}: {got[wrong[0]]}, not {expected[wrong[0]]} ({len(wrong)} differ)"


@pytest.mark.parametrize("frac_bits", range(f.EXP_MAX_FRAC_BITS + 1))
def test_exp2_negative_of_every_distance(arithmetic, frac_bits):
    t = np.arange(2**16)
    same(arithmetic.map("exp2_negative", t, parameter=frac_bits), f.exp2_negative(t.astype(float), frac_bits), t)


@pytest.mark.parametrize("frac_bits", range(f.GELU_MAX_FRAC_BITS + 1))
def test_gelu_of_every_int16(arithmetic, frac_bits):
    same(arithmetic.map("gelu", INT16, parameter=frac_bits), f.gelu(INT16.astype(float), frac_bits), INT16)


@pytest.mark.parametrize("frac_bits", range(f.SIGMOID_MAX_FRAC_BITS + 1))
def test_sigmoid_of_every_int16(arithmetic, frac_bits):
    same(arithmetic.map("sigmoid", INT16, parameter=frac_bits), f.sigmoid(INT16.astype(float), frac_bits), INT16)


def naive_mantissa(table, position, remainder_bits):
    """Of a reciprocal: the segment's line, rounded half up to 17 bits."""
    segment, remainder = position >> remainder_bits, position & ((1 << remainder_bits) - 1)
    value = (table.base[segment] << remainder_bits) + table.slope[segment] * remainder
    drop = remainder_bits + f.RECIPROCAL_GUARD_BITS
    return np.minimum((value + (1 << (drop - 1))) >> drop, (1 << f.RECIPROCAL_BITS) - 1)


def test_reciprocal_of_every_mantissa(arithmetic):
    fraction = np.arange(0, 1 << f.MANTISSA_BITS, 7 if arithmetic.exact else 1)
    mantissa, exponent = arithmetic.map("reciprocal", fraction + (1 << f.MANTISSA_BITS), outputs=2)
    same(mantissa, naive_mantissa(f.reciprocal_table(), fraction, 14), fraction)
    assert (exponent == f.MANTISSA_BITS).all()
    real = 2.0 ** (f.RECIPROCAL_BITS + f.MANTISSA_BITS) / (fraction + (1 << f.MANTISSA_BITS))
    assert np.abs(mantissa - real).max() <= 1.01  # at 1 it ends at 2^17 - 1


def test_reciprocal_of_every_exponent(arithmetic):
    """Powers of two, one more and one less, and random numbers up to 2^40."""
    s = {(1 << e) + d for e in range(41) for d in (-1, 0, 1)} | {
        int(x) for e in range(41) for x in np.random.default_rng(e).integers(1 << e, 2 << e, 50)
    }
    s = np.array(sorted(x for x in s if 0 < x <= 1 << 40))
    exponent = np.array([int(x).bit_length() - 1 for x in s])
    shift = exponent - f.MANTISSA_BITS
    normal = np.where(shift >= 0, s >> np.maximum(shift, 0), s << np.maximum(-shift, 0))
    got = arithmetic.map("reciprocal", s, outputs=2)
    same(got[0], naive_mantissa(f.reciprocal_table(), normal - (1 << f.MANTISSA_BITS), 14), s)
    same(got[1], exponent, s)


def naive_rsqrt(m):
    """Of m in [2^20, 2^22): both octaves in steps of the upper one."""
    return naive_mantissa(f.rsqrt_table(), np.where(m >= 1 << 21, m, 2 * (m - (1 << 20))), 14)


def test_reciprocal_sqrt_of_every_mantissa(arithmetic):
    m = np.arange(1 << 20, 1 << 22, 7 if arithmetic.exact else 1)
    mantissa, exponent = arithmetic.map("reciprocal_sqrt", m, outputs=2)
    same(mantissa, naive_rsqrt(m), m)
    assert (exponent == 10).all()
    assert np.abs(mantissa - 2.0**f.RECIPROCAL_BITS / np.sqrt(m / 2**20)).max() <= 1.01


def test_reciprocal_sqrt_of_every_exponent(arithmetic):
    v = {(1 << e) + d for e in range(54) for d in (-1, 0, 1)} | {
        int(x) for e in range(54) for x in np.random.default_rng(e).integers(1 << e, 2 << e, 50)
    }
    v = np.array(sorted(x for x in v if 0 < x < 1 << 54))
    exponent = np.array([(int(x).bit_length() - 1) // 2 for x in v])
    shift = 2 * exponent - 20
    got = arithmetic.map("reciprocal_sqrt", v, outputs=2)
    same(got[0], naive_rsqrt(np.where(shift >= 0, v >> np.maximum(shift, 0), v << np.maximum(-shift, 0))), v)
    same(got[1], exponent, v)


@given(st.lists(st.tuples(st.integers(1, 2**40), st.fractions(-1, 1)), min_size=1, max_size=50))
def test_divide_by_anything(arithmetic, cases):
    """Softmax's, pooling's and the package's: |ratio| up to 2^15."""
    divisor = np.array([s for s, _ in cases])
    dividend = np.array([max(-(2**47), min(2**47 - 1, int(part * s * 2**15))) for s, part in cases])
    ratio = f.divide(dividend[:, None].astype(float), divisor[:, None].astype(float))[:, 0]
    same(arithmetic.map("divide_15", dividend, divisor), requantize(ratio, f.divide_frac_bits()), dividend)


@given(st.lists(st.tuples(st.integers(1, 2**21), st.integers(0, 2**22)), min_size=1, max_size=50))
def test_divide_to_a_probability(arithmetic, cases):
    """A weighted sum of scores by the sum of its weights."""
    weights = np.array([weight for weight, _ in cases])
    weighted = np.array([weight * score for weight, score in cases])
    ratio = f.divide(weighted[:, None].astype(float), weights[:, None].astype(float), f.PROBABILITY_BITS)[:, 0]
    expected = requantize(ratio, f.divide_frac_bits(f.PROBABILITY_BITS), f.PROBABILITY_BITS + 2)
    same(arithmetic.map("divide_22", weighted, weights), expected, weighted)


def test_divide_of_counts_is_exact_where_it_comes_out(arithmetic):
    count, mean = (grid.ravel() for grid in np.meshgrid(np.arange(1, 1025), [-32768, -100, 0, 1, 32767]))
    assert np.array_equal(arithmetic.map("divide_15", count * mean, count), mean)
