"""The notebook's figure: tokens against latency. matplotlib, which PYNQ's images have, and the runtime does without."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from host.measure import PAPER_TABLE_4_GMACS, PAPER_TABLE_4_MS, Measurement


def latency_figure(pruned: Measurement, baseline: Measurement | None = None) -> Figure:
    """One dot per number of tokens that images had left, larger for more images; lines for what does not vary.

    Tokens are the mean over the token selectors of the rows that go on behind each.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    label = pruned.label.replace("; ", "\n")
    axes.set_title(f"{pruned.model} on {pruned.board}\n{label}", fontsize=10)
    axes.set_xlabel(f"tokens behind a selector, mean of the selectors (of {pruned.tokens_before})")
    axes.set_ylabel("latency of an image, ms")
    timed = [entry for entry in pruned.by_tokens if entry["tokens"] and entry["latency_ms"] is not None]
    if timed:
        tokens = [float(np.mean(entry["tokens"])) for entry in timed]
        sizes = [20 + 20 * entry["images"] for entry in timed]
        axes.scatter(tokens, [entry["latency_ms"] for entry in timed], sizes, alpha=0.7, label=pruned.model)
    if baseline is not None and baseline.latency_ms is not None:
        _line(axes, baseline.latency_ms.median, "unpruned", "tab:gray", "-")
    paper = PAPER_TABLE_4_MS.get(pruned.model)
    if paper is not None:
        gmacs = PAPER_TABLE_4_GMACS[pruned.model]
        _line(axes, paper[0], f"paper, measured, unpruned, {gmacs[0]:.2f} GMACs", "tab:red", "--")
        _line(axes, paper[1], f"paper, measured, pruned to {gmacs[1]:.2f} GMACs", "tab:orange", "--")
    axes.set_xlim(0, pruned.tokens_before)
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # the legend's room
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, loc="upper right")
    return figure


def _line(axes: Axes, latency_ms: float, label: str, color: str, style: str) -> None:
    axes.axhline(latency_ms, color=color, linestyle=style, label=f"{label}, {latency_ms:.2f} ms")
