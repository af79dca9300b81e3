"""tile.hpp and weight_stream.hpp: what arrives on the ports, where it ends up in the registers."""

import numpy as np
import pytest

from hw.weights import pack_words, port_stripes, stream_checksum
from tests.hls_templates.worlds import KEY_BANK, NUM_BANKS


def test_stripes_are_joined_word_by_word(world):
    rng = np.random.default_rng(0)
    words = rng.integers(-32768, 32768, (50, world.fill_lanes)).astype(np.int16)
    words[:3] = [[-32768], [-1], [32767]]
    joined = np.zeros(words.shape, np.int64)
    checksum = world.call("join", np.ascontiguousarray(port_stripes(words, world.ports), np.int64), len(words), joined)
    assert np.array_equal(joined, words)
    assert checksum == stream_checksum(words)


def test_every_bit_is_in_the_checksum(world):
    """Against the loop written out: rotate by one, XOR 32 bits."""

    def naive(words):
        total = 0
        for word in words.astype(np.uint16).tolist():
            total = (total << 1 | total >> 31) & 0xFFFFFFFF
            for lane, value in enumerate(word):
                total ^= value << 16 * (lane % 2)
        return total

    words = np.random.default_rng(1).integers(-32768, 32768, (70, world.fill_lanes)).astype(np.int16)
    assert stream_checksum(words) == naive(words)
    for word, lane, bit in [(0, 0, 0), (69, world.fill_lanes - 1, 15), (35, 3, 7)]:
        changed = words.copy()
        changed[word, lane] ^= np.int16(np.uint16(1 << bit).astype(np.int16))
        assert stream_checksum(changed) == naive(changed) != naive(words)


@pytest.mark.parametrize(("code", "bits"), [(0, 16), (1, 12), (2, 8)])
def test_a_tile_from_the_stream(world, code, bits):
    """Two tiles of inputs: parameters come with the first, shifts stay, weights change, column after column; narrow ones
    come in fewer words, whose lowest bits are others'."""
    rng = np.random.default_rng(2)
    weights = rng.integers(-(1 << bits - 1), 1 << bits - 1, (2, world.tile_out, world.tile_in)) << 16 - bits
    weights[0, 0, :2] = -32768, (1 << bits - 1) - 1 << 16 - bits
    bias = rng.integers(-(2**47), 2**47, world.tile_out)
    bias[:4] = -(2**47), 2**47 - 1, -1, 2**16
    shift = rng.integers(0, 16, world.tile_out)
    params = np.stack([bias & 0xFFFF, bias >> 16 & 0xFFFF, bias >> 32 & 0xFFFF, shift], axis=1)
    words = [
        (part & 0xFFFF).astype(np.uint16).view(np.int16).reshape(-1, world.fill_lanes) for part in (params, *weights)
    ]
    packed = [words[0], *(pack_words(tile, bits) for tile in words[1:])]
    assert sum(map(len, packed)) == len(words[0]) + 2 * len(words[1]) * bits // 16
    lanes = np.concatenate(packed).astype(np.int64)
    active = np.zeros((2, world.tile_out, world.tile_in), np.int64)
    biases, shifts = np.zeros((2, world.tile_out), np.int64), np.zeros((2, world.tile_out), np.int64)
    left = world.call("fill_from_words", lanes, len(lanes), 2, active, biases, shifts, code)
    assert left == 0
    assert np.array_equal(active, weights)
    assert np.array_equal(biases, [bias, 0 * bias])  # a bias is added once
    assert np.array_equal(shifts, [shift, shift])


@pytest.mark.parametrize("tokens", [1, 3, 9])
def test_a_tile_of_keys(world, tokens):
    """Each column is a token's key; columns beyond the tokens are zero; the fast product's terms leave with the bias."""
    rng = np.random.default_rng(tokens)
    work = rng.integers(-32768, 32768, (world.rows, NUM_BANKS * world.bank_lanes))
    world.call("set_work", work)
    for head in range(world.heads):
        for out_tile in range(-(-tokens // world.tile_out)):
            for in_tile in range(-(-world.head_dim // world.tile_in)):
                active = np.zeros((world.tile_out, world.tile_in), np.int64)
                bias = np.zeros(world.tile_out, np.int64)
                at = np.array([head * world.head_lanes, out_tile, in_tile, tokens])
                world.call("fill_from_keys", at, active, bias)
                first = KEY_BANK * world.bank_lanes + head * world.head_lanes + in_tile * world.tile_in
                expected = np.zeros_like(active)
                for column in range(world.tile_out):
                    key = out_tile * world.tile_out + column
                    if key < tokens:
                        expected[column] = work[key, first : first + world.tile_in]
                half = world.tile_in // 2
                terms = (expected[:, :half] * expected[:, half:]).sum(axis=1)
                assert np.array_equal(active, expected)
                assert np.array_equal(bias, -terms if world.is_fast else 0 * terms)
