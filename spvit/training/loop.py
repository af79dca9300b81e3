"""The training loop, one for every phase: AdamW under a warm-up and a cosine, on one process or several.

Enters: a `Phase` (a model, its rates, what it minimises) and a `Run` (data, recipe, journal, machine). Leaves: the
phase's model, trained in place. What is drawn in a step depends on the recipe's seed, the phase and the step alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from spvit import distributed
from spvit.console import Console, stage
from spvit.errors import TrainingError
from spvit.pruned_vit import SPViT
from spvit.records import Output
from spvit.training.augment import mix, smooth_targets
from spvit.training.data import Data
from spvit.training.draws import drawing
from spvit.training.log import Log
from spvit.training.measure import accuracy
from spvit.training.recipe import Recipe
from spvit.training.state import Journal, State

Model = Callable[[Tensor], Output]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Objective(ABC):
    """What a phase minimises, with what it carries from step to step: nothing, unless a subclass says so."""

    @abstractmethod
    def loss(self, model: Model, images: Tensor, targets: Tensor) -> Tensor:
        """model: the masked forward in training mode; targets (B, classes)."""

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Go on from what `state_dict` gave."""
        assert not state, state

    def __str__(self) -> str:
        """A few characters for the progress bar."""
        return ""


@dataclass(frozen=True)
class Group:
    """Parameters that learn at one rate; not before `frozen_epochs` have passed."""

    parameters: Sequence[tuple[str, Tensor]]
    rate: float
    frozen_epochs: int = 0


@dataclass(frozen=True)
class Phase:
    name: str
    net: SPViT
    groups: Sequence[Group]
    epochs: int
    objective: Objective


@dataclass(frozen=True)
class Run:
    """What all phases share.

    watch  called with the phase's name, the step and its loss
    log    where the losses and accuracies go; the first process's alone is written
    """

    data: Data
    recipe: Recipe
    journal: Journal
    device: torch.device
    watch: Callable[[str, int, float], None] = lambda phase, step, loss: None
    log: Log = field(default_factory=lambda: Log(None))


def fit(phase: Phase, run: Run) -> None:
    """Train the phase's model, from where the journal left it. Raises TrainingError, CheckpointError."""
    fitting = Fitting(phase, run)
    steps_per_epoch, recipe = fitting.steps_per_epoch, run.recipe
    run.log.begin(phase.name, fitting.step)
    what = f"{phase.name}: {phase.epochs} epochs, {fitting.steps:,} steps"
    with stage(what, fitting.steps, fitting.step, distributed.is_first()) as bar:
        while fitting.step < fitting.steps:
            epoch, done = divmod(fitting.step, steps_per_epoch)
            place = (recipe.seed, phase.name, epoch)
            for images, labels in run.data.training.epoch(place, recipe.batch, done):
                rate = fitting.rate
                loss = fitting.advance(images.to(run.device), labels.to(run.device))
                run.log.add_loss(phase.name, epoch + 1, fitting.step, loss, rate, steps_per_epoch)
                run.watch(phase.name, fitting.step, loss)
                bar.advance()
                bar.detail(f"loss {loss:.3f} {phase.objective}")
                if fitting.step % steps_per_epoch == 0 or fitting.step % recipe.save_steps == 0:
                    run.journal.save(phase.name, fitting.state_dict())
            if recipe.test_epochs and (epoch + 1) % recipe.test_epochs == 0 and epoch + 1 < phase.epochs:
                fitting.test(epoch + 1)
    fitting.finish()
    run.log.finish()


class Fitting:
    """A phase under way: `advance` is one step of it."""

    def __init__(self, phase: Phase, run: Run) -> None:
        self.phase, self.run, recipe = phase, run, run.recipe
        self.net = phase.net.to(run.device).train()
        self.steps_per_epoch = run.data.training.steps(recipe.batch)
        self.steps = phase.epochs * self.steps_per_epoch
        self.step = 0
        self.model = self._wrap(self.net)
        groups = [part for group in phase.groups for part in _with_and_without_decay(group, recipe.weight_decay)]
        self.rates = [group["lr"] for group in groups]
        self.factors = [self._factor(group["frozen_epochs"]) for group in groups]
        self.optimizer = torch.optim.AdamW(groups)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self.factors)
        self.scaler = torch.amp.GradScaler(run.device.type, enabled=recipe.precision == "float16")
        self.mean = AveragedModel(self.net, avg_fn=_running_mean(recipe.ema_decay)) if recipe.ema_decay else None
        state = run.journal.progress_of(phase.name)
        if state is not None:
            self._load_state_dict(state)

    def _wrap(self, net: SPViT) -> Model:
        model: Any = net
        if distributed.world_size() > 1 and any(parameter.requires_grad for parameter in net.parameters()):
            model = DistributedDataParallel(net)
        return torch.compile(model) if self.run.recipe.compile else model

    def _factor(self, frozen_epochs: int) -> Callable[[int], float]:
        """A group's rate at a step, as a fraction of its full one."""
        warm_up, frozen = max(1, round(self.run.recipe.warm_up * self.steps)), frozen_epochs * self.steps_per_epoch

        def factor(step: int) -> float:
            cosine = 0.5 + 0.5 * math.cos(math.pi * step / max(self.steps, 1))
            return 0.0 if step < frozen else min((step + 1) / warm_up, cosine)

        return factor

    def advance(self, images: Tensor, labels: Tensor) -> float:
        """One step; returns the loss, the mean over all processes."""
        recipe, device = self.run.recipe, self.run.device
        with drawing(recipe.seed, self.phase.name, self.step, "step", device=device):
            targets = smooth_targets(labels, self.net.config.num_classes, recipe.label_smoothing)
            if recipe.augment == "deit":
                images, targets = mix(images, targets, recipe.mixup, recipe.cutmix)
            with torch.autocast(device.type, DTYPES[recipe.precision], enabled=recipe.precision != "float32"):
                loss = self.phase.objective.loss(self.model, images, targets)
        value: float = distributed.mean_over_processes(loss.detach()).item()
        if not math.isfinite(value):
            self._diverged(f"the loss became {value}")
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), recipe.gradient_norm)
        if not self.scaler.is_enabled() and not norm.isfinite():
            self._diverged(f"the gradient became {norm.item()}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.mean is not None:
            self.mean.update_parameters(self.net)
        self.step += 1
        return value

    @property
    def rate(self) -> float:
        """The largest of the groups' learning rates, of the step to come."""
        return float(max(self.schedule.get_last_lr(), default=0.0))

    def test(self, epochs: int) -> None:
        """Tell how many of the test images today's weights, or their running mean, get right."""
        net = self.net if self.mean is None else self.mean.module
        reached = accuracy(net, self.run.data.test)
        net.train()
        self.run.log.add_accuracy(self.phase.name, epochs, self.step, self.rate, reached)
        if distributed.is_first():
            pruned = ", thresholds not yet calibrated" if net.pruning.num_selectors else ""
            Console(stderr=True).print(
                f"{self.phase.name}: {reached:.2%} of the test images right after epoch {epochs} of "
                f"{self.phase.epochs}{pruned}"
            )

    def finish(self) -> None:
        if self.mean is not None and self.steps:
            self.net.load_state_dict(self.mean.module.state_dict())
        self.net.eval()

    def _diverged(self, what: str) -> None:
        saved = self.run.journal.progress_of(self.phase.name)
        kept = (
            f"its state after step {saved['step']} is in {self.run.journal.path}" if saved else "none of it was saved"
        )
        raise TrainingError(
            f"{self.phase.name}: {what} in step {self.step + 1}; {kept}. Go on with lower rates or gradient_norm, or "
            'with precision = "float32"'
        )

    def state_dict(self) -> State:
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "mean": None if self.mean is None else self.mean.state_dict(),
            "objective": self.phase.objective.state_dict(),
        }

    def _load_state_dict(self, state: State) -> None:
        self.step = state["step"]
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.mean is not None:
            self.mean.load_state_dict(state["mean"])
        self.phase.objective.load_state_dict(state["objective"])
        self.schedule.base_lrs = self.rates  # today's: a training that diverged goes on with lower ones
        for group, rate, factor in zip(self.optimizer.param_groups, self.rates, self.factors, strict=True):
            group.update(initial_lr=rate, lr=rate * factor(self.step))


def _with_and_without_decay(group: Group, decay: float) -> list[dict[str, Any]]:
    """As timm: biases, norms, tokens and positions don't decay."""
    parts = {decay: list[Tensor](), 0.0: list[Tensor]()}
    for name, parameter in group.parameters:
        plain = parameter.ndim <= 1 or name.endswith(("_token", "pos_embed"))
        parts[0.0 if plain else decay].append(parameter)
    return [
        {"params": parameters, "lr": group.rate, "weight_decay": value, "frozen_epochs": group.frozen_epochs}
        for value, parameters in parts.items()
        if parameters
    ]


def _running_mean(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An exponential mean that begins as a plain one: the first steps' weights are soon forgotten."""

    def update(mean: Tensor, current: Tensor, count: Tensor) -> Tensor:
        share = 1 - torch.minimum((1.0 + count) / (10.0 + count), torch.full_like(count, decay, dtype=torch.float))
        return mean.lerp(current, share.to(mean.dtype))

    return update
