"""What the proof's commands can be asked: one dataclass each, whose fields are their options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hw.options import CLOCK_MHZ, IMAGES, TOP, UNITS, ClockedOptions
from quant.options import BuildOptions
from spvit.command import option
from spvit.options import DEVICE
from spvit.schema import Choice, Whole, check_given

CXX = 'the compiler of the C-simulation: clang++, "ccache g++" (default: what CXX says, or g++)'
DEPTH = Whole(1, 100_000)
CALLS = 2  # of each top: what one call leaves behind must not disturb the next
RUNS = 30


@dataclass(frozen=True, kw_only=True)
class CsimOptions(BuildOptions):
    images: str | None = option(IMAGES, None, "FOLDER")
    top: Annotated[str | None, Choice(*sorted(UNITS))] = option(TOP, None)
    cxx: str | None = option(CXX, None)
    exact: bool = option("compile with exact widths (ap_int) in place of native integers", False)


@dataclass(frozen=True, kw_only=True)
class TimedOptions(ClockedOptions):
    images: str | None = option("its first image is run (default: a photograph)", None, "FOLDER")
    at_keep_ratios: bool = option("move the thresholds: the image keeps what the keep ratios say", False)
    engine: str | None = option("another engine than the model's own", None, "64x64-fast")
    depth: Annotated[int | None, DEPTH] = option(
        "of ENGINE, as a schedule or csynth has it (default: the table's)", None, "CYCLES"
    )


@dataclass(frozen=True, kw_only=True)
class EvalOptions(ClockedOptions):
    data: str | None = option(
        "a folder with a folder of images per class, or digits:test (default: digits, for their model)", None, "FOLDER"
    )
    device: str = option(DEVICE, "auto", "D")
    batch: Annotated[int, Whole(1, 4096)] = option("images at once", 32)
    models: str | None = option("some of float,brevitas,integer (default: all that can be)", None, "M,M")
    csim: Annotated[int, Whole(0, 1_000_000)] = option("images to give to the C-simulation, too", 0)


@dataclass(frozen=True, kw_only=True)
class LatencyOptions(BuildOptions):
    images: str | None = option("its first image is run (default: a photograph)", None, "FOLDER")
    device: Annotated[str, Choice("cpu")] = option("what is measured", "cpu")
    runs: Annotated[int, Whole(1, 9999)] = option("of each model", RUNS)


@dataclass(frozen=True, kw_only=True)
class NotebookOptions(BuildOptions):
    images: str | None = option("a folder, an image, or digits:test (default: samples)", None, "FOLDER")
    cxx: str | None = option(CXX, None)


@dataclass(frozen=True, kw_only=True)
class VectorsOptions(BuildOptions):
    images: str | None = option(IMAGES, None, "FOLDER")
    top: Annotated[str | None, Choice(*sorted(UNITS))] = option(TOP, None)
    calls: Annotated[int, Whole(1, 1000)] = option("at most so many", CALLS)


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    target: str = option("the board", "zcu102", "T")
    out: Path = option("the picture", Path("docs/latency_tokens.svg"), "FILE")
    clock: Annotated[float | None, CLOCK_MHZ] = option("MHz of the accelerator (default: the target's)", None, "MHZ")

    def __post_init__(self) -> None:
        check_given(self)


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    out: Path = option("the drawing, beside which one for phones is left", Path("docs/flow.svg"), "FILE")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    model: str = option("a registry name", "deit_s", "NAME")
    cxx: str | None = option(CXX, None)
