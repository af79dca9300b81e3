import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant.formats import FixedPoint, floor_log2, floor_shift, power_of_two, requantize, saturate
from tests.quant import integers

LIBRARIES = [
    pytest.param(lambda values: np.array(values, np.float64), id="numpy"),
    pytest.param(lambda values: torch.tensor(values, dtype=torch.float64), id="torch"),
]
EXACT = 2**52
near_int16 = st.sampled_from([0, 1, 2, 3, 32766, 32767, 32768, 32769]).flatmap(
    lambda value: st.sampled_from([value, -value])
)


def python_requantize(acc: int, shift: int, width: int) -> int:
    rounded = round(Fraction(acc) / Fraction(2) ** shift)  # half to even
    return min(max(rounded, -(1 << (width - 1))), (1 << (width - 1)) - 1)


@pytest.mark.parametrize("array", LIBRARIES)
@pytest.mark.parametrize("width", [16, 24, 27])
@pytest.mark.parametrize("shift", range(-16, 48))
def test_requantize_rounds_half_to_even_and_saturates_at_every_edge(array, width, shift):
    top = 1 << (width - 1)
    wholes = [0, 1, 2, 3, 4, top - 2, top - 1, top, top + 1]
    half = Fraction(2) ** shift / 2
    accs = {
        sign * math.floor(whole * Fraction(2) ** shift + at_half * half) + near
        for sign in (1, -1)
        for whole in wholes
        for at_half in (0, 1)
        for near in (-1, 0, 1)
    }
    accs = sorted(acc for acc in accs if abs(acc) < EXACT)
    got = requantize(array(accs), shift, width)
    assert isinstance(got, type(array([0])))
    assert got.tolist() == [python_requantize(acc, shift, width) for acc in accs]


@given(acc=st.integers(-EXACT + 1, EXACT - 1), shift=st.integers(-16, 47), width=st.integers(2, 48))
def test_requantize_equals_exact_fractions(acc, shift, width):
    assert requantize(np.array([float(acc)]), shift, width)[0] == python_requantize(acc, shift, width)


@given(data=st.data(), shifts=st.lists(st.integers(0, 47), min_size=1, max_size=8))
def test_a_shift_per_channel_is_the_shift_of_each_channel(data, shifts):
    acc = data.draw(st.lists(st.integers(-(2**47), 2**47), min_size=len(shifts), max_size=len(shifts)))
    expected = [python_requantize(a, s, 16) for a, s in zip(acc, shifts, strict=True)]
    assert requantize(np.array(acc, np.float64), np.array(shifts, np.float64)).tolist() == expected
    assert requantize(torch.tensor(acc).double(), torch.tensor(shifts).double()).tolist() == expected
    assert integers.requantize(np.array(acc), np.array(shifts)).tolist() == expected


@pytest.mark.parametrize("array", LIBRARIES)
def test_saturate_clamps_to_the_signed_range(array):
    assert saturate(array([-40000, -32769, -32768, 0, 32767, 32768])).tolist() == [
        -32768, -32768, -32768, 0, 32767, 32767,
    ]  # fmt: skip
    assert saturate(array([-9, -8, 7, 8]), 4).tolist() == [-8, -8, 7, 7]


@pytest.mark.parametrize("array", LIBRARIES)
def test_powers_of_two_are_exact(array):
    exponents = list(range(-1022, 1024))
    assert power_of_two(array(exponents)).tolist() == [math.ldexp(1.0, e) for e in exponents]
    assert [power_of_two(e) for e in (-60, 0, 60)] == [2.0**-60, 1.0, 2.0**60]


@pytest.mark.parametrize("array", LIBRARIES)
def test_floor_log2_is_exact_beside_every_power(array):
    values = sorted({value for e in range(53) for value in (2**e - 1, 2**e, 2**e + 1) if 0 < value < 2**53})
    assert floor_log2(array(values)).tolist() == [value.bit_length() - 1 for value in values]


@pytest.mark.parametrize("array", LIBRARIES)
@pytest.mark.parametrize("shift", [-5, -1, 0, 1, 2, 7, 30])
def test_floor_shift_equals_the_shift_of_integers(array, shift):
    values = [-(2**40) - 1, -1025, -128, -3, -1, 0, 1, 3, 127, 2**40 + 1]
    expected = [value >> shift if shift >= 0 else value << -shift for value in values]
    assert floor_shift(array(values), shift).tolist() == expected


@given(
    largest=st.floats(1e-12, 1e12),
    width=st.integers(4, 32),
    headroom=st.floats(1, 4),
    cap=st.integers(-4, 30),
)
def test_fitting_is_the_finest_format_that_does_not_saturate(largest, width, headroom, cap):
    fitted = FixedPoint.fitting(largest, width, headroom, cap)
    limit = largest * headroom
    assert fitted.frac_bits <= cap
    assert round(Fraction(limit) / Fraction(2) ** -fitted.frac_bits) <= fitted.max_int + 1
    assert abs(float(fitted.quantize(np.array([limit]))[0]) * fitted.lsb - limit) <= fitted.lsb / 2
    if fitted.frac_bits < cap:
        assert limit * 2.0 ** (fitted.frac_bits + 1) >= fitted.max_int + 0.5


def test_fitting_gives_a_format_to_an_all_zero_and_to_an_endless_tensor():
    assert FixedPoint.fitting(0.0) == FixedPoint(14)
    assert FixedPoint.fitting(math.inf, max_frac_bits=12) == FixedPoint(12)
    assert FixedPoint.fitting(1.0) == FixedPoint(14)
    assert FixedPoint.fitting(-3.0) == FixedPoint(13)
    assert FixedPoint.fitting(4.1, headroom=2.0) == FixedPoint(11)


@pytest.mark.parametrize("array", LIBRARIES)
def test_quantize_rounds_half_to_even_and_saturates(array):
    q8 = FixedPoint(2, width=8)
    assert q8.quantize(array([0.125, 0.375, -0.125, -0.375, 31.8, 99.0, -99.0])).tolist() == [
        0, 2, 0, -2, 127, 127, -128,
    ]  # fmt: skip


@pytest.mark.parametrize("width", [1, 49])
def test_a_width_out_of_range_is_refused(width):
    with pytest.raises(ValueError, match=f"width={width} must lie in 2..48"):
        FixedPoint(3, width)
