"""What pruning saves on this CPU: `spvit latency --model deit_s [--images FOLDER]`.

Enters: the build's arguments (`quant.build`), an image. Leaves: `latency-cpu.json` in the build folder, and a table:
the unpruned model and the pruned one (gathered: its dropped tokens really gone), by ONNX Runtime and by PyTorch, on one
thread and on all. The runs of both models are interleaved, so that whatever else the machine does meets both: the ratio
holds where the milliseconds do not. The image keeps just what the keep ratios say: the thresholds are moved for it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quant.build import build_folder
from quant.exports.command import require
from quant.float_model import float_model
from sim.options import LatencyOptions
from spvit.calibration import calibrate_thresholds, kept_patches
from spvit.config import resolve_model
from spvit.console import Console, Table, stage
from spvit.cost import count_macs, macs_unit
from spvit.errors import ConfigError
from spvit.exports.forms import Gathered, refuse_what_has_no_graph
from spvit.exports.onnx_graph import onnx_graph
from spvit.files import check_writable, write_json
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images
from spvit.pruned_vit import SPViT
from spvit.training.backbone import without_selectors

FILE = "latency-cpu.json"
WARM_UP = 3
Run = Callable[[], Any]
# Samsung Galaxy S20 (Snapdragon 865, all eight cores), ms unpruned and pruned: the paper's Tables 3 and 9
PHONE_MS = {"DeiT-T": (44, 26), "DeiT-S": (113, 60), "LV-ViT-S": (148, 89)}


@dataclass(frozen=True)
class Latency:
    """Wall-clock milliseconds of one image.

    ratio  of the medians, pruned over unpruned
    """

    runtime: str
    threads: int
    unpruned_median_ms: float
    unpruned_p95_ms: float
    pruned_median_ms: float
    pruned_p95_ms: float

    @property
    def ratio(self) -> float:
        return self.pruned_median_ms / self.unpruned_median_ms


def interleaved(runs: Sequence[Run], rounds: int, warm_up: int = WARM_UP) -> NDArray[np.float64]:
    """Milliseconds of each run in each round, [rounds, runs]; whoever is first changes from round to round."""
    for _ in range(warm_up):
        for run in runs:
            run()
    taken = np.zeros((rounds, len(runs)))
    for row in range(rounds):
        for place in range(len(runs)):
            which = (row + place) % len(runs)
            start = time.perf_counter()
            runs[which]()
            taken[row, which] = 1e3 * (time.perf_counter() - start)
    return taken


def summary(runtime: str, threads: int, taken: NDArray[np.float64]) -> Latency:
    """Of [rounds, 2]: unpruned and pruned."""
    median, p95 = np.median(taken, axis=0), np.percentile(taken, 95, axis=0, method="nearest")
    return Latency(runtime, threads, float(median[0]), float(p95[0]), float(median[1]), float(p95[1]))


def onnx_runs(graphs: Sequence[bytes], image: NDArray[np.float32], threads: int) -> list[Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]) for graph in graphs]
    return [lambda session=session: session.run(["logits"], {"images": image}) for session in sessions]  # type: ignore[misc]


def torch_runs(nets: Sequence[SPViT], image: torch.Tensor) -> list[Run]:
    forms = [Gathered(net).eval() for net in nets]
    return [lambda form=form: form(image) for form in forms]  # type: ignore[misc]


def measure(nets: Sequence[SPViT], image: torch.Tensor, rounds: int) -> list[Latency]:
    """The unpruned net and the pruned one, by both runtimes, on one thread and on all of this process's cores."""
    with stage("tracing both models for ONNX Runtime: up to a few minutes"):
        graphs = [onnx_graph(net, "gathered").SerializeToString() for net in nets]
    found, before = [], torch.get_num_threads()
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        with stage(f"measuring with ONNX Runtime, threads: {threads}"):
            runs = onnx_runs(graphs, image.numpy(), threads)
            found.append(summary("ONNX Runtime", threads, interleaved(runs, rounds)))
        torch.set_num_threads(threads)
        with torch.inference_mode(), stage(f"measuring with PyTorch, threads: {threads}"):
            found.append(summary("PyTorch", threads, interleaved(torch_runs(nets, image), rounds)))
    torch.set_num_threads(before)
    return found


def cpu_name() -> str:
    """As the kernel calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def document(net: SPViT, kept: Sequence[int], rounds: int, found: Sequence[Latency], weights: str) -> dict[str, Any]:
    """`latency-cpu.json`."""
    macs = count_macs(net.config, net.pruning, tuple(kept)).total
    return {
        "kind": "cpu", "model": net.config.name, "cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)),
        "weights": weights, "runs": rounds, "warm_up": WARM_UP, "kept_patches": list(kept), "gmacs": macs / 1e9,
        "unpruned_gmacs": count_macs(net.config, net.pruning.without()).total / 1e9,
        "latencies": [asdict(one) | {"ratio": one.ratio} for one in found],
        "phone_ms": {name: {"unpruned": a, "pruned": b, "ratio": b / a} for name, (a, b) in PHONE_MS.items()},
    }  # fmt: skip


def show(content: dict[str, Any], console: Console) -> None:
    title = f"{content['model']}, one image, measured on this CPU: {content['cpu']}, {content['cores']} cores"
    figures = (("unpruned", "median, ms"), ("unpruned", "p95, ms"), ("pruned", "median, ms"), ("pruned", "p95, ms"))
    table = Table(title, "runtime", ("threads", *figures, ("ratio", "of medians")))
    for one in content["latencies"]:
        cells = (f"{one[key]:.2f}" for key in LATENCY_CELLS)
        table.add_row(one["runtime"], str(one["threads"]), *cells, f"{one['ratio']:.3f}")
    console.print(table)
    macs, unpruned = 1e9 * content["gmacs"], 1e9 * content["unpruned_gmacs"]
    scale, unit = macs_unit(unpruned)
    phone = ", ".join(f"{name} {a} → {b} ms ({b / a:.3f})" for name, (a, b) in PHONE_MS.items())
    lines = [
        f"medians of {content['runs']} runs each, interleaved; "
        f"{unpruned / scale:.3g} → {macs / scale:.3g} {unit} ({macs / unpruned:.3f})",
        f"the paper, measured on a Galaxy S20's CPU: {phone}",
        f"weights: {content['weights']}; latency depends on them by the kept tokens alone",
    ]
    for line in lines:
        console.print(line)


LATENCY_CELLS = ("unpruned_median_ms", "unpruned_p95_ms", "pruned_median_ms", "pruned_p95_ms")


def prepared(args: LatencyOptions) -> tuple[SPViT, torch.Tensor, list[int], str]:
    """The pruned model with its thresholds moved for the image, the image, the patches that it keeps, the weights."""
    spec = resolve_model(args.model, args.keep)
    if not spec.pruning.keep:
        raise ConfigError(f"{args.model}: nothing to compare: the unpruned model is measured in any case; give KEEP=")
    refuse_what_has_no_graph(spec, args.model)
    preprocessing = Preprocessing.from_model(spec.model)
    source = args.images or (None if spec.model.in_chans == 3 else "digits:test")
    pixels = load_images(source, preprocessing).pixels[:1]
    net, weights = float_model(spec, args)
    image = torch.from_numpy(preprocessing.normalise(pixels)).float()
    calibrate_thresholds(net, image, spec.pruning.keep)
    return net, image, kept_patches(net, image)[0].tolist(), weights.partition(";")[0]


def run(args: LatencyOptions) -> int:
    console = Console()
    require(("onnx", "onnxscript", "onnxruntime"), "make latency")
    path = build_folder(args) / FILE
    check_writable(path.parent)
    with stage("calibrating the thresholds for the image"):
        net, image, kept, weights = prepared(args)
    found = measure((without_selectors(net), net), image, args.runs)
    content = document(net, kept, args.runs, found, weights)
    write_json(path, content)
    show(content, console)
    console.print(f"written: {path}")
    return 0
