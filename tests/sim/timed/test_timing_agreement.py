"""The closed form against the timed C-simulation: within 2% in every pass class, within 1% in all; to the cycle where the
memory keeps up with the engine.

That shows that the two are consistent, not that they are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from hw.architecture import Architecture
from hw.facts import read_top
from hw.generate import make_design
from hw.layout import Design
from hw.model.cycles import PARTS, CycleEstimate, estimate_cycles, estimate_unit
from hw.model.latency import Assumptions, assumptions
from hw.program import Sizes, build_program
from hw.target import resolve_target
from sim.build import build_library
from sim.timed.closed_form import disagreements
from sim.timed.timing import TimedAccelerator, Timing
from spvit.config import resolve_model
from tests.sim.conftest import Simulators, golden_of
from tests.sim.networks import MICRO, design_of, micro, narrowed, quantized, random_images, random_network

ZCU102 = resolve_target("zcu102")
slow = pytest.mark.slow


def timed(simulators: Simulators, design: Design, unit: str | None = None, **assumed: int) -> TimedAccelerator:
    source, plain = simulators.folder(design) / "src", assumptions(design.architecture, ZCU102)
    accelerator = TimedAccelerator(design, build_library(source, unit, timed=True), plain, read_top(source, unit))
    accelerator.assumed = replace(plain, **assumed)
    return accelerator


def kept_patches(design: Design, trace: dict[str, np.ndarray]) -> list[int]:
    """Patches alive after each selector, as the run decided."""
    return [
        int((trace[f"selectors.{selector}.keep"][:, 0] == 1).sum())
        for selector in range(design.network.pruning.num_selectors)
    ]


def estimate(design: Design, assumed: Assumptions, kept: Sequence[int]) -> CycleEstimate:
    """Of the sizes alone: it must not need the quantized network."""
    model, pruning = design.network.model, design.network.pruning
    program = build_program(Sizes(model, pruning, design.network.weight_bits))
    return estimate_cycles(program, design.layout, pruning, assumed, kept)


def assert_agrees(estimated: CycleEstimate, timing: Timing, assumed: Assumptions) -> None:
    assert list(disagreements(estimated, timing, assumed)) == []


def assert_image_agrees(simulators: Simulators, design: Design, images: int = 1, **assumed: int) -> None:
    accelerator = timed(simulators, design, **assumed)
    for pixels in random_images(design.network.model, images):
        result, timing = accelerator.run(pixels)
        estimated = estimate(design, accelerator.assumed, kept_patches(design, result.trace))
        assert estimated.tokens == result.tokens
        assert_agrees(estimated, timing, accelerator.assumed)


def assert_equal(estimated: CycleEstimate, timing: Timing) -> None:
    """Every step and each of its parts, to the cycle; what the fluid stream has after the point is rounded off."""
    for step, counted in zip(estimated.steps, timing.steps, strict=True):
        assert round(step.total) == counted.total, step
        for part in PARTS:
            assert abs(getattr(step, part) - getattr(counted, part)) < 1, (part, step, counted)


EXACT = {
    "as planned": (8, 16, "fast", "append", {}),
    "packages added": (8, 16, "fast", "add", {}),
    "four words a column": (32, 64, "direct", "append", {"beat_cost": 1}),
    "wider in than out": (
        16,
        8,
        "fast",
        "append",
        {"beat_cost": 1},
    ),  # half of a word may be out of date, and is dropped
    "late answers": (8, 16, "fast", "append", {"read_latency": 700, "outstanding": 64, "write_latency": 99}),
    "slow calls": (8, 16, "fast", "append", {"loop_entry": 31}),
}


@pytest.mark.parametrize("case", EXACT)
def test_to_the_cycle_where_the_memory_keeps_up(simulators, case):
    tile_in, tile_out, inner_product, package, assumed = EXACT[case]
    design = design_of(micro(package=package), tile_in, tile_out, inner_product)
    accelerator = timed(simulators, design, **assumed)
    for pixels in random_images(design.network.model, 2):
        result, timing = accelerator.run(pixels)
        assert_equal(estimate(design, accelerator.assumed, kept_patches(design, result.trace)), timing)


def test_pipelines_of_another_depth_to_the_cycle(simulators):
    design = design_of(micro())
    accelerator = timed(simulators, design)
    for factor in (2, 3):
        accelerator.assumed = assumptions(design.architecture, ZCU102).with_deeper_pipelines(factor)
        result, timing = accelerator.run(random_images(design.network.model, 1)[0])
        assert_equal(estimate(design, accelerator.assumed, kept_patches(design, result.trace)), timing)


def test_few_outstanding_reads(simulators):
    """A port that waits for an answer before it asks again: its rate is the latency's. Passes are off by bursts."""
    design = design_of(micro())
    for outstanding in (1, 2, 4):
        accelerator = timed(simulators, design, outstanding=outstanding)
        result, timing = accelerator.run(random_images(design.network.model, 1)[0])
        estimated = estimate(design, accelerator.assumed, kept_patches(design, result.trace))
        assert estimated.cycles == pytest.approx(timing.cycles, rel=0.003)


def random_design(name: str, keep: str | None, engine: tuple[int, int, str], seed: int = 0) -> Design:
    spec = resolve_model(name, keep)
    network = random_network(np.random.default_rng(seed), spec.model, spec.pruning)
    tile_in, tile_out, inner_product = engine
    wishes = {"tile_in": tile_in, "tile_out": tile_out, "inner_product": inner_product}
    return make_design(network, Architecture.for_target(ZCU102, wishes))


@pytest.mark.parametrize(("tile_in", "tile_out", "inner_product"), [(8, 16, "fast"), (32, 64, "direct")])
def test_micro_on_engines(simulators, tile_in, tile_out, inner_product):
    assert_image_agrees(simulators, design_of(micro(), tile_in, tile_out, inner_product), images=2)


def test_a_slow_memory_and_a_shallow_fifo(simulators):
    design = design_of(micro())
    for assumed in ({"beat_cost": 1500}, {"beat_cost": 1500, "fifo_words": 16}, {"beat_cost": 400}):
        assert_image_agrees(simulators, design, **assumed)


@pytest.mark.parametrize(("widths", "beat_cost"), [((12, 8, 16), 256), ((12,), 700), ((8,), 700)])
def test_narrow_weights(simulators, widths, beat_cost):
    """Fills as long, of fewer words; a slow memory lets them wait less, and waiting changes no result."""
    design = design_of(narrowed(micro(), widths), 16, 16)
    assert_image_agrees(simulators, design, images=1, beat_cost=beat_cost)
    pixels = random_images(design.network.model, 1)
    result, _ = timed(simulators, design, beat_cost=beat_cost).run(pixels[0])
    assert np.array_equal(result.logits, golden_of(design, pixels).logits[0])


@slow
@pytest.mark.parametrize("package", ["append", "add", "none"])
def test_package_policies(simulators, package):
    assert_image_agrees(simulators, design_of(micro(package=package)))


@slow
def test_unpruned_and_distilled(simulators):
    assert_image_agrees(simulators, design_of(quantized(MICRO.model, MICRO.pruning.without())[1]))
    assert_image_agrees(simulators, design_of(quantized(replace(MICRO.model, distilled=True), MICRO.pruning)[1]))


def unit_agrees(simulators: Simulators, design: Design, unit: str, counts: Iterable[int], **assumed: int) -> None:
    """A kernel alone, at each token count."""
    accelerator = timed(simulators, design, unit, **assumed)
    network, rng = design.network, np.random.default_rng(0)
    program = build_program(Sizes(network.model, network.pruning))
    for tokens in counts:
        x = rng.normal(0, 2000, (tokens, network.model.embed_dim)).astype(np.int16)
        selection = np.ones((tokens, 2), np.int32)
        kept: list[int] = []
        if unit == "token_packager":
            selection[1::2, 0] = 0
            kept = [int(selection[network.model.num_prefix_tokens :, 0].sum())]
        result, timing = accelerator.run_unit(unit, 0, x, 0, selection)
        span = design.program.unit(unit, 0)
        estimated = estimate_unit(program, design.layout, network.pruning, accelerator.assumed, span, tokens, 0, kept)
        counted = Timing(timing.steps[:-1])
        assert counted.cycles == timing.cycles
        if kept:
            assert estimated.tokens == [result.num_tokens]
        assert_agrees(estimated, counted, accelerator.assumed)
        if accelerator.assumed.beat_cost == 1:
            assert_equal(estimated, counted)


@pytest.mark.parametrize(
    "unit",
    ["msa_block", "token_packager", *(pytest.param(unit, marks=slow) for unit in ("mlp_block", "token_selector"))],
)
def test_every_token_count_of_micro(simulators, unit):
    unit_agrees(simulators, design_of(micro()), unit, range(1, MICRO.model.num_tokens + 1), beat_cost=1)


@slow
@pytest.mark.parametrize("unit", ["msa_block", "mlp_block", "token_selector", "token_packager"])
def test_every_seventh_token_count_of_deit_t(simulators, unit):
    unit_agrees(simulators, random_design("deit_t", None, (64, 64, "fast")), unit, [*range(1, 197, 7), 196, 197])


@slow
@pytest.mark.parametrize("engine", [(64, 64, "fast"), (32, 64, "direct"), (16, 32, "fast")], ids=str)
@pytest.mark.parametrize(("name", "keep"), [("deit_t", None), ("deit_t", "none"), ("deit_s", None), ("deit_s", "none")])
def test_models_on_engines(simulators, name, keep, engine):
    assert_image_agrees(simulators, random_design(name, keep, engine))


@slow
@pytest.mark.parametrize("name", ["deit_160", "deit_288", "deit_t_distilled", "deit_digits"])
def test_custom_sizes(simulators, name):
    engine = (16, 16, "fast") if name == "deit_digits" else (64, 64, "fast")
    assert_image_agrees(simulators, random_design(name, None, engine))


@slow
def test_a_slow_memory_on_deit_t(simulators):
    design = random_design("deit_t", None, (64, 64, "fast"))
    for assumed in ({"beat_cost": 94}, {"beat_cost": 300}, {"fifo_words": 256}, {"fifo_words": 8192}):
        assert_image_agrees(simulators, design, **assumed)


@slow
def test_a_designs_own_fifo(simulators):
    """Its depth is in the C++, in the assumptions and in the closed form."""
    design = random_design("deit_t", None, (64, 64, "fast"))
    deep = make_design(design.network, replace(design.architecture, fifo_words=512))
    assert assumptions(deep.architecture, ZCU102).fifo_words == 512
    assert_image_agrees(simulators, deep)
