"""The report's figures, each a function from numbers and a width in inches to SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from hw.model.charts import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    NARROW,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    SMALL,
    WIDE,
    YELLOW,
    chart,
    mark_decades,
)
from hw.model.cycles import PARTS
from hw.model.estimate import Estimate
from hw.model.resources import HEADROOM, KINDS
from hw.target import Target
from sim.report.data import Group, RooflinePoint

PART_NAMES = {
    "tokens": ("a token enters the array", BLUE),
    "fill": ("the next tile is filled", SKY),
    "fifo": ("waiting for the weight stream", ORANGE),
    "drain": ("results land", PURPLE),
    "other": ("loops beside the engine", GREY),
}
STAGE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, RED)
MARKERS = {"K, V, Q, projection": "o", "MLP": "s", "attention": ">", "patches": "D", "head": "v"}
GAP = 4  # points between a bar and its label
ROW = 0.3  # inches of a bar
FEW_IMAGES = 12  # of which each has a line of its own


def is_narrow(width: float) -> bool:
    return width < (WIDE + NARROW) / 2


def draw_parts(groups: Sequence[Group], clock_mhz: float, title: str, width: float = WIDE) -> str:
    """A bar per group, cut by whom the cycles pass for."""
    columns = 1 if is_narrow(width) else 2
    shown = [part for part in PARTS if sum(group.ms(part, clock_mhz) for group in groups) > 0.001]
    height = 0.7 + ROW * len(groups) + 0.19 * -(-len(shown) // columns)
    with chart(title, width, height) as drawn:
        axes = drawn.axes
        left = [0.0] * len(groups)
        for part in shown:
            name, colour = PART_NAMES[part]
            widths = [group.ms(part, clock_mhz) for group in groups]
            bars = axes.barh(range(len(groups)), widths, 0.72, left, color=colour, label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        _label(axes, bars, [f"{total:.3f}" for total in left])
        _name_bars(axes, [group.name for group in groups], max(left), width)
        axes.set_xlabel("ms")
        axes.figure.legend(loc="outside lower center", ncols=columns)
    return drawn.svg


def _label(axes: Axes, bars: BarContainer, texts: Sequence[str]) -> None:
    axes.bar_label(bars, texts, padding=GAP, fontsize=SMALL, color=INK)


def _name_bars(axes: Axes, names: Sequence[str], longest: float, width: float) -> None:
    """Names at the bars' feet, the first on top; room for the labels at their ends."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.28 * longest)
    axes.xaxis.set_major_locator(MaxNLocator(3 if is_narrow(width) else 5))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def draw_roofline(points: Sequence[RooflinePoint], estimate: Estimate, title: str, width: float = WIDE) -> str:
    """MACs per second against MACs per byte of weights, below what the array and the memory allow."""
    architecture, target = estimate.layout.architecture, estimate.target
    peak = architecture.tile_in * architecture.tile_out * target.clock_mhz / 1e3
    ports = architecture.weight_ports
    ports_gbps = ports * architecture.port_lanes * 2 * target.clock_mhz / 1e3
    on_chip = 2.0 * estimate.layout.model.num_tokens
    left, right = 0.3, 1.6 * on_chip
    lowest = min(left * target.bandwidth_gbps, *(point.gmacs_per_s for point in points)) / 1.6
    with chart(title, width, 4.6 if is_narrow(width) else 4.4) as drawn:
        axes = drawn.axes
        axes.set_xscale("log")
        axes.set_yscale("log")
        roofs = []
        for gbps, name, style in (
            (target.bandwidth_gbps, f"DDR: {target.bandwidth_gbps:.3g} GB/s", "-"),
            (ports_gbps, f"{ports} port{'' if ports == 1 else 's'}: {ports_gbps:.3g} GB/s", ":"),
        ):
            roofs += axes.plot([left, peak / gbps], [left * gbps, peak], style, color=INK, linewidth=1.2, label=name)
        axes.plot([peak / max(ports_gbps, target.bandwidth_gbps), right], [peak, peak], color=INK, linewidth=1.2)
        axes.text(left * 1.15, peak * 1.1, f"the array's peak, {peak:,.0f} GMAC/s", va="bottom", fontsize=SMALL)
        axes.axvspan(on_chip / 1.25, on_chip * 1.25, color=LIGHT, alpha=0.5, linewidth=0)
        axes.text(on_chip / 1.35, lowest * 1.1, "K and V, on chip", ha="right", va="bottom", fontsize=SMALL)
        for point in points:
            across = on_chip if point.macs_per_byte is None else point.macs_per_byte
            colour = _stage_colour(point.stage)
            axes.plot(across, point.gmacs_per_s, MARKERS[point.name], color=colour, markersize=6, alpha=0.85)
        axes.set_xlim(left, right)
        axes.set_ylim(lowest, 1.9 * peak)
        mark_decades(axes.xaxis, left, right)
        mark_decades(axes.yaxis, lowest, peak)
        axes.set_xlabel("MACs per byte of weights")
        axes.set_ylabel("GMAC/s")
        axes.figure.legend(handles=_roofline_legend(points, estimate, roofs), loc="outside lower center",
                           ncols=2 if is_narrow(width) else 3)  # fmt: skip
    return drawn.svg


def _stage_colour(stage: int) -> str:
    return STAGE_COLOURS[stage % len(STAGE_COLOURS)]


def _roofline_legend(points: Sequence[RooflinePoint], estimate: Estimate, roofs: Sequence[Line2D]) -> list[Line2D]:
    """What the marks are, what the colours are, what the roofs are."""
    here = {point.name for point in points}
    kinds = [
        Line2D([], [], marker=marker, linestyle="", color=GREY, label=name)
        for name, marker in MARKERS.items()
        if name in here
    ]
    stages = [
        Line2D([], [], linewidth=5, color=_stage_colour(stage), label=f"{tokens} tokens")
        for stage, tokens in enumerate((estimate.layout.model.num_tokens, *estimate.cycles.tokens))
    ]
    return [*kinds, *stages, *roofs]


def draw_tokens(
    curves: Mapping[str, Sequence[tuple[int, float]]], steps: Sequence[int], title: str, width: float = WIDE
) -> str:
    """Latency against tokens, curves in pairs: the second of each is dashed.

    steps  token counts from which attention takes one tile of keys more
    """
    with chart(title, width, 3.6 if is_narrow(width) else 3.8) as drawn:
        axes = drawn.axes
        for i, (name, curve) in enumerate(curves.items()):
            style = ("-", "--")[i % 2]
            axes.plot(*zip(*curve, strict=True), style, color=_stage_colour(i // 2), linewidth=1.6, label=name)
        for step in steps:
            axes.axvline(step, color=GREY, linewidth=0.8, linestyle=":")
        last = max(tokens for curve in curves.values() for tokens, _ in curve)
        axes.set_xlim(1, last + 1)
        axes.set_ylim(bottom=0)
        axes.set_xticks([1, *_spaced([step for step in steps if step < 0.9 * last]), last])
        axes.set_xlabel("tokens, in every block")
        axes.set_ylabel("ms per image, estimate")
        axes.figure.legend(loc="outside lower center", ncols=1 if is_narrow(width) else 2)
    return drawn.svg


def _spaced(steps: Sequence[int], most: int = 5) -> Sequence[int]:
    """At most `most` of them, evenly spaced, so that their figures do not touch."""
    return steps[:: -(-len(steps) // most)] if steps else ()


def draw_depth(
    expected: Sequence[int], images: Sequence[Sequence[int]], title: str, width: float = WIDE, note: str = ""
) -> str:
    """Tokens in each block: of the images that C-simulation ran, and at the keep ratios.

    note  what must not be overlooked of the images' tokens; it stands within the figure
    """
    with chart(title, width, 3.3) as drawn:
        axes = drawn.axes
        blocks = range(len(expected))
        if 0 < len(images) <= FEW_IMAGES:
            for i, tokens in enumerate(images):
                label = f"{len(images)} images" if len(images) > 1 else "the image"
                axes.step(blocks, tokens, where="mid", color=BLUE, alpha=0.6, label=None if i else label)
        elif images:
            columns = [sorted(column) for column in zip(*images, strict=True)]
            for share, shade in ((0.0, 0.3), (0.1, 0.5)):
                low, high = ([column[round(at * (len(column) - 1))] for column in columns] for at in (share, 1 - share))
                name = f"{'all' if share == 0 else f'the middle {1 - 2 * share:.0%}'} of {len(images)} images"
                axes.fill_between(blocks, low, high, step="mid", color=BLUE, alpha=shade, linewidth=0, label=name)
        if len(images) > 1:
            mean = [sum(column) / len(images) for column in zip(*images, strict=True)]
            axes.step(blocks, mean, where="mid", color=INK, linewidth=1.6, label="their mean")
        axes.step(blocks, expected, where="mid", color=ORANGE, linestyle="--", label="at the keep ratios")
        axes.set_ylim(0, 1.12 * expected[0])
        axes.xaxis.set_major_locator(MaxNLocator(6 if is_narrow(width) else 12, integer=True))
        axes.set_xlabel("block")
        axes.set_ylabel("tokens")
        if note:
            axes.set_title(note, fontsize=SMALL, color=RED, loc="left")
        axes.figure.legend(loc="outside lower center", ncols=1 if is_narrow(width) else 3)
    return drawn.svg


def draw_resources(used: Mapping[str, Mapping[str, float]], target: Target, title: str, width: float = WIDE) -> str:
    """Shares of the board by kind, a bar per source (estimate, csynth, vivado); ticks at what leaves head-room.

    used  source -> kind -> blocks
    """
    kinds = [kind for kind in KINDS if getattr(target, kind) and any(kind in one for one in used.values())]
    height = 0.8 / len(used)
    with chart(title, width, 1.1 + 0.42 * len(kinds) + 0.2 * (len(used) > 1)) as drawn:
        axes = drawn.axes
        longest = 100.0
        for i, ((name, one), colour) in enumerate(zip(used.items(), (BLUE, GREEN, PURPLE), strict=False)):
            places = [place + (i - (len(used) - 1) / 2) * height for place in range(len(kinds))]
            shares = [100 * one.get(kind, 0) / getattr(target, kind) for kind in kinds]
            axes.barh(places, shares, 0.9 * height, color=colour, label=name)
            longest = max(longest, *shares)
            for place, kind, share in zip(places, kinds, shares, strict=True):
                text = f"{share:.0f}%" if kind in one else "not said"
                foot = (max(100, share), place)
                axes.annotate(text, foot, (GAP, 0), textcoords="offset points", va="center", fontsize=SMALL)
        for place, kind in enumerate(kinds):
            axes.plot([100 * HEADROOM[kind]] * 2, [place - 0.45, place + 0.45], color=RED, linewidth=1.6)
        axes.axvline(100, color=GREY, linewidth=1)
        axes.set_yticks(range(len(kinds)), [KINDS[kind] for kind in kinds])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.18 * longest)
        axes.xaxis.set_major_locator(MultipleLocator(25) if longest < 200 else MaxNLocator(5))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% of the board; red: head-room ends")
        if len(used) > 1:
            axes.figure.legend(loc="outside lower center", ncols=len(used))
    return drawn.svg


def draw_bars(values: Mapping[str, float], title: str, width: float = WIDE) -> str:
    """A bar per name, in ms."""
    with chart(title, width, 0.8 + 0.36 * len(values)) as drawn:
        axes = drawn.axes
        bars = axes.barh(range(len(values)), list(values.values()), 0.7, color=BLUE)
        _label(axes, bars, [f"{value:.3f}" for value in values.values()])
        _name_bars(axes, list(values), max(values.values()), width)
        axes.set_xlabel("ms per image")
    return drawn.svg


@dataclass(frozen=True)
class Pair:
    """Of one model and workload, ms per image."""

    name: str
    paper: float
    estimate: float


def draw_paper(pairs: Sequence[Pair], title: str, width: float = WIDE) -> str:
    """The paper's figure above ours, for each model and workload."""
    with chart(title, width, 1.1 + 0.6 * len(pairs)) as drawn:
        axes = drawn.axes
        for shift, name, colour, values in (
            (-0.2, "paper, measured", ORANGE, [pair.paper for pair in pairs]),
            (0.2, "this engine, estimate", BLUE, [pair.estimate for pair in pairs]),
        ):
            bars = axes.barh([place + shift for place in range(len(pairs))], values, 0.36, color=colour, label=name)
            _label(axes, bars, [f"{value:.2f}" for value in values])
        longest = max(max(pair.paper, pair.estimate) for pair in pairs)
        _name_bars(axes, [pair.name for pair in pairs], longest, width)
        axes.set_xlabel("ms per image")
        axes.figure.legend(loc="outside lower center", ncols=1 if is_narrow(width) else 2)
    return drawn.svg
