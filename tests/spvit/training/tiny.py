"""Models, data and runs small enough to train within a second."""

from dataclasses import replace

import torch

from spvit.config import resolve_model
from spvit.training.data import Data, InMemory, load_data
from spvit.training.loop import Run
from spvit.training.recipe import Recipe
from spvit.training.state import Journal

DIGITS = resolve_model("deit_digits")
SPEC = replace(
    DIGITS,
    model=replace(DIGITS.model, name="tiny", patch_size=2, embed_dim=16, num_heads=2, depth=4),
    pruning=replace(DIGITS.pruning, locations=(1, 2), keep=(0.7, 0.4)),
)
RECIPE = Recipe(
    backbone_epochs=2,
    pruning_epochs=2,
    frozen_epochs=0,
    batch=64,
    backbone_rate=2e-3,
    finetune_rate=2e-4,
    selector_rate=2e-3,
    augment="jitter",
    initialisation="grown",
    mixup=0.0,
    cutmix=0.0,
    progressive_epochs=1,
    rate_step=0.4,
    accuracy_drop=0.1,
)


def few_digits(count=256, recipe=RECIPE):
    """The first digits of each part."""
    whole = load_data("digits", SPEC.model, recipe)
    training = InMemory(whole.training.images[:count], whole.training.labels[:count], whole.training.jittered)
    return Data("digits", training, InMemory(whole.test.images[:count], whole.test.labels[:count]))


def make_run(recipe=RECIPE, data=None, journal=None, watch=None):
    extra = {} if watch is None else {"watch": watch}
    return Run(data or few_digits(recipe=recipe), recipe, journal or Journal(None, {}), torch.device("cpu"), **extra)
