"""The timed C-simulation's clock: cycles that one can count by hand, and every claim that it must refuse."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw.architecture import Architecture
from hw.model.latency import RMW_CYCLES, Assumptions, assumptions
from hw.render import TEMPLATES
from hw.target import resolve_target
from sim.bridge import CsimError
from sim.build import TIMED, build_library, header_folder
from sim.timed.timing import Clock, TimedAccelerator
from tests.sim.conftest import Simulators, golden_of, mismatches
from tests.sim.networks import MICRO, design_of, micro, random_images

DEPTH, ENTRY, LATENCY = 10, 3, 2
ZCU102 = resolve_target("zcu102")
ASSUMED = replace(
    assumptions(Architecture(), ZCU102),
    depths={"PRODUCE": 1, "CONSUME": DEPTH, "ENGINE": DEPTH},
    spans={("ENGINE", "memory"): 5},
    loop_entry=ENTRY,
    stream_latency=LATENCY,
    read_latency=64,
)
Run = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """run(case, assumed) -> cycles, or raises CsimError with the sentence."""
    library_path = tmp_path_factory.mktemp("timing") / "cases.so"
    cases = Path(__file__).with_name("timing_cases.cpp")
    command = ["g++", "-std=c++14", "-O1", "-shared", "-fPIC", "-DSPVIT_TIMED", f"-I{TIMED}", f"-I{TEMPLATES}"]
    command += ["-isystem", str(header_folder()), str(cases), str(TIMED / "timed.cpp"), "-o", str(library_path)]
    subprocess.run(command, check=True)
    library = ctypes.CDLL(str(library_path))
    clock = Clock(library, 0)

    def run_case(name: str, assumed: Assumptions = ASSUMED) -> int:
        counters = clock.start(assumed)
        sentence = ctypes.create_string_buffer(512)
        status = library.run_case(name.encode(), sentence, len(sentence))
        assert status != 2, f"there is no case {name}"
        if status:
            raise CsimError(sentence.value.decode())
        assert counters[:, 1:].sum() == clock.cycles
        return clock.cycles

    return run_case


# --- cycles ---


def test_a_stream_costs_its_latency_once(run):
    # The first word is written in cycle 0 and readable in cycle 2; the loop was entered in cycle 3.
    assert run("stream_through") == ENTRY + 40 + DEPTH


def test_four_words_of_fifo_pass_four_words_in_latency_plus_one_cycles(run):
    slow = replace(ASSUMED, stream_latency=9)
    last_read = 9 + 39 // 4 * (9 + 1) + 39 % 4
    assert run("stream_through", slow) == run("polling", slow) == last_read + 1 + DEPTH


def test_a_consumer_that_is_slow_sets_the_pace(run):
    assert run("slow_consumer") == ENTRY + 5 * 40 + DEPTH


def test_a_fifo_of_one_word_passes_one_in_latency_plus_one_cycles(run):
    last_relayed = LATENCY + 39 * (LATENCY + 1)
    assert run("shallow_fifo") == last_relayed + LATENCY + 1 + DEPTH


def test_a_poll_sees_what_has_arrived_at_its_cycle(run):
    assert run("polling") == run("stream_through")


def test_bursts_cost_latency_once_and_then_bandwidth(run):
    beat = 256  # one beat per cycle
    plain = replace(ASSUMED, beat_cost=beat)
    assert run("bursts", plain) == 64 + LATENCY + 40 + DEPTH
    half = replace(ASSUMED, beat_cost=2 * beat)
    assert run("bursts", half) == 64 + 2 * 32 + LATENCY + 8 + DEPTH  # two bursts of 16 take 32 cycles each


def test_outstanding_reads_hide_the_latency_or_do_not(run):
    alone = replace(ASSUMED, beat_cost=256, outstanding=1)
    per_burst = 16 + 64  # the next one is requested in the cycle after the last beat
    assert run("bursts", alone) == 64 + 2 * per_burst + LATENCY + 8 + DEPTH


def test_a_write_outside_of_loops_waits_for_its_response(run):
    assert run("waits_for_a_response") == ASSUMED.write_latency


# --- what is refused ---


def test_a_deadlock_is_named_with_both_ends(run):
    with pytest.raises(CsimError) as caught:
        run("deadlock")
    assert str(caught.value) == (
        "deadlock: reader waits for itself through a; reader reads b, which is empty; "
        "writer writes a, which is full at 2 words"
    )


def test_a_deadlock_with_the_last_process_is_named_too(run):
    with pytest.raises(
        CsimError, match=r"^deadlock: reader reads b, which is empty; writer writes a, which is full at 2 words$"
    ):
        run("deadlock_with_last")


def test_starvation_names_how_many_words_there_are(run):
    with pytest.raises(CsimError, match=r"^starvation: consume reads word 5 of many, relay writes 5$"):
        run("starvation")


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("bank_twice", r"loop CONSUME: an iteration reads bank 1 of memory twice, which has one port for that"),
        ("two_sites", r"loop CONSUME reads memory at two sites, lines \d+ and \d+; it has one port for that"),
        ("two_write_sites", r"loop CONSUME writes memory at two sites, lines \d+ and \d+; it has one port for that"),
        ("gathers_too_soon", r"loop CONSUME: memory is read 9 cycles after it was written, its pipeline takes 10"),
        ("false_claim", r"loop ENGINE: memory is read 7 cycles after it was written, its DEPENDENCE pragma claims 8"),
        (
            "too_small_a_claim",
            r"loop ENGINE claims a distance of 2 for memory, whose read, change and write take 5 cycles",
        ),
        ("undescribed", r"loop CONSUME uses a memory whose ports are not described"),
        ("unknown_loop", r"loop NOWHERE has no depth in the table of latencies"),
    ],
)
def test_what_the_hardware_could_not_do_is_refused(run, case, sentence):
    with pytest.raises(CsimError, match=f"^{sentence}$"):
        run(case)


@pytest.mark.parametrize("case", ["one_port", "gathers_in_time", "another_run_of_the_loop"])
def test_what_it_can_do_is_not(run, case):
    run(case)


# --- the accelerator ---


@pytest.fixture(scope="module")
def timed(simulators: Simulators) -> TimedAccelerator:
    design = design_of(micro())
    library = build_library(simulators.folder(design) / "src", timed=True)
    return TimedAccelerator(design, library, assumptions(design.architecture, ZCU102))


PIXELS = random_images(MICRO.model, 2)


def with_assumed(timed: TimedAccelerator, assumed: Assumptions) -> int:
    other = TimedAccelerator.__new__(TimedAccelerator)
    other.__dict__ |= timed.__dict__ | {"assumed": assumed}
    return other.run(PIXELS[0])[1].cycles


def test_counting_changes_no_value(timed):
    golden = golden_of(timed.design, PIXELS)
    for image, pixels in enumerate(PIXELS):
        assert not mismatches(timed.design, timed.run(pixels)[0], golden, image)


def test_each_run_counts_from_zero(timed):
    assert timed.run(PIXELS[0])[1] == timed.run(PIXELS[0])[1]


def test_less_bandwidth_less_fifo_and_deeper_pipelines_cost_time(timed):
    plain = timed.run(PIXELS[0])[1].cycles
    assert with_assumed(timed, timed.assumed.with_bandwidth(0.1)) > plain
    assert with_assumed(timed, timed.assumed.with_deeper_pipelines(2)) > plain
    starved = timed.assumed.with_bandwidth(0.25)
    shallow = replace(starved, fifo_words=2)
    assert with_assumed(timed, shallow) > with_assumed(timed, starved)


def test_waiting_for_the_weight_stream_is_told_from_filling(timed):
    plain = timed.run(PIXELS[0])[1]
    other = TimedAccelerator.__new__(TimedAccelerator)
    other.__dict__ |= timed.__dict__ | {"assumed": timed.assumed.with_bandwidth(0.05)}
    slow = other.run(PIXELS[0])[1]
    assert sum(step.fifo for step in plain.steps) == 1  # the first word, on its way into FrontWord
    assert sum(step.fifo for step in slow.steps) == pytest.approx(slow.cycles - plain.cycles, rel=0.1)


def test_the_claims_of_the_pipeline_can_be_too_small(timed):
    deep = dict(timed.assumed.depths, ENGINE=timed.assumed.depths["ENGINE"] * 3)
    with pytest.raises(
        CsimError, match=r"loop ENGINE: \w+ is read \d+ cycles after it was written, its pipeline takes"
    ):
        with_assumed(timed, replace(timed.assumed, depths=deep))
    spans = timed.assumed.spans | {("ENGINE", "accumulators"): RMW_CYCLES + 1}
    with pytest.raises(CsimError, match=r"loop ENGINE claims a distance of 8 for accumulators, .* take 9 cycles"):
        with_assumed(timed, replace(timed.assumed, spans=spans))


def test_steps_are_those_of_the_program(timed):
    timing = timed.run(PIXELS[0])[1]
    assert [step.name for step in timing.steps[1:-1]] == [step.name for step in timed.design.program.steps]
    assert np.all([step.total > 0 for step in timing.steps])
