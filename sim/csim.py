"""The command that proves the C++: `spvit csim --model deit_s --target zcu102 [--images F] [--top msa_block]`.

Enters: the build's arguments (`quant.build`), images. Quantizes and generates first where that is needed.
Leaves: `csim.json` in the build folder. Exit status 1 when a single value of a single tap differs from the golden.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import array_api_compat.torch as arrays
import numpy as np
import torch

from hw.generate import Project, check_request, ensure_project
from hw.options import UNITS
from quant.build import NETWORK_FOLDER, build_folder, design_folder
from quant.quantize import ensure_network
from sim.agreement import Agreement, float_reference
from sim.bridge import Accelerator, CsimError
from sim.build import build_library
from sim.compare import Mismatch, compare_run, refusal_mismatches
from sim.compiler import Compiler
from sim.constructed import cases
from sim.golden import Golden, GoldenResult
from sim.options import CsimOptions
from sim.units import compare_unit
from spvit.console import Console, Table, stage, styled, tokens, track
from spvit.cost import count_macs
from spvit.errors import ConfigError
from spvit.files import write_json
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import ImageSet, load_images

SHOWN_IMAGES = 10
MAX_BATCH = 32
BATCH_ACTIVATIONS = 2_000_000  # of one kind, over a batch of the golden: its taps stay within a few hundred MB
SHOWN_MISMATCHES = 10
COLUMNS = (
    "tokens", "taps", ("differ", "values"), ("class", "16 bits"), ("class", "float"), ("error", "logits"),
    ("C-sim.", "s"),
)  # fmt: skip
CONSTRUCTED, CONSTRUCTED_OF_LARGE = 10, 3
LARGE_MACS = 0.3e9


@dataclass
class CsimReport:
    """What `csim.json` holds.

    tokens                per image, rows after each selector
    top1_agreement_float  share of images with the float model's best class
    saturations           by tap: values that did not fit int16
    constructed           inputs that no photograph brings: by name, rows at first and after each selector
    """

    model: str
    target: str
    kernel: str
    images: int = 0
    taps_compared: int = 0
    values_compared: int = 0
    mismatches: int = 0
    tokens: list[list[int]] = field(default_factory=list)
    top1_agreement_float: float | None = None
    top1_disagreements: list[str] = field(default_factory=list)
    max_abs_logit_error: float | None = None
    rms_logit_error: float | None = None
    keep_decisions: int = 0
    keep_flips: int = 0
    largest_flip_margin: float = 0.0
    accuracy: float | None = None
    accuracy_float: float | None = None
    saturations: dict[str, int] = field(default_factory=dict)
    constructed: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0


def run(args: CsimOptions) -> int:
    console = Console()
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings
    spec, _, _ = check_request(args)
    compiler = Compiler.find(args.cxx)
    compiler.check()
    images = load_images(args.images or default_images(spec.model.in_chans), Preprocessing.from_model(spec.model))
    ensure_network(args, console)
    project, _ = ensure_project(args)
    folder = build_folder(args)
    if args.images is None and args.top is None:
        console.print(
            f"images: {', '.join(images.names[:4])}{' ...' if len(images) > 4 else ''} (give your own with IMAGES=)"
        )
    design = design_folder(args)
    report = simulate(project, folder, images, console, args.top, args.exact, compiler, design)
    return 1 if report.mismatches else 0


def simulate(
    project: Project,
    folder: Path,
    images: ImageSet,
    console: Console,
    top: str | None,
    exact: bool,
    compiler: Compiler,
    design: Path | None = None,
) -> CsimReport:
    """Compile what lies in the build folder, run it on the images, compare, say so and leave the report there.

    design  folder of the hardware, where it is another one
    """
    if top is not None and top not in (has := {unit for unit, _, _ in project.design.program.units()}):
        raise ConfigError(f"TOP={top}: this network has none; choose one of {', '.join(sorted(has & set(UNITS)))}")
    with stage(f"compiling with {compiler}"):
        library = build_library((design or folder) / "src", top, exact, str(compiler))
    accelerator = Accelerator(project.design, library)
    report = CsimReport(project.design.network.model.name, project.target.name, top or "spvit")
    if top:
        mismatches = run_unit(accelerator, top, images, report)
    else:
        mismatches = run_images(accelerator, folder / NETWORK_FOLDER, images, report, console)
        mismatches += run_constructed(accelerator, report, console)
    finish(report, mismatches, folder / report_name(top), console)
    return report


def report_name(top: str | None) -> str:
    """`csim.json`; `csim-msa_block.json` for a kernel alone."""
    return f"csim-{top}.json" if top else "csim.json"


def default_images(in_chans: int) -> str | None:
    """Real images that fit: photographs for colour models, scikit-learn's digits for grey ones."""
    return None if in_chans == 3 else "digits:test"


def run_images(
    accelerator: Accelerator, network: Path, images: ImageSet, report: CsimReport, console: Console
) -> list[Mismatch]:
    """The whole accelerator on each image, against the golden and the float model."""
    design = accelerator.design
    golden = Golden(design.network, design.program, arrays)
    with stage("computing the float model's logits"):
        reference = float_reference(network, design, images)
    agreement = Agreement(design, reference, images)
    mismatches: list[Mismatch] = []
    table = images_table(report)
    what = f"C-simulating {len(images):,} images and comparing with the golden"
    for i, expected, place in track(golden_by_batch(golden, images, report), what, len(images)):
        found, seconds = run_image(accelerator, images, i, expected, place, report)
        mismatches += found
        agreement.add(i, expected, place)
        if i < SHOWN_IMAGES:
            table.add_row(
                images.names[i], tokens([design.network.model.num_tokens, *report.tokens[-1]]),
                str(len(design.program.steps)), str(sum(m.count for m in found)),
                str(int(np.argmax(expected.logits[place]))), str(int(np.argmax(reference.logits[i]))),
                f"{agreement.errors[-1]:.4f}", f"{seconds:.2f}",
            )  # fmt: skip
    console.print(table)
    if len(images) > SHOWN_IMAGES:
        console.print(f"and {len(images) - SHOWN_IMAGES} more images")
    agreement.summarise(report)
    for line in [*agreement.lines(), saturation_line(report.saturations)]:
        console.print(line)
    return mismatches


def images_table(report: CsimReport) -> Table:
    """A row per image: tokens, taps, values that differ, best class in 16 bits and in float, largest error, seconds."""
    title = f"{report.model} on {report.target}: C-simulation against the golden, logits against float"
    return Table(title, "image", COLUMNS, left=[0])


def golden_by_batch(golden: Golden, images: ImageSet, report: CsimReport) -> Iterator[tuple[int, GoldenResult, int]]:
    """The golden's result of each image, computed in batches: image, batch's result, place in the batch."""
    model = golden.network.model
    batch = max(1, min(MAX_BATCH, BATCH_ACTIVATIONS // (model.num_tokens * model.embed_dim * model.depth)))
    for first in range(0, len(images), batch):
        expected = golden.run(images.pixels[first : first + batch], taps=True)
        for name, count in expected.saturations.items():
            if count:
                report.saturations[name] = report.saturations.get(name, 0) + count
        for place in range(len(expected.logits)):
            yield first + place, expected, place


def run_image(
    accelerator: Accelerator, images: ImageSet, i: int, expected: GoldenResult, place: int, report: CsimReport
) -> tuple[list[Mismatch], float]:
    """One image through the C++ and its comparison; what differs, and the seconds that it took."""
    start = time.monotonic()
    try:
        result = accelerator.run(images.pixels[i])
    except CsimError as error:
        raise SystemExit(f"C-simulation of {images.names[i]} stopped: {error}") from None
    comparison = compare_run(accelerator, result, expected, place)
    seconds = time.monotonic() - start
    report.images += 1
    report.taps_compared += comparison.taps + 2  # logits and token counts
    report.values_compared += comparison.values
    report.tokens.append(result.tokens)
    report.seconds += seconds
    return list(comparison.mismatches), seconds


def run_constructed(accelerator: Accelerator, report: CsimReport, console: Console) -> list[Mismatch]:
    """The same C++ on weights and images that no photograph brings (`sim.constructed`)."""
    design = accelerator.design
    count = (
        CONSTRUCTED
        if count_macs(design.network.model, design.network.pruning.without()).total < LARGE_MACS
        else CONSTRUCTED_OF_LARGE
    )
    mismatches: list[Mismatch] = []
    values, start = 0, time.monotonic()
    what = f"C-simulating {count} constructed inputs and comparing with the golden"
    for case in track(cases(design.network, design.program, count), what, count):
        own = accelerator.with_network(case.network)
        expected = Golden(case.network, design.program, arrays).run(case.pixels[None], taps=True)
        try:
            comparison = compare_run(own, own.run(case.pixels), expected)
        except CsimError as error:
            raise SystemExit(f"C-simulation of constructed inputs ({case.name}) stopped: {error}") from None
        mismatches += [replace(one, tap=f"{case.name}: {one.tap}") for one in comparison.mismatches]
        values += comparison.values
        report.constructed[case.name] = [design.layout.model.num_tokens, *(stage[0] for stage in expected.tokens)]
    mismatches += refusal_mismatches(accelerator)
    console.print(
        f"constructed inputs: {', '.join(report.constructed)}: {values:,} values, "
        f"{sum(one.count for one in mismatches):,} differ; {time.monotonic() - start:.1f} s",
    )  # fmt: skip
    return mismatches


def saturation_line(saturations: Mapping[str, int]) -> str:
    total = sum(saturations.values())
    return f"saturations: {total}" + (
        f", most in {max(saturations, key=lambda tap: saturations[tap])}" if total else ""
    )


def run_unit(accelerator: Accelerator, unit: str, images: ImageSet, report: CsimReport) -> list[Mismatch]:
    """One kernel's own top: each of the model's, on the residual stream that the golden brings there."""
    design = accelerator.design
    golden = Golden(design.network, design.program, arrays)
    mismatches: list[Mismatch] = []
    what = f"C-simulating {unit} on {len(images):,} images and comparing with the golden"
    for _, expected, place in track(golden_by_batch(golden, images, report), what, len(images)):
        start = time.monotonic()
        comparison = compare_unit(accelerator, unit, expected, place)
        report.seconds += time.monotonic() - start
        mismatches += comparison.mismatches
        report.images += 1
        report.taps_compared += comparison.taps
        report.values_compared += comparison.values
        report.tokens.append([stage[place] for stage in expected.tokens])
    return mismatches


def finish(report: CsimReport, mismatches: list[Mismatch], path: Path, console: Console) -> None:
    """Write the report, say the verdict."""
    report.mismatches = sum(mismatch.count for mismatch in mismatches)
    write_json(path, asdict(report))
    for mismatch in mismatches[:SHOWN_MISMATCHES]:
        console.print(styled(("MISMATCH", "red"), f" {mismatch}"))
    verdict = ("bit-exact", "green") if not mismatches else ("NOT bit-exact", "red")
    compared = f": {report.taps_compared:,} taps of {report.images} images, {report.values_compared:,} values, "
    missed = f"{report.mismatches:,} mismatches; {report.seconds:.1f} s of C-simulation; {path}"
    console.print(styled(verdict, compared, missed))
