"""How far the closed form (`hw.model.cycles`) may be from the timed C-simulation, class of passes by class of passes.

That they agree shows that the two are consistent, not that they are true.
"""

from __future__ import annotations

from collections.abc import Iterator

from hw.model.cycles import CycleEstimate
from hw.model.latency import COST_FRACTION, Assumptions
from sim.timed.timing import StepCycles, Timing

CLASS_ERROR, TOTAL_ERROR = 0.02, 0.01
CLASS_CYCLES = 8
"""What a class may be off by however little it lasts."""


def by_class(timing: Timing) -> dict[str, list[StepCycles]]:
    """Steps that differ in block and head alone, in order of first use: `blocks.attn.scores`."""
    found: dict[str, list[StepCycles]] = {}
    for step in timing.steps:
        name = ".".join(part for part in step.name.split(".") if not part.isdigit())
        found.setdefault(name, []).append(step)
    return found


def disagreements(estimated: CycleEstimate, timing: Timing, assumed: Assumptions) -> Iterator[str]:
    """A sentence for each class of passes that the closed form has otherwise, and for the sum.

    With a memory slower than a beat per cycle a step may be off by a burst whatever it lasts: the closed form's stream
    is a fluid.
    """
    burst = assumed.burst_beats * max(0.0, assumed.beat_cost / COST_FRACTION - 1)
    classes = by_class(timing)
    estimates = estimated.by_pass()
    if list(estimates) != list(classes):
        yield f"passes: {', '.join(estimates)} estimated, {', '.join(classes)} counted"
        return
    for name, steps in classes.items():
        counted, found = sum(step.total for step in steps), estimates[name].total
        if abs(found - counted) > max(CLASS_ERROR * counted, CLASS_CYCLES + burst * len(steps)):
            yield f"{name}: {found:,.0f} cycles estimated, {counted:,} counted"
    if abs(estimated.cycles - timing.cycles) > TOTAL_ERROR * timing.cycles:
        yield f"all: {estimated.cycles:,} cycles estimated, {timing.cycles:,} counted"
