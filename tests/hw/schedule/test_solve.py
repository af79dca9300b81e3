"""Loops whose schedule is known: the scheduler can say yes, and it can say no."""

from pathlib import Path

import pytest

from hw.schedule.delays import MODELS
from hw.schedule.loops import pipelined_loops
from hw.schedule.report import in_words, usable_ns
from hw.schedule.solve import Problem, Solver

LOOPS = Path(__file__).with_name("loops.cpp")
NOMINAL = next(model for model in MODELS if model.name == "nominal")


@pytest.fixture(scope="module")
def loops():
    return {loop.label: loop for loop in pipelined_loops({"loops.cpp": LOOPS.read_text()}, "loops.cpp")}


def solve(loop, model=NOMINAL, clock_mhz=200):
    return Solver(Problem(loop.graph), model).solve(usable_ns(clock_mhz))


@pytest.mark.parametrize(
    ("label", "ii"),
    [
        ("REGISTER_SUM", 1),
        ("HISTOGRAM", 2),  # a load takes two states, the sum is stored in the second: read again in the third
        ("HISTOGRAM_DISTANCE", 1),
        ("READ_BEHIND_WRITE", 2),  # although `inter false`
        ("READ_BEFORE_WRITE", 1),
        ("ROM", 1),
        ("TWO_ROMS", 2),
        ("PORTS", 2),  # four reads, two ports
        ("BANKS", 1),
        ("UNKNOWN_BANKS", 2),
        ("ONE_READ_PORT", 2),
        ("SHIFT", 1),
        ("SHIFTS", 2),
        ("PRODUCT", 3),  # four stages: the last one is chained with the next product's first
        ("DELAY_LINE", 1),
        ("LANES", 1),
        ("CALL", 1),
    ],
)
def test_the_least_interval_is_the_known_one(loops, label, ii):
    assert solve(loops[label]).ii == ii


def test_the_shortest_period_is_the_sum_of_the_recurrence(loops):
    # by nominal delays: add of 32 bits 1.00, store to a carried variable .43; but the stream's write takes 1.84
    assert solve(loops["REGISTER_SUM"]).period_ns == pytest.approx(1.84)
    # shift 1.54, xor .29, store .43
    assert solve(loops["SHIFT"]).period_ns == pytest.approx(1.54 + 0.29 + 0.43, abs=0.011)
    assert solve(loops["SHIFTS"]).period_ns == pytest.approx(3 * 1.54 + 3 * 0.29 + 0.43, abs=0.011)


def test_a_loop_closes_at_a_clock_that_is_slow_enough(loops):
    assert solve(loops["SHIFTS"], clock_mhz=100).ii == 1
    assert solve(loops["HISTOGRAM"], clock_mhz=10).ii == 2  # of a memory, never


def test_a_faster_clock_never_needs_a_shorter_pipeline(loops):
    for loop in loops.values():
        depths = [solve(loop, clock_mhz=mhz).depth for mhz in (50, 100, 200, 300)]
        assert depths == sorted(depths), loop.label


def test_the_models_are_ordered(loops):
    for loop in loops.values():
        found = [solve(loop, model) for model in MODELS]
        assert [one.ii for one in found] == sorted(one.ii for one in found), loop.label
        periods = [one.period_ns for one in found if one.period_ns is not None]
        assert periods == sorted(periods), loop.label


def test_a_fifo_behind_its_condition_makes_a_control_recurrence_longer(loops):
    cautious, behind = (solve(loops["ON_DEMAND"], next(m for m in MODELS if m.name == name))
                        for name in ("cautious", "fifo_behind_predicate"))  # fmt: skip
    assert behind.period_ns > cautious.period_ns


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("SHIFTS", ["x loops.cpp:15"]),
        ("HISTOGRAM", ["bins loops.cpp:2"]),
        ("READ_BEHIND_WRITE", ["memory loops.cpp:4"]),
        ("TWO_ROMS", ["kNext", "kOther"]),
    ],
)
def test_the_recurrence_is_named_by_variable_and_line(loops, label, names):
    words = " ".join(in_words(loops[label], solve(loops[label]).critical))
    assert all(name in words for name in names), words


def test_ports_are_the_reason_where_they_are(loops):
    assert solve(loops["PORTS"]).reason == "the ports of memory"
    assert solve(loops["PORTS"]).period_ns is None


def test_what_is_assumed_for_want_of_a_pragma_is_said(loops):
    assert any("sums is taken as registers, and indexed at run time" in note for note in loops["LANES"].graph.notes)
    assert not loops["REGISTER_SUM"].graph.notes
