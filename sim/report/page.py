"""The command that makes the page people look at: `spvit report --model deit_s --target zcu102`.

Enters: the build's arguments (`quant.build`); what lies in the build folder of C-simulations, syntheses and boards.
Leaves: `report.html` there, one self-contained page: no network, no script, no font of its own. Every figure says where
it comes from: estimate, schedule, csim, cosim or board.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.generate import check_request
from hw.hardware import Hardware
from hw.model.charts import DARK_RULES
from hw.model.estimate import Estimate, make_estimate
from hw.model.latency import OPERATORS
from hw.model.memory import bram18_by_memory, on_chip_arrays
from hw.options import ClockedOptions
from hw.target import Target, with_clock
from hw.templates import render as render_template
from quant.build import build_folder, design_folder
from sim.report import data
from sim.report.evidence import Evidence, engine_name, read_evidence, timing_name
from sim.report.flow import draw_flow
from sim.report.paper import paper_ms, paper_rows
from sim.report.pictures import count_images, engine_text, paper_picture, pictures
from spvit.config import ModelSpec
from spvit.console import Console, stage
from spvit.cost import tokens_per_stage
from spvit.files import write_whole

REPORT = "report.html"
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
    """One large figure: its kind says where it comes from.

    depends_on_weights  with random ones it says nothing of a trained model
    """

    kind: str
    value: str
    text: str
    depends_on_weights: bool = False


def headlines(estimate: Estimate, evidence: Evidence) -> list[Headline]:
    """The figures that people ask for first, the hardest evidence in front."""
    found: list[Headline] = []
    if evidence.board is not None:
        median = evidence.board["latency_ms"]["median"]
        found.append(Headline("board", f"{median:.3f} ms", f"per image, median of {evidence.board['runs']} runs", True))
    if "cosim" in evidence.stages and evidence.stages["cosim"].cycles_max is not None:
        cycles = evidence.stages["cosim"].cycles_max
        ms = cycles / estimate.target.clock_mhz / 1e3
        found.append(Headline("cosim", f"{ms:.3f} ms", f"the slowest image of the RTL, {cycles:,} cycles", True))
    timing = evidence.timing
    if timing is not None:
        text = f"timed C-simulation of one image, {' → '.join(map(str, timing['tokens']))} tokens"
        at_keep_ratios = timing["tokens"][1:] == list(estimate.cycles.tokens)
        found.append(Headline("csim", f"{timing['latency_ms']:.3f} ms", text, not at_keep_ratios))
    tokens = " → ".join(map(str, [estimate.layout.model.num_tokens, *estimate.cycles.tokens]))
    found.append(Headline("estimate", f"{estimate.latency_ms:.3f} ms", f"per image, {tokens} tokens"))
    paper = paper_ms(estimate.spec)
    if paper is not None:
        found.append(Headline("paper", f"{paper:.2f} ms", "the same model and workload in 16 bits, Table 4"))
    share = f"{show_macs(estimate.macs)} at {estimate.mac_efficiency:.0%} of the array's peak"
    beside = ""
    if estimate.spec.pruning.num_selectors:
        beside = f", {estimate.unpruned().macs_per_dsp_and_cycle:.2f} unpruned"
    per_dsp = estimate.macs_per_dsp_and_cycle
    found.append(Headline("estimate", f"{per_dsp:.2f}", f"MACs per DSP and cycle{beside}: {share}"))
    csim = evidence.csim
    if csim is not None:
        text = f"{csim['mismatches']:,} of {csim['values_compared']:,} values differ from the golden, "
        found.append(
            Headline(
                "csim", "bit-exact" if not csim["mismatches"] else "NOT exact", text + count_images(csim["images"])
            )
        )
    return found


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
            f"{estimate.weight_bytes / 1e6:.1f} MB per image over {architecture.weight_ports} AXI ports of "
            f"{architecture.port_bits} bits, "
            f"{target.bandwidth_gbps:.3g} GB/s planned; {architecture.fifo_words:,} words wait on chip",
        ),
        ("on chip", f"{estimate.layout.model.num_tokens} tokens at most: {largest}"),
        ("program", f"{len(estimate.program.steps)} passes and steps, one engine for all of them"),
    ]


def model_facts(estimate: Estimate, evidence: Evidence) -> list[tuple[str, str]]:
    """What is accelerated, in words and numbers."""
    model, pruning = estimate.spec.model, estimate.spec.pruning
    size = f"{model.img_size} × {model.img_size}, patches of {model.patch_size} × {model.patch_size}"
    blocks = ", ".join(map(str, pruning.locations))
    kept = ", ".join(f"{share:.1%}" for share in pruning.keep)
    selectors = f"before blocks {blocks}; they keep {kept} of the patches" if blocks else "none: every token is kept"
    return [
        ("network", f"{model.depth} blocks, {model.embed_dim} channels, {model.num_heads} heads"),
        ("image", f"{size}: {model.num_tokens} tokens"),
        ("token selectors", selectors),
        ("work", f"{show_macs(estimate.macs)} per image"),
        ("numbers", "16-bit fixed point, weights and activations"),
        ("weights", evidence.weights or "not read: no network is quantized here yet, and no figure here needs one"),
    ]


def show_macs(macs: int) -> str:
    return f"{macs / 1e9:.2f} GMACs" if macs >= 1e8 else f"{macs / 1e6:.2f} MMACs"


def part_rows(estimate: Estimate) -> list[tuple[str, list[float]]]:
    """LUTs, flip-flops, DSPs, BRAM36 and URAM of each part and each memory, and of all."""
    parts = estimate.resources.parts
    rows = [(part.name, [part.cost.lut, part.cost.ff, part.cost.dsp, 0.0, 0.0]) for part in parts]
    rows = sorted(rows, key=lambda row: -row[1][0])
    urams = {array.name: array.uram for array in on_chip_arrays(estimate.layout)}
    memories = [
        (f"memory: {name}", [0.0, 0.0, 0.0, blocks / 2, float(urams.get(name, 0))])
        for name, blocks in bram18_by_memory(estimate.layout).items()
    ]
    rows += sorted((row for row in memories if any(row[1])), key=lambda row: (-row[1][3], -row[1][4]))
    used = estimate.resources.used()
    return [*rows, ("all of it", [used[kind] for kind in ("lut", "ff", "dsp", "bram36", "uram")])]


def render(estimate: Estimate, evidence: Evidence) -> str:
    """The page."""
    spec, target, architecture = estimate.spec, estimate.target, estimate.layout.architecture
    rows = paper_rows(spec, target)
    context: dict[str, Any] = {
        "model": spec.model.name,
        "target": target,
        "engine": engine_text(architecture),
        "direct": "{tile_in}×{tile_out} {inner_product}".format(**data.DIRECT),
        "stages": tokens_per_stage(spec.model, spec.pruning, estimate.kept),
        "headlines": headlines(estimate, evidence),
        "flow": {"desk": draw_flow(architecture), "phone": draw_flow(architecture, is_narrow=True)},
        "model_facts": model_facts(estimate, evidence),
        "facts": engine_facts(estimate),
        "pictures": pictures(estimate, evidence),
        "paper": rows,
        "paper_chart": paper_picture(rows),
        "has_paper_work": paper_ms(spec) is not None,
        "is_paper_board": target.name == PAPER_BOARD,
        "paper_board": PAPER_BOARD,
        "kinds": KINDS,
        "parts": part_rows(estimate),
        "operators": OPERATORS,
        "evidence": evidence,
        "dark_rules": DARK_RULES,
    }
    return render_template(Path(__file__).with_name("report.html.j2"), context)


def run(args: ClockedOptions) -> None:
    spec, board, hardware = check_request(args)
    target = with_clock(board, args.clock)
    path = write_page(spec, target, board, hardware, build_folder(args), design_folder(args))
    Console().print(f"{path}: open it in a browser")


def write_page(
    spec: ModelSpec, target: Target, board: Target, hardware: Hardware, folder: Path, design: Path | None = None
) -> Path:
    """The page of what lies in a build folder, into it.

    target  at the clock that the page speaks of; board: at its own
    design  folder of the hardware, where it is another one
    """
    architecture = hardware.architecture
    timing = timing_name(architecture, board, architecture, target.clock_mhz)
    evidence = read_evidence(folder, spec.model.name, target.name, engine_name(architecture), timing, design)
    with stage("drawing the report"):
        text = render(make_estimate(spec, target, hardware=hardware), evidence)
    write_whole(folder / REPORT, text)
    return folder / REPORT
