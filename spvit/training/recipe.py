"""How a model is trained: every number of it, with defaults from the papers.

Enters: a model's name, a TOML, the command line. Leaves: a `Recipe`. Small models have recipes of their own
(`recipes.toml`); a TOML of yours, given as RECIPE=, goes over those, and a flag of the command line over both.
"""

import argparse
import difflib
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from spvit.errors import ConfigError
from spvit.files import read_toml
from spvit.losses import LossWeights

RECIPES_FILE = Path(__file__).with_name("recipes.toml")
CHOICES = {
    "initialisation": ("deit", "grown"),
    "augment": ("deit", "jitter", "none"),
    "precision": ("float32", "bfloat16", "float16"),
}
OF_THE_MACHINE = ("compile", "workers", "test_epochs", "save_steps")  # may change when a training is resumed


def _is(help: str, default: Any) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """DeiT's and SPViT's training on ImageNet, unless it says otherwise."""

    # length and speed
    backbone_epochs: int = _is("epochs of the unpruned backbone; only without CKPT=", 300)
    pruning_epochs: int = _is("epochs of selectors and backbone under masks", 60)
    frozen_epochs: int = _is("first ones of these, in which the backbone stands still", 5)
    batch: int = _is("images per step, over all processes", 256)
    backbone_rate: float = _is("learning rate of the unpruned backbone", 2.5e-4)
    finetune_rate: float = _is("learning rate of the backbone beside selectors", 5e-6)
    selector_rate: float = _is("learning rate of the selectors", 5e-4)
    warm_up: float = _is("fraction of the steps in which the rates rise; then they follow a cosine to zero", 0.05)
    weight_decay: float = _is("AdamW's", 0.05)
    gradient_norm: float = _is("longest gradient; longer ones are cut", 1.0)
    initialisation: str = _is(
        "deit (small random weights) or grown (as strong as trained ones; for small models)", "deit"
    )
    ema_decay: float = _is("of the running mean of the weights that is kept; 0: the last weights", 0.0)
    # Eq. 12
    lambda_kl: float = _is("weight of the teacher's logits", 0.5)
    lambda_distill: float = _is("weight of the teacher's tokens", 0.5)
    lambda_ratio: float = _is("weight of the kept fractions", 2.0)
    control: float = _is("how much of a step's miss of the kept fractions is added to the next one's aim", 0.02)
    cost_tolerance: float = _is("how far the mean cost may end from its target, as a fraction", 0.01)
    # what the images go through
    augment: str = _is("deit (crop, flip, RandAugment), jitter (turned and shifted a little) or none", "deit")
    magnitude: float = _is("of RandAugment's operations, 0 to 10", 9.0)
    erasing: float = _is("probability to lose a rectangle", 0.25)
    repeats: int = _is("views of an image in one epoch, for as many fewer images", 3)
    mixup: float = _is("its Beta distribution's parameter; 0: none", 0.8)
    cutmix: float = _is("its Beta distribution's parameter; 0: none", 1.0)
    label_smoothing: float = _is("probability spread over all classes", 0.1)
    calibration_images: int = _is("images that set the thresholds", 2048)
    # layer to phase
    progressive_epochs: int = _is("epochs of each step of the progressive schedule", 25)
    accuracy_drop: float = _is("accuracy below the unpruned model's at which a selector's rate stops rising", 0.005)
    rate_step: float = _is("by which a selector's pruning rate rises", 0.1)
    merge_within: float = _is("difference of pruning rates below which neighbours become one phase", 0.15)
    # the machine
    precision: str = _is("float32, bfloat16 or float16 (with loss scaling, on a GPU)", "float32")
    compile: bool = _is("let torch.compile fuse the model's forward and backward", False)
    workers: int = _is("processes that read images", 4)
    test_epochs: int = _is("epochs between two looks at the test images, shown in passing; 0: only at the end", 1)
    save_steps: int = _is("steps between two saves within an epoch; each epoch's end is saved too", 1000)
    seed: int = _is("of everything that is drawn", 0)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.type is float and type(value) is int:
                object.__setattr__(self, item.name, float(value))
            elif type(value) is not item.type:
                raise ConfigError(f"{item.name}={value!r} must be {_KIND[item.type]}")  # type: ignore[index]
        for name in ("mixup", "cutmix", "control", "lambda_kl", "lambda_distill", "lambda_ratio", "weight_decay"):
            self._require(name, 0)
        for name in ("backbone_rate", "finetune_rate", "selector_rate", "gradient_norm"):
            self._require(name, 0)
        for name in ("warm_up", "erasing", "label_smoothing", "accuracy_drop", "merge_within", "ema_decay"):
            self._require(name, 0, 1)
        self._require("rate_step", 0.01, 1)
        self._require("cost_tolerance", 1e-4, 1)
        self._require("magnitude", 0, 10)
        for name in (
            "backbone_epochs",
            "pruning_epochs",
            "frozen_epochs",
            "progressive_epochs",
            "workers",
            "seed",
            "test_epochs",
        ):
            self._require(name, 0)
        for name in ("batch", "repeats", "calibration_images", "save_steps"):
            self._require(name, 1)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be one of {', '.join(choices)}")

    def _require(self, name: str, least: float, most: float = math.inf) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            bounds = f"at least {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
            raise ConfigError(f"{name}={value} must be {bounds}")

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed training must have in common with the one that was begun: all but what is the machine's."""
        return {name: value for name, value in asdict(self).items() if name not in OF_THE_MACHINE}

    @property
    def loss_weights(self) -> LossWeights:
        return LossWeights(self.lambda_kl, self.lambda_distill, self.lambda_ratio)


_KIND = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def add_arguments(parser: argparse.ArgumentParser, used: Collection[str] | None = None) -> None:
    """A flag for each field of the recipe, and --recipe for a file of them.

    used  fields that the command uses; None: all of them
    """
    group = parser.add_argument_group(
        "the recipe",
        "Each can stand in a TOML, too: selector_rate = 5e-4. In brackets what holds for ImageNet; deit_digits and "
        "micro have recipes of their own.",
    )
    group.add_argument("--recipe", type=Path, metavar="FILE", help="a TOML with some of the following")
    for item in fields(Recipe):
        if used is not None and item.name not in used:
            continue
        flag, help = f"--{item.name.replace('_', '-')}", f"{item.metadata['help']} ({item.default})"
        if item.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=help)
        else:
            metavar = "|".join(CHOICES[item.name]) if item.name in CHOICES else "X" if item.type is float else "N"
            group.add_argument(flag, type=item.type, metavar=metavar, help=help)


def resolve_recipe(model: str, options: argparse.Namespace | None = None) -> Recipe:
    """The model's own recipe, or the default one; then --recipe's file; then the flags. Raises ConfigError."""
    own = _read_toml(RECIPES_FILE).get(model, {})
    recipe = _changed(Recipe(), own, RECIPES_FILE.name)
    if options is None:
        return recipe
    if options.recipe is not None:
        recipe = _changed(recipe, _read_toml(options.recipe), str(options.recipe))
    flags = {item.name: getattr(options, item.name, None) for item in fields(Recipe)}
    return replace(recipe, **{name: value for name, value in flags.items() if value is not None})


def _read_toml(path: Path) -> dict[str, Any]:
    return read_toml(path, "RECIPE= takes the path of a TOML", ConfigError)


def _changed(recipe: Recipe, values: Mapping[str, Any], source: str) -> Recipe:
    known = [item.name for item in fields(Recipe)]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; it knows {', '.join(known)}"
            raise ConfigError(f"{source}: a recipe has no {name}{hint}")
    try:
        return replace(recipe, **values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
