"""The unpruned transformer, which is also the teacher: from a checkpoint, or trained here first."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spvit import distributed
from spvit.checkpoint_options import CheckpointOptions
from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import ModelSpec
from spvit.console import Console
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT
from spvit.training.draws import drawing
from spvit.training.loop import Group, Model, Objective, Phase, Run, fit

NAME = "backbone"


class Classification(Objective):
    """Cross-entropy alone."""

    def loss(self, model: Model, images: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(model(images).logits, targets)


def load_backbone(spec: ModelSpec, path: Path, options: CheckpointOptions | None = None) -> tuple[SPViT, SPViT | None]:
    """The unpruned transformer in a checkpoint; and with its selectors, if it has them. What was read is printed.
    Raises CheckpointError.
    """
    net, report = load_checkpoint_with_report(path, spec.model, spec.pruning, options)
    if distributed.is_first():
        Console().print(f"weights: {report}")
    return without_selectors(net), net if spec.pruning.num_selectors and report.selectors_found else None


def without_selectors(net: SPViT) -> SPViT:
    """The same weights, unpruned; in evaluation mode."""
    plain = SPViT(net.config, net.pruning.without())
    state = {name: value for name, value in net.state_dict().items() if not name.startswith("selectors.")}
    plain.load_state_dict(state | {"thresholds": plain.thresholds})
    return plain.eval()


def train_backbone(spec: ModelSpec, run: Run) -> SPViT:
    """The unpruned transformer, trained from nothing. In evaluation mode."""
    net = fresh_backbone(spec, run.recipe.initialisation, run.recipe.seed)
    done = run.journal.done.get(NAME)
    if done is not None:
        net.load_state_dict(done["net"])
        return net.to(run.device)
    group = Group(list(net.named_parameters()), run.recipe.backbone_rate)
    fit(Phase(NAME, net, [group], run.recipe.backbone_epochs, Classification()), run)
    run.journal.finish(NAME, {"net": net.state_dict()})
    return net


def fresh_backbone(spec: ModelSpec, initialisation: str, seed: int) -> SPViT:
    """Untrained weights: "deit", small ones; "grown", as large as trained ones', positions on a grid."""
    pruning = spec.pruning.without()
    if initialisation == "grown":
        net = seeded(spec.model, pruning, seed)
        place_on_grid(net)
        return net
    with drawing(seed, "initialisation"):
        return SPViT(spec.model, pruning).eval()


@torch.no_grad()
def place_on_grid(net: SPViT) -> None:
    """Positions to start from: sines of row and column, so that neighbours resemble each other.

    With random positions, pixels as patches take some ten times as many steps to find their neighbours.
    """
    grid, bands = net.config.grid_size, net.config.embed_dim // 4
    waves = 1.5 * 10.0 ** (-torch.arange(bands) / max(bands, 1))  # radians per patch
    row, column = (torch.arange(grid).repeat_interleave(grid), torch.arange(grid).repeat(grid))
    sines = [turn(place[:, None] * waves) for turn in (torch.sin, torch.cos) for place in (row, column)]
    net.pos_embed[0, -net.config.num_patches :, : 4 * bands] = 0.7 * torch.cat(sines, dim=1)
