"""Costs in the accelerator's own currency, for `spvit.budget.solve_keep`: milliseconds or cycles of an image.

Enters: a model, a board. Leaves: a function of the patches kept after each selector. By the closed form
(`hw.model.cycles`), so an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence

from hw.architecture import Architecture
from hw.layout import Layout
from hw.model.cycles import estimate_cycles
from hw.model.latency import assumptions
from hw.program import Sizes, build_program
from hw.target import Target
from quant.build import refuse_what_has_no_unit
from quant.widths import layer_widths
from spvit.budget import Cost
from spvit.config import ModelSpec


def cycles(spec: ModelSpec, target: Target, architecture: Architecture | None = None) -> Cost:
    """Cycles of an image, on the model's own engine or another. Raises ConfigError where the engine can't be, or
    has no unit for what the model does.
    """
    refuse_what_has_no_unit(spec, spec.model.name)
    engine = Architecture.for_target(target, spec.engine) if architecture is None else architecture
    layout, assumed = Layout(spec.model, engine), assumptions(engine, target)
    program = build_program(Sizes(spec.model, spec.pruning, layer_widths(spec)))

    def cost(kept: Sequence[int]) -> float:
        return estimate_cycles(program, layout, spec.pruning, assumed, kept).cycles

    return cost


def latency_ms(spec: ModelSpec, target: Target, architecture: Architecture | None = None) -> Cost:
    """Milliseconds of an image at the target's clock, as `cycles`."""
    counted = cycles(spec, target, architecture)
    return lambda kept: counted(kept) / target.clock_mhz / 1e3
