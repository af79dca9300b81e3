"""The command that says how fast it will be: `spvit estimate --model deit_s --target zcu102`.

Enters: the build's arguments (`quant.build`); no weights and no quantized network are needed. Leaves `estimate.json` in
the build folder, and a table. Every figure is an estimate: no synthesis and no board has seen the design.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hw.architecture import PARAM_LANES, Architecture
from hw.hardware import Capacities, Hardware
from hw.layout import Layout
from hw.model.cycles import PARTS, CycleEstimate, estimate_cycles
from hw.model.latency import Assumptions, assumptions
from hw.model.resources import Resources, estimate_resources, verdict
from hw.options import EstimateOptions
from hw.program import Op, Program, Sizes, Weights, build_program
from hw.request import hardware_of
from hw.target import Target, resolve_target, with_clock
from hw.weights import num_table_words
from quant.build import build_folder, model_spec
from quant.widths import layer_widths
from spvit.config import ModelSpec
from spvit.console import Console, Table, tokens
from spvit.cost import count_macs, kept_patches, macs_text
from spvit.errors import ConfigError
from spvit.files import check_writable, write_json

ESTIMATE = "estimate.json"


@dataclass(frozen=True)
class Estimate:
    """A model on an engine on a board, for images that keep `kept` patches after each selector."""

    spec: ModelSpec
    target: Target
    layout: Layout
    program: Program
    kept: tuple[int, ...]
    cycles: CycleEstimate
    resources: Resources

    @property
    def latency_ms(self) -> float:
        return self.cycles.latency_ms(self.target.clock_mhz)

    @property
    def macs(self) -> int:
        return round(count_macs(self.spec.model, self.spec.pruning, self.kept).total)

    @property
    def mac_efficiency(self) -> float:
        """MACs of the model, as a share of what the array could have done in that time."""
        architecture = self.layout.architecture
        return self.macs / (self.cycles.cycles * architecture.tile_in * architecture.tile_out)

    @property
    def macs_per_dsp_and_cycle(self) -> float:
        """Of all the design's DSPs."""
        return self.macs / self.cycles.cycles / self.resources.dsp

    def unpruned(self) -> Estimate:
        """Of the same model with all of its tokens: what pruning costs in utilisation shows beside it."""
        return make_estimate(replace(self.spec, pruning=self.spec.pruning.without()), self.target)

    @property
    def weight_bytes(self) -> int:
        return stream_words(self.program, self.layout) * self.layout.architecture.fill_lanes * 2

    def with_assumed(self, assumed: Assumptions) -> CycleEstimate:
        return estimate_cycles(self.program, self.layout, self.spec.pruning, assumed, self.kept)

    def sensitivity_ms(self) -> dict[str, float]:
        """Latency when an assumption is off."""
        assumed, clock = assumptions(self.layout.architecture, self.target), self.target.clock_mhz
        return {
            "ddr_bandwidth_minus_20_percent": self.with_assumed(assumed.with_bandwidth(0.8)).latency_ms(clock),
            "pipeline_depths_doubled": self.with_assumed(assumed.with_deeper_pipelines(2)).latency_ms(clock),
        }

    def document(self) -> dict[str, Any]:
        """`estimate.json`."""
        used = self.resources.used()
        return {
            "kind": "estimate",
            "model": self.spec.model.name,
            "target": self.target.name,
            "engine": f"{self.layout.architecture.tile_in}x{self.layout.architecture.tile_out} "
            f"{self.layout.architecture.inner_product}",
            "clock_mhz": self.target.clock_mhz,
            "tokens": [self.layout.model.num_tokens, *self.cycles.tokens],
            "macs": self.macs,
            "cycles": self.cycles.cycles,
            "latency_ms": self.latency_ms,
            "mac_efficiency": self.mac_efficiency,
            "macs_per_dsp_and_cycle": self.macs_per_dsp_and_cycle,
            "macs_per_dsp_and_cycle_unpruned": self.unpruned().macs_per_dsp_and_cycle,
            "weight_bytes": self.weight_bytes,
            "ddr_gbps": self.weight_bytes / self.latency_ms / 1e6,
            **used,
            "fits": self.resources.fits(self.target),
            "verdict": verdict(self.resources, self.target),
            "sensitivity_ms": self.sensitivity_ms(),
            "by_pass": {
                name: {"cycles": round(step.total), **{part: round(getattr(step, part)) for part in PARTS}}
                for name, step in self.cycles.by_pass().items()
            },
        }


def make_estimate(
    spec: ModelSpec, target: Target, kept: Sequence[int] | None = None, hardware: Hardware | None = None
) -> Estimate:
    """Raises ConfigError where the engine can't be, or no token counts are given.

    kept      patches alive after each selector; None: as the model's keep ratios say
    hardware  None: of the model's own sizes
    """
    if hardware is None:
        hardware = Hardware(
            Architecture.for_target(target, spec.engine), Capacities.of(spec.model, spec.pruning.num_selectors)
        )
    architecture = hardware.architecture
    layout = Layout(spec.model, architecture, hardware.capacities)
    program = build_program(Sizes(spec.model, spec.pruning, layer_widths(spec)))
    counts = tuple(kept_patches(spec.model, spec.pruning) if kept is None else kept)
    cycles = estimate_cycles(program, layout, spec.pruning, assumptions(architecture, target), counts)
    return Estimate(spec, target, layout, program, counts, cycles, estimate_resources(layout))


def stream_words(program: Program, layout: Layout) -> int:
    """Length of the weight stream: what `hw.weights.weight_stream` makes."""
    architecture = layout.architecture
    words = num_table_words(architecture, len(program.steps))
    words += layout.model.num_tokens * layout.model_lanes // architecture.fill_lanes
    for step in program.steps:
        if step.op is Op.ENGINE and step.weights is Weights.STREAM:
            lanes = layout.in_tiles(step) * architecture.tile_in * step.weight_width.value // 16 + PARAM_LANES
            words += layout.out_tiles(step) * architecture.tile_out * lanes // architecture.fill_lanes
    return words


def parse_kept(text: str, spec: ModelSpec) -> tuple[int, ...]:
    """`123,78,49`: of one image. Raises ConfigError."""
    model, selectors = spec.model, spec.pruning.num_selectors
    try:
        kept = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--kept {text} must be whole numbers with commas between, as 123,78,49") from None
    if len(kept) != selectors:
        raise ConfigError(
            f"--kept {text} has {len(kept)} numbers; {model.name} has {selectors} selectors: give one each"
        )
    if any(a < b for a, b in zip((model.num_patches, *kept), (*kept, 0), strict=True)):
        raise ConfigError(f"--kept {text} must not increase, from {model.num_patches} patches down to 0 at least")
    return kept


def write_estimate(estimate: Estimate, folder: Path) -> Path:
    """`estimate.json`, whole or not at all."""
    path = folder / ESTIMATE
    write_json(path, estimate.document())
    return path


def show(estimate: Estimate, console: Console) -> None:
    """The table, for people."""
    architecture, target, clock = estimate.layout.architecture, estimate.target, estimate.target.clock_mhz
    table = Table(
        f"{estimate.spec.model.name} on {target.name}, {architecture.tile_in}x{architecture.tile_out} "
        f"{architecture.inner_product} engine at {clock:g} MHz, tokens "
        f"{tokens([estimate.layout.model.num_tokens, *estimate.cycles.tokens])}: estimate",
        "pass",
        (("time", "µs"), ("share", "%"), *((part, "cycles") for part in PARTS)),
    )
    total = estimate.cycles.cycles
    for name, step in estimate.cycles.by_pass().items():
        parts = [f"{getattr(step, part):,.0f}" if round(getattr(step, part)) else "" for part in PARTS]
        table.add_row(name, f"{step.total / clock:,.1f}", f"{100 * step.total / total:.1f}", *parts)
    console.print(table)
    document = estimate.document()
    used = ", ".join(
        f"{document[key]:,} of {getattr(target, key):,} {name}"
        for key, name in (("dsp", "DSP"), ("bram36", "BRAM36"), ("uram", "URAM"), ("lut", "LUT"), ("ff", "FF"))
        if getattr(target, key)
    )
    slower = document["sensitivity_ms"]
    lines = [
        f"latency    {estimate.latency_ms:.3f} ms, {total:,} cycles; with 20% less DDR bandwidth "
        f"{slower['ddr_bandwidth_minus_20_percent']:.3f} ms, with pipelines twice as deep "
        f"{slower['pipeline_depths_doubled']:.3f} ms",
        f"arithmetic {macs_text(estimate.macs)}, {estimate.mac_efficiency:.0%} of the array's peak, "
        f"{document['macs_per_dsp_and_cycle']:.2f} MACs per DSP and cycle"
        + (f", unpruned {document['macs_per_dsp_and_cycle_unpruned']:.2f}" if estimate.spec.pruning.keep else ""),
        f"weights    {estimate.weight_bytes / 1e6:.1f} MB per image, {document['ddr_gbps']:.1f} GB/s of the planned "
        f"{target.bandwidth_gbps:g}",
        f"resources  {used}: {document['verdict']}",
    ]
    for line in lines:
        console.print(line)


def run(args: EstimateOptions) -> None:
    spec, target = model_spec(args), with_clock(resolve_target(args.target), args.clock)
    check_writable(build_folder(args))
    kept = None if args.kept is None else parse_kept(args.kept, spec)
    estimate = make_estimate(spec, target, kept, hardware_of(args, spec, resolve_target(args.target)))
    console = Console()
    show(estimate, console)
    path = write_estimate(estimate, build_folder(args))
    console.print(str(path))
