"""What the report's figures are drawn from: times by pass and stage, operations per byte, tokens along the depth.

Enters: an `Estimate`. Leaves: small tables of numbers, all of them estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hw.architecture import Architecture
from hw.layout import Layout
from hw.model.cycles import LOADING, PARTS, StepCycles, estimate_tokens
from hw.model.estimate import Estimate, make_estimate
from hw.model.latency import assumptions
from hw.program import Op, Rows, Sizes, Step, Weights, build_program
from hw.target import Target
from quant.widths import layer_widths
from spvit.config import ModelConfig, ModelSpec

DIRECT: Mapping[str, int | str] = {"tile_in": 32, "tile_out": 64, "inner_product": "direct"}
"""The engine without Winograd's product that has as many multipliers as the default one."""


@dataclass(frozen=True)
class Group:
    """Cycles of some steps, by whom they pass for."""

    name: str
    cycles: StepCycles

    def ms(self, part: str, clock_mhz: float) -> float:
        return float(getattr(self.cycles, part)) / clock_mhz / 1e3


@dataclass(frozen=True)
class RooflinePoint:
    """A kind of pass within a stage.

    macs_per_byte  of the weight stream; None where the weights come from on-chip memory
    """

    name: str
    stage: int
    macs_per_byte: float | None
    gmacs_per_s: float


def by_pass(estimate: Estimate) -> list[Group]:
    """Every pass class, the heads' and the selectors' together."""
    sums: dict[str, StepCycles] = {}
    for step in estimate.cycles.steps:
        _add(sums, _class(step.pass_class), step)
    return [Group(name, cycles) for name, cycles in sums.items()]


def _class(name: str) -> str:
    if name.startswith("selectors"):
        return "token packager" if name.endswith("package") else "token selector"
    return name.removeprefix("blocks.")


def by_stage(estimate: Estimate) -> list[Group]:
    """From one selector to the next: the selector itself with its packager, then the blocks behind it."""
    stages = [estimate.layout.model.num_tokens, *estimate.cycles.tokens]
    bounds = [0, *estimate.spec.pruning.locations, estimate.spec.model.depth]
    sums: dict[str, StepCycles] = {}
    stage = 0
    for step in estimate.cycles.steps:
        kind, _, rest = step.name.partition(".")
        if kind == "blocks":
            first, last = bounds[stage], bounds[stage + 1] - 1
            name = f"block{f's {first}–{last}' if last > first else f' {first}'}, {stages[stage]} tokens"
        elif kind == "selectors":
            name = f"selector {int(rest.split('.')[0]) + 1}"
            stage = int(rest.split(".")[0]) + 1
        else:
            name = "load, patches" if step.name in (LOADING, "patch_embed") else "head, store"
        _add(sums, name, step)
    return [Group(name, cycles) for name, cycles in sums.items()]


def _add(sums: dict[str, StepCycles], name: str, step: StepCycles) -> None:
    total = sums.setdefault(name, StepCycles(name))
    for part in PARTS:
        setattr(total, part, getattr(total, part) + getattr(step, part))


def roofline(estimate: Estimate) -> list[RooflinePoint]:
    """MACs per second of each kind of pass in each stage, against the MACs that a byte of weights is good for."""
    sums: dict[tuple[str, int], list[float]] = {}
    stage = 0
    timed = {step.name: step.total for step in estimate.cycles.steps}
    for step in estimate.program.steps:
        if step.unit == "token_packager":
            stage = step.index + 1
        if step.op is not Op.ENGINE or step.unit == "token_selector":
            continue
        total = sums.setdefault((_kind(step), stage), [0, 0, 0])
        total[0] += step_macs(estimate, step, stage)
        total[1] += _stream_bytes(estimate.layout, step)
        total[2] += timed[step.name]
    return [
        RooflinePoint(name, stage, macs / size if size else None, macs / cycles * estimate.target.clock_mhz / 1e3)
        for (name, stage), (macs, size, cycles) in sums.items()
    ]


def _kind(step: Step) -> str:
    if step.unit == "msa_block":
        return "attention" if step.weights is not Weights.STREAM else "K, V, Q, projection"
    return {"mlp_block": "MLP", "patch_embed": "patches", "head": "head"}[step.unit]


def step_macs(estimate: Estimate, step: Step, stage: int) -> int:
    """Products of the model's own sizes, without padding."""
    model: ModelConfig = estimate.spec.model
    tokens = (estimate.layout.model.num_tokens, *estimate.cycles.tokens)[stage]
    candidates = (model.num_patches, *estimate.kept)[stage] if step.rows is Rows.CANDIDATES else 0
    rows = {Rows.ALL: tokens, Rows.PATCHES: model.num_patches, Rows.CANDIDATES: candidates, Rows.FIRST: 1}[step.rows]
    inputs = tokens if step.in_features is None else step.in_features
    outputs = tokens if step.out_features is None else step.out_features
    return rows * inputs * outputs


def _stream_bytes(layout: Layout, step: Step) -> int:
    if step.weights is not Weights.STREAM or step.in_features is None or step.out_features is None:
        return 0
    return step.weight_width.value * step.in_features * step.out_features // 8


@dataclass(frozen=True)
class TokenCurve:
    """Latency in ms against tokens, the same from the first pass to the last; and of it, how long the array works."""

    latency: list[tuple[int, float]]
    working: list[tuple[int, float]]


def latency_against_tokens(spec: ModelSpec, target: Target, architecture: Architecture) -> TokenCurve:
    """For images with a single token up to the model's all."""
    layout = Layout(spec.model, architecture)
    program = build_program(Sizes(spec.model, spec.pruning.without(), layer_widths(spec)))
    assumed = assumptions(architecture, target)
    curve = TokenCurve([], [])
    for tokens in range(1, layout.model.num_tokens + 1):
        estimate = estimate_tokens(program, layout, assumed, tokens)
        working = sum(step.tokens for step in estimate.steps)
        curve.latency.append((tokens, estimate.latency_ms(target.clock_mhz)))
        curve.working.append((tokens, working / target.clock_mhz / 1e3))
    return curve


def key_tile_steps(estimate: Estimate) -> list[int]:
    """Token counts from which attention's keys fill one tile more."""
    architecture, rows = estimate.layout.architecture, estimate.layout.model.num_tokens
    return sorted(
        {1 + tile for size in (architecture.tile_in, architecture.tile_out) for tile in range(size, rows, size)}
    )


def tokens_by_block(spec: ModelSpec, tokens: Sequence[int]) -> list[int]:
    """Rows in each block, from rows after each selector."""
    stages = [spec.model.num_tokens, *tokens]
    return [stages[sum(one <= block for one in spec.pruning.locations)] for block in range(spec.model.depth)]


def with_engine(spec: ModelSpec, target: Target, engine: Mapping[str, int | str]) -> Estimate:
    """The estimate of the same images on another engine."""
    return make_estimate(replace(spec, engine=engine), target)
