"""epilogue.hpp: each way out, lane by lane, against Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.hardware import MAX_ROWS
from quant import functions as f
from quant.formats import (
    MAX_RESIDUAL_UP,
    MAX_SECOND_SHIFT,
    MAX_SHIFT,
    MIN_SECOND_SHIFT,
    MIN_SHIFT,
    RESIDUAL_GUARD_BITS,
    requantize,
)
from tests.hls_templates.worlds import make_world

STORE, RESIDUAL, GELU, SCORES, CONTEXT = range(5)
STREAM, K, V = range(3)


def run(world, kind, sums, weights=STREAM, lane_shift=MIN_SHIFT, residual=0, **step):
    """Shifts as Python has them; the engine counts the lanes' and the scores' from MIN_SHIFT on."""
    zeros = np.zeros(world.tile_out, np.int64)
    given_ = [np.ascontiguousarray(zeros + value) for value in (sums, lane_shift - MIN_SHIFT, residual)]
    shift = step.get("shift", MIN_SHIFT) - MIN_SHIFT
    others = (step.get("residual_shift", 0), step.get("second_shift", 0), step.get("exp_sum", 1))
    values, statistics = zeros.copy(), np.zeros(2, np.int64)
    world.call("run_epilogue", *given_, np.array([kind, weights, shift, *others]), values, statistics)
    return values, statistics


@given(data=st.data())
def test_every_epilogue(structures, data):
    world = make_world(structures, data.draw(st.integers(0, 2)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    n = world.tile_out
    sums = rng.integers(-(2**46), 2**46, n) >> rng.integers(0, 44, n)
    shift, residual = rng.integers(MIN_SHIFT, MAX_SHIFT + 1, n), rng.integers(-32768, 32768, n)
    halves = rng.random(n) < 0.3  # ties, and what a bit below them makes of them
    sums = np.where(halves, ((sums >> shift) << shift) + (1 << (shift - 1)) + rng.integers(-1, 2, n), sums)
    acc = sums.astype(float)

    got, _ = run(world, STORE, sums, lane_shift=shift)
    assert np.array_equal(got, requantize(acc, shift))

    up = data.draw(st.integers(-RESIDUAL_GUARD_BITS, MAX_RESIDUAL_UP))
    left = up + RESIDUAL_GUARD_BITS
    got, statistics = run(world, RESIDUAL, sums, lane_shift=shift, residual=residual, residual_shift=left)
    expected = requantize(acc + residual * 2.0 ** (shift + up), shift)
    assert np.array_equal(got, expected)
    assert statistics.tolist() == [expected.sum(), (expected * expected).sum()]

    drop = data.draw(st.integers(MIN_SECOND_SHIFT, MAX_SECOND_SHIFT))
    got, _ = run(world, GELU, sums, lane_shift=shift, second_shift=drop)
    assert np.array_equal(got, requantize(f.gelu(requantize(acc, shift), world.gelu_frac_bits), drop))

    one_shift = data.draw(st.integers(MIN_SHIFT, MAX_SHIFT))
    got, _ = run(world, SCORES, sums, weights=K, lane_shift=shift, shift=one_shift)
    assert np.array_equal(got, requantize(acc, one_shift))


@given(data=st.data())
def test_the_residual_meets_ties_and_ends(structures, data):
    """Sums of residual and accumulator that lie on, beside and far beyond a rounding's edges."""
    world = make_world(structures, data.draw(st.integers(0, 2)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    n, up = world.tile_out, data.draw(st.integers(-RESIDUAL_GUARD_BITS, MAX_RESIDUAL_UP))
    shift = rng.integers(MIN_SHIFT, MAX_SHIFT + 1, n)
    residual = rng.choice([-32768, -32767, -1, 0, 1, 32767], n)
    wanted = rng.choice([-(2**22), -65536, -32769, -32768, -2, -1, 0, 1, 2, 32767, 32768, 65535, 2**22], n)
    half = rng.choice([-1, 0, 1], n) * (1 << (shift - 1)) + rng.integers(-1, 2, n)
    sums = (wanted << shift) + half - (residual << (shift + up))
    got, _ = run(world, RESIDUAL, sums, lane_shift=shift, residual=residual, residual_shift=up + RESIDUAL_GUARD_BITS)
    assert np.array_equal(got, requantize(sums + residual * 2.0 ** (shift + up), shift))


@given(data=st.data())
def test_the_division_by_the_sum_of_exponentials(structures, data):
    world = make_world(structures, data.draw(st.integers(0, 2)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    total = data.draw(st.integers(32767, 32767 * 1023) | st.sampled_from([32767, 32768, 65535, 32767 * 1023]))
    ends = rng.choice([-1, 32767 / 32768], world.tile_out)  # all values at an end of int16
    part = np.where(rng.random(world.tile_out) < 0.2, ends, rng.uniform(-1, 32767 / 32768, world.tile_out))
    sums = (part * total * 32768).astype(np.int64)
    up = data.draw(st.integers(0, f.MAX_CONTEXT_UP))
    drop = f.divide_frac_bits() - up
    got, _ = run(world, CONTEXT, sums, weights=V, exp_sum=total, second_shift=drop)
    ratio = f.divide(sums[:, None].astype(float), np.full((world.tile_out, 1), float(total)))[:, 0]
    assert np.array_equal(got, requantize(ratio, drop))


def test_every_shift_that_a_network_may_have_is_in_the_engines_windows():
    assert MIN_SECOND_SHIFT <= f.divide_frac_bits() - f.MAX_CONTEXT_UP <= f.divide_frac_bits() <= MAX_SECOND_SHIFT
    for total in (f.EXP_ONE, f.EXP_ONE * MAX_ROWS):
        drop = total.bit_length() - 1 + 15 + 2 - f.dividend_bits()
        assert MIN_SHIFT <= drop <= MAX_SHIFT


@pytest.mark.parametrize("tokens", [1, 5, 12, 100])
def test_the_largest_score_is_of_tokens_alone(world, tokens):
    scores = -np.arange(world.tile_out, 0, -1) * 1000 - 20
    scores[0] = -32768
    for first in (0, world.tile_out):
        among = scores[: max(0, min(world.tile_out, tokens - first))]
        expected = int(among.max()) if len(among) else -32768
        assert world.call("run_largest_score", scores, first, tokens) == expected
