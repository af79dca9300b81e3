"""Layer-to-phase progressive training (paper, section 4.4; Table 8, Figure 6): where selectors belong, and their rates.

Enters: an unpruned transformer. Selectors come one block at a time, from the last to the first; each is trained while
all else is fine-tuned, and prunes more and more until accuracy falls below the tolerance. Neighbours with similar rates
become one phase, of which the first selector stays; the first phase's rate then meets the budget. Leaves: the pruning,
and the selectors trained so far. The journal keeps every step.

Accuracy here is that on training images that were held out: what chooses on the test part could not be judged by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import accumulate

from torch import Tensor

from spvit.budget import keep_ratios
from spvit.calibration import calibrate_thresholds
from spvit.config import ModelConfig, ModelSpec, PruningConfig
from spvit.cost import kept_patches, num_units
from spvit.errors import ConfigError, TrainingError
from spvit.pruned_vit import SPViT
from spvit.training.budget import CostOf
from spvit.training.data import Source
from spvit.training.loop import Run
from spvit.training.measure import accuracy
from spvit.training.pruning import prune, selectors_of, with_selectors
from spvit.training.state import State

NAME = "progressive"


@dataclass(frozen=True)
class Step:
    """One selector, settled.

    location  the block that it stands before
    rate      fraction of the original patches that are gone after it; 0: none could be spared, and it was taken out
    accuracy  on the images held out, of the model with this selector and all behind it
    """

    location: int
    rate: float
    accuracy: float


@dataclass(frozen=True)
class Progress:
    """How far the search has come.

    trying   the rate that the selector at hand was last trained to and accepted at; None: it has not begun
    weights  the accepted model's
    """

    steps: tuple[Step, ...]
    trying: float | None
    accuracy: float
    weights: Mapping[str, Tensor]

    @property
    def rates(self) -> dict[int, float]:
        """Of the selectors that stay, by location."""
        return {step.location: step.rate for step in reversed(self.steps) if step.rate > 0}

    def to_state(self) -> State:
        steps = [[step.location, step.rate, step.accuracy] for step in self.steps]
        return {"steps": steps, "trying": self.trying, "accuracy": self.accuracy, "weights": dict(self.weights)}

    @classmethod
    def from_state(cls, state: State) -> "Progress":
        steps = tuple(Step(*values) for values in state["steps"])
        return cls(steps, state["trying"], state["accuracy"], state["weights"])


def search(teacher: SPViT, pruning: PruningConfig, run: Run, held_out: Source) -> tuple[SPViT, tuple[Step, ...]]:
    """A selector before each block that can spare tokens, each trained at its rate, and how it came to that.

    pruning   what the selectors are like; its locations and keep ratios are what is sought
    held_out  images that `run` does not train on
    Raises TrainingError when no block can spare any token.
    """
    unpruned = accuracy(teacher.to(run.device), held_out)
    state = run.journal.done.get(NAME)
    progress = Progress((), None, unpruned, teacher.state_dict()) if state is None else Progress.from_state(state)
    least = unpruned - run.recipe.accuracy_drop
    for location in range(teacher.config.depth - 1 - len(progress.steps), 0, -1):
        while (trial := _next_rate(progress, location, teacher.config, run)) is not None:
            net = _net_of(progress, teacher, pruning, run, {location: trial})
            prune(net, teacher, run, f"block {location} to {trial:.0%}", run.recipe.progressive_epochs)
            reached = _calibrated_accuracy(net, run, held_out)
            if reached < least:
                break
            weights = {name: value.cpu() for name, value in net.state_dict().items()}
            progress = replace(progress, trying=trial, accuracy=reached, weights=weights)
            run.journal.finish(NAME, progress.to_state())
        step = Step(location, progress.trying or 0.0, progress.accuracy)
        progress = replace(progress, steps=(*progress.steps, step), trying=None)
        run.journal.finish(NAME, progress.to_state())
    if not progress.rates:
        raise TrainingError(
            f"{teacher.config.name}: no block can spare a token within accuracy_drop={run.recipe.accuracy_drop:g} of "
            f"the unpruned {unpruned:.2%}; allow a larger drop, a smaller rate_step or more progressive_epochs"
        )
    return _net_of(progress, teacher, pruning, run), progress.steps


def _next_rate(progress: Progress, location: int, model: ModelConfig, run: Run) -> float | None:
    """The rate to try next: a step more, up to what the next selector prunes anyway; None: there is no more."""
    behind = progress.rates.values()
    ceiling = min(behind, default=1 - 1 / model.num_patches)
    trial = round(min((progress.trying or 0.0) + run.recipe.rate_step, ceiling), 6)
    return trial if trial > (progress.trying or 0.0) else None


def _net_of(
    progress: Progress, teacher: SPViT, pruning: PruningConfig, run: Run, more: Mapping[int, float] | None = None
) -> SPViT:
    """The accepted model, with the selector at hand at another rate if `more` says so."""
    at_hand = {} if progress.trying is None else {_location_at_hand(progress, teacher.config): progress.trying}
    accepted = _pruning_of(pruning, progress.rates | at_hand)
    net = SPViT(teacher.config, accepted)
    net.load_state_dict(progress.weights)
    return with_selectors(net, _pruning_of(pruning, progress.rates | at_hand | dict(more or {})), run.recipe.seed)


def _location_at_hand(progress: Progress, model: ModelConfig) -> int:
    return model.depth - 1 - len(progress.steps)


def _pruning_of(pruning: PruningConfig, rates: Mapping[int, float]) -> PruningConfig:
    locations = tuple(sorted(rates))
    return replace(pruning, locations=locations, keep=tuple(round(1 - rates[location], 6) for location in locations))


def _calibrated_accuracy(net: SPViT, run: Run, held_out: Source) -> float:
    calibrate_thresholds(net, run.data.calibration(run.recipe.calibration_images), net.pruning.keep, nearest=True)
    return accuracy(net, held_out)


def merge_phases(rates: Mapping[int, float], within: float) -> dict[int, float]:
    """Neighbours whose rates differ from their phase's first by less than `within` become one; its first stays."""
    phases: dict[int, float] = {}
    for location in sorted(rates):
        if not phases or rates[location] - phases[max(phases)] >= within:
            phases[location] = rates[location]
    return phases


def meet_budget(spec: ModelSpec, cost_of: CostOf, limit: float, unit: str) -> PruningConfig:
    """Change the first selector's keep ratio, last of all, to the largest within the limit; the others keep no more.

    A first selector without which the limit is met, too, has nothing to do: it goes, and the next is the first.
    Raises ConfigError, with the least that it comes to, where the first selector's rate is not enough.
    """
    pruning = spec.pruning
    while pruning.num_selectors > 1:
        later = replace(pruning, locations=pruning.locations[1:], keep=pruning.keep[1:])
        if cost_of(replace(spec, pruning=later))(kept_patches(spec.model, later)) > limit:
            break
        pruning = later
    cost, counts = cost_of(replace(spec, pruning=pruning)), kept_patches(spec.model, pruning)
    patches, *others = units = num_units(spec.model, pruning)
    behind = list(zip(counts[1:], others, strict=True))
    chain = [
        (first, *(max(1, min(first * number // patches, count)) for count, number in behind))
        for first in range(1, patches + 1)
    ]
    within = [kept for kept in chain if cost(kept) <= limit]
    if not within:
        raise ConfigError(
            f"{spec.model.name}: with selectors before the blocks {', '.join(map(str, pruning.locations))} a budget of "
            f"{limit:.5g} {unit} cannot be met, with one patch left after the first it still takes "
            f"{cost(chain[0]):.5g} {unit}; allow at least that or a larger accuracy_drop, or give the selectors' "
            "places yourself, without --progressive"
        )
    return replace(pruning, keep=tuple(accumulate(keep_ratios(within[-1], units), min)))


def phased(net: SPViT, within: float, seed: int) -> SPViT:
    """The net with one selector per phase."""
    rates = {location: 1 - keep for location, keep in zip(net.pruning.locations, net.pruning.keep, strict=True)}
    pruning = _pruning_of(net.pruning, merge_phases(rates, within))
    return with_selectors(net, pruning, seed, selectors_of(net))
