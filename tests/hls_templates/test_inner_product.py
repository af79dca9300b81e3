"""inner_product.hpp: fast, direct and naive are one number, at all ends of int16 too."""

import itertools

import numpy as np
import pytest

ENDS = [-32768, -32767, -1, 0, 1, 32767]


def check(arithmetic, a, w):
    direct, fast = arithmetic.map("inner_product", a, w, parameter=a.shape[1], outputs=2)
    naive = [
        sum(x * y for x, y in zip(left, right, strict=True)) for left, right in zip(a.tolist(), w.tolist(), strict=True)
    ]
    assert direct.tolist() == naive
    assert fast.tolist() == naive


def test_every_combination_of_ends_in_a_pair(arithmetic):
    """a[j], a[j+h], w[j], w[j+h] at every end, in the first pair and in all of them."""
    combinations = np.array(list(itertools.product(ENDS, repeat=4)))
    for pairs in (1, 4):
        a, w = (np.zeros((len(combinations), 8), np.int64) for _ in range(2))
        a[:, :pairs], a[:, 4 : 4 + pairs] = combinations[:, :1], combinations[:, 1:2]
        w[:, :pairs], w[:, 4 : 4 + pairs] = combinations[:, 2:3], combinations[:, 3:4]
        check(arithmetic, a, w)


@pytest.mark.parametrize("tile_in", [8, 16, 128])
def test_random_vectors(arithmetic, tile_in):
    rng = np.random.default_rng(tile_in)
    check(arithmetic, *rng.integers(-32768, 32768, (2, 300, tile_in)))
    check(arithmetic, *rng.choice(ENDS, (2, 300, tile_in)))


@pytest.mark.parametrize("lane", range(16))
def test_each_lane_counts_once(arithmetic, lane):
    a, w = np.eye(16, dtype=np.int64)[[lane]] * 3, np.arange(16)[None] + 100
    check(arithmetic, a, w)
