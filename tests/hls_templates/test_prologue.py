"""prologue.hpp: LayerNorm and the softmax's numerators."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant import functions as f
from quant.formats import requantize
from tests.hls_templates.worlds import make_world


def check_layer_norm(world, x, output_bits, epsilon):
    """x [C], as many as the row or the head has."""
    padded = np.zeros(-(-len(x) // world.tile_in) * world.tile_in, np.int64)
    padded[: len(x)] = x
    z, statistics = np.zeros_like(padded), np.array([x.sum(), (x * x).sum()])
    parameters = np.array([len(x), f.RECIPROCAL_BITS - output_bits, epsilon])
    for first in range(0, len(padded), world.tile_in):
        part, lanes = np.zeros(world.tile_in, np.int64), np.ascontiguousarray(padded[first : first + world.tile_in])
        world.call("run_layer_norm", lanes, statistics, parameters, part)
        z[first : first + world.tile_in] = part
    expected = requantize(f.layer_norm(x[None].astype(float), epsilon), -output_bits)[0]
    assert np.array_equal(z[: len(x)], expected)


@given(data=st.data())
def test_layer_norm(structures, data):
    world = make_world(structures, data.draw(st.integers(0, 2)))
    width = data.draw(st.integers(1, world.heads * world.head_dim))
    ends = st.sampled_from([-32768, 32767, 0, 1]) | st.integers(-32768, 32767) | st.integers(-3, 3)
    x = np.array(data.draw(st.lists(ends, min_size=width, max_size=width)))
    epsilon = data.draw(st.sampled_from([0, 1, 7, 10**6]))
    check_layer_norm(world, x, data.draw(st.integers(0, 14)), epsilon)


@pytest.mark.parametrize("value", [-32768, -1, 0, 1, 32767])
def test_a_constant_row_gives_zeros(world, value):
    for width in (world.head_dim, world.heads * world.head_dim):
        check_layer_norm(world, np.full(width, value), 12, 0)


@pytest.mark.parametrize("tokens", [1, 7, 8, 9])
def test_softmax_masks_what_is_no_token(world, tokens):
    """Numerators of keys beyond the tokens are zero and not summed, whatever stands there."""
    in_tiles = -(-tokens // world.tile_in) + 1
    scores = np.random.default_rng(tokens).integers(-2000, 2000, in_tiles * world.tile_in)
    scores[tokens:] = 32767
    largest = int(scores[:tokens].max())
    numerators = np.zeros(len(scores), np.int64)
    total = world.call("run_softmax", scores, in_tiles, tokens, largest, numerators)
    expected = f.exp2_negative((largest - scores[:tokens]).astype(float), world.score_frac_bits)
    assert np.array_equal(numerators[:tokens], expected)
    assert not numerators[tokens:].any()
    assert total == expected.sum()
