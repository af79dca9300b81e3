"""The paper's ablations on a small model, a table per question: `spvit ablation --data digits`.

Enters: a model with keep ratios, a data set, a recipe. Every variant starts from the same unpruned backbone, is trained
alike and given the cost of the model as it is, so that a table compares accuracies at equal MACs.
Leaves, in OUT: `rows/`, what is finished, so that an interrupted run goes on there; `ablation.json`, `ablation.md`.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from spvit import distributed
from spvit.budget import solve_keep
from spvit.calibration import calibrate_cost, kept_patches, mean_macs
from spvit.checkpoints import load_checkpoint, save_checkpoint
from spvit.config import ModelConfig, ModelSpec, resolve_model, to_table
from spvit.console import Console, stage
from spvit.cost import count_macs, count_parameters, num_units
from spvit.errors import ConfigError
from spvit.files import check_writable, is_sealed, read_json, seal, write_json, write_whole
from spvit.options import AblationOptions
from spvit.pruned_vit import SPViT
from spvit.training.backbone import train_backbone
from spvit.training.data import InMemory, load_data, sample
from spvit.training.loop import Run
from spvit.training.measure import accuracy
from spvit.training.pruning import prune, with_selectors
from spvit.training.recipe import Recipe, resolve_recipe
from spvit.training.state import Journal

ROOT = Path("build/ablation")
CHANNEL_TOLERANCE = 0.03  # channels are few: their cost comes in steps
QUICK_IMAGES = 64


@dataclass(frozen=True)
class Variant:
    """One row: what it changes of the model as it is; unpruned ones keep every token."""

    label: str
    pruning: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    unpruned: bool = False

    def of(self, spec: ModelSpec) -> ModelSpec:
        """The model that it is, with the keep ratios that give it the cost of `spec`. Raises ConfigError."""
        model = replace(spec.model, **self.model)
        if self.unpruned:
            return replace(spec, model=model, pruning=spec.pruning.without())
        pruning = replace(spec.pruning, keep=(), **self.pruning)

        def cost(counts: Sequence[float]) -> float:
            return count_macs(model, pruning, counts).total

        limit = count_macs(spec.model, spec.pruning).total
        return replace(
            spec, model=model, pruning=replace(pruning, keep=solve_keep(model, pruning, cost, limit, "MACs"))
        )


@dataclass(frozen=True)
class Question:
    name: str  # for --tables and files
    title: str
    variants: tuple[Variant, ...]


def questions(spec: ModelSpec) -> tuple[Question, ...]:
    """Every table; its first variant, or "as it is", is the model itself."""
    own = Variant("as it is")
    return (
        Question("heads", "Scores of the heads (paper, Table 5)", (
            Variant("one head of all channels", {"heads": "single"}),
            Variant("several heads, averaged", {"heads": "average"}),
            replace(own, label="several heads, weighted by the attention branch (as it is)"),
            Variant("the same, a scorer for each head", {"share_heads": False}),
        )),
        Question("places", "Places of the selectors (paper, Table 6)", _places(spec)),
        Question("package", "What becomes of the others (paper, Table 7)", (
            replace(own, label="a package token each time (as it is)"),
            Variant("one package token, added up", {"package": "add"}),
            Variant("nothing", {"package": "none"}),
        )),
        Question("scorer", "Layers and activations of the selector (paper, Table 10)", (
            replace(own, label="MLP + GELU (as it is)"),
            Variant("MLP + Hardswish", {"activation": "hardswish"}),
            Variant("Conv1d of 3 + ReLU", {"scorer": "conv3", "activation": "relu"}),
            Variant("Conv1d of 3 + GELU", {"scorer": "conv3"}),
            Variant("Conv1d of 3 + Hardswish", {"scorer": "conv3", "activation": "hardswish"}),
            Variant("Conv1d of 1 + GELU", {"scorer": "conv1"}),
        )),
        Question("method", "What is pruned, and by what (paper, Table 11)", (
            Variant("unpruned", unpruned=True),
            Variant("tokens at random", {"method": "random"}),
            # all at once: step by step, the last blocks would be left with hardly any
            Variant("channels (structured)", {"method": "structured", "locations": spec.pruning.locations[:1]}),
            replace(own, label="token selector (as it is)"),
        )),
        Question("pooling", "With and without a class token (paper, Table 12)", (
            Variant("class token, unpruned", unpruned=True),
            replace(own, label="class token (as it is)"),
            Variant("class token, no package", {"package": "none"}),
            Variant("mean of the tokens, unpruned", model={"pooling": "mean"}, unpruned=True),
            Variant("mean of the tokens", model={"pooling": "mean"}),
            Variant("mean of the tokens, no package", {"package": "none"}, {"pooling": "mean"}),
        )),
        Question("rivals", "Rivals with the same packages and thresholds", (
            replace(own, label="token selector (as it is)"),
            Variant("class token's attention (as EViT)", {"method": "class_attention"}),
            Variant("token selector, proportional attention (as ToMe)", {"proportional_attention": True}),
            Variant("class token's attention, proportional attention",
                    {"method": "class_attention", "proportional_attention": True}),
        )),
    )  # fmt: skip


def _places(spec: ModelSpec) -> tuple[Variant, ...]:
    """As Table 6: earlier, later, one less, one more."""
    first, *middle, last = spec.pruning.locations
    places = {
        (first, *middle, last): "as it is",
        (max(first - 1, 0), *middle, last): "the first one earlier",
        (first, *middle, min(last + 1, spec.model.depth - 1)): "the last one later",
        (*middle, last): "without the first",
        (first, *middle, last, min(last + 1, spec.model.depth - 1)): "one more",
    }
    return tuple(
        Variant(f"before {', '.join(map(str, places))} ({what})", {"locations": places})
        for places, what in places.items()
        if list(places) == sorted(set(places))
    )


@dataclass(frozen=True)
class Row:
    """What a variant reached.

    accuracy    of the test images, per seed
    gmacs       mean over the test images, per seed
    kept        mean fractions of the original patches (or channels) of the test images, the last seed's
    parameters  all of them
    """

    accuracy: tuple[float, ...]
    gmacs: tuple[float, ...]
    kept: tuple[float, ...]
    parameters: int


@dataclass(frozen=True)
class Ablation:
    """One model's rows; finished ones are on disk.

    spec    the model as it is
    data    what DATA= says
    seeds   trainings per row
    out     folder of rows and backbones
    quick   few images and one epoch
    """

    spec: ModelSpec
    recipe: Recipe
    data: str
    seeds: int
    out: Path
    quick: bool
    device: torch.device

    def row(self, variant: Variant) -> Row:
        """The variant's row: from disk if it is whole and of these settings; else trained now. Raises UserErrors."""
        spec = variant.of(self.spec)
        identity = self._identity(spec)
        path = self.out / "rows" / f"{_digest(identity)}.json"
        if is_sealed(path):
            done = read_json(path, "remove it")
            return Row(tuple(done["accuracy"]), tuple(done["gmacs"]), tuple(done["kept"]), done["parameters"])
        row = self._train(spec)
        write_json(path, {**asdict(row), "of": identity})
        seal(path)
        return row

    def _identity(self, spec: ModelSpec) -> dict[str, Any]:
        """Everything that decides a row."""
        return {
            "model": to_table(spec.model),
            "pruning": to_table(spec.pruning),
            "recipe": self.recipe.identity,
            "data": self.data,
            "seeds": self.seeds,
            "quick": self.quick,
        }

    def _train(self, spec: ModelSpec) -> Row:
        found: list[float] = []
        costs: list[float] = []
        kept = torch.zeros(1, spec.pruning.num_selectors)
        for seed in range(self.recipe.seed, self.recipe.seed + self.seeds):
            run = self._run(spec.model, replace(self.recipe, seed=seed))
            net = self._teacher(spec, run)
            if spec.pruning.num_selectors:
                teacher, net = net, with_selectors(net, spec.pruning, seed)
                prune(net, teacher, run)
                self._calibrate(net, run)
            kept = kept_patches(net, sample(run.data.test, len(run.data.test)).images)
            found.append(accuracy(net, run.data.test))
            costs.append(mean_macs(net, kept) / 1e9)
        fractions = (kept.double().mean(dim=0) / torch.tensor(num_units(spec.model, spec.pruning))).tolist()
        return Row(tuple(found), tuple(costs), tuple(fractions), count_parameters(spec.model, spec.pruning).total)

    def _run(self, model: ModelConfig, recipe: Recipe) -> Run:
        data = load_data(self.data, model, recipe)
        if self.quick:
            data = replace(data, training=_few(data.training, recipe), test=_few(data.test, recipe))
        return Run(data, recipe, Journal(None, {}), self.device)

    def _teacher(self, spec: ModelSpec, run: Run) -> SPViT:
        """The unpruned backbone, trained once for all rows that share it."""
        identity = self._identity(replace(spec, pruning=spec.pruning.without())) | {"seeds": run.recipe.seed}
        identity["pruning"] = {}
        path = self.out / "backbones" / f"{_digest(identity)}.safetensors"
        if is_sealed(path):
            return load_checkpoint(path, spec.model, spec.pruning.without()).to(self.device)
        net = train_backbone(spec, run)
        save_checkpoint(path, net)
        seal(path)
        return net

    def _calibrate(self, net: SPViT, run: Run) -> None:
        images = sample(run.data.training, run.recipe.calibration_images).images
        tolerance = max(run.recipe.cost_tolerance, CHANNEL_TOLERANCE if net.pruning.method == "structured" else 0)
        target = count_macs(self.spec.model, self.spec.pruning).total

        def cost(counts: Sequence[float]) -> float:
            return count_macs(net.config, net.pruning, counts).total

        calibrate_cost(net, images, net.pruning.keep, cost, target, 1.0 if self.quick else tolerance)


def _few(source: Any, recipe: Recipe) -> InMemory:
    """A few evenly spaced images of a part of the data."""
    few = sample(source, QUICK_IMAGES)
    return InMemory(few.images, few.labels, recipe.augment == "jitter")


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def document(ablation: Ablation, tables: Mapping[str, Sequence[tuple[str, Row]]]) -> dict[str, Any]:
    """`ablation.json`. tables  labels and rows, by question"""
    return {
        "model": ablation.spec.model.name, "data": ablation.data, "seeds": ablation.seeds,
        "recipe": asdict(ablation.recipe),
        "tables": {name: [{"label": label, **asdict(row)} for label, row in rows] for name, rows in tables.items()},
    }  # fmt: skip


def markdown(question: Question, rows: Sequence[Row]) -> str:
    """A table for people: accuracy, mean cost, parameters, what is kept."""
    lines = [
        f"## {question.title}", "",
        "| variant | accuracy | MMACs | parameters | kept fractions |", "|---|---:|---:|---:|---|",
    ]  # fmt: skip
    for variant, row in zip(question.variants, rows, strict=True):
        kept = ", ".join(f"{fraction:.3f}" for fraction in row.kept) or "all"
        lines.append(
            f"| {variant.label} | {_mean(row.accuracy, 100, 2)} % | {_mean(row.gmacs, 1e3, 2)} | "
            f"{row.parameters:,} | {kept} |"
        )
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float], scale: float, digits: int) -> str:
    """The mean, and from two seeds on the standard deviation."""
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def chosen_questions(spec: ModelSpec, tables: str | None) -> list[Question]:
    """The tables asked for. Raises ConfigError."""
    if not spec.pruning.keep or spec.pruning.num_selectors < 2:
        raise ConfigError(
            f"{spec.model.name}: the ablations compare variants at the cost of the model's own keep ratios; "
            "choose a model with two selectors or more and their keep"
        )
    every = questions(spec)
    wanted = None if tables is None else tables.split(",")
    for name in wanted or ():
        if name not in [question.name for question in every]:
            raise ConfigError(f"--tables {tables}: {name} is none of {', '.join(question.name for question in every)}")
    return [question for question in every if wanted is None or question.name in wanted]


def run(options: AblationOptions) -> None:
    console = Console()
    spec = resolve_model(options.model)
    asked = chosen_questions(spec, options.tables)
    recipe = resolve_recipe(spec.model.name, options.recipe, options.changes)
    if options.quick:
        recipe = replace(recipe, backbone_epochs=1, pruning_epochs=1, frozen_epochs=0)
    load_data(options.data, spec.model, recipe)  # refused before any work
    out = options.out or ROOT / spec.model.name
    check_writable(out)
    device = distributed.start(options.device)
    ablation = Ablation(spec, recipe, options.data, options.seeds, out, options.quick, device)
    start, found, texts = time.monotonic(), {}, []
    total = sum(len(question.variants) for question in asked)
    with stage(f"training {total} variants, or reading those that were trained before", total) as bar:
        for question in asked:
            rows = []
            for variant in question.variants:
                bar.detail(variant.label)
                rows.append(ablation.row(variant))
                bar.advance()
            found[question.name] = list(zip((variant.label for variant in question.variants), rows, strict=True))
            texts.append(markdown(question, rows))
    write_json(out / "ablation.json", document(ablation, found))
    write_whole(out / "ablation.md", "\n".join(texts))
    console.print("\n".join(texts))
    console.print(f"{out}/ablation.md, ablation.json: {time.monotonic() - start:.0f} s")
