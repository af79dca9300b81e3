"""A float SPViT made 16-bit: the first step of `spvit hls`, and of all that needs the quantized network.

Enters: the build's arguments (`quant.build`). Leaves, in `build/<model>-<target>/network/`:

    network.json, network.safetensors   the quantized network (`quant.network`)
    float.safetensors                   the float model with its calibrated thresholds
    report.json                         how well the one follows the other (`quant.report`)
    inputs.json                         what it was made from: equal inputs give byte-equal files

The folder appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from quant.calibrate import choose_formats, observe_ranges
from quant.export import to_network
from quant.fold import fold
from quant.inputs import Inputs, Pixels, Plan, plan, poverty
from quant.model import QuantizedSPViT
from quant.network import QuantizedNetwork, save_network
from quant.options import BuildOptions
from quant.report import Report, compare
from quant.widths import layer_widths, narrow
from spvit.calibration import settle_thresholds
from spvit.checkpoint_options import ThresholdRequest
from spvit.checkpoints import LoadReport, load_checkpoint_with_report, save_checkpoint
from spvit.console import Console, stage
from spvit.files import whole_folder, write_whole
from spvit.images.preprocess import Preprocessing
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT

COMPARED_IMAGES = 8
WORST_TENSORS = 8


def ensure_network(args: BuildOptions, console: Console | None = None) -> Path:
    """The folder of the quantized network, made now unless it is there already, from the same inputs."""
    console = console or Console()
    todo = plan(args)
    if (warning := poverty(todo.pixels)) is not None:
        console.print(warning, style="yellow")
    if todo.inputs.written_in(todo.folder):
        console.print(f"{todo.folder}: up to date")
    else:
        quantize(todo, console)
    return todo.folder


@dataclass(frozen=True)
class Quantized:
    """A network in 16 bits, and what it was made of.

    net         the float model, its thresholds settled
    report      how well the network follows it
    thresholds  which they are, and why, in words; "" without selectors
    """

    net: SPViT
    network: QuantizedNetwork
    report: Report
    thresholds: str


def quantize(todo: Plan, console: Console) -> Report:
    """Make the network of a plan, write it, and print how good it is."""
    net, found = _weights(todo, console)
    widths = layer_widths(todo.spec)
    made = quantized(net, found, todo.pixels, todo.thresholds, f"calibrating with {todo.calibration}", widths)
    if made.thresholds:
        console.print(f"thresholds: {made.thresholds}")
    write(made, todo.inputs, todo.folder)
    console.print(f"written: {todo.folder} (network {made.network.digest[:12]})")
    _print_summary(made.report, console)
    return made.report


def quantized(
    net: SPViT,
    found: LoadReport | None,
    pixels: Pixels,
    thresholds: ThresholdRequest,
    what: str = "calibrating",
    weight_bits: Mapping[str, int] | None = None,
) -> Quantized:
    """The network of a float model, whose thresholds are settled on the way.

    found   what the file of its weights was; None: there was none, and its selectors are fresh
    pixels  calibration images, uint8 [N, S, S, chans]
    what    is said while it calibrates
    weight_bits  by layer, where there may be less than 16
    """
    with _one_thread():
        images = torch.from_numpy(Preprocessing.from_model(net.config).normalise(pixels)).float()
        with stage(what):
            settled = settle_thresholds(net, images, thresholds, found)
        folded, raw = fold(net), torch.from_numpy(np.ascontiguousarray(pixels))
        with stage("choosing formats"):
            ranges = observe_ranges(folded, raw)
            rounded = QuantizedSPViT(folded, choose_formats(folded, ranges, weight_bits=narrow(weight_bits or {})))
        with stage("comparing with float"):
            report = compare(rounded, folded, ranges, raw[_spread(len(raw), COMPARED_IMAGES)])
            return Quantized(net, to_network(rounded), report, settled)


def _weights(todo: Plan, console: Console) -> tuple[SPViT, LoadReport | None]:
    """The float model, and what the file of its weights was."""
    model, pruning = todo.spec.model, todo.spec.pruning
    if todo.checkpoint is None:
        console.print(f"weights: seeded random (seed {todo.seed}), since no checkpoint was given")
        return seeded(model, pruning, todo.seed), None
    net, found = load_checkpoint_with_report(todo.checkpoint, model, pruning, todo.options)
    console.print(f"weights: {found}")
    return net, found


def write(made: Quantized, inputs: Inputs, folder: Path) -> None:
    """The whole folder at once, in place of an older one."""
    with whole_folder(folder) as fresh:
        save_network(made.network, fresh)
        save_checkpoint(fresh / "float.safetensors", made.net)
        write_whole(fresh / "report.json", made.report.to_json())
        inputs.write(fresh)


def _print_summary(report: Report, console: Console) -> None:
    kept = ", ".join(f"{fraction:.1%}" for fraction in report.kept) or "all: no selectors"
    console.print(
        f"against float, on {report.images} images: logits off by {report.logits_rms_error:.2g} rms "
        f"(std {report.logits_std:.2g}), same best class {report.top1_agreement:.0%}; "
        f"{report.decision_flips} of {report.decisions} decisions differ, {report.saturations} saturations; "
        f"patches kept: {kept}",
    )
    console.print(report.table(WORST_TENSORS))


def _spread(count: int, wanted: int) -> list[int]:
    """Positions of at most `wanted` of `count` images, evenly spaced."""
    return sorted({round(position) for position in np.linspace(0, count - 1, wanted)})


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums whose order does not depend on the machine's cores, so that equal inputs give equal bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
