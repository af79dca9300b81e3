"""The design's own loops: an iteration each cycle, within the depths that everything else counts with."""

import re
from pathlib import Path

import pytest

from hw.generate import make_project
from hw.model.latency import loop_depths, pipeline_cycles
from hw.schedule.loops import pipelined_loops
from hw.schedule.report import Schedule, schedule_loop, worst_of_each
from hw.target import resolve_target
from tests.sim.networks import design_of, micro

ZCU102 = resolve_target("zcu102")
CLOCK_MHZ = 200
MARGIN = 1.5
"""Of kPipelineCycles over the depth of ENGINE: hardware that is deeper computes wrong values without a word."""
LOOPS = {
    "READ_PORT", "JOIN_PORTS", "CHECKSUM", "READ_IMAGE", "LOAD_HEADER", "LOAD_PROGRAM", "CHECK_PROGRAM", "DISCARD",
    "LOAD_INPUTS", "ENGINE", "POOL_FEATURES", "DECIDE", "COMPACT", "WRITE_PACKAGE", "KEEP_FLAGS", "LOGITS",
}  # fmt: skip


def sources_of(design):
    files = make_project(design, ZCU102).files
    return {path.removeprefix("src/"): text for path, text in files.items() if path.startswith("src/")}


@pytest.fixture(scope="module")
def design():
    return design_of(micro(), tile_in=8, tile_out=8)


@pytest.fixture(scope="module")
def sources(design):
    return sources_of(design)


def schedule(sources, top="top.cpp"):
    loops = worst_of_each(schedule_loop(loop, CLOCK_MHZ) for loop in pipelined_loops(sources, top))
    return Schedule("micro", "zcu102", "8x8 fast", "the accelerator", CLOCK_MHZ, loops)


def one_loop(sources, label):
    """Only this loop's schedule: the others are not solved."""
    return next(schedule_loop(loop, CLOCK_MHZ) for loop in pipelined_loops(sources) if loop.label == label)


@pytest.fixture(scope="module")
def found(sources):
    return schedule(sources)


def check_depths(found, architecture):
    engine = next(loop for loop in found.loops if loop.name == "ENGINE")
    deepest = engine.results["cautious"].depth
    assert pipeline_cycles(architecture) >= MARGIN * deepest
    counted = loop_depths(architecture)
    too_deep = {
        loop.name: (loop.results["cautious"].depth, counted[loop.name])
        for loop in found.loops
        if loop.results["cautious"].depth > counted[loop.name]
    }
    assert not too_deep  # loop -> what the schedule says, what the cycle model counts with


def test_every_loop_starts_an_iteration_each_cycle(found):
    assert {loop.name for loop in found.loops} == LOOPS
    assert found.all_ii_1() == {"optimistic": True, "nominal": True, "cautious": True, "fifo_behind_predicate": True}
    assert [note for loop in found.loops for note in loop.notes] == []


def test_nothing_is_deeper_than_what_is_counted_with(found, design):
    check_depths(found, design.architecture)


def test_the_program_is_a_memory_that_answers_late(sources):
    """Of one read port: ENGINE fetches a step an iteration, from block RAM."""
    readers = {"ENGINE", "CHECK_PROGRAM"}
    loops = {loop.label: loop.graph for loop in pipelined_loops(sources) if loop.label in readers}
    assert loops.keys() == readers
    for graph in loops.values():
        (program,) = (memory for memory in graph.memories if memory.name == "memory.program")
        assert (program.kind, program.ports, len(program.accesses)) == ("block ram", (1, 1), 1)


@pytest.mark.slow
def test_the_large_engine_closes_too():
    design = design_of(micro(), tile_in=64, tile_out=64)
    found = schedule(sources_of(design))
    assert found.all_ii_1()["nominal"] and found.all_ii_1()["cautious"]
    check_depths(found, design.architecture)


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["msa_block", "mlp_block", "token_selector", "token_packager"])
def test_the_units_close_too(sources, unit):
    found = schedule(sources, f"{unit}.cpp")
    assert found.all_ii_1()["nominal"] and found.all_ii_1()["cautious"]


def with_text(sources, name, old, new):
    assert old in sources[name]
    return sources | {name: sources[name].replace(old, new, 1)}


@pytest.mark.slow
def test_a_slow_recurrence_in_the_engine_is_red(sources):
    line = "#pragma HLS DEPENDENCE variable = memory.x inter false\n"
    planted = (
        "static Int<32> planted; planted = Int<32>(planted * planted + 1); at.running = at.running && planted != 7;"
    )
    slow = one_loop(with_text(sources, "engine.hpp", line, f"{line}{planted}\n"), "ENGINE")
    assert slow.results["nominal"].ii > 1
    assert any("planted" in step for step in slow.recurrences["nominal"])


def engine_pragmas():
    text = (Path("hls_templates") / "engine.hpp").read_text()
    return [line.strip() for line in text.split("\n") if re.search(r"HLS DEPENDENCE", line)]


@pytest.mark.slow
@pytest.mark.parametrize("line", engine_pragmas())
def test_a_dependence_that_is_deleted_is_red(sources, line):
    assert one_loop(with_text(sources, "engine.hpp", line, ""), "ENGINE").results["nominal"].ii > 1


@pytest.mark.slow
def test_registers_that_become_a_memory_are_red(sources):
    line = next(one for one in sources["engine.hpp"].split("\n") if "ARRAY_PARTITION variable = tile.active" in one)
    assert one_loop(with_text(sources, "engine.hpp", line, ""), "ENGINE").results["nominal"].ii > 1
