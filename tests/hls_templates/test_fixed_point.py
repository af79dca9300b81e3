"""fixed_point.hpp and types.hpp: THE rounding rule against Python's, and against the vendor's ap_fixed."""

import numpy as np
import pytest

from quant.formats import requantize, saturate


def edges(shift, bits=16):
    """Around every tie and every end: multiples of half an LSB near zero and near saturation, one more, one less."""
    half = max(1, 1 << shift >> 1)
    middles = np.array([0, 1, 2, 3, 4, 5, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits, 2**bits + 1], dtype=object)
    values = {
        int(sign * (m * (1 << shift) + k * half + d))
        for m in middles
        for k in (-1, 0, 1)
        for d in (-1, 0, 1)
        for sign in (-1, 1)
    }
    values |= {2**46 - 1, -(2**46), 2**46 - half, half - 2**46}
    return sorted(value for value in values if abs(value) <= 2**46)  # what shifts of 31 bits can still keep in range


def pairs(shifts, bits=16):
    acc = [(value, shift) for shift in shifts for value in edges(shift, bits)]
    return np.array(acc, np.int64).T


@pytest.mark.parametrize("bits", [16, 27])
def test_requantize_at_every_edge(arithmetic, bits):
    acc, shift = pairs(range(45 if bits == 16 else 30), bits)
    got = arithmetic.map(f"requantize_{bits}", acc, shift)
    expected = requantize(acc.astype(float), shift, bits)
    wrong = np.flatnonzero(got != expected)
    assert not len(wrong), f"{acc[wrong[0]]} >> {shift[wrong[0]]}: {got[wrong[0]]}, not {expected[wrong[0]]}"


def test_requantize_is_python_s_round(arithmetic):
    """The naive version: integers of any size, exact halves."""
    acc, shift = pairs([0, 1, 2, 7, 16, 31])

    def naive(a, s):
        whole, rest = divmod(a, 1 << s)
        whole += 2 * rest > 1 << s or (2 * rest == 1 << s and whole % 2)
        return max(-32768, min(32767, whole))

    assert arithmetic.map("requantize_16", acc, shift).tolist() == [
        naive(a, s) for a, s in zip(acc.tolist(), shift.tolist(), strict=True)
    ]


def test_requantize_is_ap_fixed_s_convergent_rounding_and_saturation(arithmetic):
    acc, shift = pairs(range(32))
    vendor = arithmetic.map("ap_fixed_16", acc, shift)
    assert np.array_equal(arithmetic.map("requantize_16", acc, shift), vendor)
    assert vendor.min() == -32768 and vendor.max() == 32767


def test_every_int16_and_beyond(arithmetic):
    acc = np.arange(-(2**18), 2**18)
    for shift in (0, 1, 2, 3):
        expected = requantize(acc.astype(float), shift)
        assert np.array_equal(arithmetic.map("requantize_16", acc, np.full_like(acc, shift)), expected)


def test_random_accumulators(arithmetic):
    rng = np.random.default_rng(0)
    shift = rng.integers(0, 32, 20000)
    acc = rng.integers(-(2**20), 2**20, 20000) << rng.integers(0, 26, 20000)
    assert np.array_equal(arithmetic.map("requantize_16", acc, shift), requantize(acc.astype(float), shift))


def test_saturate(arithmetic):
    x = np.array([-(2**46), -32769, -32768, -1, 0, 1, 32767, 32768, 2**46])
    assert np.array_equal(arithmetic.map("saturate_16", x), saturate(x.astype(float)))


def test_shift_left_of_negative_numbers(arithmetic):
    x, shift = (grid.ravel() for grid in np.meshgrid([-32768, -32767, -1, 0, 1, 32767], np.arange(32)))
    assert np.array_equal(arithmetic.map("shift_left_48", x, shift), x << shift)
