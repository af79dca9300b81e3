"""Pictures of a training, written beside its weights."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from spvit.figures import write_figure
from spvit.training.progressive import Step


def plot_similarity(similarity: Sequence[float], path: Path) -> None:
    """Figure 4: the CKA between the final class token and each block's other tokens."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(similarity) + 1), similarity, marker="o")
    axes.set(xlabel="block", ylabel="CKA with the final class token", ylim=(0, 1))
    axes.set_xticks(range(1, len(similarity) + 1))
    write_figure(path, figure)


def plot_progress(steps: Sequence[Step], phases: Sequence[int], path: Path) -> None:
    """Figure 6: pruned fraction and accuracy as selectors come in, from the last block to the first.

    phases  the locations whose selectors stay
    """
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    ordered = sorted(steps, key=lambda step: step.location)
    locations = [step.location for step in ordered]
    axes.bar(locations, [step.rate for step in ordered], color="tab:blue", alpha=0.6)
    axes.set(xlabel="selector before block", ylabel="fraction of the patches pruned", ylim=(0, 1))
    axes.set_xticks(locations)
    for location in phases:
        axes.axvline(location - 0.5, color="black", linestyle="dashed", linewidth=1)
    beside = axes.twinx()
    beside.plot(locations, [step.accuracy for step in ordered], color="tab:red", marker="o")
    beside.set_ylabel("accuracy", color="tab:red")
    write_figure(path, figure)
