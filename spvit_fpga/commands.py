"""Every command: its options, its help, its examples, and the function that it is. The one list, also for make.

No more than the standard library is imported here: `make help` reads this before anything is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from hw.options import ClockedOptions, EstimateOptions, ExploreOptions, HlsOptions, ScheduleOptions, VendorOptions
from quant.options import BuildOptions, ExportOptions, FinetuneOptions
from sim.options import (
    BenchOptions,
    CsimOptions,
    DrawingOptions,
    EvalOptions,
    LatencyOptions,
    NotebookOptions,
    PlotOptions,
    TimedOptions,
)
from spvit.options import AblationOptions, CostOptions, TrainOptions, VisualizeOptions

PARALLEL = "on eight GPUs: torchrun --nproc-per-node 8 -m spvit_fpga {} and the same options"


@dataclass(frozen=True)
class NoOptions:
    """Of a command that can be asked nothing."""


@dataclass(frozen=True)
class Command:
    """One thing that can be done.

    help      what it does, and what it leaves
    function  module:name; takes the options
    examples  options, as they are given to it
    note      a line more for its help
    """

    name: str
    help: str
    options: type[Any]
    function: str
    examples: tuple[str, ...] = ()
    note: str = ""

    def load(self) -> Callable[[Any], int | None]:
        module, name = self.function.split(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]


GROUPS: dict[str, tuple[Command, ...]] = {
    "From a checkpoint to the accelerator": (
        Command(
            "hls", "quantize the model and generate its Vitis HLS project in build/<model>-<target>/",
            HlsOptions, "spvit_fpga.flow:hls",
            ("--model deit_s --target zcu102", "--model deit_s --ckpt deit_small_patch16_224.pth --calib photos",
             "--model my_vit.toml --target kv260 --keep none",
             "--model deit_s --target zcu102 --design deit"),
        ),
        Command(
            "weights", "quantize another network and pack it for a design that is there: no compiler, no synthesis; "
            "build/<model>-<target>.../weights/",
            BuildOptions, "spvit_fpga.flow:weights",
            ("--model deit_s --target zcu102 --design build/deit_s-zcu102 --keep none",
             "--model deit_t --target zcu102 --design deit --ckpt deit_tiny_patch16_224.pth"),
        ),
        Command(
            "csim", "compile and run that C++, and compare each tap with the golden: csim.json",
            CsimOptions, "sim.csim:run",
            ("--model deit_s --target zcu102", "--model deit_s --images photos", "--model deit_s --top msa_block"),
        ),
        Command(
            "estimate", "cycles, latency and resources in closed form, before any weights: estimate.json",
            EstimateOptions, "hw.model.estimate:run",
            ("--model deit_s --target zcu102", "--model deit_s --kept 123,78,49 --clock 150"),
        ),
        Command(
            "schedule", "II, period, depth and critical recurrence of each loop, by an open model of synthesis: "
            "schedule.json",
            ScheduleOptions, "spvit_fpga.flow:schedule", ("--model deit_s --target zcu102",),
        ),
        Command(
            "explore", "the fastest engine that fits the board with head-room; given a latency, the keep ratios too: "
            "explore.json",
            ExploreOptions, "hw.model.explore:run",
            ("--model deit_s --target zcu102", "--model deit_s --target zcu102 --latency-ms 5"),
        ),
        Command(
            "report", "one page to look at: where the time goes, what it takes, beside the paper: report.html",
            ClockedOptions, "sim.report.page:run", ("--model deit_s --target zcu102",),
        ),
    ),
    "Training": (
        Command(
            "train", "train a model down to its keep ratios, to a budget, or layer to phase: "
            "build/train/<model>.safetensors",
            TrainOptions, "spvit.train:run",
            ("--model deit_digits", "--model deit_s --data imagenet --ckpt deit_small_patch16_224.pth",
             "--model deit_s --data imagenet --ckpt deit.pth --target zcu102 --budget 4.7ms"),
            PARALLEL.format("train"),
        ),
        Command(
            "finetune", "quantization-aware fine-tuning, float weights that know that they will be rounded: "
            "build/train/<model>-tuned.safetensors",
            FinetuneOptions, "quant.finetune:run",
            ("--model deit_digits", "--model deit_s --data imagenet --ckpt build/train/deit_s.safetensors"),
            PARALLEL.format("finetune"),
        ),
        Command(
            "ablation", "the paper's ablations on a small model, each variant trained at equal cost: build/ablation/",
            AblationOptions, "spvit.ablation:run", ("--data digits", "--tables package,scorer --seeds 3"),
        ),
        Command(
            "visualize", "pictures: tokens kept per stage, heat maps per head, accuracy against cost: "
            "build/pictures/<model>/",
            VisualizeOptions, "spvit.visualize:run", ("--model deit_digits", "--model deit_s --images photos"),
        ),
        Command(
            "eval", "accuracy, cost and tokens of the float and the 16-bit model, resumed where it was stopped: "
            "eval.json, eval.md",
            EvalOptions, "sim.evaluate:run",
            ("--model deit_digits", "--model deit_s --data imagenet --ckpt tuned.safetensors --csim 10"),
            PARALLEL.format("eval"),
        ),
    ),
    "Off the FPGA": (
        Command(
            "export", "the model for other tools: ONNX with tokens really removed, QONNX, integers as .npz: "
            "build/export/<model>/",
            ExportOptions, "quant.exports.command:run",
            ("--model deit_s --format onnx --ckpt build/train/deit_s.safetensors", "--model deit_digits --format npz"),
        ),
        Command(
            "latency", "pruned beside unpruned on this CPU, by ONNX Runtime and PyTorch: latency-cpu.json",
            LatencyOptions, "sim.cpu_latency:run", ("--model deit_s",),
        ),
    ),
    "With AMD's tools": (
        Command(
            "synth", "Vitis HLS: simulate, synthesize and export; its figures beside the estimate: reports.json",
            VendorOptions, "spvit_fpga.flow:synth",
            ("--model deit_s --target zcu102", "--model deit_s --top msa_block"),
        ),
        Command(
            "cosim", "Vitis HLS: the RTL against the golden (and synth, when needed)",
            VendorOptions, "spvit_fpga.flow:cosim", ("--model deit_s --target zcu102",),
        ),
        Command(
            "bitstream", "Vivado: block design, implementation, bitstream (and synth, when needed): bitstream/",
            VendorOptions, "spvit_fpga.flow:bitstream", ("--model deit_s --target zcu102",),
        ),
    ),
    "Onto the board": (
        Command(
            "deploy", "pack what the board needs, to be installed there with one command: deploy.tar.gz",
            BuildOptions, "hw.deploy:run", ("--model deit_s --target zcu102",),
        ),
        Command(
            "notebook", "the latency notebook on the emulated device; on the board Jupyter runs it: latency.json",
            NotebookOptions, "sim.notebook:run", ("--model deit_digits --target zcu102",),
        ),
    ),
    "Looking closer": (
        Command("cost", "MACs and parameters of a model, by part", CostOptions, "spvit.cost:run", ("--model deit_s",)),
        Command(
            "timed", "cycles of one image by a timed C-simulation, beside the closed form: timing.json",
            TimedOptions, "sim.timed_csim:run",
            ("--model deit_s --at-keep-ratios --engine 64x64-fast --clock 200", "--model deit_s --keep none"),
        ),
        Command(
            "means", "what could be done where the weight stream is the limit, after hls",
            ClockedOptions, "hw.model.means:run", ("--model deit_s",),
        ),
    ),
    "Working on the project": (
        Command("bench", "the benchmarks: bench.json", BenchOptions, "sim.bench:run"),
        Command("flow-plot", "the README's drawing of the whole flow", DrawingOptions, "sim.report.flow:run"),
        Command(
            "pictures", "the README's photographs with their kept tokens, and the report's screenshot: docs/",
            ClockedOptions, "sim.readme_pictures:run", ("--model deit_s --target zcu102",),
        ),
        Command("token-plot", "the README's plot of latency against tokens", PlotOptions, "sim.token_plot:run"),
        Command(
            "measure", "what the engine's parts cost in LUTs and flip-flops, by yosys",
            NoOptions, "spvit_fpga.flow:measure",
        ),
    ),
}  # fmt: skip
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
