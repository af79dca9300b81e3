"""The notebook's figure shows what was measured, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from host.figures import latency_figure
from host.measure import LABELS, RANDOM, Measurement, Summary

ENTRIES = [
    {"tokens": [100, 50], "images": 3, "latency_ms": 1.5},
    {"tokens": [120, 90], "images": 1, "latency_ms": 1.75},
]


def measurement(model="deit_t", kind="estimate", by_tokens=ENTRIES, latency_ms=None):
    return Measurement(
        kind, model, "zcu102", "d" * 64, "e" * 64, 200.0, 200.0, 4, 0, 4, True, 197, latency_ms, by_tokens=by_tokens
    )


def drawn(figure):
    (axes,) = figure.axes
    figure.canvas.draw()
    dots = [offset.tolist() for collection in axes.collections for offset in collection.get_offsets()]
    lines = {line.get_label(): line.get_ydata()[0] for line in axes.get_lines()}
    return axes.get_title(), dots, lines


def test_dots_lines_and_label():
    unpruned = measurement(latency_ms=Summary(*[2.5] * 6), by_tokens=[{"tokens": [], "images": 4, "latency_ms": 2.5}])
    title, dots, lines = drawn(latency_figure(measurement(), unpruned))
    assert title == f"deit_t on zcu102\n{LABELS['estimate']}"
    assert dots == [[75, 1.5], [105, 1.75]]
    assert lines == {
        "unpruned, 2.50 ms": 2.5, "paper, measured, unpruned, 1.25 GMACs, 8.81 ms": 8.81,
        "paper, measured, pruned to 0.90 GMACs, 5.60 ms": 5.60,
    }  # fmt: skip


def test_random_weights_are_said_above():
    random = replace(measurement(), trained=False)
    assert drawn(latency_figure(random))[0] == f"deit_t on zcu102\n{LABELS['estimate']}\n{RANDOM}"


@pytest.mark.parametrize("by_tokens", [[], [{"tokens": [9], "images": 1, "latency_ms": None}]])
def test_without_times_nothing_is_drawn(by_tokens):
    assert drawn(latency_figure(measurement("micro", "none", by_tokens)))[1:] == ([], {})
