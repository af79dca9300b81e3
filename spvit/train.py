"""Train a small SPViT from nothing: the backbone, then selectors and backbone under masks, then the thresholds.

    python -m spvit.train --model deit_digits --data digits --out weights.safetensors

Enters: a model and a data set. Leaves: a checkpoint whose mean kept fractions on the training images are the
model's, and a table of what it reaches on the test images. Small models and data sets only; all images are held in
memory, and the teacher is the backbone of the first phase.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from tqdm import tqdm

from host.images import digits
from host.preprocess import Preprocessing
from spvit.calibration import calibrate_thresholds, kept_patches, mean_macs
from spvit.checkpoints import save_checkpoint
from spvit.config import ModelConfig, ModelSpec, resolve_model
from spvit.cost import count_macs
from spvit.errors import ConfigError, exit_on_user_error
from spvit.initialisation import initialise_selectors
from spvit.losses import spvit_loss
from spvit.pruned_vit import SPViT, seeded

DATA_SETS = ("digits",)
LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 0.05
GRADIENT_NORM = 1.0
WARM_UP = 0.05  # fraction of the steps


@dataclass(frozen=True)
class Recipe:
    """How long and how fast. The defaults train deit_digits in some minutes on two cores."""

    backbone_epochs: int = 80
    pruning_epochs: int = 40
    batch: int = 64
    backbone_rate: float = 2e-3  # first phase
    finetune_rate: float = 2e-4  # the backbone beside the selectors
    selector_rate: float = 2e-3
    seed: int = 0


@dataclass(frozen=True)
class Split:
    images: Tensor  # (B, in_chans, S, S) normalised
    labels: Tensor  # (B)


def load_split(name: str, part: Literal["train", "test"], model: ModelConfig) -> Split:
    """One part of a data set, as the model wants its images."""
    if name not in DATA_SETS:
        raise ConfigError(f"--data {name} must be one of {', '.join(DATA_SETS)}")
    if (model.img_size, model.in_chans, model.num_classes) != (8, 1, 10):
        raise ConfigError(
            f"{model.name}: digits are 8x8 grey images of 10 classes, but the model has img_size={model.img_size}, "
            f"in_chans={model.in_chans}, num_classes={model.num_classes}; choose deit_digits, or sizes that fit"
        )
    pixels, labels = digits(part)
    images = torch.from_numpy(Preprocessing.from_model(model).normalise(pixels)).float()
    return Split(images, torch.from_numpy(labels))


def train(spec: ModelSpec, data: Split, recipe: Recipe) -> tuple[SPViT, SPViT]:
    """The trained and calibrated model and its unpruned teacher, both in evaluation mode."""
    torch.manual_seed(recipe.seed)
    teacher = train_backbone(spec, data, recipe)
    net = SPViT(spec.model, spec.pruning)
    net.load_state_dict({**net.state_dict(), **teacher.state_dict(), "thresholds": net.thresholds})
    if spec.pruning.num_selectors:
        initialise_selectors(net, recipe.seed)
        train_selectors(net, teacher, data, recipe)
        calibrate_thresholds(net, data.images, spec.pruning.keep)
    return net.eval(), teacher


def train_backbone(spec: ModelSpec, data: Split, recipe: Recipe) -> SPViT:
    """First phase: the unpruned transformer, which also becomes the teacher."""
    net = seeded(spec.model, spec.pruning.without(), recipe.seed)
    place_on_grid(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.backbone_rate, weight_decay=WEIGHT_DECAY)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(net.forward_masked(images).logits, labels, label_smoothing=LABEL_SMOOTHING)

    _fit(net.train(), optimizer, loss, data, recipe.backbone_epochs, recipe.batch, "backbone")
    return net.eval()


@torch.no_grad()
def place_on_grid(net: SPViT) -> None:
    """Positions to start from: sines of row and column, so that neighbours resemble each other.

    With random positions, pixels as patches take some ten times as many steps to find their neighbours.
    """
    grid, bands = net.config.grid_size, net.config.embed_dim // 4
    waves = 1.5 * 10.0 ** (-torch.arange(bands) / max(bands, 1))  # radians per patch
    row, column = (torch.arange(grid).repeat_interleave(grid), torch.arange(grid).repeat(grid))
    sines = [turn(place[:, None] * waves) for turn in (torch.sin, torch.cos) for place in (row, column)]
    net.pos_embed[0, net.config.num_prefix_tokens :, : 4 * bands] = 0.7 * torch.cat(sines, dim=1)


def train_selectors(net: SPViT, teacher: SPViT, data: Split, recipe: Recipe) -> None:
    """Second phase: selectors, and slowly the backbone, with drawn decisions and masks (Eq. 7 and 12)."""
    selectors = list(net.selectors.parameters())
    backbone = [parameter for name, parameter in net.named_parameters() if not name.startswith("selectors.")]
    groups = [{"params": selectors, "lr": recipe.selector_rate}, {"params": backbone, "lr": recipe.finetune_rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            taught = teacher.forward_masked(images)
        return spvit_loss(net.forward_masked(images), labels, taught, net.pruning.keep)

    _fit(net.train(), optimizer, loss, data, recipe.pruning_epochs, recipe.batch, "selectors")


def _fit(
    net: SPViT,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    data: Split,
    epochs: int,
    batch: int,
    title: str,
) -> None:
    """Warm up, then a cosine down to zero."""
    steps = epochs * math.ceil(len(data.labels) / batch)
    warm_up = max(1, round(WARM_UP * steps))

    def rate(step: int) -> float:
        return min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / max(steps, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    with tqdm(total=steps, desc=title, unit="step") as bar:
        for images, labels in _batches(data, epochs, batch):
            loss = loss_of(images, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_NORM, error_if_nonfinite=True)
            optimizer.step()
            schedule.step()
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def _batches(data: Split, epochs: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.labels)).split(batch):
            yield jitter(data.images[chosen]), data.labels[chosen]


def jitter(images: Tensor) -> Tensor:
    """Two images in three turned by up to 15 degrees, scaled by up to 15% and shifted by up to a tenth of their side.

    The third stays as it is: resampling blurs so small an image, and inference sees crisp ones.
    """
    count = len(images)
    angle, scale, dx, dy = (torch.empty(count).uniform_(-limit, limit) for limit in (0.26, 0.15, 0.2, 0.2))
    cos, sin = torch.cos(angle) * (1 + scale), torch.sin(angle) * (1 + scale)
    maps = torch.stack([cos, -sin, dx, sin, cos, dy], dim=1).view(count, 2, 3)
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    low, high = images.amin(), images.amax()
    # grid_sample pads with zeros, so the background is made zero for it; bicubic overshoots
    moved = (grid_sample(images - low, grid, mode="bicubic", align_corners=False) + low).clamp(low, high)
    return torch.where(torch.rand(count, 1, 1, 1) < 1 / 3, images, moved)


@torch.no_grad()
def accuracy(net: SPViT, data: Split) -> float:
    """Fraction of the images whose class is right, as inference finds it."""
    net.eval()
    batches = zip(data.images.split(64), data.labels.split(64), strict=True)
    right = [net.forward_masked(images).logits.argmax(dim=1) == labels for images, labels in batches]
    return torch.cat(right).double().mean().item()


def report(net: SPViT, teacher: SPViT, training: Split, test: Split) -> str:
    """Accuracy, kept fractions and cost on both parts of the data, for people."""
    unpruned = count_macs(teacher.config, teacher.pruning).total
    lines = [f"{'':<10}{'unpruned':>10}{'pruned':>10}{'MACs':>10}  kept fractions"]
    for part, data in (("training", training), ("test", test)):
        kept = kept_patches(net, data.images)
        fractions = (kept.double().mean(dim=0) / net.config.num_patches).tolist()
        lines.append(
            f"{part:<10}{accuracy(teacher, data):>10.2%}{accuracy(net, data):>10.2%}"
            f"{mean_macs(net, kept) / unpruned - 1:>+10.1%}  {', '.join(f'{fraction:.3f}' for fraction in fractions)}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m spvit.train", description="Train a small SPViT from nothing.")
    parser.add_argument("--model", default="deit_digits", help="a name of the registry, or the path of a .toml")
    parser.add_argument("--data", default="digits", help=f"one of {', '.join(DATA_SETS)}")
    parser.add_argument("--out", required=True, type=Path, help="the .safetensors file to write")
    parser.add_argument("--backbone-epochs", type=int, default=Recipe.backbone_epochs)
    parser.add_argument("--pruning-epochs", type=int, default=Recipe.pruning_epochs)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args(arguments)
    spec = resolve_model(options.model)
    recipe = Recipe(options.backbone_epochs, options.pruning_epochs, seed=options.seed)
    training, test = load_split(options.data, "train", spec.model), load_split(options.data, "test", spec.model)
    net, teacher = train(spec, training, recipe)
    save_checkpoint(options.out, net)
    print(report(net, teacher, training, test))


if __name__ == "__main__":
    exit_on_user_error(main)
