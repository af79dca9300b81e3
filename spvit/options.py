"""What the algorithm's commands can be asked: one dataclass each, whose fields are their options. No torch here.

A path is one that a person gave. `None` stands for what the help calls the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from spvit.command import option, options_of
from spvit.schema import Choice, Whole, check_given
from spvit.training.recipe import Recipe

DATA = "digits, or a folder with train/<class>/ and val/<class>/"
DEVICE = "where it computes: cpu, cuda, cuda:1 (default: a GPU where there is one)"
RESUME = "the .state of a training that was interrupted, to go on from"
RECIPE = "a .toml with rates and the like; spvit train --help lists them"
RECIPE_TITLE = "the recipe"
RECIPE_HELP = (
    "Each can stand in a TOML, too: selector_rate = 5e-4. In brackets what holds for ImageNet; the digits' models and "
    "micro have recipes of their own."
)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model."""

    model: str = option("a name of the registry (deit_t, deit_s, ...) or the path of a .toml", metavar="NAME|TOML")
    keep: str | None = option(
        "none, or kept fractions of the patches, one per selector: 0.629,0.396,0.249 (default: the model's own)",
        None,
        "F,F,F",
    )

    def __post_init__(self) -> None:
        check_given(self)


@dataclass(frozen=True, kw_only=True)
class WeightOptions(ModelOptions):
    """And which weights."""

    ckpt: Path | None = option(
        "trained weights, .safetensors or .pth (default: those that come with the model, or seeded random ones)",
        None,
        "FILE",
    )
    ema: bool = option("the running mean of the weights, where the checkpoint has it beside them", False)
    pos: Annotated[str | None, Choice("exact", "interpolate")] = option(
        "interpolate: resize the positions of a checkpoint of another image size, as timm does (default: exact, "
        "refuse it)",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class SelectorOptions(WeightOptions):
    """And how its selectors decide."""

    threshold: str | None = option(
        "keep probability from which a token is kept, or calibrate: fit it to the keep ratios (default: trained "
        "selectors keep theirs unless keep ratios are given, fresh ones are calibrated)",
        None,
        "P|calibrate",
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(WeightOptions):
    data: str | None = option(f"what is trained on: {DATA} (default: digits, for their model)", None, "FOLDER")
    out: Path | None = option("the weights (default: build/train/<model>.safetensors)", None, "FILE")
    budget: str | None = option(
        "what may be spent per image, in place of keep ratios: 2.64GMACs, or of a board 6ms, 1.2Mcycles", None, "B"
    )
    target: str | None = option("the board that ms and cycles are counted on: zcu102, ...", None, "T")
    cost: str | None = option(
        "how to count towards the budget, a function of yours: F(model, pruning, kept) -> number", None, "FILE.py:F"
    )
    progressive: bool = option("seek the selectors' places and rates, layer to phase (section 4.4)", False)
    resume: Path | None = option(RESUME, None, "FILE")
    device: str = option(DEVICE, "auto", "D")
    recipe: Path | None = option(RECIPE, None, "FILE")
    changes: Mapping[str, Any] = options_of(Recipe, None, RECIPE_TITLE, RECIPE_HELP)


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    model: str = option("a registry name, or the path of a .toml", "deit_digits", "NAME|TOML")
    data: str = option(DATA, "digits", "FOLDER")
    out: Path | None = option("folder of the tables (default: build/ablation/<model>)", None, "DIR")
    tables: str | None = option("some of heads,places,package,scorer,method,pooling,rivals (default: all)", None, "T,T")
    seeds: Annotated[int, Whole(1, 1000)] = option("trainings per row", 1)
    device: str = option(DEVICE, "auto", "D")
    quick: bool = option("few images, one epoch: whether it runs, not what comes", False)
    recipe: Path | None = option(RECIPE, None, "FILE")
    changes: Mapping[str, Any] = options_of(Recipe, None, RECIPE_TITLE, RECIPE_HELP)

    def __post_init__(self) -> None:
        check_given(self)


@dataclass(frozen=True, kw_only=True)
class VisualizeOptions(SelectorOptions):
    images: str | None = option("a folder, an image, or digits:test (default: samples)", None, "FOLDER")
    count: Annotated[int, Whole(1, 1000)] = option("images that are drawn", 3)
    data: str | None = option(
        f"for accuracy: {DATA} (default: digits for their models; without it that picture is not drawn)", None, "FOLDER"
    )
    out: Path | None = option("folder of the pictures (default: build/pictures/<model>)", None, "DIR")


@dataclass(frozen=True, kw_only=True)
class CostOptions(ModelOptions):
    """Nothing more."""
