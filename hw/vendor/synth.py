"""The commands that drive the vendor's tools: `spvit synth`, `cosim`, `bitstream`.

Enters: the build's arguments (`quant.build`), the project that `hw.generate` left and the vectors of `sim.vectors`.
Leaves in the build folder: `hls/`, `vivado/`, `bitstream/`, `logs/`, and `reports.json`: what each tool says, parsed,
beside the estimate. Without the tools: one sentence that names what to install.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hw import interface
from hw.generate import check_request
from hw.layout import Layout
from hw.manifest import DESIGN, read_design
from hw.model.resources import estimate_resources
from hw.options import VendorOptions
from hw.pragmas import read_folder, read_pragmas
from hw.target import Target
from hw.vendor.findings import Finding, depth, findings, lines
from hw.vendor.reports import Figures, read_bindings, read_cosim, read_csynth, read_implementation
from hw.vendor.tools import HlsProject, Step, bitstream_step, find_hls, find_vivado, run_step
from quant.build import design_folder
from spvit.console import Console, Table, stage
from spvit.errors import BuildError, ConfigError
from spvit.files import read_json, seal, write_json

STAGES = ("synth", "cosim", "bitstream")
ESTIMATE = "estimate.json"


@dataclass(frozen=True)
class Request:
    """What is to be driven, checked."""

    stage: str
    folder: Path
    layout: Layout
    target: Target
    project: HlsProject

    @property
    def vectors(self) -> Path:
        return self.folder / "tb" / self.project.top / "0"

    @property
    def reports(self) -> Path:
        unit = self.project.unit
        return self.folder / ("reports.json" if unit is None else f"reports-{unit}.json")

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}-{self.project.top}.log"


def check(stage: str, args: VendorOptions) -> Request:
    """Refuse what can't be done, before any long work. Raises ConfigError, BuildError."""
    spec, target, hardware = check_request(args)
    if stage == "bitstream":
        if args.top is not None:
            raise ConfigError(f"TOP={args.top}: a kernel alone has no bitstream; leave TOP= away, or use make synth")
        if not target.has_processing_system:
            raise ConfigError(
                f"TARGET={target.name} has no processor on its chip, so this flow has no block design for it; make "
                "synth and make cosim work, and the exported IP can be linked with the card's own platform"
            )
    form = find_hls(stage, args.hls)
    if stage == "bitstream":
        find_vivado(stage)
    folder = design_folder(args)
    layout = Layout(spec.model, hardware.architecture, hardware.capacities)
    return Request(stage, folder, layout, target, HlsProject(folder, args.top, form))


def run(stage: str, args: VendorOptions) -> int:
    """Drive the tools up to a stage, and report; 1 where timing was missed."""
    request = check(stage, args)
    console = Console()
    _require(request)
    if stage == "synth" or not _synthesized(request):
        _drive(request, request.project.synthesis_steps(), "synth")
    stages = [_csynth(request)]
    if stage != "synth":
        _refuse_wrong((depth(request.layout, read_bindings(request.project.summary)),), request.project.summary)
    if stage == "cosim":
        _drive(request, request.project.cosim_steps(), "cosim")
    if request.project.cosim.exists() and _newer(request.project.cosim, request.project.csynth):
        stages.append(read_cosim(request.project.cosim))
    if stage == "bitstream":
        _drive(request, (bitstream_step(request.folder, _bitstream_results(request)),), "bitstream")
        for path in _bitstream_results(request):
            seal(path)
        stages.append(read_implementation(request.folder / "vivado", request.target.clock_mhz))
    return report(request, stages, console)


def report(request: Request, stages: list[Figures], console: Console) -> int:
    """Write reports.json, show it beside the estimate. Returns the exit status: 1 where timing was missed.

    Raises BuildError, after all that, where the synthesized design would compute something else than the C++.
    """
    estimate = estimated(request)
    log = request.log("synth")
    found = findings(
        request.layout, stages[0], read_bindings(request.project.summary),
        read_pragmas(read_folder(request.folder / "src")),
        log.read_text(encoding="utf-8", errors="replace") if log.exists() else "",
    )  # fmt: skip
    manifest = read_design(request.folder, BuildError)
    values: dict[str, Any] = {"top": request.project.top, "digest": manifest.digest}
    values |= {figures.stage: figures.to_json() for figures in [estimate, *stages]}
    values["findings"] = [asdict(finding) for finding in found]
    write_json(request.reports, values)
    console.print(comparison(request, estimate, stages))
    for line, finding in lines(found):
        style = {True: "green", False: "red", None: "yellow"}[finding.ok]
        console.print(line, style=style)
    console.print(f"written: {request.reports}")
    _refuse_wrong(found, request.project.summary)
    missed = [figures for figures in stages if figures.wns_ns is not None and figures.wns_ns < 0]
    for figures in missed:
        console.print(
            f"timing is missed by {-(figures.wns_ns or 0):.3f} ns: this bitstream is good for {figures.clock_mhz:.1f} "
            f"MHz, not for its {figures.constrained_mhz:.1f}; give a target file with that clock_mhz, TARGET=my.toml",
            style="red",
        )  # fmt: skip
    return 1 if missed else 0


def _refuse_wrong(found: Sequence[Finding], summary: Path) -> None:
    for finding in found:
        if finding.is_wrong:
            raise BuildError(f"{summary}: {finding.text}")


def estimated(request: Request) -> Figures:
    """Our own figures; cycles where `make estimate` left them."""
    used = estimate_resources(request.layout).used()
    cycles = None
    path = request.folder / ESTIMATE
    if request.project.unit is None and path.exists():
        try:
            cycles = round(read_json(path, "remove it, or run make estimate again", BuildError)["cycles"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise BuildError(f"{path}: has no cycles; remove it, or run make estimate again") from None
    return Figures("estimate", **used, clock_mhz=request.target.clock_mhz, cycles_min=cycles, cycles_max=cycles)


ROWS = (
    ("DSP", "dsp", "{:,.0f}"),
    ("BRAM36", "bram36", "{:,.1f}"),
    ("URAM", "uram", "{:,.0f}"),
    ("LUT", "lut", "{:,.0f}"),
    ("FF", "ff", "{:,.0f}"),
    ("clock, MHz", "clock_mhz", "{:,.1f}"),
    ("MHz held to", "constrained_mhz", "{:,.1f}"),
    ("cycles, min", "cycles_min", "{:,.0f}"),
    ("cycles, max", "cycles_max", "{:,.0f}"),
)


def comparison(request: Request, estimate: Figures, stages: list[Figures]) -> Table:
    """Each figure of each stage beside the estimate, with the difference from it."""
    title = f"{request.project.top} on {request.target.name}; behind each figure its difference from the estimate"
    table = Table(title, "figure", ["estimate", *(figures.stage for figures in stages)])
    for title, name, form in ROWS:
        base = getattr(estimate, name)
        cells = [title, "" if base is None else form.format(base)]
        for figures in stages:
            value = getattr(figures, name)
            against = "" if value is None or not base else f" ({value / base - 1:+.1%})"
            cells.append("" if value is None else form.format(value) + against)
        if any(cells[1:]):
            table.add_row(*cells)
    return table


def _require(request: Request) -> None:
    if not (request.folder / DESIGN).exists():
        raise BuildError(f"{request.folder} has no {DESIGN}: run make hls first")
    if not request.vectors.exists():
        raise BuildError(f"{request.vectors.parent} has no vectors for the testbench: make {request.stage} writes them")


def _synthesized(request: Request) -> bool:
    """Whether there is a synthesis of what is there now."""
    design, project = request.folder / DESIGN, request.project
    return all(
        path.exists() and _newer(path, design) for path in (project.csynth, project.summary, project.exported_ip)
    )


def _newer(path: Path, other: Path) -> bool:
    return path.stat().st_mtime_ns >= other.stat().st_mtime_ns


def _drive(request: Request, steps: tuple[Step, ...], name: str) -> None:
    log = request.log(name)
    for number, step in enumerate(steps):
        with stage(f"{step.tool}: {step.name} of {request.project.top}; log: {log}"):
            run_step(step, log, append=number > 0)


def _csynth(request: Request) -> Figures:
    return read_csynth(request.project.csynth, request.project.top, request.target.part)


def _bitstream_results(request: Request) -> tuple[Path, ...]:
    bitstream = (request.folder / interface.BITSTREAM_FOLDER / interface.BITSTREAM).with_suffix("")
    reports = tuple(request.folder / "vivado" / name for name in ("utilization.rpt", "timing.rpt"))
    return (*(bitstream.with_suffix(suffix) for suffix in (".bit", ".hwh", ".xsa")), *reports)
