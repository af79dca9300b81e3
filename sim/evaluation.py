"""Figures of an evaluation: what each image gave, and what is told of all of them.

Enters: per model and image, the best class and the patches kept. Leaves: `ModelReport`s, for JSON and as a table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spvit.config import ModelConfig, PruningConfig
from spvit.console import Table
from spvit.cost import count_macs, macs_unit, num_units, tokens_per_stage

TOP = 5
ARITHMETIC = {"float": "float32", "brevitas": "16 bits, Brevitas", "integer": "16-bit integers", "csim": "C-simulation"}


@dataclass
class Outcomes:
    """What one model made of images, one row each.

    found    [images] best class
    best     [images, at most 5] the best classes, best first
    kept     [images, selectors] patches that live on
    digests  [images] of their logits: equal ones are of equal logits
    seconds  spent on them
    """

    found: list[int] = field(default_factory=list)
    best: list[list[int]] = field(default_factory=list)
    kept: list[list[int]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, logits: NDArray[np.float64], kept: NDArray[np.int64], seconds: float) -> None:
        """A batch: logits [images, classes], kept [images, selectors]."""
        self.found += logits.argmax(axis=1).tolist()
        self.best += np.argsort(-logits, axis=1, kind="stable")[:, :TOP].tolist()
        self.kept += kept.tolist()
        self.digests += [hashlib.sha256((row + 0.0).tobytes()).hexdigest() for row in logits]  # -0.0 is 0.0
        self.seconds += seconds

    def of(self, rows: Sequence[int]) -> Outcomes:
        """Of these images alone, in this order."""
        return Outcomes(
            [self.found[row] for row in rows],
            [self.best[row] for row in rows],
            [self.kept[row] for row in rows],
            [self.digests[row] for row in rows],
        )

    def extend(self, other: Outcomes) -> None:
        """Another process's images; processes work side by side."""
        self.found += other.found
        self.best += other.best
        self.kept += other.kept
        self.digests += other.digests
        self.seconds = max(self.seconds, other.seconds)


@dataclass(frozen=True)
class Spread:
    """How a quantity differs from image to image; p5 and p95 are the values at these percentiles."""

    mean: float
    std: float
    least: float
    p5: float
    median: float
    p95: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        p0, p5, p50, p95, p100 = np.percentile(values, [0, 5, 50, 95, 100], method="nearest")
        return cls(float(np.mean(values)), float(np.std(values)), *map(float, (p0, p5, p50, p95, p100)))


@dataclass(frozen=True)
class ClassReport:
    name: str
    images: int
    accuracy: float | None  # None: no images of this class


@dataclass(frozen=True)
class ModelReport:
    """One model on all images.

    images            how many
    accuracy          fraction of images whose best class is theirs
    top5_accuracy     fraction whose class is among the five best
    agreement_float   fraction with the float model's best class
    gmacs             of an image, by the tokens that it really kept
    tokens            per stage, before the first selector and after each: rows that the blocks process
    kept_fraction     per selector, mean fraction of the original patches
    """

    images: int
    accuracy: float
    top5_accuracy: float
    agreement_float: float | None
    gmacs: Spread
    tokens: tuple[Spread, ...]
    kept_fraction: tuple[float, ...]
    per_class: tuple[ClassReport, ...]
    seconds: float
    images_per_second: float


def report(
    model: ModelConfig,
    pruning: PruningConfig,
    outcomes: Outcomes,
    labels: Sequence[int],
    classes: Sequence[str],
    reference: Outcomes | None = None,
) -> ModelReport:
    """The figures of one model's outcomes.

    labels     of the images, in the outcomes' order
    reference  the float model's outcomes
    """
    found, truth, kept = np.array(outcomes.found), np.array(labels), np.array(outcomes.kept)
    right = found == truth
    stages = np.array([tokens_per_stage(model, pruning, counts) for counts in outcomes.kept])
    units = num_units(model, pruning)
    per_class = []
    for label, name in enumerate(classes):
        own = right[truth == label]
        per_class.append(ClassReport(name, len(own), float(own.mean()) if len(own) else None))
    return ModelReport(
        images=len(found),
        accuracy=float(right.mean()),
        top5_accuracy=float((np.array(outcomes.best) == truth[:, None]).any(axis=1).mean()),
        agreement_float=None if reference is None else float((found == np.array(reference.found)).mean()),
        gmacs=Spread.of([count_macs(model, pruning, counts).total / 1e9 for counts in outcomes.kept]),
        tokens=tuple(Spread.of(stage.tolist()) for stage in stages.T),
        kept_fraction=tuple((kept.mean(axis=0) / units).tolist()) if pruning.num_selectors else (),
        per_class=tuple(per_class),
        seconds=outcomes.seconds,
        images_per_second=len(found) / outcomes.seconds if outcomes.seconds else 0.0,
    )


def models_table(reports: dict[str, ModelReport], unpruned_gmacs: float, title: str) -> Table:
    """A row per model: accuracy, cost, tokens that are left."""
    scale, unit = macs_unit(1e9 * unpruned_gmacs)
    cost = (("mean cost", unit), ("of unpruned", "%"), ("speed", "images/s"))
    table = Table(title, "model", ("images", ("top-1", "%"), ("top-5", "%"), ("as float", "%"), *cost))
    for name, one in reports.items():
        agreement = "" if one.agreement_float is None else _percent(one.agreement_float)
        table.add_row(
            name, f"{one.images:,}", _percent(one.accuracy), _percent(one.top5_accuracy), agreement,
            f"{1e9 * one.gmacs.mean / scale:.4g}", f"{100 * one.gmacs.mean / unpruned_gmacs:.1f}",
            f"{one.images_per_second:.3g}",
        )  # fmt: skip
    return table


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"


def markdown(name: str, reports: dict[str, ModelReport], unpruned_gmacs: float, notes: Sequence[str]) -> str:
    """The figures as a table for a README.

    name   of the model
    notes  sentences below the table
    """
    scale, unit = macs_unit(1e9 * unpruned_gmacs)
    headings = ["model", "arithmetic", "images", "top-1", "top-5", unit, "of unpruned"]
    lines = [headings, ["---"] * 2 + ["---:"] * 5]
    for arithmetic, one in reports.items():
        lines.append(
            [
                f"`{name}`", ARITHMETIC[arithmetic], f"{one.images:,}", f"{one.accuracy:.2%}",
                f"{one.top5_accuracy:.2%}", f"{1e9 * one.gmacs.mean / scale:.3g}",
                f"{one.gmacs.mean / unpruned_gmacs:.1%}",
            ]
        )  # fmt: skip
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return text + "".join(f"\n{note}\n" for note in notes)


def tokens_table(one: ModelReport, locations: Sequence[int], name: str) -> Table:
    """A row per stage: how many tokens its blocks process, over the images."""
    columns = ("mean", "std", "least", "p5", "median", "p95", "worst")
    table = Table(f"tokens per image, {name}", "from block", columns)
    for first, spread in zip((0, *locations), one.tokens, strict=True):
        values = (spread.least, spread.p5, spread.median, spread.p95, spread.worst)
        table.add_row(str(first), f"{spread.mean:.1f}", f"{spread.std:.1f}", *(f"{value:.0f}" for value in values))
    return table


def classes_table(reports: dict[str, ModelReport], shown: int) -> Table:
    """A row per class, the worst ones first, at most `shown`."""
    first = next(iter(reports.values()))
    filled = [i for i, item in enumerate(first.per_class) if item.images]
    order = sorted(filled, key=lambda i: (min(one.per_class[i].accuracy or 0.0 for one in reports.values()), i))[:shown]
    worst = f"the {len(order)} worst of {len(filled)} classes" if len(order) < len(filled) else "classes, worst first"
    table = Table(worst, "class", ["images", *((name, "%") for name in reports)])
    for i in order:
        cells = (_percent(one.per_class[i].accuracy or 0.0) for one in reports.values())
        table.add_row(first.per_class[i].name, str(first.per_class[i].images), *cells)
    return table
