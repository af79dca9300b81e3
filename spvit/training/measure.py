"""What a trained model reaches: accuracy, cost, kept tokens. For people and for `train.json`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from spvit import distributed
from spvit.calibration import kept_patches, mean_cost
from spvit.console import Table, track
from spvit.cost import count_macs, num_units
from spvit.pruned_vit import SPViT
from spvit.training.budget import Budget
from spvit.training.data import INFERENCE_BATCH, Data, InMemory, Source, sample

SAMPLE = 1024


@torch.no_grad()
def accuracy(net: SPViT, source: Source) -> float:
    """Fraction of the images whose class is right, as inference finds it; each process looks at its share."""
    net.eval()
    device = net.pos_embed.device
    own = range(distributed.rank(), len(source), distributed.world_size())
    right_of_total = torch.zeros(2, dtype=torch.float64, device=device)
    batches, shown = math.ceil(len(own) / INFERENCE_BATCH), distributed.is_first()
    for images, labels in track(source.views(own), f"evaluating {len(source):,} images", batches, shown):
        found = net.forward_masked(images.to(device)).logits.argmax(dim=1)
        right_of_total += right_of_total.new_tensor([(found.cpu() == labels).sum(), len(labels)])
    right, total = distributed.sum_over_processes(right_of_total).tolist()
    return right / total


@dataclass(frozen=True)
class Kept:
    """What images keep after each selector, as fractions of the original patches."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]  # standard, from image to image
    least: tuple[float, ...]
    most: tuple[float, ...]

    @staticmethod
    def of(kept: Tensor, units: Sequence[int]) -> "Kept":
        """kept  patches (B, selectors), of so many"""
        values = kept.double() / torch.tensor(units)
        mean = values.mean(0)
        parts = (mean, (values - mean).square().mean(0).sqrt(), values.amin(0), values.amax(0))
        return Kept(*(tuple(part.tolist()) for part in parts))


@dataclass(frozen=True)
class Part:
    """One part of the data, seen by inference.

    macs  mean over the images
    cost  mean over the images, in the budget's unit
    """

    images: int
    unpruned_accuracy: float
    accuracy: float
    macs: float
    cost: float
    kept: Kept


@dataclass(frozen=True)
class Result:
    """A training's outcome.

    target     what the mean cost of the training images should be, in the budget's unit
    tolerance  how far from it it may be, as a fraction
    """

    model: str
    locations: tuple[int, ...]
    keep: tuple[float, ...]
    unit: str
    target: float
    tolerance: float
    unpruned_macs: float
    parts: dict[str, Part]
    unreadable: tuple[str, ...] = ()

    @property
    def as_json(self) -> dict[str, object]:
        return asdict(self)

    def tables(self) -> list[Table]:
        """For people: accuracy and cost, and what the selectors keep."""
        accuracy = (("unpruned", "accuracy, %"), ("pruned", "accuracy, %"))
        reached = Table(self.model, "images", (*accuracy, ("MACs", "change, %"), ("mean cost", self.unit)))
        for name, part in self.parts.items():
            reached.add_row(
                name, f"{100 * part.unpruned_accuracy:.2f}", f"{100 * part.accuracy:.2f}",
                f"{100 * (part.macs / self.unpruned_macs - 1):+.1f}", f"{part.cost:.5g}",
            )  # fmt: skip
        if not self.locations:
            return [reached]
        kept = Table("kept patches, ± from image to image", "before block", [(name, "%") for name in self.parts])
        for place, location in enumerate(self.locations):
            cells = (
                f"{100 * part.kept.mean[place]:.1f} ± {100 * part.kept.deviation[place]:.1f}"
                for part in self.parts.values()
            )
            kept.add_row(str(location), *cells)
        return [reached, kept]

    def lines(self) -> list[str]:
        """What is to be said below them."""
        lines = []
        if self.locations:
            miss = self.parts["training"].cost / self.target - 1
            lines.append(f"mean cost of the training images {miss:+.2%} from the target, {self.target:.5g} {self.unit}")
            if abs(miss) > self.tolerance:
                lines.append(
                    f"that is beyond {self.tolerance:.2%}: many tokens score alike, or next to nothing; more epochs "
                    "may part them"
                )
        if self.unreadable:
            lines.append(
                f"{len(self.unreadable)} images could not be read and were skipped: {', '.join(self.unreadable)}"
            )
        return lines


def measure(net: SPViT, teacher: SPViT, data: Data, calibration: InMemory, budget: Budget, tolerance: float) -> Result:
    """What the net reaches on the images that set its thresholds, and on all test images.

    Costs and tokens of many test images are those of evenly spaced ones.
    """
    parts = {}
    for name, source in (("training", calibration), ("test", data.test)):
        kept = kept_patches(net, sample(source, max(len(calibration), SAMPLE)).images)
        parts[name] = Part(
            len(source),
            accuracy(teacher, source),
            accuracy(net, source),
            mean_cost(kept, lambda counts: count_macs(net.config, net.pruning, counts).total),
            mean_cost(kept, budget.cost),
            Kept.of(kept, num_units(net.config, net.pruning)),
        )
    unpruned = count_macs(net.config, net.pruning.without()).total
    return Result(
        net.config.name,
        net.pruning.locations,
        net.pruning.keep,
        budget.unit,
        budget.limit,
        tolerance,
        unpruned,
        parts,
        distributed.names_of_all(data.unreadable),
    )
