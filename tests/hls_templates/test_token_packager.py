"""token_packager.hpp against lists: order, package, policies, and the statistics that travel with the rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quant.selection import package_token
from tests.hls_templates.worlds import make_world


def naive(world, x, keep, probability, tokens, packages):
    """Rows afterwards, and how many of them are packages."""
    first, last = world.prefix, tokens - packages
    rows = [x[row] for row in range(tokens) if not first <= row < last or keep[row]]
    dropped = [row for row in range(first, last) if not keep[row]]
    if dropped and world.package != "none":
        package = package_token(x[dropped].astype(float), probability[dropped].astype(float)).astype(np.int64)
        if world.package == "add" and packages:
            rows[-1] = np.clip(rows[-1] + package, -32768, 32767)
        else:
            rows.append(package)
            packages += 1
    return np.array(rows).reshape(-1, x.shape[1]), packages


def run(world, x, keep, probability, tokens, packages):
    counts = np.array([tokens, packages])
    world.call("set_x", x)
    world.call("set_statistics", *map(np.ascontiguousarray, world.statistics(x)))
    world.call("run_packager", keep, probability, counts)
    return counts.tolist()


def check(world, x, keep, probability, tokens, packages):
    expected, left = naive(world, x, keep, probability, tokens, packages)
    assert run(world, x, keep, probability, tokens, packages) == [len(expected), left]
    got, of_rows, _ = world.get_x()
    n = len(expected)
    assert np.array_equal(got[:n], expected)
    assert np.array_equal(of_rows[:n], world.statistics(expected)[0])
    return expected


@given(data=st.data())
def test_any_selection(structures, data):
    world = make_world(structures, data.draw(st.integers(0, 2)))
    packages = data.draw(st.integers(0, 1 if world.package == "add" else 0 if world.package == "none" else 3))
    tokens = data.draw(st.integers(world.prefix + packages, world.rows))
    keep = np.array(data.draw(st.lists(st.integers(0, 1), min_size=world.rows, max_size=world.rows)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    probability = rng.integers(1, data.draw(st.sampled_from([2, 100, (1 << 22) + 1])), world.rows)
    check(world, world.random_x(rng), keep, probability, tokens, packages)


@pytest.fixture
def x(world):
    return world.random_x(np.random.default_rng(3))


def test_nothing_dropped_changes_nothing(world, x):
    keep, probability = np.ones(world.rows, np.int64), np.full(world.rows, 5)
    assert run(world, x, keep, probability, world.rows, 0) == [world.rows, 0]
    got, of_rows, of_heads = world.get_x()
    assert np.array_equal(got, x)
    assert np.array_equal(of_rows, world.statistics(x)[0]) and np.array_equal(of_heads, world.statistics(x)[1])


def test_all_dropped_leaves_the_prefix_and_the_package(world, x):
    keep, probability = np.zeros(world.rows, np.int64), np.arange(1, world.rows + 1)
    left = check(world, x, keep, probability, world.rows, 0)
    assert len(left) == world.prefix + (world.package != "none")
    assert np.array_equal(left[: world.prefix], x[: world.prefix])


def test_the_order_of_the_kept_stays(world, x):
    keep = np.arange(world.rows) % 3 % 2
    left = check(world, x, keep, np.full(world.rows, 9), world.rows, 0)
    kept = [row for row in range(world.rows) if row < world.prefix or keep[row]]
    assert np.array_equal(left[: len(kept)], x[kept])


def test_a_package_of_one_is_that_token(world, x):
    keep = np.ones(world.rows, np.int64)
    keep[world.prefix + 1] = 0
    left = check(world, x, keep, np.full(world.rows, 1), world.rows, 0)
    if world.package != "none":
        assert np.abs(left[-1] - x[world.prefix + 1]).max() <= 1


def test_the_package_is_the_weighted_mean(world, x):
    keep, probability = np.ones(world.rows, np.int64), np.full(world.rows, 7)
    keep[world.prefix : world.prefix + 2] = 0
    probability[world.prefix : world.prefix + 2] = 1 << 20, 3 << 20
    left = check(world, x, keep, probability, world.rows, 0)
    if world.package != "none":
        mean = (x[world.prefix] + 3 * x[world.prefix + 1]) / 4
        assert np.abs(left[-1] - mean).max() <= 0.75


def test_added_packages_saturate(structures):
    world = make_world(structures, 1)
    assert world.package == "add"
    x = np.zeros((world.rows, world.embed_lanes), np.int64)
    x[:, world.real_lanes] = 30000
    x[:, world.real_lanes[1]] = -30000
    keep = np.ones(world.rows, np.int64)
    keep[world.prefix] = 0
    left = check(world, x, keep, np.full(world.rows, 3), world.rows, 1)
    assert len(left) == world.rows - 1
    assert left[-1, world.real_lanes[:2]].tolist() == [32767, -32768]
