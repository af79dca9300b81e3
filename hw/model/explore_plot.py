"""The plot of `hw.model.explore`: latency against DSPs, each engine a dot, the front of those with head-room a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hw.architecture import Architecture
from hw.model.charts import BLUE, GREY, INK, ORANGE, PAPER, chart, mark_decades, standalone
from hw.model.resources import HEADROOM
from hw.target import Target

WIDEST = 1.25
"""Up to as many times the board's DSPs is drawn."""


class Dot(Protocol):
    """What is drawn of a `hw.model.explore.Point`."""

    @property
    def architecture(self) -> Architecture: ...
    @property
    def target(self) -> Target: ...
    @property
    def latency_ms(self) -> float: ...
    @property
    def dsp(self) -> int: ...
    @property
    def fits(self) -> bool: ...
    @property
    def has_headroom(self) -> bool: ...


def draw_front(points: Sequence[Dot], front: Sequence[Dot], chosen: Dot, title: str) -> str:
    """An SVG file's text. `front` is the front of the points with head-room, fastest first."""
    target = chosen.target
    with chart(title) as drawn:
        axes = drawn.axes
        seen = [point for point in points if point.dsp <= WIDEST * target.dsp]
        for label, colour, marker, wanted in (
            ("does not fit", GREY, "x", [point for point in seen if not point.fits]),
            ("fits without head-room", ORANGE, "o", [one for one in seen if one.fits and not one.has_headroom]),
            ("fits with head-room", BLUE, "o", [point for point in seen if point.has_headroom]),
        ):
            if wanted:
                dsps, latencies = [one.dsp for one in wanted], [one.latency_ms for one in wanted]
                axes.scatter(dsps, latencies, 14, colour, marker=marker, label=label, linewidths=0.8)
        axes.plot([one.dsp for one in front], [one.latency_ms for one in front], color=BLUE, linewidth=1)
        axes.axvline(target.dsp, color=GREY, linewidth=1)
        axes.axvline(HEADROOM["dsp"] * target.dsp, color=GREY, linewidth=1, linestyle=":")
        engine = chosen.architecture
        axes.annotate(
            f"{engine.tile_in}×{engine.tile_out} {engine.inner_product}, {chosen.latency_ms:.2f} ms",
            (chosen.dsp, chosen.latency_ms), (-12, 28), textcoords="offset points", ha="right", color=INK,
            arrowprops={"arrowstyle": "->", "color": INK},
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
        axes.set_xlim(0, WIDEST * target.dsp)
        axes.set_yscale("log")
        mark_decades(axes.yaxis, *axes.get_ylim())
        axes.set_xlabel(f"DSPs; lines: those of {target.name}, and {HEADROOM['dsp']:.0%} of them")
        axes.set_ylabel("ms per image, estimate")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return standalone(drawn.svg)
