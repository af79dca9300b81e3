"""token_selector.hpp: pooling and the decision, against quant/selection.py and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.functions import sigmoid
from quant.selection import decide, pool
from tests.hls_templates.worlds import NUM_BANKS

ONE = 1 << 22
TOKEN_SCORE_BANK, BRANCH_BANK = 3, 1


def run_decide(world, scores, branch, num_packages, bits=(12, 12), threshold=ONE // 2):
    """scores, branch [candidates, heads] -> keep, probability [rows], -1 where nothing was decided"""
    work = np.random.default_rng(9).integers(-32768, 32768, (world.rows, NUM_BANKS * world.bank_lanes))
    rows = slice(world.prefix, world.prefix + len(scores))
    score_lane, branch_lane = TOKEN_SCORE_BANK * world.bank_lanes, BRANCH_BANK * world.bank_lanes
    work[rows, score_lane : score_lane + world.heads * world.word : world.word] = scores
    work[rows, branch_lane : branch_lane + world.heads] = branch
    world.call("set_work", np.ascontiguousarray(work))
    keep, probability = np.zeros(world.rows, np.int64), np.zeros(world.rows, np.int64)
    tokens = world.prefix + len(scores) + num_packages
    parameters = np.array([score_lane, branch_lane, *bits, threshold])
    world.call("run_decide", parameters, tokens, num_packages, keep, probability)
    return keep, probability


@given(data=st.data())
def test_decide_equals_python(structures, data):
    from tests.hls_templates.worlds import make_world

    world = make_world(structures, data.draw(st.integers(0, 2)))
    candidates = data.draw(st.integers(0, world.rows - world.prefix))
    packages = data.draw(st.integers(0, world.rows - world.prefix - candidates))
    bits = data.draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))
    threshold = data.draw(st.integers(64, ONE))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    spread = data.draw(st.sampled_from([4, 2000, 32768]))
    scores, branch = rng.integers(-spread, spread, (2, candidates, world.heads))
    keep, probability = run_decide(world, scores, branch, packages, bits, threshold)
    expected = decide(scores.astype(float), bits[0], branch.astype(float), bits[1], threshold)
    rows = slice(world.prefix, world.prefix + candidates)
    assert np.array_equal(keep[rows], expected.keep)
    assert np.array_equal(probability[rows], expected.probability)
    others = np.delete(np.arange(world.rows), np.arange(rows.start, rows.stop))
    assert (keep[others] == 0).all() and (probability[others] == -1).all()  # prefix and packages are never asked


def test_a_token_at_the_threshold_is_kept(world):
    """Whatever the heads weigh, equal scores are the probability: exactly the threshold, then one unit below it."""
    half = int(sigmoid(np.zeros(1), 12)[0])
    assert abs(half - ONE // 2) < 100
    scores, branch = np.zeros((3, world.heads), np.int64), np.full((3, world.heads), 100)
    rows = slice(world.prefix, world.prefix + 3)
    keep, probability = run_decide(world, scores, branch, 0, threshold=half)
    assert (keep[rows] == 1).all() and np.abs(probability[rows] - ONE // 2).max() <= 2**-16 * ONE
    assert (run_decide(world, scores, branch, 0, threshold=half + 1)[0][rows] == 0).all()


def test_heads_without_weight_keep_the_token(world):
    """sigmoid(-2^15 / 2^0) is 0 for every head: 0 >= 0; its probability is the smallest there is."""
    scores, branch = np.full((2, world.heads), -5), np.full((2, world.heads), -32768)
    keep, probability = run_decide(world, scores, branch, 1, bits=(0, 0), threshold=ONE)
    rows = slice(world.prefix, world.prefix + 2)
    assert (keep[rows] == 1).all() and (probability[rows] == 1).all()


@pytest.mark.parametrize("num_packages", [0, 2])
@pytest.mark.parametrize("candidates", [0, 1, 2, 5])
@pytest.mark.parametrize("padding", [0, 3])
def test_pooling_is_the_mean_over_the_candidates(world, candidates, num_packages, padding):
    """Behind the features, lanes are zero, whatever another network left there."""
    count = world.head_lanes - padding
    features = np.random.default_rng(candidates).integers(-32768, 32768, (candidates, world.head_lanes))
    pooled = np.zeros(world.head_lanes, np.int64)
    # without a candidate the sums are what an earlier pass left, and must not be seen
    sums = features.sum(axis=0) if candidates else np.full(world.head_lanes, 77)
    world.call("run_pool", sums, world.prefix + candidates + num_packages, num_packages, count, pooled)
    expected = pool(features.astype(float)) if candidates else np.zeros(world.head_lanes)
    assert np.array_equal(pooled[:count], expected[:count]) and not pooled[count:].any()
    if candidates:
        assert np.abs(pooled - features.mean(axis=0))[:count].max() <= 0.75
