"""How far 16 bits are from float: logits, best classes, keep decisions, accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hw.layout import Design
from sim.golden import GoldenResult
from spvit.checkpoints import load_checkpoint
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import ImageSet


@dataclass(frozen=True)
class FloatReference:
    """The float model on the same images.

    logits       float64 [images, classes]
    keep         per selector, [images, patches]: 1 where the original patch lives on
    probability  per selector, [images, patches]: Eq. 6
    thresholds   per selector
    """

    logits: NDArray[np.float64]
    keep: list[NDArray[np.float64]]
    probability: list[NDArray[np.float64]]
    thresholds: list[float]


class Summary(Protocol):
    """The fields of the report that this module fills."""

    top1_agreement_float: float | None
    top1_disagreements: list[str]
    max_abs_logit_error: float | None
    rms_logit_error: float | None
    keep_decisions: int
    keep_flips: int
    largest_flip_margin: float
    accuracy: float | None
    accuracy_float: float | None


@torch.no_grad()
def float_reference(network: Path, design: Design, images: ImageSet) -> FloatReference:
    """Run the float model that `quant.quantize` left beside the quantized network."""
    model, pruning = design.network.model, design.network.pruning
    net = load_checkpoint(network / "float.safetensors", model, pruning).double().eval()
    preprocessing = Preprocessing.from_model(model)
    outputs = [
        net.forward_gathered(torch.as_tensor(preprocessing.normalise(images.pixels[i : i + 1])).double())
        for i in range(len(images))
    ]
    stages = range(pruning.num_selectors)
    return FloatReference(
        torch.cat([output.logits for output in outputs]).numpy(),
        [torch.cat([output.records[k].keep for output in outputs]).numpy() for k in stages],
        [torch.cat([output.records[k].probability for output in outputs]).numpy() for k in stages],
        net.thresholds.tolist(),
    )


class Agreement:
    """Gathers, image by image, how the integers follow the float model."""

    def __init__(self, design: Design, reference: FloatReference, images: ImageSet) -> None:
        self.design, self.reference, self.images = design, reference, images
        self.errors: list[float] = []
        self.decisions = self.flips = self.agreeing = self.correct = self.correct_float = 0
        self.largest_margin = 0.0
        self.near_ties: list[str] = []
        self.disagreements: list[str] = []
        self._squares = 0.0

    def add(self, image: int, golden: GoldenResult, place: int) -> None:
        """One image's integers, which stand at `place` in the golden's batch."""
        expected, logits = self.reference.logits[image], golden.logits[place]
        difference = logits * 2.0 ** -self.design.network.frac_bits["head"] - expected
        self.errors.append(float(np.abs(difference).max()))
        self._squares += float(np.square(difference).mean())
        best, second = np.sort(expected)[-1:-3:-1] if len(expected) > 1 else (expected[0], -np.inf)
        if int(np.argmax(logits)) == int(np.argmax(expected)):
            self.agreeing += 1
        elif best - second < 2 * self.errors[-1]:
            self.near_ties.append(self.images.names[image])
        else:
            self.disagreements.append(self.images.names[image])
        if self.images.labels is not None:
            self.correct += int(np.argmax(logits) == self.images.labels[image])
            self.correct_float += int(np.argmax(expected) == self.images.labels[image])
        self._add_decisions(image, golden, place)

    def _add_decisions(self, image: int, golden: GoldenResult, place: int) -> None:
        """Compare keep decisions up to the first selector that differs: behind it the two see other tokens."""
        alive = np.arange(self.design.network.model.num_patches)
        for stage, threshold in enumerate(self.reference.thresholds):
            keep = golden.taps[f"selectors.{stage}.keep"][place][:, 0]
            flipped = alive[keep != self.reference.keep[stage][image][alive]]
            self.decisions += len(alive)
            self.flips += len(flipped)
            if len(flipped):
                margins = np.abs(self.reference.probability[stage][image][flipped] - threshold)
                self.largest_margin = max(self.largest_margin, float(margins.max()))
                return
            alive = alive[keep != 0]

    def summarise(self, report: Summary) -> None:
        count = len(self.errors)
        report.top1_agreement_float = self.agreeing / count
        report.top1_disagreements = self.disagreements + self.near_ties
        report.max_abs_logit_error = max(self.errors)
        report.rms_logit_error = float(np.sqrt(self._squares / count))
        report.keep_decisions, report.keep_flips = self.decisions, self.flips
        report.largest_flip_margin = self.largest_margin
        if self.images.labels is not None:
            report.accuracy, report.accuracy_float = self.correct / count, self.correct_float / count

    def lines(self) -> Iterator[str]:
        count, std = len(self.errors), float(self.reference.logits.std())
        yield (
            f"against float: best class the same on {self.agreeing} of {count}; logits (std {std:.2f}) off by "
            f"{np.sqrt(self._squares / count):.4f} rms, {max(self.errors):.4f} at most"
        )
        if self.near_ties:
            yield f"  the float model itself nearly ties on {', '.join(self.near_ties)}"
        if self.disagreements:
            yield f"  another best class on {', '.join(self.disagreements)}"
        if self.decisions:
            margin = f", at most {self.largest_margin:.2g} from the threshold" if self.flips else ""
            yield f"keep decisions: {self.flips} of {self.decisions} differ from float{margin}"
        if self.images.labels is not None:
            integer, floating = 100 * self.correct / count, 100 * self.correct_float / count
            yield f"accuracy: {integer:.2f}% in C-simulation, {floating:.2f}% in float"
