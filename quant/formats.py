"""Fixed-point formats and THE rounding rule.

Integers are carried in float64 arrays, of NumPy or of torch, on CPU or GPU: all that the accelerator computes fits
48 bits, float64 is exact up to 53, and its matrix products are the fastest exact ones that both libraries have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from array_api_compat import array_namespace, device

Array = Any
"""A float64 array of NumPy or torch that holds integers."""

ACTIVATION_BITS = 16
MAX_FRAC_BITS = 14
"""Activations keep at least one integer bit beside the sign: a format with 15 fraction bits cannot hold 1.0."""

# The engine's lanes shift within windows: a window of 16 takes half the logic of any shift.
MIN_SHIFT, SHIFT_BITS = 8, 4
MAX_SHIFT = MIN_SHIFT + 2**SHIFT_BITS - 1
"""What a layer's accumulator drops."""
MIN_SECOND_SHIFT, SECOND_SHIFT_BITS = 16, 3
MAX_SECOND_SHIFT = MIN_SECOND_SHIFT + 2**SECOND_SHIFT_BITS - 1
"""What GELU and softmax's division drop."""
RESIDUAL_GUARD_BITS, RESIDUAL_SHIFT_BITS = 6, 3
MAX_RESIDUAL_UP = 2**RESIDUAL_SHIFT_BITS - 1 - RESIDUAL_GUARD_BITS
"""A result has at most so many fraction bits more than the residual, and at most RESIDUAL_GUARD_BITS fewer."""

LEAST_EXPONENT, MOST_EXPONENT = -1022, 1023
"""Of two, in float64 without subnormals."""


@dataclass(frozen=True)
class FixedPoint:
    """A signed fixed-point format: the real value of an integer q is `q * 2**-frac_bits`."""

    frac_bits: int
    width: int = ACTIVATION_BITS

    def __post_init__(self) -> None:
        if not 2 <= self.width <= 48:
            raise ValueError(f"width={self.width} must lie in 2..48")

    @property
    def min_int(self) -> int:
        return -(1 << (self.width - 1))

    @property
    def max_int(self) -> int:
        return (1 << (self.width - 1)) - 1

    @property
    def lsb(self) -> float:
        return 2.0**-self.frac_bits

    @classmethod
    def fitting(
        cls, largest: float, width: int = ACTIVATION_BITS, headroom: float = 1.0, max_frac_bits: int = MAX_FRAC_BITS
    ) -> FixedPoint:
        """The finest format in which `largest * headroom` does not saturate.

        largest        largest magnitude seen, in real units
        headroom       factor >= 1 kept free above it
        max_frac_bits  upper bound, so that an all-zero tensor gets a format too
        """
        limit = abs(largest) * headroom
        if limit == 0 or not math.isfinite(limit):
            return cls(max_frac_bits, width)
        largest_int = (1 << (width - 1)) - 1
        frac_bits = math.floor(math.log2((largest_int + 0.5) / limit))
        return cls(min(frac_bits, max_frac_bits), width)

    def quantize(self, real: Array) -> Array:
        """Integers nearest to `real`, ties to even, saturated."""
        return saturate(array_namespace(real).round(real * 2.0**self.frac_bits), self.width)


def saturate(x: Array, width: int = ACTIVATION_BITS) -> Array:
    """Clamp integers to the range of a signed `width`-bit number."""
    return array_namespace(x).clip(x, -(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1)


def requantize(acc: Array, shift: int | Array, width: int = ACTIVATION_BITS) -> Array:
    """Drop `shift` bits, rounding half to even, then saturate to `width` bits.

    acc    [..., n] integers, |acc| < 2**52
    shift  one for all or any shape that broadcasts, an integer in -16..47; negative shifts append zeros
    """
    return saturate(array_namespace(acc).round(acc * power_of_two(-shift)), width)


def power_of_two(exponent: int | Array) -> Any:
    """`2.0**exponent`, exactly, for a number or an array of integers."""
    if isinstance(exponent, int):
        return 2.0**exponent
    xp = array_namespace(exponent)  # looked up: a library's pow() may be an ulp off
    powers = _powers_on_device(xp, device(exponent))
    return powers[xp.astype(exponent, xp.int64) - LEAST_EXPONENT]


@lru_cache(maxsize=16)
def _powers_on_device(xp: Any, where: Any) -> Array:
    exponents = range(LEAST_EXPONENT, MOST_EXPONENT + 1)
    return xp.asarray([2.0**exponent for exponent in exponents], dtype=xp.float64, device=where)


def floor_shift(x: Array, shift: int | Array) -> Array:
    """Drop `shift` bits, rounding towards minus infinity, as `>>` does."""
    return array_namespace(x).floor(x * power_of_two(-shift))


def floor_log2(x: Array) -> Array:
    """Index of the leading one of positive integers below 2**53."""
    xp = array_namespace(x)
    estimate = xp.floor(xp.log2(x))
    estimate = xp.where(power_of_two(estimate) > x, estimate - 1, estimate)
    return xp.where(power_of_two(estimate + 1) <= x, estimate + 1, estimate)
