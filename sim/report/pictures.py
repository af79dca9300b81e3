"""Every chart of the page, with the sentence below it.

Enters: an `Estimate`, and `Evidence` of what was run. Leaves: `Picture`s, each drawn for a desk's screen and
for a telephone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hw.architecture import Architecture
from hw.model.charts import in_both_widths
from hw.model.estimate import Estimate
from hw.model.resources import ERROR, KINDS
from sim.report import charts, data
from sim.report.evidence import RANDOM, Evidence
from sim.report.paper import PaperRow


@dataclass(frozen=True)
class Picture:
    """A figure: HTML, where it comes from, and the sentence below it.

    depends_on_weights  with random ones it says nothing of a trained model
    """

    kind: str
    heading: str
    html: str
    text: str
    depends_on_weights: bool = False


def engine_text(architecture: Architecture) -> str:
    return f"{architecture.tile_in}×{architecture.tile_out} {architecture.inner_product}"


def count_images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def pictures(estimate: Estimate, evidence: Evidence) -> list[Picture]:
    """Every chart of the page, in order."""
    clock, points = estimate.target.clock_mhz, data.roofline(estimate)
    sensitivities = {"as assumed": estimate.latency_ms, **_sensitivities(estimate)}
    waiting = sum(step.fifo for step in estimate.cycles.steps) / estimate.cycles.cycles
    return [
        Picture(
            "estimate",
            "Roofline",
            in_both_widths(
                partial(charts.draw_roofline, points, estimate, "Roofline: GMAC/s against MACs per byte of weights")
            ),
            "A byte of weights serves every token of the image, so pruning moves a stage to the left. Where a point "
            "lies on the slope, the weight stream is the limit, not the array.",
        ),
        Picture(
            "estimate",
            "Latency by stage",
            in_both_widths(partial(charts.draw_parts, data.by_stage(estimate), clock, "Latency by stage, ms")),
            f"From one token selector to the next, and for whom the cycles pass. {waiting:.0%} of the time waits for "
            "the weight stream.",
        ),
        Picture(
            "estimate",
            "Latency by pass",
            in_both_widths(partial(charts.draw_parts, data.by_pass(estimate), clock, "Latency by pass, ms")),
            "All blocks and heads together, in the order of their first use.",
        ),
        _tokens(estimate),
        _depth(estimate, evidence),
        _resources(estimate, evidence),
        Picture(
            "estimate",
            "If the assumptions are off",
            in_both_widths(partial(charts.draw_bars, sensitivities, "Latency if the assumptions are off, ms")),
            "The memory's bandwidth and the pipelines' depths are what the estimate assumes most.",
        ),
    ]


def _tokens(estimate: Estimate) -> Picture:
    architecture, steps = estimate.layout.architecture, data.key_tile_steps(estimate)
    curve = data.latency_against_tokens(estimate.spec, estimate.target, architecture)
    curves = {engine_text(architecture): curve.latency, "of it, the array works": curve.working}
    return Picture(
        "estimate",
        "Latency against tokens",
        in_both_widths(partial(charts.draw_tokens, curves, steps, "Latency against tokens")),
        f"Each token costs a cycle in each tile, whatever their number. {_steps_sentence(steps, architecture)}"
        "Where the curve is flat, the weight stream or the filling of tiles is the limit.",
    )


def _depth(estimate: Estimate, evidence: Evidence) -> Picture:
    expected = data.tokens_by_block(estimate.spec, estimate.cycles.tokens)
    heading, csim = "Tokens along the depth", evidence.csim
    if csim is None:
        html = in_both_widths(partial(charts.draw_depth, expected, [], f"{heading}, at the keep ratios"))
        text = "At the keep ratios; make csim runs images, whose own counts then stand here."
        return Picture("estimate", heading, html, text)
    images = [data.tokens_by_block(estimate.spec, tokens) for tokens in csim["tokens"]]
    note = f"{RANDOM}, not a trained model's" if evidence.is_random else ""
    title = f"{heading}, of the images that C-simulation ran"
    html = in_both_widths(partial(charts.draw_depth, expected, images, title, note=note))
    text = "Token counts are known only at run time and differ from image to image."
    return Picture("csim", heading, html, f"{count_images(len(images))} that C-simulation ran. {text}", True)


def _resources(estimate: Estimate, evidence: Evidence) -> Picture:
    target = estimate.target
    used = {"estimate": {kind: count for kind, count in estimate.resources.used().items() if getattr(target, kind)}}
    for name in ("csynth", "vivado"):
        if name in evidence.stages:
            found = {kind: getattr(evidence.stages[name], kind) for kind in used["estimate"]}
            used[name] = {kind: value for kind, value in found.items() if value is not None}
    listed = [f"{count:,.0f} of {getattr(target, kind):,} {KINDS[kind]}" for kind, count in used["estimate"].items()]
    return Picture(
        "estimate",
        f"What it takes of {target.name}",
        in_both_widths(partial(charts.draw_resources, used, target, f"Resources, in per cent of {target.name}")),
        f"{', '.join(listed)}; LUTs and flip-flops to within {ERROR:.0%}.",
    )


def _sensitivities(estimate: Estimate) -> dict[str, float]:
    names = {"ddr_bandwidth_minus_20_percent": "memory 20% slower", "pipeline_depths_doubled": "pipelines 2× as deep"}
    return {names[key]: ms for key, ms in estimate.sensitivity_ms().items()}


def _steps_sentence(steps: Sequence[int], architecture: Architecture) -> str:
    if not steps:
        return ""
    tiles = " and ".join(str(size) for size in sorted({architecture.tile_in, architecture.tile_out}))
    listed = f"{', '.join(map(str, steps[:-1]))} and {steps[-1]}" if len(steps) <= 4 else f"{steps[0]}, {steps[1]}, …"
    counts = f"The steps at {listed}" if len(steps) > 1 else f"The step at {steps[0]}"
    return f"{counts} tokens: keys and values are attention's weights and come in tiles of {tiles}. "


def paper_picture(rows: Sequence[PaperRow]) -> str:
    """The rows that can be compared, or nothing."""
    pairs = [charts.Pair(row.model, row.paper_ms, row.ours_ms) for row in rows if row.ours_ms is not None]
    return in_both_widths(partial(charts.draw_paper, pairs, "Latency beside the paper's, ms")) if pairs else ""
