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
from hw.facts import read_facts, read_top
from hw.model.latency import RMW_CYCLES, Assumptions, assumptions, pipeline_cycles
from hw.render import TEMPLATES
from hw.target import resolve_target
from sim.bridge import CsimError
from sim.build import TIMED, build_library, header_folder
from sim.timed.timing import Clock, TimedAccelerator
from spvit.errors import BuildError
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
CASES = Path(__file__).with_name("timing_cases.cpp")
Run = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """run(case, assumed, old, new) -> cycles, or raises CsimError with the sentence. `new` stands for `old` in the pragmas."""
    library_path = tmp_path_factory.mktemp("timing") / "cases.so"
    command = ["g++", "-std=c++14", "-O1", "-shared", "-fPIC", "-DSPVIT_TIMED", f"-I{TIMED}", f"-I{TEMPLATES}"]
    command += ["-Wno-unused-label", "-isystem", str(header_folder()), str(CASES), str(TIMED / "timed.cpp")]
    subprocess.run([*command, "-o", str(library_path)], check=True)
    library = ctypes.CDLL(str(library_path))
    clock = Clock(library, 0)

    def run_case(name: str, assumed: Assumptions = ASSUMED, old: str = "", new: str = "") -> int:
        text = CASES.read_text()
        assert old in text
        counters = clock.start(assumed, read_facts({CASES.name: text.replace(old, new) if old else text}))
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


def test_a_loop_of_two_cycles_an_iteration_takes_twice_as_long(run):
    assert run("stream_through", old="II = 1", new="II = 2") == ENTRY + 2 * 40 + DEPTH
    only_the_producer = (
        "PRODUCE:\n    for (int i = 0; loop.runs(i < count); ++i) {\n#pragma HLS PIPELINE II = 1",
        "II = 1",
    )
    with pytest.raises(BuildError, match=r"the II of loop PRODUCE is 1 here and 2 elsewhere; one name, one fact$"):
        run("stream_through", old=only_the_producer[0], new=only_the_producer[0].replace("II = 1", "II = 2"))


@pytest.mark.parametrize("words", [1, 2, 3, 8])
def test_a_fifo_holds_what_its_pragma_says(run, words):
    slow = replace(ASSUMED, stream_latency=9)
    last_read = 9 + 39 // words * (9 + 1) + 39 % words
    pragma = "variable = fifo depth = "
    assert run("stream_through", slow, f"{pragma}4", f"{pragma}{words}") == last_read + 1 + DEPTH


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
        (
            "bank_twice",
            r"loop CONSUME: an iteration reads bank 1 of memory 2 times, beside 0 writes; its ports for that: 1",
        ),
        ("two_sites", r"loop CONSUME reads memory at 2 sites, lines \d+ and \d+; its ports for that: 1"),
        ("two_write_sites", r"loop CONSUME writes memory at 2 sites, lines \d+ and \d+; its ports for that: 1"),
        ("gathers_too_soon", r"loop CONSUME: memory is read 9 cycles after it was written, its pipeline takes 10"),
        ("uses_what_is_stale", r"loop CONSUME: memory is read 1 cycles after it was written, its pipeline takes 10"),
        ("undescribed", r"loop CONSUME uses a memory whose ports are not described"),
        ("unknown_loop", r"loop NOWHERE has no depth in the table of latencies"),
    ],
)
def test_what_the_hardware_could_not_do_is_refused(run, case, sentence):
    with pytest.raises(CsimError, match=f"^{sentence}$"):
        run(case)


RIGHT = [
    "one_port", "gathers_in_time", "another_run_of_the_loop", "claims", "drops_what_is_stale", "four_banks", "structs",
    "shift_register",
]  # fmt: skip


@pytest.mark.parametrize("case", RIGHT)
def test_what_it_can_do_is_not(run, case):
    run(case)


@pytest.mark.parametrize(
    ("case", "old", "new", "sentence"),
    [
        ("one_port", "cyclic factor = 4", "cyclic factor = 2", "an iteration reads bank 0 of memory 2 times, beside 0 writes"),
        ("one_port", "cyclic factor = 4", "block factor = 4", "an iteration reads bank 0 of memory 2 times, beside 0 writes"),
        (
            "one_port", "#pragma HLS ARRAY_PARTITION variable = memory cyclic factor = 4", "",
            "an iteration reads bank 0 of memory 2 times, beside 0 writes",
        ),
        ("four_banks", "deep_memory complete dim = 1", "deep_memory complete dim = 3", "reads bank 0 of deep_memory 2 times"),
        ("four_banks", "deep_memory complete dim = 2", "deep_memory cyclic factor = 1 dim = 2", "reads bank 0 of deep_memory 2 times"),
        ("four_banks", "deep_memory complete dim = 1", "deep_memory block factor = 1", "reads bank 0 of deep_memory 2 times"),
        ("gathers_in_time", "ram_s2p", "ram_1p", "an iteration writes bank 0 of memory 1 times, beside 1 reads; its ports"),
        ("claims", "distance = 7", "distance = 8",
         "memory is read 7 cycles after it was written, its DEPENDENCE pragma claims 8"),
        ("claims", "distance = 7", "distance = 4",
         "claims a distance of 4 for memory, whose read, change and write take 5 cycles"),
        ("claims", "#pragma HLS DEPENDENCE variable = memory inter true distance = 7", "",
         "reads and writes memory, and no DEPENDENCE pragma says when they meet: synthesis would start an iteration every 5 "),
        ("stream_through", "#pragma HLS PIPELINE II = 1", "",
         "loop PRODUCE has no PIPELINE pragma: synthesis would start an iteration where the one before ends"),
        ("stream_through", "#pragma HLS STREAM variable = fifo depth = 4", "",
         "stream fifo has no STREAM pragma: synthesis would give it two words"),
        ("structs", "#pragma HLS AGGREGATE variable = pairs compact = bit", "",
         "pairs is an array of structs without an AGGREGATE pragma: synthesis would split it"),
        ("shift_register", "#pragma HLS ARRAY_PARTITION variable = taps complete", "",
         "taps is used whole in each iteration, and no ARRAY_PARTITION pragma makes it registers"),
    ],
)  # fmt: skip
def test_what_a_pragma_says_is_what_counts(run, case, old, new, sentence):
    with pytest.raises(CsimError) as refused:
        run(case, old=old, new=new)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("case", "old", "new"),
    [
        ("bank_twice", "ram_s2p", "ram_t2p"),
        ("two_sites", "ram_s2p", "ram_2p"),
        ("bank_twice", "II = 1", "II = 2"),
        ("bank_twice", "cyclic factor = 4", "complete"),
        ("claims", "distance = 7", "distance = 5"),
    ],
)
def test_more_ports_more_cycles_or_more_banks_serve_more(run, case, old, new):
    run(case, old=old, new=new)


def test_streams_without_dataflow_are_refused(run):
    with pytest.raises(
        BuildError, match=r"^timing_cases.cpp:\d+: stream_through has stream fifo and no DATAFLOW pragma: its "
    ):
        run("stream_through", old="#pragma HLS DATAFLOW", new="")


# --- the accelerator ---


@pytest.fixture(scope="module")
def timed(simulators: Simulators) -> TimedAccelerator:
    design = design_of(micro())
    library = build_library(simulators.folder(design) / "src", timed=True)
    facts = read_top(simulators.folder(design) / "src")
    return TimedAccelerator(design, library, assumptions(design.architecture, ZCU102), facts)


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


def test_a_pipeline_deeper_than_the_kernels_hold_is_refused(timed):
    held = pipeline_cycles(timed.design.architecture)
    assert with_assumed(timed, replace(timed.assumed, depths={**timed.assumed.depths, "ENGINE": held})) > 0
    with pytest.raises(CsimError) as refused:
        with_assumed(timed, replace(timed.assumed, depths={**timed.assumed.depths, "ENGINE": held + 1}))
    assert str(refused.value) == (
        f"loop ENGINE is {held + 1} cycles deep, kPipelineCycles is {held}: a pass would read what the one before it has "
        "not written yet; raise it (hw/model/latency.py)"
    )


def test_a_dependence_shorter_than_its_memory_takes_is_refused(timed):
    for memory in ("accumulators", "exp_sum", "partial_row_statistics", "partial_head_statistics", "partial_score_max"):
        assert with_assumed(timed, spanning(timed, memory, RMW_CYCLES)) > 0
        with pytest.raises(CsimError, match=rf"loop ENGINE claims a distance of 8 for {memory}, .* take 9 cycles"):
            with_assumed(timed, spanning(timed, memory, RMW_CYCLES + 1))


def spanning(timed: TimedAccelerator, memory: str, span: int) -> Assumptions:
    return replace(timed.assumed, spans={**timed.assumed.spans, ("ENGINE", memory): span})


def test_steps_are_those_of_the_program(timed):
    timing = timed.run(PIXELS[0])[1]
    assert [step.name for step in timing.steps[1:-1]] == [step.name for step in timed.design.program.steps]
    assert np.all([step.total > 0 for step in timing.steps])
