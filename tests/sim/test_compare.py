"""The comparison itself, on traces made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hw.layout import Design
from hw.program import Step
from sim.bridge import UNTOUCHED
from sim.compare import Mismatch, compare_tap, compare_taps, first_row, written_lanes
from sim.golden import GoldenResult
from tests.sim.conftest import golden_of
from tests.sim.networks import MICRO, design_of, micro, random_images

PIXELS = random_images(MICRO.model, 1)
STEPS = [
    "patch_embed",
    "blocks.0.attn.k",
    "blocks.1.attn.scores.1",
    "blocks.1.attn.context.1",
    "blocks.3.attn.proj",
    "blocks.2.mlp.fc1",
    "selectors.1.embed.1",
    "selectors.1.pool.0",
    "selectors.1.fc3.0",
    "selectors.2.head_branch.fc2",
    "selectors.1.keep",
    "selectors.1.package",
    "head",
]


@pytest.fixture(scope="module")
def design() -> Design:
    return design_of(micro())


@pytest.fixture(scope="module")
def golden(design: Design) -> GoldenResult:
    return golden_of(design, PIXELS)


def trace_of(design: Design, step: Step, tap: np.ndarray) -> np.ndarray:
    """What an accelerator that is right leaves: the tap, zeros in the rows' padding, nothing elsewhere."""
    rows = 1 if step.name.rpartition(".")[0].endswith(".pool") else design.layout.rows
    trace = np.full((rows, design.layout.trace_lanes(step)), UNTOUCHED, np.int32)
    first = first_row(design, step)
    for row, values in enumerate(tap):
        trace[first + row, : written_lanes(design, step, len(tap))] = 0
        for feature, value in enumerate(values):
            trace[first + row, design.layout.out_columns(step)[feature]] = value
    return trace


def step_named(design: Design, name: str) -> Step:
    return next(step for step in design.program.steps if step.name == name)


@pytest.mark.parametrize("name", STEPS)
def test_equal_traces_have_no_mismatch(design, golden, name):
    step, tap = step_named(design, name), golden.taps[name][0]
    assert compare_tap(design, step, trace_of(design, step, tap), tap) is None


@pytest.mark.parametrize("name", STEPS)
def test_any_value_that_differs_is_found(design, golden, name):
    """Each lane of each row in turn: value, padding, or where nothing should stand."""
    step, tap = step_named(design, name), golden.taps[name][0]
    right = trace_of(design, step, tap)
    for row, lane in np.ndindex(right.shape):
        wrong = right.copy()
        wrong[row, lane] ^= 1
        found = compare_tap(design, step, wrong, tap)
        assert found is not None and found.count == 1
        assert (found.csim, found.golden) == (wrong[row, lane], right[row, lane])
        assert found.index[0] == row - first_row(design, step)


def test_the_first_of_several_is_named(design, golden):
    step, tap = step_named(design, "patch_embed"), golden.taps["patch_embed"][0]
    trace = trace_of(design, step, tap)
    trace[4, 21] += 5  # row 4 of X is patch 3
    trace[4, 30] += 5
    trace[9, 2] += 5
    found = compare_tap(design, step, trace, tap)
    value = int(tap[3, 21])
    assert found == Mismatch("patch_embed", (3, 21), value + 5, value, 3)
    assert str(found) == f"patch_embed[3, 21]: C-simulation {value + 5}, golden {value} (3 values differ)"


def test_features_are_counted_without_their_padding(golden):
    """On 64 lanes a head of 16 has 48 of padding: channel 21 is lane 69."""
    design = design_of(micro(), 64, 64)
    step, tap = step_named(design, "blocks.0.attn.k"), golden.taps["blocks.0.attn.k"][0]
    trace = trace_of(design, step, tap)
    trace[2, 69] += 1
    assert compare_tap(design, step, trace, tap) == Mismatch(
        step.name, (2, 21), int(tap[2, 21]) + 1, int(tap[2, 21]), 1
    )


def test_padding_lanes_must_be_zero(golden):
    design = design_of(micro(), 64, 64)
    step, tap = step_named(design, "blocks.0.attn.k"), golden.taps["blocks.0.attn.k"][0]
    trace = trace_of(design, step, tap)
    trace[2, 17] = 9
    assert compare_tap(design, step, trace, tap) == Mismatch(step.name, (2, 17), 9, 0, 1)


def test_a_row_beyond_the_tokens(design, golden):
    name = "blocks.3.mlp.fc2"
    step, tap = step_named(design, name), golden.taps[name][0]
    trace = trace_of(design, step, tap)
    assert len(tap) < len(trace)
    trace[len(tap), 0] = 0
    found = compare_tap(design, step, trace, tap)
    assert str(found) == f"{name}[{len(tap)}, 0]: C-simulation 0, golden nothing (1 values differ)"


def test_a_value_that_was_not_written(design, golden):
    step, tap = step_named(design, "head"), golden.taps["head"][0]
    trace = trace_of(design, step, tap)
    trace[0, 6] = UNTOUCHED
    found = compare_tap(design, step, trace, tap)
    assert str(found) == f"head[0, 6]: C-simulation nothing, golden {tap[0, 6]} (1 values differ)"


def test_what_was_traced_is_compared_and_counted(design, golden):
    trace = {step.name: trace_of(design, step, golden.taps[step.name][0]) for step in design.program.steps}
    comparison = compare_taps(design, trace, golden)
    assert comparison.mismatches == () and comparison.taps == len(design.program.steps)
    assert comparison.values == sum(tap[0].size for tap in golden.taps.values())
    some = {name: trace[name] for name in STEPS}
    some["head"] = some["head"] + 1
    comparison = compare_taps(design, some, golden)
    assert comparison.taps == len(STEPS)
    assert [mismatch.tap for mismatch in comparison.mismatches] == ["head"]
