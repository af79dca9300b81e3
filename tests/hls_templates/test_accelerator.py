"""accelerator.hpp, status.hpp and trace.hpp: what is loaded, what is stored, what is reported."""

import ctypes

import numpy as np
import pytest

from hw.interface import STATUS_HEADER
from sim.golden import cut_patches
from tests.hls_templates.worlds import NUM_BANKS


@pytest.mark.parametrize("count", [1, 5, None])
def test_position_rows_arrive_with_their_statistics(world, count):
    rng = np.random.default_rng(0)
    world.call("set_x", world.random_x(rng))
    before = world.get_x()[0]
    x = world.random_x(rng)
    x[0, world.real_lanes] = -32768
    rows = count or world.rows
    world.call("run_load_position", x, rows)
    got, of_rows, of_heads = world.get_x()
    assert np.array_equal(got[:rows], x[:rows]) and np.array_equal(got[rows:], before[rows:])
    assert np.array_equal(of_rows[:rows], world.statistics(x)[0][:rows])
    assert np.array_equal(of_heads[:rows], world.statistics(x)[1][:rows])


def test_the_image_is_cut_while_the_position_arrives(world):
    x = world.random_x(np.random.default_rng(1))
    image = np.random.default_rng(2).integers(0, 256, (6, 6, 2))
    image[0, 0] = 0, 255
    world.call("run_load_inputs", x, image)
    work = np.zeros((world.rows, NUM_BANKS * world.bank_lanes), np.int64)
    world.call("get_work", work)
    patches = cut_patches(image[None].astype(np.uint8), 3)
    assert np.array_equal(work[world.prefix : world.prefix + 4, : 3 * 3 * 2], patches)
    got, of_rows, _ = world.get_x()
    assert np.array_equal(got, x) and np.array_equal(of_rows, world.statistics(x)[0])


def test_logits_leave_the_first_row(world):
    work = np.random.default_rng(3).integers(-32768, 32768, (world.rows, NUM_BANKS * world.bank_lanes))
    world.call("set_work", work)
    for first in (0, world.bank_lanes - 5, 2 * world.bank_lanes):  # across the border of two banks
        logits = np.zeros(11, np.int64)
        world.call("run_store_logits", first, logits)
        assert np.array_equal(logits, work[0, first : first + 11])


@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_s_record(world, stage):
    """Tokens afterwards; keep flags, row r in bit r % 32 of word r / 32; prefix and packages are 1, what is no row 0."""
    keep = np.random.default_rng(stage).integers(0, 2, world.rows)
    tokens, packages, after = world.rows - 1, 2, 5
    words = -(-world.rows // 32)
    status = np.zeros(STATUS_HEADER + 2 * (1 + words), np.int64)
    world.call("run_store_stage", keep, np.array([tokens, packages, after]), stage, status)
    record = status[STATUS_HEADER + stage * (1 + words) :][: 1 + words]
    flags = [int(word) >> bit & 1 for word in record[1:] for bit in range(32)]
    expected = [int(row < world.prefix or row >= tokens - packages or keep[row]) for row in range(tokens)]
    assert record[0] == after and flags == expected + [0] * (32 * words - tokens)
    assert status[1] == stage + 1
    other = status[STATUS_HEADER + (1 - stage) * (1 + words) :][: 1 + words]
    assert status[0] == status[2] == -1 and (other == -1).all()


@pytest.mark.parametrize(
    ("row", "lane", "inside"),
    [(0, 0, True), (3, 6, True), (4, 0, False), (-1, 0, False), (0, 7, False), (0, -1, False)],
)
def test_records_stay_inside_their_trace(structures, row, lane, inside):
    trace = np.full((4, 8), 99, np.int32)
    failed = structures.library.record_into(
        ctypes.c_void_p(trace.ctypes.data), ctypes.c_int64(row), ctypes.c_int64(lane)
    )
    expected = np.full((4, 8), 99)
    if inside:
        expected[row, lane : lane + 2] = -5, 7
    else:
        message = structures.library.last_failure
        message.restype = ctypes.c_char_p
        assert message() == f"a step wrote outside its destination 0 {row} {lane}".encode()
    assert failed == (not inside)
    assert np.array_equal(trace, expected)


def test_streams_must_have_what_is_read_and_end_empty(structures):
    assert structures.library.stream_checks() == 3
