"""Pictures of what a model looks at: `spvit visualize --model deit_digits --out pictures`.

Enters: a model, its weights, images; for the last picture labelled ones. Leaves, in OUT:

    tokens.png      the patches kept after each selector, with packages and without (paper, Figure 9)
    heads.png       what each head finds informative: the class token's attention, the selector's scores (Figure 10)
    tradeoff.png    accuracy against cost over thresholds, with packages and without (Figure 5); tradeoff.json
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from spvit.calibration import calibrate_thresholds, kept_patches, mean_macs, settle_thresholds
from spvit.checkpoint_options import (
    CheckpointOptions,
    ThresholdRequest,
    checkpoint_options,
    threshold_request,
)
from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import ModelSpec, PruningConfig, resolve_model, shipped_weights
from spvit.console import Console, stage
from spvit.cost import count_macs, macs_unit, num_units
from spvit.errors import ConfigError
from spvit.figures import write_figure
from spvit.files import check_writable, write_json
from spvit.images.drawing import veil_places
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import ImageSet, load_images
from spvit.initialisation import seeded
from spvit.options import VisualizeOptions
from spvit.pruned_vit import SPViT
from spvit.training.backbone import without_selectors
from spvit.training.data import Data, load_data, sample
from spvit.training.measure import accuracy
from spvit.training.recipe import resolve_recipe
from spvit.vit import attention_weights

ROOT = Path("build/pictures")
POWERS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)  # of the model's own keep ratios, for the sweep
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#eaeef2",
    "legend.frameon": False,
}
BLUE, ORANGE, GREY, RED = "#0072b2", "#d55e00", "#6e7781", "#b2182b"
RANDOM = "seeded random weights"
HEAT = "inferno"


def load(
    spec: ModelSpec,
    checkpoint: Path | None,
    images: Tensor,
    request: ThresholdRequest | None = None,
    seed: int = 0,
    options: CheckpointOptions | None = None,
) -> tuple[SPViT, str]:
    """The float model with its thresholds, and what its weights and thresholds are, in words.

    checkpoint  None: seeded random weights
    images      (B, in_chans, S, S) to calibrate with, where the thresholds are not the file's own
    """
    found = None
    if checkpoint is None:
        net, source = seeded(spec.model, spec.pruning, seed), RANDOM
    else:
        net, found = load_checkpoint_with_report(checkpoint, spec.model, spec.pruning, options)
        source = str(found)
    thresholds = settle_thresholds(net, images, request or ThresholdRequest(), found)
    return net, f"{source}; thresholds: {thresholds}"


def with_policy(net: SPViT, package: str) -> SPViT:
    """The same weights and thresholds under another package policy."""
    refill = "zero" if package == "none" else net.pruning.refill
    pruning = replace(net.pruning, package=package, refill=refill, proportional_attention=False)
    other = SPViT(net.config, pruning)
    other.load_state_dict(net.state_dict())
    return other.eval()


@torch.no_grad()
def draw_tokens(net: SPViT, pixels: NDArray[np.uint8], images: Tensor, names: Sequence[str]) -> Figure:
    """Figure 9: for each image a row without packages and one with, a panel per selector."""
    stages = net.pruning.num_selectors
    nets = {"no package": with_policy(net, "none")}
    if net.pruning.package != "none":
        nets["packages" if net.pruning.package == "append" else "one package"] = net
    rows = len(images) * len(nets)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.7 * (stages + 1) + 0.6, 1.85 * rows + 0.3), layout="constrained")
        grid = figure.subplots(rows, stages + 1, squeeze=False)
        for row, axes in enumerate(grid):
            image, (label, one) = row // len(nets), list(nets.items())[row % len(nets)]
            records = one.forward_gathered(images[image : image + 1]).records
            colours = np.repeat(pixels[image], 3 // pixels.shape[-1], axis=2)
            _show(axes[0], colours, f"{names[image]}" if row % len(nets) == 0 else "")
            axes[0].set_ylabel(label)
            for axis, location, record in zip(axes[1:], net.pruning.locations, records, strict=True):
                kept = record.keep[0].nonzero()[:, 0].numpy()
                share = len(kept) / record.keep.shape[1]
                _show(
                    axis,
                    veil_places(colours, kept, math.isqrt(record.keep.shape[1])),
                    f"block {location}: {share:.0%} kept",
                )
    return figure


@torch.no_grad()
def draw_heads(net: SPViT, pixels: NDArray[np.uint8], images: Tensor, names: Sequence[str]) -> Figure:
    """Figure 10: for each image, a row of the class token's attention in the last block of the unpruned model, and one
    of the scores (Eq. 3) of the first selector; a panel per head.
    """
    maps = list[tuple[str, Tensor]]()
    if net.config.pooling == "class":
        maps.append(("class attention,\nlast block", class_attention(net, images)))
    if net.pruning.num_selectors and net.pruning.method == "selector" and net.pruning.heads != "single":
        maps.append((f"selector's score,\nblock {net.pruning.locations[0]}", head_scores(net, images)))
    if not maps:
        raise ConfigError(f"{net.config.name}: it has neither a class token nor a selector's heads; nothing to draw")
    rows = [(label, heat[image]) for image in range(len(images)) for label, heat in maps]
    with mpl.rc_context(STYLE):
        heads = max(len(heat) for _, heat in rows)
        figure = Figure(figsize=(1.7 * (heads + 1) + 1.2, 1.85 * len(rows) + 0.3), layout="constrained")
        grid = figure.subplots(len(rows), heads + 1, squeeze=False)
        for row, (axes, (label, heat)) in enumerate(zip(grid, rows, strict=True)):
            image = row // len(maps)
            colours = np.repeat(pixels[image], 3 // pixels.shape[-1], axis=2)
            _show(axes[0], colours, names[image] if row % len(maps) == 0 else "")
            axes[0].set_ylabel(label)
            shown: Any = None
            scores = label.startswith("selector")
            for head, axis in enumerate(axes[1:]):
                if head >= len(heat):  # stages may have other numbers of them
                    axis.set_axis_off()
                    continue
                values = heat[head].unflatten(0, (math.isqrt(heat.shape[1]), -1)).numpy()
                largest = 1.0 if scores else float(heat.max())
                shown = _show_heat(axis, values, colours, largest)
                _bare(axis, f"head {head}" if row % len(maps) == 0 else "")
            figure.colorbar(shown, ax=axes[-1], shrink=0.85, label="score" if scores else "attention")
    return figure


def class_attention(net: SPViT, images: Tensor) -> Tensor:
    """What the class token attends to in the last block of the unpruned model, (B, H, N)."""
    plain, seen = without_selectors(net), list[Tensor]()
    attention, first = plain.blocks[-1].attn, plain.config.num_prefix_tokens
    attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plain.forward_masked(images)
    qkv = attention.qkv(seen[0]).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return attention_weights(qkv[0], qkv[1])[:, :, 0, first:]


def head_scores(net: SPViT, images: Tensor) -> Tensor:
    """Each head's score of Eq. 3 in the first selector, (B, H, N)."""
    parts = list[Tensor]()
    hooks = [
        scorer.register_forward_hook(lambda _, inputs, result: parts.append(result))
        for scorer in net.selectors[0].scorers
    ]
    net.eval().forward_masked(images)
    for hook in hooks:
        hook.remove()
    return torch.cat(parts, dim=1).sigmoid()


def own_macs(net: SPViT, data: Data) -> float:
    """Cost of an image with the net's thresholds: as they were made for, or the mean over test images."""
    if net.pruning.keep:
        return count_macs(net.config, net.pruning).total
    return mean_macs(net, kept_patches(net, sample(data.test, 1024).images))


def sweep(net: SPViT, data: Data, keep_ratios: Sequence[float] | None = None) -> dict[str, list[dict[str, Any]]]:
    """Accuracy and mean cost on the test images at several thresholds, with packages and without.

    The kept fractions are keep_ratios (None: the net's own) to a power; thresholds are calibrated on training images.
    """
    calibration = sample(data.training, 512).images
    test = sample(data.test, 1024).images
    policies = ["none"] if net.pruning.package == "none" else [net.pruning.package, "none"]
    points: dict[str, list[dict[str, Any]]] = {}
    units = torch.tensor(num_units(net.config, net.pruning))
    with stage("accuracy against cost, at several thresholds", len(policies) * len(POWERS)) as bar:
        for policy in policies:
            one, points[policy] = with_policy(net, policy), []
            for power in POWERS:
                keep = tuple(fraction**power for fraction in keep_ratios or net.pruning.keep)
                bar.advance()
                try:
                    calibrate_thresholds(one, calibration, keep)
                except ConfigError:  # a threshold below what fixed point can tell from zero: the end of the curve
                    continue
                kept = kept_patches(one, test)
                points[policy].append(
                    {
                        "keep": (kept.double().mean(dim=0) / units).tolist(),
                        "thresholds": one.thresholds.tolist(),
                        "gmacs": mean_macs(one, kept) / 1e9,
                        "accuracy": accuracy(one, data.test),
                    }
                )
    plain = without_selectors(net)
    unpruned = count_macs(plain.config, plain.pruning).total / 1e9
    points["unpruned"] = [{"keep": [], "thresholds": [], "gmacs": unpruned, "accuracy": accuracy(plain, data.test)}]
    return points


def draw_tradeoff(points: dict[str, list[dict[str, Any]]], own_gmacs: float, title: str) -> Figure:
    """Figure 5: accuracy over cost. own_gmacs marks the model as it is."""
    labels = {"append": "a package each time", "add": "one package", "none": "no package"}
    largest = points["unpruned"][0]["gmacs"]
    macs, unit = macs_unit(1e9 * largest)
    scale = 1e9 / macs
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        axes.grid(True)
        axes.set_axisbelow(True)
        for (policy, label), colour, marker in zip(labels.items(), (BLUE, BLUE, ORANGE), "ssD", strict=True):
            ordered = sorted(points.get(policy, ()), key=lambda point: point["gmacs"])
            if ordered:
                cost, right = [scale * p["gmacs"] for p in ordered], [100 * p["accuracy"] for p in ordered]
                axes.plot(cost, right, color=colour, marker=marker, markersize=4.5, linewidth=1.6, label=label)
        best = points["unpruned"][0]
        axes.plot(scale * best["gmacs"], 100 * best["accuracy"], "*", color=GREY, markersize=12, label="unpruned")
        axes.axhline(100 * best["accuracy"], color=GREY, linewidth=0.8, linestyle="dashed")
        axes.axvline(scale * own_gmacs, color=GREY, linewidth=0.8, linestyle="dotted", label="its own thresholds")
        axes.set(xlabel=f"mean {unit} of an image", ylabel="accuracy, %", title=title)
        axes.legend(loc="lower right")
    return figure


def mark_random(figure: Figure, name: str, source: str) -> None:
    """Say above a figure that its weights are random, where they are.

    source  of the weights, as `load` says it
    """
    if source.startswith(RANDOM):
        text = f"{name} with {RANDOM}: says nothing of a trained model"
        figure.suptitle(text, color=RED, fontsize=10, fontweight="bold")


def _show(axis: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    axis.imshow(pixels, interpolation="nearest")
    _bare(axis, title)


def _show_heat(axis: Axes, values: NDArray[np.float64], pixels: NDArray[np.uint8], largest: float) -> Any:
    """A value per patch; over the image in grey where a patch shows more than a pixel. Returns what a bar explains."""
    if values.shape == pixels.shape[:2]:
        return axis.imshow(values, cmap=HEAT, vmin=0.0, vmax=largest)
    side = pixels.shape[0]
    axis.imshow(pixels.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    extent = (-0.5, side - 0.5, side - 0.5, -0.5)
    return axis.imshow(values, cmap=HEAT, vmin=0.0, vmax=largest, alpha=0.6, extent=extent, interpolation="bilinear")


def _bare(axis: Axes, title: str) -> None:
    axis.set_title(title)
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)


def chosen_images(source: str | None, model: Any, count: int) -> ImageSet:
    """At most `count` images, evenly spaced; None: scikit-learn's digits or photographs, whichever fit."""
    if source is None and model.in_chans == 1:
        source = "digits:test"
    every = load_images(source, Preprocessing.from_model(model))
    places = np.unique(np.linspace(0, len(every) - 1, count).round().astype(int))
    return ImageSet(tuple(every.names[i] for i in places), every.pixels[places], None)


def run(options: VisualizeOptions) -> None:
    spec = resolve_model(options.model, options.keep)
    require_tokens(spec.model.name, spec.pruning)
    request = threshold_request(options, spec.pruning)
    out = options.out or ROOT / spec.model.name
    check_writable(out)
    data = _labelled(spec, options.data)
    chosen = chosen_images(options.images, spec.model, options.count)
    images = torch.from_numpy(Preprocessing.from_model(spec.model).normalise(chosen.pixels)).float()
    checkpoint = options.ckpt or shipped_weights(options.model)
    net, source = load(spec, checkpoint, images, request, options=checkpoint_options(options))
    console = Console()
    console.print(f"weights: {source}")
    figures = {
        "tokens.png": draw_tokens(net, chosen.pixels, images, chosen.names),
        "heads.png": draw_heads(net, chosen.pixels, images, chosen.names),
    }
    points = None
    if data is not None:
        own = own_macs(net, data) / 1e9
        points = sweep(net, data, spec.pruning.keep)
        title = f"{spec.model.name} on {data.name}, {len(data.test)} test images"
        figures["tradeoff.png"] = draw_tradeoff(points, own, title)
    for figure in figures.values():
        mark_random(figure, spec.model.name, source)
    _write(out, figures, points)
    console.print(f"{out}: {', '.join(figures)}")
    if data is None:
        console.print("accuracy against cost: give DATA=, a folder with train/<class>/ and val/<class>/")


def require_tokens(name: str, pruning: PruningConfig) -> None:
    if not pruning.num_selectors:
        raise ConfigError(
            f"{name}: it has no selectors, so there are no kept tokens to draw; set locations, not KEEP=none"
        )
    if pruning.method == "structured":
        raise ConfigError(f'{name}: method="structured" prunes channels, so there are no kept tokens to draw')


def _labelled(spec: ModelSpec, name: str | None) -> Data | None:
    """The data of the last picture. Raises ConfigError, ImageError."""
    fits_digits = (spec.model.img_size, spec.model.in_chans, spec.model.num_classes) == (8, 1, 10)
    if name is None and not fits_digits:
        return None
    if not spec.pruning.keep:
        raise ConfigError(f"{spec.model.name}: keep is not set; give KEEP=, from which the thresholds are varied")
    recipe = replace(resolve_recipe(spec.model.name), augment="none", workers=0)
    return load_data(name or "digits", spec.model, recipe)


def _write(out: Path, figures: dict[str, Figure], points: dict[str, Any] | None) -> None:
    for name, figure in figures.items():
        write_figure(out / name, figure)
    if points is not None:
        write_json(out / "tradeoff.json", points)
