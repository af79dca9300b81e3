"""The non-linear functions: tables with linear interpolation in integers.

Enters and leaves: integers carried in float64 (see `formats`), of NumPy or torch. The same tables are rendered as C++
constants and the same steps stand in `hls_templates/functions.hpp`; neither evaluates a transcendental function at run
time. A function returns its exact result *before* the last rounding, so that the caller's quantizer rounds once.

| function                      | table             | worst error of the rounded result, in its LSB |
|-------------------------------|-------------------|------------------------------------------------|
| `exp2_negative`  2^-t         | 1024 entries      | 0.57                                           |
| `gelu`                        | 32 per unit to 5  | 0.92 at 13 fraction bits, 0.72 at 12           |
| `divide`         A / S        | 256 segments      | 0.75                                           |
| `layer_norm`     (x-mean)/std | 2 x 128 segments  | 0.75                                           |
| `sigmoid`                     | 32 per unit to 16 | 0.20 of 2^-15; 0.1% of the value in its tail   |

`tests/quant/test_functions.py` holds them to these bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

from quant.formats import (
    MAX_SECOND_SHIFT,
    MIN_SECOND_SHIFT,
    Array,
    floor_log2,
    floor_shift,
    power_of_two,
    requantize,
)

# 2^-t, the numerator of softmax
EXP_ONE = 32767  # 2^0 in Q0.15; signed, so that the fast inner product's sums stay 17 bits wide
EXP_MAX_FRAC_BITS = 10
EXP_GUARD_BITS = 3  # 18 bits in all: a block RAM's word
# h(|x|) = GELU(x) - max(x, 0)
GELU_MAX_FRAC_BITS = 14
GELU_SEGMENT_BITS = 5  # segments per unit, as a power of two
GELU_LIMIT = 5  # h(5) is 1.4e-6
GELU_TABLE_FRAC_BITS = 20
GELU_FRAC_BITS = GELU_TABLE_FRAC_BITS + GELU_MAX_FRAC_BITS - GELU_SEGMENT_BITS  # of the unrounded result
GELU_MIN_OUTPUT_FRAC_BITS = GELU_FRAC_BITS - MAX_SECOND_SHIFT
GELU_MAX_OUTPUT_FRAC_BITS = GELU_FRAC_BITS - MIN_SECOND_SHIFT
# reciprocals: a 22-bit mantissa in, 17 bits out (a signed 18-bit factor of a DSP48E2)
MANTISSA_BITS = 22
RECIPROCAL_BITS = 17
RECIPROCAL_SEGMENT_BITS = 8
RSQRT_SEGMENT_BITS = 7
RECIPROCAL_GUARD_BITS = 10
RECIPROCAL_ERROR = 1.06 * 2.0**-RECIPROCAL_BITS  # of 1/S, relative, at most; seen in quotients of more than 15 bits
MAX_DIVIDEND_BITS = 27
DIVIDEND_GUARD_BITS = 6  # below the quotient's last bit
MAX_CONTEXT_UP = 4  # more fraction bits of attention's result than of V: as many of these are left
# sigmoid
SIGMOID_MAX_FRAC_BITS = 12
SIGMOID_SEGMENT_BITS = 5
SIGMOID_LIMIT = 16
PROBABILITY_BITS = 22  # a dropped token's probability is small, and it is its weight in the package
HEAD_WEIGHT_BITS = 15


@dataclass(frozen=True)
class Table:
    """Piecewise linear: segment i runs from `base[i]` by `slope[i]` over its width."""

    base: NDArray[np.int64]
    slope: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.base)


def _chords(f: Callable[[NDArray[np.float64]], NDArray[np.float64]], knots: NDArray[np.float64], scale: float) -> Table:
    """Chords of `f` between `knots`, shifted by half their largest distance from it so that the error is balanced."""
    left, right = f(knots[:-1]), f(knots[1:])
    inner = np.linspace(0.0, 1.0, 65)[None, :]
    chord = left[:, None] + (right - left)[:, None] * inner
    distance = f(knots[:-1, None] + (knots[1:] - knots[:-1])[:, None] * inner) - chord
    offset = (distance.max(axis=1) + distance.min(axis=1)) / 2
    base = np.rint((left + offset) * scale)
    end = np.rint((right + offset) * scale)
    return Table(base.astype(np.int64), (end - base).astype(np.int64))


@lru_cache(maxsize=1)
def exp2_table() -> NDArray[np.int64]:
    """2^-t for every fraction."""
    fraction = np.arange(2**EXP_MAX_FRAC_BITS) / 2**EXP_MAX_FRAC_BITS
    table: NDArray[np.int64] = np.rint(np.exp2(-fraction) * (EXP_ONE * 2**EXP_GUARD_BITS)).astype(np.int64)
    return table


@lru_cache(maxsize=1)
def gelu_table() -> Table:
    knots = np.arange(GELU_LIMIT * 2**GELU_SEGMENT_BITS + 1) / 2**GELU_SEGMENT_BITS
    return _chords(lambda x: -x * _gaussian_tail(x), knots, 2.0**GELU_TABLE_FRAC_BITS)


@lru_cache(maxsize=1)
def reciprocal_table() -> Table:
    knots = 1 + np.arange(2**RECIPROCAL_SEGMENT_BITS + 1) / 2**RECIPROCAL_SEGMENT_BITS
    return _chords(lambda m: 1 / m, knots, 2.0 ** (RECIPROCAL_BITS + RECIPROCAL_GUARD_BITS))


@lru_cache(maxsize=1)
def rsqrt_table() -> Table:
    """1/sqrt(m): the first half of the segments covers m in [1, 2), the second [2, 4)."""
    low = 1 + np.arange(2**RSQRT_SEGMENT_BITS + 1) / 2**RSQRT_SEGMENT_BITS
    halves = [
        _chords(lambda m: 1 / np.sqrt(m), knots, 2.0 ** (RECIPROCAL_BITS + RECIPROCAL_GUARD_BITS))
        for knots in (low, 2 * low)
    ]
    return Table(np.concatenate([h.base for h in halves]), np.concatenate([h.slope for h in halves]))


@lru_cache(maxsize=1)
def sigmoid_table() -> Table:
    """sigmoid(-x) for x >= 0."""
    knots = np.arange(SIGMOID_LIMIT * 2**SIGMOID_SEGMENT_BITS + 1) / 2**SIGMOID_SEGMENT_BITS
    return _chords(lambda x: 1 / (1 + np.exp(x)), knots, 2.0**PROBABILITY_BITS)


def exp2_negative(t: Array, frac_bits: int) -> Array:
    """2^-t scaled by 32767, rounded half to even: int16 in Q0.15, 0 for t >= 16.

    t          integers >= 0 with `frac_bits` <= 10 fraction bits: the row's maximum minus the score
    """
    xp = array_namespace(t)
    t = t * 2.0 ** (EXP_MAX_FRAC_BITS - frac_bits)
    whole = floor_shift(t, EXP_MAX_FRAC_BITS)
    fraction = t - whole * 2.0**EXP_MAX_FRAC_BITS
    value = _exp2_on_device(xp, device(t))[xp.astype(fraction, xp.int64)]
    return xp.round(value * power_of_two(xp.clip(-whole - EXP_GUARD_BITS, -60, 0)))


def gelu(x: Array, frac_bits: int) -> Array:
    """GELU = max(x, 0) + h(|x|), unrounded, with `GELU_FRAC_BITS` fraction bits.

    x          int16 with `frac_bits` <= 14
    """
    xp = array_namespace(x)
    magnitude = xp.abs(x) * 2.0 ** (GELU_MAX_FRAC_BITS - frac_bits)
    limit = GELU_LIMIT * 2.0**GELU_MAX_FRAC_BITS
    inside = magnitude < limit
    h = _interpolate(gelu_table, xp.where(inside, magnitude, xp.zeros_like(x)), GELU_MAX_FRAC_BITS - GELU_SEGMENT_BITS)
    return xp.clip(x, 0, None) * 2.0 ** (GELU_FRAC_BITS - frac_bits) + xp.where(inside, h, xp.zeros_like(x))


def divide(dividend: Array, divisor: Array, ratio_bits: int = 15) -> Array:
    """dividend / divisor, unrounded, with `divide_frac_bits(ratio_bits)` more fraction bits than dividend/divisor.

    The dividend is first cut to `dividend_bits(ratio_bits)` at the divisor's leading one, then multiplied by a 17-bit
    reciprocal.

    dividend    [..., n] integers, |dividend| <= divisor * 2**ratio_bits
    divisor     [..., 1] integers in 1 .. 2**40
    """
    xp = array_namespace(divisor)
    exponent = floor_log2(divisor)
    mantissa = floor_shift(divisor, exponent - MANTISSA_BITS)  # in [2^22, 2^23)
    remainder_bits = MANTISSA_BITS - RECIPROCAL_SEGMENT_BITS
    reciprocal = _round_reciprocal(
        _interpolate(reciprocal_table, mantissa - 2.0**MANTISSA_BITS, remainder_bits), remainder_bits, xp
    )
    bits = dividend_bits(ratio_bits)
    return requantize(dividend, exponent + (ratio_bits + 2 - bits), bits) * reciprocal


def dividend_bits(ratio_bits: int = 15) -> int:
    """Of the cut dividend: what decides the quotient, as far as a DSP48E2's wide factor holds it."""
    return min(ratio_bits + 2 + DIVIDEND_GUARD_BITS, MAX_DIVIDEND_BITS)


def divide_frac_bits(ratio_bits: int = 15) -> int:
    return RECIPROCAL_BITS + dividend_bits(ratio_bits) - 2 - ratio_bits


def layer_norm(x: Array, epsilon: int) -> Array:
    """(x - mean) / sqrt(variance + eps) over the last axis, unrounded, in real units.

    An exact multiple of a power of two: (C x - sum x) times the 17-bit reciprocal root of
    V = C sum x^2 - (sum x)^2 + epsilon. A constant row gives zeros.

    x        [..., C] int16
    epsilon  eps * C^2 * 2^(2 frac_bits), rounded: `layer_norm_epsilon`
    """
    xp = array_namespace(x)
    channels = x.shape[-1]
    total = xp.sum(x, axis=-1, keepdims=True)
    squares = xp.sum(x * x, axis=-1, keepdims=True)
    variance = xp.clip(channels * squares - total * total + epsilon, 1, None)
    half_exponent = floor_shift(floor_log2(variance), 1)
    mantissa = floor_shift(variance, 2 * half_exponent - (MANTISSA_BITS - 2))  # in [2^20, 2^22): m in [1, 4)
    low_bits = MANTISSA_BITS - 2
    upper = mantissa >= 2.0 ** (low_bits + 1)
    folded = xp.where(upper, mantissa - 2.0 ** (low_bits + 1), 2 * (mantissa - 2.0**low_bits))
    folded = folded + xp.where(upper, 2.0 ** (low_bits + 1), 0.0)  # both halves in steps of the upper one
    remainder_bits = low_bits + 1 - RSQRT_SEGMENT_BITS
    rstd = _round_reciprocal(_interpolate(rsqrt_table, folded, remainder_bits), remainder_bits, xp)
    return (channels * x - total) * rstd * power_of_two(-half_exponent - RECIPROCAL_BITS)


def layer_norm_epsilon(eps: float, channels: int, frac_bits: int) -> int:
    """The integer that stands for `eps` beside V."""
    return round(eps * channels**2 * 2.0 ** (2 * frac_bits))


def sigmoid(x: Array, frac_bits: int) -> Array:
    """sigmoid(x) as an integer with 22 fraction bits, 0 and 1 included.

    x          int16 with `frac_bits` <= 12
    """
    xp = array_namespace(x)
    magnitude = xp.abs(x) * 2.0 ** (SIGMOID_MAX_FRAC_BITS - frac_bits)
    inside = magnitude < SIGMOID_LIMIT * 2.0**SIGMOID_MAX_FRAC_BITS
    remainder_bits = SIGMOID_MAX_FRAC_BITS - SIGMOID_SEGMENT_BITS
    value = _interpolate(sigmoid_table, xp.where(inside, magnitude, xp.zeros_like(x)), remainder_bits)
    tail = xp.where(inside, floor_shift(value + 2.0 ** (remainder_bits - 1), remainder_bits), xp.zeros_like(x))
    return xp.where(x >= 0, 2.0**PROBABILITY_BITS - tail, tail)


def _interpolate(table: Callable[[], Table], position: Array, remainder_bits: int) -> Array:
    """`base << remainder_bits + slope * remainder` of the segment that `position` falls into."""
    xp = array_namespace(position)
    segment = floor_shift(position, remainder_bits)
    remainder = position - segment * 2.0**remainder_bits
    base, slope = _on_device(table, xp, device(position))
    index = xp.astype(segment, xp.int64)
    return base[index] * 2.0**remainder_bits + slope[index] * remainder


def _round_reciprocal(value: Array, remainder_bits: int, xp: Any) -> Array:
    """To 17 bits, half up, at most 2^17 - 1."""
    drop = remainder_bits + RECIPROCAL_GUARD_BITS
    return xp.clip(floor_shift(value + 2.0 ** (drop - 1), drop), None, 2.0**RECIPROCAL_BITS - 1)


@lru_cache(maxsize=64)
def _on_device(table: Callable[[], Table], xp: Any, where: Any) -> tuple[Array, Array]:
    t = table()
    return (
        xp.asarray(t.base.astype(np.float64), device=where),
        xp.asarray(t.slope.astype(np.float64), device=where),
    )


@lru_cache(maxsize=16)
def _exp2_on_device(xp: Any, where: Any) -> Array:
    return xp.asarray(exp2_table().astype(np.float64), device=where)


def _gaussian_tail(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(N(0,1) > x)."""
    return np.vectorize(lambda v: 0.5 * math.erfc(v / math.sqrt(2)))(x)  # type: ignore[no-any-return]
