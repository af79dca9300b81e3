"""The anchor: Verilog of readers, FIFOs, tile loop and memory, in Verilator, gives the timed C-simulation's cycles exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hw.layout import Design
from hw.model.latency import Assumptions, assumptions
from hw.target import resolve_target
from hw.weights import weight_stream
from sim.rtl.anchor import STREAM_TILE, build_skeleton, make_schedule, run_skeleton
from sim.timed.timing import TimedAccelerator
from tests.sim.conftest import Simulators
from tests.sim.networks import design_of, micro, random_images
from tests.sim.timed.test_timing_agreement import kept_patches, random_design, timed

pytestmark = pytest.mark.needs("verilator")
slow = pytest.mark.slow
Skeletons = Callable[[Design], Path]


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory: pytest.TempPathFactory) -> Skeletons:
    """The skeleton for a design's ports, compiled once."""
    built: dict[int, Path] = {}

    def skeleton(design: Design) -> Path:
        ports = design.architecture.weight_ports
        if ports not in built:
            assumed = assumptions(design.architecture, resolve_target("zcu102"))
            built[ports] = build_skeleton(ports, assumed.stream_latency, tmp_path_factory.mktemp(f"rtl-{ports}"))
        return built[ports]

    return skeleton


def settings(assumed: Assumptions) -> dict[str, Assumptions]:
    """Where the stream keeps up, where it does not, and where each of its parts is the limit."""
    return {
        "as assumed": assumed,
        "a slow memory": assumed.with_bandwidth(0.1),
        "a slow memory and a shallow FIFO": replace(assumed.with_bandwidth(0.3), fifo_words=24),
        "two outstanding bursts": replace(assumed, outstanding=2),
        "a distant memory": replace(assumed, read_latency=400),
        "odd bursts": replace(assumed, burst_beats=7, beat_cost=333),
    }


def assert_same_cycles(accelerator: TimedAccelerator, skeleton: Path, images: int = 1) -> None:
    design, plain = accelerator.design, accelerator.assumed
    counted = {}
    for pixels in random_images(design.network.model, images):
        for name, assumed in settings(plain).items():
            accelerator.assumed = assumed
            result, timing = accelerator.run(pixels)
            kept = kept_patches(design, result.trace)
            counted[name] = timing.cycles
            assert run_skeleton(skeleton, design, assumed, kept) == timing.cycles, name
        assert counted["as assumed"] < counted["a slow memory"] < counted["a slow memory and a shallow FIFO"] * 3
        assert counted["as assumed"] < counted["two outstanding bursts"]


def test_micro_with_one_port(simulators: Simulators, skeletons: Skeletons):
    design = design_of(micro())
    assert design.architecture.weight_ports == 1
    assert_same_cycles(timed(simulators, design), skeletons(design), images=2)


def test_micro_with_two_ports(simulators: Simulators, skeletons: Skeletons):
    design = design_of(micro(), 16, 16)
    assert design.architecture.weight_ports == 2
    assert_same_cycles(timed(simulators, design), skeletons(design))


@slow
@pytest.mark.parametrize(("name", "keep"), [("deit_t", None), ("deit_s", None), ("deit_s", "none")])
def test_models(simulators: Simulators, skeletons: Skeletons, name, keep):
    design = random_design(name, keep, (64, 64, "fast"))
    assert_same_cycles(timed(simulators, design), skeletons(design))


def test_the_schedule_takes_the_whole_stream():
    """Each word once: position rows while loading, the others by the tiles that they fill."""
    design = design_of(micro())
    assumed = assumptions(design.architecture, resolve_target("zcu102"))
    schedule = make_schedule(design, assumed, (12, 8, 4))
    taken = schedule.records[1][1] + sum(words for op, _, words, _ in schedule.records if op == STREAM_TILE)

    assert taken == len(weight_stream(design)[0])
