"""What the quantization's commands can be asked: one dataclass each, whose fields are their options. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from spvit.command import option, options_of
from spvit.options import DATA, DEVICE, RECIPE, RECIPE_HELP, RECIPE_TITLE, RESUME, SelectorOptions, WeightOptions
from spvit.schema import SEED, Choice, Number, Whole
from spvit.training.recipe import Recipe

FORMATS = ("onnx", "qonnx", "npz")
RECIPE_FIELDS = (
    "batch", "warm_up", "weight_decay", "gradient_norm", "ema_decay", "augment", "magnitude", "erasing", "repeats",
    "mixup", "cutmix", "label_smoothing", "calibration_images", "precision", "compile", "workers", "test_epochs",
    "save_steps", "seed",
)  # fmt: skip
"""Of the training's recipe, what fine-tuning uses."""


WEIGHT_BITS_HELP = (
    "of the weights: 16, 12 or 8, and of layers that differ: 12,head=16 (default: as [quantization] of the model says, "
    "or 16)"
)


@dataclass(frozen=True, kw_only=True)
class BuildOptions(SelectorOptions):
    """What is built: what every step from the checkpoint to the board shares."""

    target: str = option("the board: zcu102, zcu104, kv260, ultra96v2, u50, or a .toml", "zcu102", "T")
    calib: str | None = option(
        "images to calibrate with: a folder, an image, or digits:train (default: bundled ones)", None, "FOLDER"
    )
    weight_bits: str | None = option(WEIGHT_BITS_HELP, None, "B")
    seed: Annotated[int, SEED] = option("of the weights, where none are given", 0)
    out: Path | None = option("build folder (default: build/<model>-<target>...)", None, "DIR")
    design: str | None = option(
        "the hardware that it is to run on: deit, a .toml with [capacities], or the build folder of one that is there "
        "(default: of the model's own sizes)",
        None,
        "NAME|TOML|DIR",
    )


@dataclass(frozen=True, kw_only=True)
class ExportOptions(BuildOptions):
    format: Annotated[str, Choice(*FORMATS)] = option("what is written: onnx, qonnx or npz", metavar="F")
    out: Path | None = option("folder of the files (default: build/export/<model>)", None, "DIR")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(WeightOptions):
    weight_bits: str | None = option(WEIGHT_BITS_HELP, None, "B")
    data: str | None = option(f"what is trained on: {DATA} (default: digits, for their model)", None, "FOLDER")
    out: Path | None = option("the weights (default: build/train/<model>-tuned.safetensors)", None, "FILE")
    epochs: Annotated[int, Whole(1, 100_000)] = option("over the training images", 1)
    rate: Annotated[float, Number(0, 1, above=True)] = option("learning rate", 1e-5)
    resume: Path | None = option(RESUME, None, "FILE")
    device: str = option(DEVICE, "auto", "D")
    recipe: Path | None = option(RECIPE, None, "FILE")
    changes: Mapping[str, Any] = options_of(Recipe, RECIPE_FIELDS, RECIPE_TITLE, RECIPE_HELP)
