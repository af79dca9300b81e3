"""memory.hpp: rows, banks, rotation, and the skewed values, against plain arrays."""

import numpy as np
import pytest

from tests.hls_templates.worlds import NUM_BANKS


def test_what_is_written_by_words_is_read_by_tiles(world):
    x = world.random_x(np.random.default_rng(0))
    world.call("set_x", x)
    assert np.array_equal(world.get_x()[0], x)


def test_banks_lie_side_by_side(world):
    found = np.zeros((NUM_BANKS * world.bank_lanes, 2), np.int64)
    world.call("locate_all", found)
    assert found.tolist() == [[lane // world.bank_lanes, lane % world.bank_lanes] for lane in range(len(found))]


@pytest.mark.parametrize("size", [8, 64])
def test_rotate_by_every_amount(arithmetic, size):
    lanes = np.tile(np.arange(size) - 5, (size, 1))
    turned = arithmetic.map("rotate", lanes, np.arange(size), size)
    assert np.array_equal(turned, [np.roll(lanes[0], -amount) for amount in range(size)])


def test_values_come_back_as_columns(world):
    """Written token by token, read dimension by dimension over kTileIn keys."""
    values = np.random.default_rng(1).integers(-32768, 32768, (world.rows, world.embed_lanes))
    blocks = -(-world.rows // world.tile_in)
    columns = np.zeros((world.embed_lanes, blocks * world.tile_in), np.int64)
    world.call("transpose_values", values, columns)
    assert np.array_equal(columns[:, : world.rows], values.T)


def test_one_write_of_values_touches_each_bank_once(world):
    """For every key and tile of dimensions: so the banks are memories of one port."""
    for key in range(world.rows):
        for dim in range(0, world.embed_lanes, world.tile_out):
            hits = np.zeros(world.word, np.int64)
            world.call("value_banks", key, dim, hits)
            assert hits.max() == 1 and hits.sum() == world.tile_out, (key, dim)
            assert {(dim + i + key) % world.word for i in range(world.tile_out)} == set(np.flatnonzero(hits))
