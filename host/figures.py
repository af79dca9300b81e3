"""The notebook's figure: tokens against latency. matplotlib, which PYNQ's images have, and the runtime does without."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from host.measure import PAPER_TABLE_4_MS, Measurement


def latency_figure(pruned: Measurement, baseline: Measurement | None = None) -> Figure:
    """One dot per number of tokens that images had left, larger for more images; lines for what does not vary.

    Tokens are the mean over the token selectors of the rows that go on behind each.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(f"{pruned.model} on {pruned.board}\n{pruned.label}", fontsize=10)
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
        _line(axes, paper[0], "paper, measured, unpruned", "tab:red", "--")
        _line(axes, paper[1], "paper, measured, pruned", "tab:orange", "--")
    axes.set_xlim(0, pruned.tokens_before)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)
    return figure


def _line(axes: Axes, latency_ms: float, label: str, color: str, style: str) -> None:
    axes.axhline(latency_ms, color=color, linestyle=style, label=f"{label}, {latency_ms:.2f} ms")
