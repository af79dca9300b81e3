"""epilogue.hpp: each way out, lane by lane, against Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant import functions as f
from quant.formats import requantize
from tests.hls_templates.worlds import make_world

STORE, RESIDUAL, GELU, SCORES, CONTEXT = range(5)
STREAM, K, V = range(3)


def run(world, kind, sums, weights=STREAM, bias=0, lane_shift=0, residual=0, **step):
    zeros = np.zeros(world.tile_out, np.int64)
    given_ = [np.ascontiguousarray(zeros + value) for value in (sums, bias, lane_shift, residual)]
    names = ("shift", "residual_align", "second_shift", "frac_bits")
    parameters = np.array([kind, weights, *(step.get(name, 0) for name in names), step.get("exp_sum", 1)])
    values, statistics = zeros.copy(), np.zeros(2, np.int64)
    world.call("run_epilogue", *given_, parameters, values, statistics)
    return values, statistics


@given(data=st.data())
def test_every_epilogue(structures, data):
    world = make_world(structures, data.draw(st.integers(0, 2)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    n = world.tile_out
    sums = rng.integers(-(2**42), 2**42, n) >> rng.integers(0, 40, n)
    bias = rng.integers(-(2**42), 2**42, n) >> rng.integers(0, 40, n)
    shift, residual = rng.integers(2, 28, n), rng.integers(-32768, 32768, n)
    acc = (sums + bias).astype(float)

    got, statistics = run(world, STORE, sums, bias=bias, lane_shift=shift)
    assert np.array_equal(got, requantize(acc, shift))
    assert not statistics.any()

    align = data.draw(st.integers(-2, 3))
    got, statistics = run(world, RESIDUAL, sums, bias=bias, lane_shift=shift, residual=residual, residual_align=align)
    expected = requantize(acc + residual * 2.0 ** (shift + align), shift)
    assert np.array_equal(got, expected)
    assert statistics.tolist() == [expected.sum(), (expected * expected).sum()]

    bits, out_bits = data.draw(st.integers(0, 14)), data.draw(st.integers(0, 13))
    drop = f.GELU_FRAC_BITS - out_bits
    got, _ = run(world, GELU, sums, bias=bias, lane_shift=shift, frac_bits=bits, second_shift=drop)
    assert np.array_equal(got, requantize(f.gelu(requantize(acc, shift), bits), drop))

    one_shift = data.draw(st.integers(0, 28))
    got, _ = run(world, SCORES, sums, weights=K, bias=bias, lane_shift=shift, shift=one_shift)
    assert np.array_equal(got, requantize(acc, one_shift))


@given(data=st.data())
def test_the_division_by_the_sum_of_exponentials(structures, data):
    world = make_world(structures, data.draw(st.integers(0, 2)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    total = data.draw(st.integers(32767, 32767 * 1024))
    sums = (rng.uniform(-1, 1, world.tile_out) * total * 32768).astype(np.int64)
    up = data.draw(st.integers(0, 8))
    drop = f.divide_frac_bits() - up
    got, _ = run(world, CONTEXT, sums - 99, weights=V, bias=99, exp_sum=total, second_shift=drop)
    ratio = f.divide(sums[:, None].astype(float), np.full((world.tile_out, 1), float(total)))[:, 0]
    assert np.array_equal(got, requantize(ratio, drop))


@pytest.mark.parametrize("tokens", [1, 5, 12, 100])
def test_the_largest_score_is_of_tokens_alone(world, tokens):
    scores = -np.arange(world.tile_out, 0, -1) * 1000 - 20
    scores[0] = -32768
    for first in (0, world.tile_out):
        among = scores[: max(0, min(world.tile_out, tokens - first))]
        expected = int(among.max()) if len(among) else -32768
        assert world.call("run_largest_score", scores, first, tokens) == expected
