"""The benchmarks: `make bench`. Prints a table and writes `bench.json`.

Machines differ and are shared, so each figure stands beside a yardstick taken in the same run: torch's own forward of
the same model, or its matrix product. The figure to compare between machines is the ratio.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import array_api_compat.torch as arrays
import numpy as np
import torch

from hw.architecture import Architecture
from hw.facts import read_top
from hw.generate import check_request, ensure_project, make_design
from hw.model.estimate import make_estimate
from hw.model.explore import explore
from hw.model.latency import assumptions
from hw.target import resolve_target
from quant.build import network_folder
from quant.network import QuantizedNetwork, load_network
from quant.options import BuildOptions
from quant.quantize import ensure_network
from sim.bridge import Accelerator
from sim.build import build_library
from sim.compare import compare_taps
from sim.compiler import Compiler
from sim.golden import Golden
from sim.options import BenchOptions
from sim.timed.timing import TimedAccelerator
from spvit.checkpoints import load_checkpoint
from spvit.config import resolve_model
from spvit.console import Console, Table, stage
from spvit.cost import kept_patches
from spvit.files import check_writable_file, write_json
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images
from spvit.training.throughput import training_throughput

REPORT = Path("bench.json")
RUNS = 3
GOLDEN_BATCH = 8
TRAINING_BATCH = 8


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    value      median over the runs, in `unit`
    yardstick  what it is compared with, and that one's value in the same unit
    goal       what the project wants, on a quiet machine of two cores
    """

    name: str
    value: float
    unit: str
    yardstick: str
    yardstick_value: float
    goal: str

    @property
    def ratio(self) -> float:
        return self.value / self.yardstick_value


def median_seconds(run: Callable[[], object], runs: int = RUNS) -> float:
    """Wall-clock seconds of `run`, after one warm-up."""
    run()
    samples = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)


def bench_flow(model: str) -> Figure:
    """`make hls` from nothing, beside the float model's forward of one image (it calibrates on a few dozen)."""
    with tempfile.TemporaryDirectory() as folder:
        options = BuildOptions(model=model, out=Path(folder))
        start = time.perf_counter()
        ensure_network(options)
        ensure_project(options)
        seconds = time.perf_counter() - start
        forward = forward_seconds(Path(folder) / "network")
    return Figure(f"make hls, {model}", seconds, "s", "float32 forwards of one image", forward, "<= 60 s")


def forward_seconds(network: Path, threads: int = 2) -> float:
    """The float model's own forward of one image."""
    quantized = load_network(network)
    net = load_checkpoint(network / "float.safetensors", quantized.model, quantized.pruning)
    side = quantized.model.img_size
    image = torch.zeros(1, quantized.model.in_chans, side, side)
    with torch.inference_mode(), _threads(threads):
        return median_seconds(lambda: net.forward_gathered(image))


def bench_csim(args: BuildOptions) -> Figure:
    """One image through the generated C++ on one core, every tap traced and compared."""
    project, _ = ensure_project(args)
    design = project.design
    library = build_library(network_folder(args).parent / "src")
    accelerator = Accelerator(design, library)
    pixels = sample_pixels(design.network, 1)
    golden = Golden(design.network, design.program, arrays).run(pixels, taps=True)

    def simulate() -> None:
        comparison = compare_taps(design, accelerator.run(pixels[0]).trace, golden)
        assert not comparison.mismatches, comparison.mismatches[0]

    with _threads(1):
        seconds = median_seconds(simulate)
    forward = forward_seconds(network_folder(args), threads=1)
    name = f"C-simulation, {design.network.model.name}, one image, all taps"
    return Figure(name, seconds, "s", "float32 forward on one core", forward, "<= 3 s")


def bench_timed_csim(args: BuildOptions) -> Figure:
    """One image through the kernels that count cycles, on one core, beside the same kernels that don't."""
    project, _ = ensure_project(args)
    design, source = project.design, network_folder(args).parent / "src"
    pixels = sample_pixels(design.network, 1)[0]
    plain = Accelerator(design, build_library(source))
    assumed = assumptions(design.architecture, project.target)
    timed = TimedAccelerator(design, build_library(source, timed=True), assumed, read_top(source))
    with _threads(1):
        seconds = median_seconds(lambda: timed.run(pixels))
        bare = median_seconds(lambda: plain.run(pixels))
    name = f"timed C-simulation, {design.network.model.name}, one image"
    return Figure(name, seconds, "s", "the same without counting", bare, "<= 30 s")


def bench_estimate(model: str) -> Figure:
    """`make estimate` as it is typed, beside a Python that only imports numpy."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = median_seconds(lambda: _python("-m", "spvit_fpga", "estimate", "--model", model, "--out", folder))
    bare = median_seconds(lambda: _python("-c", "import numpy"))
    return Figure(f"make estimate, {model}", seconds, "s", "python importing numpy", bare, "<= 2 s")


def bench_explore(model: str) -> Figure:
    """The search over engines, beside one closed form."""
    spec, target = resolve_model(model), resolve_target("zcu102")
    start = time.perf_counter()
    explore(spec, target, kept_patches(spec.model, spec.pruning))
    seconds = time.perf_counter() - start
    one = median_seconds(lambda: make_estimate(spec, target))
    return Figure(f"make explore, {model}", seconds, "s", "one estimate", one, "<= 60 s")


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def bench_golden(network: QuantizedNetwork, device: str) -> Figure:
    """The integer golden, batched, beside the same number of multiplications in bare float64 matrix products."""
    design = make_design(network, Architecture.for_target(resolve_target("zcu102"), {}))
    golden = Golden(network, design.program, arrays, None if device == "cpu" else device)
    pixels = sample_pixels(network, GOLDEN_BATCH)
    with _threads(torch.get_num_threads()):
        seconds = median_seconds(lambda: golden.run(pixels)) / GOLDEN_BATCH
        bare = matmul_seconds(golden_macs(golden, pixels) / GOLDEN_BATCH, device)
    name = f"integer golden, {network.model.name}, batch of {GOLDEN_BATCH}, {device}"
    return Figure(name, 1 / seconds, "images/s", "float64 products alone", 1 / bare, ">= 6 images/s on two cores")


def bench_training(model: str) -> Figure:
    """A training step with selectors, masks and the teacher, beside a plain one of the same transformer."""
    pruned, plain = training_throughput(resolve_model(model), TRAINING_BATCH)
    name = f"training with selectors, {model}, batch of {TRAINING_BATCH}"
    return Figure(name, pruned, "images/s", "plain training step", plain, ">= half of the plain step's")


def golden_macs(golden: Golden, pixels: np.ndarray) -> float:  # type: ignore[type-arg]
    """Multiplications in the linear layers of a batch, from the tokens that it really has."""
    result = golden.run(pixels, taps=True)
    macs = 0.0
    for step in golden.program.steps:
        if step.linear:
            layer = golden.network.linears[step.linear]
            macs += sum(len(tap) for tap in result.taps[step.name]) * layer.in_features * layer.out_features
    return macs


def matmul_seconds(macs: float, device: str) -> float:
    """Seconds that torch needs for as many float64 multiplications in one shape of the model."""
    x, w = (torch.rand(shape, dtype=torch.float64, device=device) for shape in ((1576, 384), (384, 1536)))

    def product() -> None:
        x @ w
        if device != "cpu":
            torch.cuda.synchronize()

    return median_seconds(product, runs=20) * macs / (x.shape[0] * x.shape[1] * w.shape[1])


def sample_pixels(network: QuantizedNetwork, count: int) -> np.ndarray:  # type: ignore[type-arg]
    """The sample photographs, again and again."""
    images = load_images(None, Preprocessing.from_model(network.model)).pixels
    return np.concatenate([images] * count)[:count]


def run_benchmarks(model: str, console: Console) -> list[Figure]:
    args = BuildOptions(model=model)
    check_request(args)
    figures = [bench_flow(model)]
    ensure_network(args, console)
    figures += [bench_csim(args), bench_timed_csim(args), bench_estimate(model), bench_explore(model)]
    network = load_network(network_folder(args))
    figures.append(bench_training(model))
    figures += [bench_golden(network, device) for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else []))]
    return figures


def run(options: BenchOptions) -> None:
    console = Console()
    check_writable_file(REPORT)
    if options.cxx is not None:
        os.environ["CXX"] = options.cxx  # for all that is compiled below
    Compiler.find().check()
    with stage(f"running the benchmarks of {options.model}: some minutes"):
        figures = run_benchmarks(options.model, console)
    show(figures, console)
    rows = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
    write_json(REPORT, rows)
    console.print(f"written: {REPORT}")


def show(figures: Sequence[Figure], console: Console) -> None:
    """The table, for people."""
    table = Table(
        "benchmarks; below each figure what it is held against", "figure", ("median", "ratio", "goal"), left=[2]
    )
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:.3g} {figure.unit}", f"{figure.ratio:.3g}", figure.goal)
        table.add_row(f"  {figure.yardstick}", f"{figure.yardstick_value:.3g} {figure.unit}", "", "")
    console.print(table)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch's threads, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
