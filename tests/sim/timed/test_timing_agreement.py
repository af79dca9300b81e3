"""The closed form against the timed C-simulation: within 2% in every pass class, within 1% in all.

That shows that the two are consistent, not that they are true.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from hw.architecture import Architecture
from hw.generate import make_design
from hw.layout import Design
from hw.model.cycles import CycleEstimate, estimate_cycles, estimate_unit
from hw.model.latency import COST_FRACTION, Assumptions, assumptions
from hw.program import Sizes, build_program
from hw.target import resolve_target
from sim.build import build_library
from sim.timed.timing import StepCycles, TimedAccelerator, Timing
from spvit.config import resolve_model
from tests.sim.conftest import Simulators
from tests.sim.networks import MICRO, design_of, micro, quantized, random_images, random_network

ZCU102 = resolve_target("zcu102")
CLASS_ERROR, TOTAL_ERROR = 0.02, 0.01
slow = pytest.mark.slow


def timed(simulators: Simulators, design: Design, unit: str | None = None, **assumed: int) -> TimedAccelerator:
    library = build_library(simulators.folder(design) / "src", unit, timed=True)
    return TimedAccelerator(design, library, replace(assumptions(design.architecture, ZCU102), **assumed))


def kept_patches(design: Design, trace: dict[str, np.ndarray]) -> list[int]:
    """Patches alive after each selector, as the run decided."""
    return [
        int((trace[f"selectors.{selector}.keep"][:, 0] == 1).sum())
        for selector in range(design.network.pruning.num_selectors)
    ]


def estimate(design: Design, assumed: Assumptions, kept: Sequence[int]) -> CycleEstimate:
    """Of the sizes alone: it must not need the quantized network."""
    model, pruning = design.network.model, design.network.pruning
    return estimate_cycles(build_program(Sizes(model, pruning)), design.layout, pruning, assumed, kept)


def by_class(steps: Iterable[StepCycles]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for step in steps:
        name = ".".join(part for part in step.name.split(".") if not part.isdigit())
        found.setdefault(name, []).append(step.total)
    return found


def assert_agrees(estimated: CycleEstimate, timing: Timing, assumed: Assumptions) -> None:
    """From a memory slower than a beat per cycle, a step may be off by a burst whatever it lasts: the closed form's stream
    is a fluid. Otherwise by a few cycles."""
    slow_beats = max(0.0, assumed.beat_cost / COST_FRACTION - 1)
    classes = by_class(timing.steps)
    for name, step in estimated.by_pass().items():
        counted = sum(classes[name])
        bound = max(CLASS_ERROR * counted, 8 + assumed.burst_beats * slow_beats * len(classes[name]))
        assert abs(step.total - counted) <= bound, f"{name}: {step.total:.0f} estimated, {counted} counted"
    assert abs(estimated.cycles - timing.cycles) <= TOTAL_ERROR * timing.cycles


def assert_image_agrees(simulators: Simulators, design: Design, images: int = 1, **assumed: int) -> None:
    accelerator = timed(simulators, design, **assumed)
    for pixels in random_images(design.network.model, images):
        result, timing = accelerator.run(pixels)
        estimated = estimate(design, accelerator.assumed, kept_patches(design, result.trace))
        assert estimated.tokens == result.tokens
        assert_agrees(estimated, timing, accelerator.assumed)


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


@slow
@pytest.mark.parametrize("package", ["append", "add", "none"])
def test_package_policies(simulators, package):
    assert_image_agrees(simulators, design_of(micro(package=package)))


@slow
def test_unpruned_and_distilled(simulators):
    assert_image_agrees(simulators, design_of(quantized(MICRO.model, MICRO.pruning.without())[1]))
    assert_image_agrees(simulators, design_of(quantized(replace(MICRO.model, distilled=True), MICRO.pruning)[1]))


def unit_agrees(simulators: Simulators, design: Design, unit: str, counts: Iterable[int]) -> None:
    """A kernel alone, at each token count."""
    accelerator = timed(simulators, design, unit)
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
        counted = Timing((timing.steps[0], *(timing.steps[i + 1] for i in span)))
        assert counted.cycles == timing.cycles
        if kept:
            assert estimated.tokens == [result.num_tokens]
        assert_agrees(estimated, counted, accelerator.assumed)


@pytest.mark.parametrize(
    "unit",
    ["msa_block", "token_packager", *(pytest.param(unit, marks=slow) for unit in ("mlp_block", "token_selector"))],
)
def test_every_token_count_of_micro(simulators, unit):
    unit_agrees(simulators, design_of(micro()), unit, range(1, MICRO.model.num_tokens + 1))


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
