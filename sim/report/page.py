"""The command that makes the page people look at: `python -m sim.report.page --model deit_s --target zcu102`.

Enters: the build's arguments (`quant.build`); what lies in the build folder of C-simulations, syntheses and boards.
Leaves: `report.html` there, one self-contained page: no network, no script, no font of its own. Every figure says where
it comes from: estimate, schedule, csim, cosim or board.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.measure import PAPER_TABLE_4_MS
from hw.architecture import Architecture
from hw.generate import check_request
from hw.model.estimate import Estimate, make_estimate
from hw.model.latency import OPERATORS
from hw.model.memory import on_chip_arrays
from hw.model.resources import ERROR, HEADROOM
from hw.target import Target, add_clock, with_clock
from hw.templates import render as render_template
from quant.build import add_arguments, build_folder
from sim.report import charts, data
from sim.report.evidence import Evidence, engine_name, read_evidence, timing_name
from spvit.command import Parser
from spvit.config import ModelSpec, resolve_model
from spvit.console import Console
from spvit.cost import tokens_per_stage
from spvit.errors import exit_on_user_error
from spvit.files import write_whole

REPORT = "report.html"
FLOW = Path(__file__).with_name("flow.svg")
PAPER_BOARD = "zcu102"
KINDS = {
    "estimate": "by the closed forms, before any synthesis",
    "schedule": "by an open model of synthesis, from the generated C++",
    "csim": "by C-simulation of the generated C++",
    "cosim": "by co-simulation of the RTL",
    "board": "measured on the board",
    "paper": "as the paper measured it on its ZCU102",
}


@dataclass(frozen=True)
class Headline:
    """One large figure: its kind says where it comes from."""

    kind: str
    value: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure: SVG, where it comes from, and the sentence below it."""

    kind: str
    heading: str
    svg: str
    text: str


@dataclass(frozen=True)
class PaperRow:
    """One of the paper's rows beside ours."""

    model: str
    gmacs: float
    paper_ms: float
    ours_ms: float
    direct_ms: float


def headlines(estimate: Estimate, evidence: Evidence) -> list[Headline]:
    """The figures that people ask for first, the hardest evidence in front."""
    found: list[Headline] = []
    if evidence.board is not None:
        median = evidence.board["latency_ms"]["median"]
        found.append(Headline("board", f"{median:.3f} ms", f"per image, median of {evidence.board['runs']} runs"))
    if "cosim" in evidence.stages and evidence.stages["cosim"].cycles_max is not None:
        cycles = evidence.stages["cosim"].cycles_max
        ms = cycles / estimate.target.clock_mhz / 1e3
        found.append(Headline("cosim", f"{ms:.3f} ms", f"the slowest image of the RTL, {cycles:,} cycles"))
    timing = evidence.timing
    if timing is not None:
        text = f"timed C-simulation of one image, {' → '.join(map(str, timing['tokens']))} tokens"
        found.append(Headline("csim", f"{timing['latency_ms']:.3f} ms", text))
    tokens = " → ".join(map(str, [estimate.layout.rows, *estimate.cycles.tokens]))
    found.append(Headline("estimate", f"{estimate.latency_ms:.3f} ms", f"per image, {tokens} tokens"))
    if estimate.spec.model.name in PAPER_TABLE_4_MS:
        unpruned, pruned = PAPER_TABLE_4_MS[estimate.spec.model.name]
        paper = pruned if estimate.spec.pruning.num_selectors else unpruned
        found.append(Headline("paper", f"{paper:.2f} ms", "the same model in 16 bits, Table 4"))
    share = f"{estimate.macs / 1e9:.2f} GMACs at {estimate.mac_efficiency:.0%} of the array's peak"
    per_dsp = estimate.macs / estimate.cycles.cycles / estimate.resources.dsp
    found.append(Headline("estimate", f"{per_dsp:.2f}", f"MACs per DSP and cycle: {share}"))
    csim = evidence.csim
    if csim is not None:
        text = f"{csim['mismatches']:,} of {csim['values_compared']:,} values differ from the golden, "
        found.append(
            Headline("csim", "bit-exact" if not csim["mismatches"] else "NOT exact", text + _images(csim["images"]))
        )
    return found


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def pictures(estimate: Estimate, evidence: Evidence) -> list[Picture]:
    """Every chart of the page, in order."""
    clock = estimate.target.clock_mhz
    waiting = sum(step.fifo for step in estimate.cycles.steps) / estimate.cycles.cycles
    return [
        Picture(
            "estimate",
            "Roofline",
            charts.draw_roofline(data.roofline(estimate), estimate, "Roofline: GMAC/s against MACs per byte"),
            "A byte of weights serves every token of the image, so pruning moves a stage to the left. Where a point "
            "lies on the slope, the weight stream is the limit, not the array.",
        ),
        Picture(
            "estimate",
            "Latency by stage",
            charts.draw_parts(data.by_stage(estimate), clock, "Latency by stage"),
            f"From one token selector to the next, and for whom the cycles pass. {waiting:.0%} of the time waits for "
            "the weight stream.",
        ),
        Picture(
            "estimate",
            "Latency by pass",
            charts.draw_parts(data.by_pass(estimate), clock, "Latency by pass"),
            "All blocks and heads together, in the order of their first use.",
        ),
        _tokens(estimate),
        _depth(estimate, evidence),
        _resources(estimate, evidence),
        Picture(
            "estimate",
            "If the assumptions are off",
            charts.draw_bars(
                {"as assumed": estimate.latency_ms, **_sensitivities(estimate)}, "Latency if the assumptions are off"
            ),
            "The memory's bandwidth and the pipelines' depths are what the estimate assumes most.",
        ),
    ]


def _tokens(estimate: Estimate) -> Picture:
    architecture, steps = estimate.layout.architecture, data.key_tile_steps(estimate)
    curve = data.latency_against_tokens(estimate.spec, estimate.target, architecture)
    curves = {_engine(architecture): curve.latency, "of it, the array works": curve.working}
    return Picture(
        "estimate",
        "Latency against tokens",
        charts.draw_tokens(curves, steps, "Latency against tokens"),
        f"Each token costs a cycle in each tile, whatever their number. {_steps_sentence(steps, architecture)}"
        "Where the curve is flat, the weight stream or the filling of tiles is the limit.",
    )


def _depth(estimate: Estimate, evidence: Evidence) -> Picture:
    expected = data.tokens_by_block(estimate.spec, estimate.cycles.tokens)
    heading, csim = "Tokens along the depth", evidence.csim
    if csim is None:
        svg = charts.draw_depth(expected, [], f"{heading}, at the keep ratios")
        text = "At the keep ratios; make csim runs images, whose own counts then stand here."
        return Picture("estimate", heading, svg, text)
    images = [data.tokens_by_block(estimate.spec, tokens) for tokens in csim["tokens"]]
    svg = charts.draw_depth(expected, images, f"{heading}, of the images that C-simulation ran")
    text = "Token counts are known only at run time and differ from image to image."
    return Picture("csim", heading, svg, f"{_images(len(images))} that C-simulation ran. {text}")


def _resources(estimate: Estimate, evidence: Evidence) -> Picture:
    target = estimate.target
    shares = {"estimate": estimate.resources.shares(target)}
    for name in ("csynth", "vivado"):
        if name in evidence.stages:
            found = {kind: getattr(evidence.stages[name], kind) for kind in shares["estimate"]}
            shares[name] = {kind: value / getattr(target, kind) for kind, value in found.items() if value is not None}
    used = estimate.resources.used()
    text = ", ".join(f"{used[kind]:,.0f} {kind.upper()}" for kind in shares["estimate"])
    return Picture(
        "estimate",
        f"What it takes of {target.name}",
        charts.draw_resources(shares, f"Resources, in per cent of {target.name}"),
        f"{text}; LUTs and flip-flops to within {ERROR:.0%}.",
    )


def _sensitivities(estimate: Estimate) -> dict[str, float]:
    names = {"ddr_bandwidth_minus_20_percent": "DDR −20%", "pipeline_depths_doubled": "pipelines twice as deep"}
    return {names[key]: ms for key, ms in estimate.sensitivity_ms().items()}


def _steps_sentence(steps: Sequence[int], architecture: Architecture) -> str:
    if not steps:
        return ""
    tiles = " and ".join(str(size) for size in sorted({architecture.tile_in, architecture.tile_out}))
    listed = f"{', '.join(map(str, steps[:-1]))} and {steps[-1]}" if len(steps) <= 4 else f"{steps[0]}, {steps[1]}, …"
    counts = f"The steps at {listed}" if len(steps) > 1 else f"The step at {steps[0]}"
    return f"{counts} tokens: keys and values are attention's weights and come in tiles of {tiles}. "


def _engine(architecture: Architecture) -> str:
    return f"{architecture.tile_in}×{architecture.tile_out} {architecture.inner_product}"


def paper_rows(spec: ModelSpec, target: Target) -> list[PaperRow]:
    """The paper's four rows on this engine and board."""
    rows = []
    for name in ("deit_s", "deit_t"):
        for keep, paper in zip(("none", None), PAPER_TABLE_4_MS[name], strict=True):
            one = resolve_model(name, keep)
            ours = data.with_engine(one, target, dict(spec.engine))
            direct = data.with_engine(one, target, data.DIRECT)
            label = f"{name}, unpruned" if keep else name
            rows.append(PaperRow(label, ours.macs / 1e9, paper, ours.latency_ms, direct.latency_ms))
    return rows


def engine_facts(estimate: Estimate) -> list[tuple[str, str]]:
    """The engine in words and numbers."""
    architecture, target = estimate.layout.architecture, estimate.target
    macs = architecture.tile_in * architecture.tile_out
    product = (
        f"Winograd's of 1968: {macs:,} MACs per cycle of {architecture.multipliers:,} multipliers"
        if architecture.is_fast
        else f"direct: {architecture.multipliers:,} multipliers"
    )
    arrays = sorted(on_chip_arrays(estimate.layout), key=lambda array: -array.depth * array.width * array.banks)
    largest = ", ".join(f"{array.name} {array.depth * array.width * array.banks / 8e3:,.0f} kB" for array in arrays[:4])
    return [
        (
            "array",
            f"{architecture.tile_in} × {architecture.tile_out}; a tile of weights stays, a token passes per cycle",
        ),
        ("inner product", product),
        ("clock", f"{target.clock_mhz:g} MHz: a peak of {macs * target.clock_mhz / 1e3:,.0f} GMAC/s"),
        (
            "weights",
            f"{estimate.weight_bytes / 1e6:.1f} MB per image over {architecture.weight_ports} AXI ports of 128 bits, "
            f"{target.bandwidth_gbps:g} GB/s planned; {architecture.fifo_words:,} words wait on chip",
        ),
        ("on chip", f"{estimate.layout.rows} tokens at most: {largest}"),
        ("program", f"{len(estimate.program.steps)} passes and steps, one engine for all of them"),
    ]


def render(estimate: Estimate, evidence: Evidence) -> str:
    """The page."""
    spec, target = estimate.spec, estimate.target
    rows = paper_rows(spec, target)
    context: dict[str, Any] = {
        "model": spec.model.name,
        "target": target,
        "engine": _engine(estimate.layout.architecture),
        "stages": tokens_per_stage(spec.model, spec.pruning, estimate.kept),
        "headlines": headlines(estimate, evidence),
        "flow": _inline(FLOW.read_text(encoding="utf-8")),
        "facts": engine_facts(estimate),
        "pictures": pictures(estimate, evidence),
        "paper": rows,
        "paper_chart": _paper_chart(rows),
        "is_paper_board": target.name == PAPER_BOARD,
        "paper_board": PAPER_BOARD,
        "kinds": KINDS,
        "parts": sorted(estimate.resources.parts, key=lambda part: -part.cost.lut),
        "headroom": HEADROOM,
        "operators": OPERATORS,
        "evidence": evidence,
    }
    return render_template(Path(__file__).with_name("report.html.j2"), context)


def _paper_chart(rows: Sequence[PaperRow]) -> str:
    values: dict[str, float] = {}
    for row in rows:
        values |= {f"{row.model}: paper": row.paper_ms, f"{row.model}: estimate": row.ours_ms}
    return charts.draw_bars(values, "Latency beside the paper's", [f"{row.model}: paper" for row in rows])


def _inline(svg: str) -> str:
    """A drawing's text as a figure of the page."""
    return re.sub(r"<svg ", '<svg role="img" ', svg, count=1)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("python -m sim.report.page", __doc__.partition("\n")[0])
    add_arguments(parser)
    add_clock(parser)
    args = parser.parse_args(argv)
    spec, board, architecture = check_request(args)
    target = with_clock(board, args.clock)
    folder = build_folder(args)
    timing = timing_name(architecture, board, architecture, target.clock_mhz)
    evidence = read_evidence(folder, spec.model.name, target.name, engine_name(architecture), timing)
    text = render(make_estimate(spec, target), evidence)
    write_whole(folder / REPORT, text)
    Console().print(f"{folder / REPORT}: open it in a browser", soft_wrap=True)


if __name__ == "__main__":
    exit_on_user_error(main)
