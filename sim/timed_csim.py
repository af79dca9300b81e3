"""The command that counts cycles: `spvit timed --model deit_s --target zcu102 [--at-keep-ratios]`.

Enters: the build's arguments (`quant.build`), an image. Quantizes first where that is needed. Leaves: `timing.json` in
the build folder (another name on another engine, clock or depth), and a table: where the time goes, beside the closed
form's estimate. The figures are the timed C-simulation's: no synthesis and no board has seen the design. Exit status 1
when the closed form counts otherwise, by more than `sim.timed.closed_form` allows.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import array_api_compat.torch as arrays
import numpy as np
from numpy.typing import NDArray

from hw.architecture import Architecture
from hw.facts import read_facts, top_sources
from hw.generate import make_design, make_project, write_project
from hw.layout import Design
from hw.model.cycles import PARTS, CycleEstimate, estimate_cycles
from hw.model.latency import Assumptions, assumptions
from hw.model.sources import disagreements as sources_disagreements
from hw.program import build_program
from hw.request import hardware_of
from hw.target import Target, resolve_target, with_clock
from quant.build import build_folder, model_spec, network_folder
from quant.network import QuantizedNetwork, load_network
from quant.quantize import ensure_network
from sim.bridge import CsimError
from sim.build import build_library
from sim.compiler import Compiler
from sim.csim import default_images
from sim.golden import Golden
from sim.options import TimedOptions
from sim.report.evidence import engine_name, timing_name
from sim.timed.closed_form import by_class, disagreements
from sim.timed.timing import TimedAccelerator, Timing
from spvit.console import Console, Table, stage, styled, tokens
from spvit.cost import count_macs, kept_patches, macs_text
from spvit.errors import BuildError, ConfigError, NetworkError
from spvit.files import check_writable, write_json
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images

PROBABILITY_ONE = 1 << 22


def at_keep_ratios(network: QuantizedNetwork, pixels: NDArray[np.uint8]) -> QuantizedNetwork:
    """The network with its thresholds moved so that this image keeps just what the keep ratios say.

    pixels  uint8 [S, S, in_chans]
    """
    for selector, wanted in enumerate(kept_patches(network.model, network.pruning)):
        golden = Golden(network, build_program(network), arrays).run(pixels[None], taps=True)
        probability = np.sort(golden.taps[f"selectors.{selector}.keep"][0][:, 1])[::-1]
        bounds = [PROBABILITY_ONE, *map(int, probability), 0]
        thresholds = list(network.thresholds)
        thresholds[selector] = (bounds[wanted] + bounds[wanted + 1]) // 2
        if bounds[wanted] - bounds[wanted + 1] < 4:
            raise NetworkError(
                f"selector {selector}: tokens {wanted} and {wanted + 1} of this image have equal scores; choose another"
            )
        network = replace(network, thresholds=tuple(thresholds))
    return network


def parse_engine(text: str) -> dict[str, int | str]:
    """`64x64-fast`. Raises ConfigError."""
    match = re.fullmatch(r"(\d+)x(\d+)-(\w+)", text)
    if match is None:
        raise ConfigError(f"--engine {text} must be tile_in x tile_out and the inner product, as 64x64-fast")
    return {"tile_in": int(match[1]), "tile_out": int(match[2]), "inner_product": match[3]}


def count(
    design: Design, target: Target, assumed: Assumptions, pixels: NDArray[np.uint8], folder: Path
) -> tuple[Timing, list[int], float]:
    """Cycles of one image, patches alive after each selector, seconds of C-simulation. `folder` takes the C++.

    Raises BuildError where streams block one another, a loop asks too much of a memory, or a pipeline is deeper than
    the kernels hold.
    """
    write_project(make_project(design, target), folder)
    library = build_library(folder / "src", timed=True)
    sources = top_sources(folder / "src")
    for sentence in sources_disagreements(sources, design.layout):
        raise BuildError(f"the sources of {design.network.model.name}: {sentence}")
    accelerator = TimedAccelerator(design, library, assumed, read_facts(sources))
    start = time.monotonic()
    try:
        result, timing = accelerator.run(pixels)
    except CsimError as error:
        raise BuildError(f"the timed C-simulation of {design.network.model.name} stopped: {error}") from None
    seconds = time.monotonic() - start
    selectors = range(design.network.pruning.num_selectors)
    kept = [int((result.trace[f"selectors.{index}.keep"][:, 0] == 1).sum()) for index in selectors]
    return timing, kept, seconds


def document(
    design: Design, target: Target, assumed: Assumptions, timing: Timing, kept: Sequence[int], seconds: float
) -> dict[str, Any]:
    """`timing.json`."""
    architecture, network = design.architecture, design.network
    estimate = _estimate(design, assumed, kept)
    return {
        "kind": "csim",
        "model": network.model.name,
        "target": target.name,
        "engine": engine_name(architecture),
        "clock_mhz": target.clock_mhz,
        "engine_depth": assumed.depths["ENGINE"],
        "tokens": [design.layout.model.num_tokens, *estimate.tokens],
        "macs": round(count_macs(network.model, network.pruning, tuple(kept)).total),
        "cycles": timing.cycles,
        "latency_ms": timing.cycles / target.clock_mhz / 1e3,
        "estimated_cycles": estimate.cycles,
        "disagreements": list(disagreements(estimate, timing, assumed)),
        "seconds": seconds,
        "steps": {step.name: {part: getattr(step, part) for part in PARTS} for step in timing.steps},
    }


def show(design: Design, assumed: Assumptions, timing: Timing, kept: Sequence[int], console: Console) -> None:
    """The table, for people."""
    estimated = _estimate(design, assumed, kept).by_pass()
    columns = [(heading, "cycles") for heading in (*PARTS, "all", "closed form")]
    table = Table("timed C-simulation, beside the closed form", "pass", columns)
    for name, steps in by_class(timing).items():
        row = [sum(getattr(step, part) for step in steps) for part in PARTS]
        parts = [f"{value:,}" if value else "" for value in row]
        closed_form = f"{estimated[name].total:,.0f}" if name in estimated else ""
        table.add_row(name, *parts, f"{sum(row):,}", closed_form)
    console.print(table)


def _estimate(design: Design, assumed: Assumptions, kept: Sequence[int]) -> CycleEstimate:
    return estimate_cycles(design.program, design.layout, design.network.pruning, assumed, kept)


def run(args: TimedOptions) -> int:
    console = Console()
    spec, board = model_spec(args), resolve_target(args.target)
    target, hardware = with_clock(board, args.clock), hardware_of(args, spec, board)
    own = hardware.architecture
    check_writable(build_folder(args))
    architecture = Architecture.for_target(target, parse_engine(args.engine)) if args.engine else own
    Compiler.find().check()
    images = load_images(args.images or default_images(spec.model.in_chans), Preprocessing.from_model(spec.model))
    ensure_network(args, console)
    network, pixels = load_network(network_folder(args)), images.pixels[0]
    if args.at_keep_ratios:
        with stage("moving the thresholds to the keep ratios"):
            network = at_keep_ratios(network, pixels)
    design = make_design(network, architecture, hardware.capacities)
    assumed = assumptions(architecture, target)
    if args.depth is not None:
        assumed = replace(assumed, depths={**assumed.depths, "ENGINE": args.depth})
    what = "compiling, and counting cycles in the timed C-simulation"
    with stage(what), tempfile.TemporaryDirectory(prefix="timed-") as scratch:
        timing, kept, seconds = count(design, target, assumed, pixels, Path(scratch))
    report = document(design, target, assumed, timing, kept, seconds)
    show(design, assumed, timing, kept, console)
    difference = report["estimated_cycles"] / timing.cycles - 1
    lines = [
        f"{report['model']} on {target.name}, {report['engine']} engine, {target.clock_mhz:g} MHz, {images.names[0]}, "
        f"tokens {tokens(report['tokens'])}: {macs_text(report['macs'])}",
        f"{report['latency_ms']:.3f} ms by the timed C-simulation, {timing.cycles:,} cycles; closed form "
        f"{report['estimated_cycles']:,} ({difference:+.2%}); {seconds:.1f} s to run",
    ]
    for line in lines:
        console.print(line)
    path = build_folder(args) / timing_name(own, board, architecture, target.clock_mhz)
    if args.depth is not None:
        path = path.with_stem(f"{path.stem}-depth-{args.depth}")
    write_json(path, report)
    console.print(str(path))
    for sentence in report["disagreements"]:
        console.print(styled(("the closed form DISAGREES", "red"), f" {sentence}"))
    return 1 if report["disagreements"] else 0
