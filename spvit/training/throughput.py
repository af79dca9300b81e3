"""How fast training is: images per second of a whole step with selectors, beside a plain step of the same model."""

import statistics
import time
from collections.abc import Callable

import torch

from spvit.config import ModelSpec
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT
from spvit.training.backbone import Classification
from spvit.training.data import Data, InMemory
from spvit.training.loop import Fitting, Group, Objective, Phase, Run
from spvit.training.pruning import Pruning
from spvit.training.recipe import Recipe
from spvit.training.state import Journal

STEPS = 5


def training_throughput(spec: ModelSpec, batch: int, device: str = "cpu") -> tuple[float, float]:
    """Images per second with selectors (masks, drawn decisions, the teacher's forward, Eq. 12) and of the plain model.

    Of made-up images that are there already; medians over a few steps, after one that warms up.
    """
    model, recipe = spec.model, Recipe(batch=batch, augment="none")
    images = torch.randn(batch, model.in_chans, model.img_size, model.img_size, device=device)
    labels = torch.randint(model.num_classes, (batch,), device=device)
    data = Data("noise", InMemory(images, labels), InMemory(images, labels))
    run = Run(data, recipe, Journal(None, {}), torch.device(device))
    plain = seeded(model, spec.pruning.without()).to(device)

    def seconds(net: SPViT, objective: Objective) -> float:
        fitting = Fitting(Phase("bench", net, [Group(list(net.named_parameters()), 1e-6)], STEPS + 1, objective), run)
        return _median_seconds(lambda: fitting.advance(images, labels))

    pruned = seconds(seeded(model, spec.pruning), Pruning(plain, spec.pruning.keep, recipe))
    return batch / pruned, batch / seconds(plain, Classification())


def _median_seconds(step: Callable[[], float]) -> float:
    """A step returns its loss, so it has ended when it returns, on a GPU too."""
    step()
    samples = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        samples.append(time.perf_counter() - start)
    return statistics.median(samples)
