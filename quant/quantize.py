"""A float SPViT made 16-bit: the first step of `spvit hls`, and of all that needs the quantized network.

Enters: the build's arguments (`quant.build`). Leaves, in `build/<model>-<target>/network/`:

    network.json, network.safetensors   the quantized network (`quant.network`)
    float.safetensors                   the float model with its calibrated thresholds
    report.json                         how well the one follows the other (`quant.report`)
    inputs.json                         what it was made from: equal inputs give byte-equal files

The folder appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from quant.calibrate import choose_formats, observe_ranges
from quant.export import to_network
from quant.fold import fold
from quant.inputs import Plan, plan, poverty
from quant.model import QuantizedSPViT
from quant.network import QuantizedNetwork, save_network
from quant.options import BuildOptions
from quant.report import Report, compare
from spvit.calibration import settle_thresholds
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


def quantize(todo: Plan, console: Console) -> Report:
    """Make the network of a plan, write it, and print how good it is."""
    with _one_thread():
        net, found = _weights(todo, console)
        images = torch.from_numpy(Preprocessing.from_model(todo.spec.model).normalise(todo.pixels)).float()
        with stage(f"calibrating with {todo.calibration}"):
            thresholds = settle_thresholds(net, images, todo.thresholds, found)
        if thresholds:
            console.print(f"thresholds: {thresholds}")
        folded, pixels = fold(net), torch.from_numpy(np.ascontiguousarray(todo.pixels))
        with stage("choosing formats"):
            ranges = observe_ranges(folded, pixels)
            quantized = QuantizedSPViT(folded, choose_formats(folded, ranges))
        with stage("comparing with float"):
            report = compare(quantized, folded, ranges, pixels[_spread(len(pixels), COMPARED_IMAGES)])
            network = to_network(quantized)
    _write(todo, net, network, report)
    console.print(f"written: {todo.folder} (network {network.digest[:12]})")
    _print_summary(report, console)
    return report


def _weights(todo: Plan, console: Console) -> tuple[SPViT, LoadReport | None]:
    """The float model, and what the file of its weights was."""
    model, pruning = todo.spec.model, todo.spec.pruning
    if todo.checkpoint is None:
        console.print(f"weights: seeded random (seed {todo.seed}), since no checkpoint was given")
        return seeded(model, pruning, todo.seed), None
    net, found = load_checkpoint_with_report(todo.checkpoint, model, pruning, todo.options)
    console.print(f"weights: {found}")
    return net, found


def _write(todo: Plan, net: SPViT, network: QuantizedNetwork, report: Report) -> None:
    """The whole folder at once, in place of an older one."""
    with whole_folder(todo.folder) as fresh:
        save_network(network, fresh)
        save_checkpoint(fresh / "float.safetensors", net)
        write_whole(fresh / "report.json", report.to_json())
        todo.inputs.write(fresh)


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
