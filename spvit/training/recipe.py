"""How a model is trained: every number of it, with defaults from the papers.

Enters: a model's name, a TOML, the command line. Leaves: a `Recipe`. Small models have recipes of their own
(`recipes.toml`); a TOML of yours, given as RECIPE=, goes over those, and a flag of the command line over both.
No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from spvit.errors import ConfigError
from spvit.files import read_toml
from spvit.schema import FLAG, SEED, Choice, Number, Whole, check_fields, check_known, kinds

if TYPE_CHECKING:
    from spvit.losses import LossWeights

RECIPES_FILE = Path(__file__).with_name("recipes.toml")
EPOCHS = Whole(0, 100_000)
RATE = Number(0, 10)
SHARE = Number(0, 1)
WEIGHT = Number(0, 1_000_000)
OF_THE_MACHINE = ("compile", "workers", "test_epochs", "save_steps")  # may change when a training is resumed


def _is(help: str, default: Any) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Recipe:
    """DeiT's and SPViT's training on ImageNet, unless it says otherwise."""

    # length and speed
    backbone_epochs: Annotated[int, EPOCHS] = _is("epochs of the unpruned backbone; only without CKPT=", 300)
    pruning_epochs: Annotated[int, EPOCHS] = _is("epochs of selectors and backbone under masks", 60)
    frozen_epochs: Annotated[int, EPOCHS] = _is("first ones of these, in which the backbone stands still", 5)
    batch: Annotated[int, Whole(1, 1_000_000)] = _is("images per step, over all processes", 256)
    backbone_rate: Annotated[float, RATE] = _is("learning rate of the unpruned backbone", 2.5e-4)
    finetune_rate: Annotated[float, RATE] = _is("learning rate of the backbone beside selectors", 5e-6)
    selector_rate: Annotated[float, RATE] = _is("learning rate of the selectors", 5e-4)
    warm_up: Annotated[float, SHARE] = _is(
        "fraction of the steps in which the rates rise; then they follow a cosine to zero", 0.05
    )
    weight_decay: Annotated[float, Number(0, 10)] = _is("AdamW's", 0.05)
    gradient_norm: Annotated[float, Number(0, 1_000_000)] = _is("longest gradient; longer ones are cut", 1.0)
    initialisation: Annotated[str, Choice("deit", "grown")] = _is(
        "deit (small random weights) or grown (as strong as trained ones; for small models)", "deit"
    )
    ema_decay: Annotated[float, SHARE] = _is(
        "of the running mean of the weights that is kept; 0: the last weights", 0.0
    )
    # Eq. 12
    lambda_kl: Annotated[float, WEIGHT] = _is("weight of the teacher's logits", 0.5)
    lambda_distill: Annotated[float, WEIGHT] = _is("weight of the teacher's tokens", 0.5)
    lambda_ratio: Annotated[float, WEIGHT] = _is("weight of the kept fractions", 2.0)
    control: Annotated[float, Number(0, 10)] = _is(
        "how much of a step's miss of the kept fractions is added to the next one's aim", 0.02
    )
    cost_tolerance: Annotated[float, Number(1e-4, 1)] = _is(
        "how far the mean cost may end from its target, as a fraction", 0.01
    )
    # what the images go through
    augment: Annotated[str, Choice("deit", "jitter", "none")] = _is(
        "deit (crop, flip, RandAugment), jitter (turned and shifted a little) or none", "deit"
    )
    magnitude: Annotated[float, Number(0, 10)] = _is("of RandAugment's operations, 0 to 10", 9.0)
    erasing: Annotated[float, SHARE] = _is("probability to lose a rectangle", 0.25)
    repeats: Annotated[int, Whole(1, 1000)] = _is("views of an image in one epoch, for as many fewer images", 3)
    mixup: Annotated[float, Number(0, 1000)] = _is("its Beta distribution's parameter; 0: none", 0.8)
    cutmix: Annotated[float, Number(0, 1000)] = _is("its Beta distribution's parameter; 0: none", 1.0)
    label_smoothing: Annotated[float, SHARE] = _is("probability spread over all classes", 0.1)
    calibration_images: Annotated[int, Whole(1, 10_000_000)] = _is("images that set the thresholds", 2048)
    # layer to phase
    progressive_epochs: Annotated[int, EPOCHS] = _is("epochs of each step of the progressive schedule", 25)
    accuracy_drop: Annotated[float, SHARE] = _is(
        "accuracy below the unpruned model's at which a selector's rate stops rising", 0.005
    )
    rate_step: Annotated[float, Number(0.01, 1)] = _is("by which a selector's pruning rate rises", 0.1)
    held_out_images: Annotated[int, Whole(1, 10_000_000)] = _is(
        "training images, at most a fifth of them, on which rates are chosen; no phase before sees them", 10_000
    )
    merge_within: Annotated[float, SHARE] = _is(
        "difference of pruning rates below which neighbours become one phase", 0.15
    )
    # the machine
    precision: Annotated[str, Choice("float32", "bfloat16", "float16")] = _is(
        "float32, bfloat16 or float16 (with loss scaling, on a GPU)", "float32"
    )
    compile: Annotated[bool, FLAG] = _is("let torch.compile fuse the model's forward and backward", False)
    workers: Annotated[int, Whole(0, 1024)] = _is("processes that read images", 4)
    test_epochs: Annotated[int, EPOCHS] = _is(
        "epochs between two looks at the test images, shown in passing; 0: only at the end", 1
    )
    save_steps: Annotated[int, Whole(1, 1_000_000_000)] = _is(
        "steps between two saves within an epoch; each epoch's end is saved too", 1000
    )
    seed: Annotated[int, SEED] = _is("of everything that is drawn", 0)

    def __post_init__(self) -> None:
        check_fields(self)
        for name, kind in kinds(Recipe).items():
            if isinstance(kind, Number):
                object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def identity(self) -> dict[str, Any]:
        """What a resumed training must have in common with the one that was begun: all but what is the machine's."""
        return {name: value for name, value in asdict(self).items() if name not in OF_THE_MACHINE}

    @property
    def loss_weights(self) -> LossWeights:
        from spvit.losses import LossWeights

        return LossWeights(self.lambda_kl, self.lambda_distill, self.lambda_ratio)


def resolve_recipe(model: str, recipe: Path | None = None, changes: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """The model's own recipe, or the default one; then that of the TOML; then the changes. Raises ConfigError."""
    own = _read_toml(RECIPES_FILE).get(model, {})
    found = _changed(Recipe(), own, RECIPES_FILE.name)
    if recipe is not None:
        found = _changed(found, _read_toml(recipe), str(recipe))
    return _changed(found, changes, "the recipe") if changes else found


def _read_toml(path: Path) -> dict[str, Any]:
    return read_toml(path, "RECIPE= takes the path of a TOML", ConfigError)


def _changed(recipe: Recipe, values: Mapping[str, Any], source: str) -> Recipe:
    check_known(Recipe, values, f"{source}:")
    try:
        return replace(recipe, **values)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
