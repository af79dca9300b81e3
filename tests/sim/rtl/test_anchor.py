"""The anchor: the engine's control in Verilog makes tiles, borders and fills of the program itself; with readers, FIFOs
and memory around it, it gives the timed C-simulation's cycles exactly, step for step, in Verilator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from hw.generate import make_design
from hw.layout import Design
from hw.model.latency import Assumptions, assumptions
from hw.program import Op
from hw.target import resolve_target
from sim.rtl.anchor import build_skeleton, entry_cycles, run_skeleton
from sim.timed.timing import TimedAccelerator
from tests.sim.conftest import Simulators
from tests.sim.networks import MICRO, design_of, micro, narrowed, quantized, random_images
from tests.sim.timed.test_timing_agreement import kept_patches, random_design, timed

pytestmark = pytest.mark.needs("verilator")
slow = pytest.mark.slow
Skeletons = Callable[[Design], Path]


@pytest.fixture
def skeletons(tmp_path: Path) -> Skeletons:
    """The skeleton with a design's sizes."""

    def skeleton(design: Design) -> Path:
        assumed = assumptions(design.architecture, resolve_target("zcu102"))
        return build_skeleton(design, assumed.stream_latency, tmp_path)

    return skeleton


def settings(plain: Assumptions) -> dict[str, Assumptions]:
    """Where the stream keeps up, where it does not, and where each of its parts is the limit; a loop is entered as late
    as the control needs."""
    assumed = replace(plain, loop_entry=entry_cycles())
    return {
        "as assumed": assumed,
        "a slow memory": assumed.with_bandwidth(0.1),
        "a slow memory and a shallow FIFO": replace(assumed.with_bandwidth(0.3), fifo_words=24),
        "two outstanding bursts": replace(assumed, outstanding=2),
        "a distant memory": replace(assumed, read_latency=400),
        "odd bursts": replace(assumed, burst_beats=7, beat_cost=333),
        "slow calls": replace(assumed, loop_entry=31),
    }


def assert_same_cycles(accelerator: TimedAccelerator, skeleton: Path, images: int = 1) -> None:
    design, plain = accelerator.design, accelerator.assumed
    counted = {}
    for pixels in random_images(design.network.model, images):
        for name, assumed in settings(plain).items():
            accelerator.assumed = assumed
            result, timing = accelerator.run(pixels)
            steps = run_skeleton(skeleton, design, assumed, kept_patches(design, result.trace))
            for step, of_rtl in zip(timing.steps, steps, strict=True):
                assert (of_rtl.cycles, of_rtl.tokens) == (step.total, step.tokens), (name, step.name)
            counted[name] = timing.cycles
        assert counted["as assumed"] < counted["a slow memory"] < counted["a slow memory and a shallow FIFO"] * 3
        assert counted["as assumed"] < counted["two outstanding bursts"]


def test_micro_with_one_port(simulators: Simulators, skeletons: Skeletons):
    design = design_of(micro())
    assert design.architecture.weight_ports == 1
    accelerator, skeleton = timed(simulators, design), skeletons(design)
    plain = accelerator.assumed
    assert_same_cycles(accelerator, skeleton, images=2)
    assert_entry_is_known(accelerator, skeleton, plain)


def assert_entry_is_known(accelerator: TimedAccelerator, skeleton: Path, plain: Assumptions) -> None:
    """The table's loop entry is shorter than the control's two reads of the ROM and its first plan: by so much, per run
    of the engine, is the table's count too low. Where the memory keeps up nothing else changes."""
    design = accelerator.design
    accelerator.assumed = replace(plain, beat_cost=1)
    result, timing = accelerator.run(random_images(design.network.model, 1)[0])
    steps = run_skeleton(skeleton, design, accelerator.assumed, kept_patches(design, result.trace))
    others = pairwise(step.op is not Op.ENGINE for step in design.program.steps)
    runs = 1 + sum(ended and not goes_on for ended, goes_on in others)
    more = sum(step.cycles for step in steps) - timing.cycles
    assert more == runs * (entry_cycles() - plain.loop_entry) > 0


def test_micro_with_narrow_weights(simulators: Simulators, skeletons: Skeletons):
    """Words that bring the bits of others, in two beats of one port."""
    design = design_of(narrowed(micro()), 16, 16)
    design = make_design(design.network, replace(design.architecture, weight_ports=1, fill_lanes=16))
    assert design.architecture.beats_per_word == 2
    assert_same_cycles(timed(simulators, design), skeletons(design))


def test_micro_with_two_ports(simulators: Simulators, skeletons: Skeletons):
    design = design_of(micro(), 16, 16)
    assert design.architecture.weight_ports == 2
    assert_same_cycles(timed(simulators, design), skeletons(design))


@slow
def test_distilled_with_four_words_a_column(simulators: Simulators, skeletons: Skeletons):
    design = design_of(quantized(replace(MICRO.model, distilled=True), MICRO.pruning)[1], 32, 64, "direct")
    assert_same_cycles(timed(simulators, design), skeletons(design))


@slow
@pytest.mark.parametrize("package", ["add", "none"])
def test_package_policies(simulators: Simulators, skeletons: Skeletons, package: str):
    design = design_of(micro(package=package))
    assert_same_cycles(timed(simulators, design), skeletons(design))


@slow
@pytest.mark.parametrize(("name", "keep"), [("deit_t", None), ("deit_s", None), ("deit_s", "none")])
def test_models(simulators: Simulators, skeletons: Skeletons, name, keep):
    design = random_design(name, keep, (64, 64, "fast"))
    assert_same_cycles(timed(simulators, design), skeletons(design))
