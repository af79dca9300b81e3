"""Selectors and backbone together under masks, with drawn decisions (Eq. 7 and 12), and a controller of what is kept.

Enters: a teacher, a pruning with keep ratios. Leaves: the trained net, thresholds not yet calibrated. λ_ratio alone
settles where its pull equals the other terms', off its aim; so the aim is moved by the miss until what is kept is what
was asked for.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from spvit.config import PruningConfig
from spvit.distributed import mean_over_processes
from spvit.initialisation import initialise_selectors
from spvit.losses import spvit_loss
from spvit.pruned_vit import SPViT
from spvit.training.loop import Group, Model, Objective, Phase, Run, fit
from spvit.training.recipe import Recipe
from spvit.training.state import State

NAME = "selectors"
FARTHEST = 0.15  # an aim from its target: beyond, decisions are saturated and the controller would only wind up
SHOWN = 0.05  # share of the newest step in the kept fractions that are shown


class Pruning(Objective):
    """Eq. 12's loss for a net whose selectors should keep `keep` of the original patches."""

    def __init__(self, teacher: SPViT, keep: Sequence[float], recipe: Recipe) -> None:
        self.teacher, self.recipe = teacher, recipe
        self.keep = torch.tensor(keep, dtype=torch.float64)
        self.aims, self.kept = self.keep.clone(), self.keep.clone()

    def loss(self, model: Model, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            taught = self.teacher.forward_masked(images)
        output = model(images)
        loss = spvit_loss(output, targets, taught, self.aims.tolist(), self.recipe.loss_weights)
        with torch.no_grad():
            kept = mean_over_processes(torch.stack([record.keep.detach().mean() for record in output.records]))
        self.steer(kept.double().cpu())
        return loss

    def steer(self, kept: Tensor) -> None:
        """Move the aims by what a step kept too little or too much."""
        self.kept = self.kept.lerp(kept, SHOWN)
        self.aims += self.recipe.control * (self.keep - kept)
        self.aims = self.aims.clamp(self.keep - FARTHEST, self.keep + FARTHEST).clamp(0, 1)

    def state_dict(self) -> State:
        return {"aims": self.aims.clone(), "kept": self.kept.clone()}

    def load_state_dict(self, state: State) -> None:
        self.aims, self.kept = state["aims"].clone(), state["kept"].clone()

    def __str__(self) -> str:
        return "keeps " + ",".join(f"{value:.3f}" for value in self.kept.tolist())


def prune(net: SPViT, teacher: SPViT, run: Run, name: str = NAME, epochs: int | None = None) -> None:
    """Train the net's selectors towards its pruning's keep ratios, and its backbone along with them.

    epochs  None: the recipe's pruning_epochs, with the backbone frozen in the first frozen_epochs
    """
    recipe = run.recipe
    frozen = recipe.frozen_epochs if epochs is None else 0
    selectors = [item for item in net.named_parameters() if item[0].startswith("selectors.")]
    backbone = [item for item in net.named_parameters() if not item[0].startswith("selectors.")]
    groups = [Group(selectors, recipe.selector_rate), Group(backbone, recipe.finetune_rate, frozen)]
    objective = Pruning(teacher.to(run.device), net.pruning.keep, recipe)
    fit(Phase(name, net, groups, recipe.pruning_epochs if epochs is None else epochs, objective), run)


def with_selectors(
    net: SPViT, pruning: PruningConfig, seed: int, trained: Mapping[int, Mapping[str, Tensor]] | None = None
) -> SPViT:
    """The same backbone under another pruning. In evaluation mode.

    trained  states of selectors by location, which are taken over; None: those of `net`. Others are fresh.
    """
    trained = selectors_of(net) if trained is None else trained
    pruned = SPViT(net.config, pruning)
    state = pruned.state_dict()
    of_backbone = [name for name in state if name != "thresholds" and not name.startswith("selectors.")]
    pruned.load_state_dict(state | {name: net.state_dict()[name] for name in of_backbone})
    initialise_selectors(pruned, seed)
    for location, selector in zip(pruning.locations, pruned.selectors, strict=True):
        if location in trained:
            selector.load_state_dict(trained[location])
    return pruned.eval()


def selectors_of(net: SPViT) -> dict[int, dict[str, Tensor]]:
    """States of a net's selectors, by location."""
    pairs = zip(net.pruning.locations, net.selectors, strict=True)
    return {
        location: {name: value.cpu() for name, value in selector.state_dict().items()} for location, selector in pairs
    }
