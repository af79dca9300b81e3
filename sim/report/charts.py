"""The report's figures, each a function from numbers to SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hw.architecture import PORT_LANES
from hw.model.charts import BLUE, GREEN, GREY, INK, LIGHT, ORANGE, PURPLE, RED, SKY, YELLOW, chart
from hw.model.cycles import PARTS
from hw.model.estimate import Estimate
from hw.model.resources import HEADROOM, KINDS
from sim.report.data import Group, RooflinePoint

PART_NAMES = {
    "tokens": ("a token enters the array", BLUE),
    "fill": ("the next tile is filled", SKY),
    "fifo": ("waiting for the weight stream", ORANGE),
    "drain": ("results land", PURPLE),
    "other": ("loops beside the engine", GREY),
}
STAGE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, RED)
WIDTH = 5.6


def draw_parts(groups: Sequence[Group], clock_mhz: float, title: str) -> str:
    """A bar per group, cut by whom the cycles pass for."""
    with chart(title, WIDTH, 1.3 + 0.27 * len(groups)) as drawn:
        axes = drawn.axes
        left = [0.0] * len(groups)
        places = range(len(groups))
        for part in PARTS:
            name, colour = PART_NAMES[part]
            widths = [group.ms(part, clock_mhz) for group in groups]
            if sum(widths) > 0.001:
                axes.barh(places, widths, 0.72, left, color=colour, label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for place, total in zip(places, left, strict=True):
            axes.text(total, place, f" {total:.3f}", va="center", color=INK, fontsize=8)
        axes.set_yticks(places, [group.name for group in groups])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.16 * max(left))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms")
        axes.figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    return drawn.svg


def draw_roofline(points: Sequence[RooflinePoint], estimate: Estimate, title: str) -> str:
    """MACs per second against MACs per byte of weights, below what the array and the memory allow."""
    architecture, target = estimate.layout.architecture, estimate.target
    peak = architecture.tile_in * architecture.tile_out * target.clock_mhz / 1e3
    ports_gbps = architecture.weight_ports * PORT_LANES * 2 * target.clock_mhz / 1e3
    on_chip = 2.0 * estimate.layout.rows
    right = 1.6 * on_chip
    with chart(title, WIDTH, 3.7) as drawn:
        axes = drawn.axes
        axes.set_xscale("log")
        axes.set_yscale("log")
        for gbps, name, style in (
            (target.bandwidth_gbps, f"DDR as planned, {target.bandwidth_gbps:g} GB/s", "-"),
            (ports_gbps, f"{architecture.weight_ports} ports' wires, {ports_gbps:.3g} GB/s", ":"),
        ):
            ridge = peak / gbps
            axes.plot([0.3, ridge], [0.3 * gbps, peak], color=INK, linewidth=1.2, linestyle=style, label=name)
        axes.plot([peak / max(ports_gbps, target.bandwidth_gbps), right], [peak, peak], color=INK, linewidth=1.2)
        axes.text(0.35, peak * 1.06, f"the array's peak, {peak:,.0f} GMAC/s", va="bottom", fontsize=8)
        markers = {"K, V, Q, projection": "o", "MLP": "s", "attention": ">", "patches": "D", "head": "v"}
        for point in points:
            colour = STAGE_COLOURS[point.stage % len(STAGE_COLOURS)]
            across = on_chip if point.macs_per_byte is None else point.macs_per_byte
            axes.plot(across, point.gmacs_per_s, markers[point.name], color=colour, markersize=6, alpha=0.85)
        for name, marker in markers.items():
            axes.plot([], [], marker, color=GREY, markersize=6, label=name)
        for stage, tokens in enumerate((estimate.layout.rows, *estimate.cycles.tokens)):
            axes.plot([], [], "o", color=STAGE_COLOURS[stage % len(STAGE_COLOURS)], label=f"{tokens} tokens")
        axes.axvspan(on_chip / 1.25, on_chip * 1.25, color=LIGHT, alpha=0.5, linewidth=0)
        axes.text(on_chip, 0.3 * target.bandwidth_gbps, "K, V\non chip", ha="center", va="bottom", fontsize=8)
        axes.set_xlim(0.3, right)
        axes.set_ylim(0.25 * target.bandwidth_gbps, 1.5 * peak)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel("MACs per byte of weights")
        axes.set_ylabel("GMAC/s")
        axes.legend(loc="center left", fontsize=7, bbox_to_anchor=(0.0, 0.52), ncols=1)
    return drawn.svg


def draw_tokens(
    curves: Mapping[str, Sequence[tuple[int, float]]], steps: Sequence[int], title: str, width: float = WIDTH
) -> str:
    """Latency against tokens, curves in pairs: the second of each is dashed.

    steps  token counts from which attention takes one tile of keys more
    """
    with chart(title, width, 3.6) as drawn:
        axes = drawn.axes
        for i, (name, curve) in enumerate(curves.items()):
            colour, style = STAGE_COLOURS[i // 2], ("-", "--")[i % 2]
            axes.plot(*zip(*curve, strict=True), color=colour, linestyle=style, linewidth=1.6, label=name)
        for step in steps:
            axes.axvline(step, color=GREY, linewidth=0.8, linestyle=":")
        last = max(tokens for curve in curves.values() for tokens, _ in curve)
        axes.set_xlim(1, last + 1)
        axes.set_ylim(bottom=0)
        axes.set_xticks([1, *(step for step in steps if step < last - 8), last])
        axes.set_xlabel("tokens, in every block")
        axes.set_ylabel("ms per image, estimate")
        axes.legend(loc="upper left", fontsize=8)
    return drawn.svg


def draw_depth(expected: Sequence[int], images: Sequence[Sequence[int]], title: str) -> str:
    """Tokens in each block: of the images that C-simulation ran, and at the keep ratios."""
    with chart(title, WIDTH, 3.2) as drawn:
        axes = drawn.axes
        blocks = range(len(expected))
        for i, tokens in enumerate(images):
            label = f"{len(images)} images" if i == 0 else None
            axes.step(blocks, tokens, where="mid", color=BLUE, alpha=max(0.12, 1 / len(images)), label=label)
        if len(images) > 1:
            mean = [sum(column) / len(images) for column in zip(*images, strict=True)]
            axes.step(blocks, mean, where="mid", color=INK, linewidth=1.6, label="their mean")
        axes.step(blocks, expected, where="mid", color=ORANGE, linestyle="--", label="at the keep ratios")
        axes.set_ylim(0, 1.08 * expected[0])
        axes.set_xticks(blocks)
        axes.set_xlabel("block")
        axes.set_ylabel("tokens")
        axes.legend(loc="upper right", fontsize=8)
    return drawn.svg


def draw_resources(shares: Mapping[str, Mapping[str, float]], title: str) -> str:
    """Shares of the board by kind, a bar per source (estimate, csynth, vivado); ticks at what leaves head-room."""
    kinds = [kind for kind in KINDS if any(kind in share for share in shares.values())]
    height = 0.8 / len(shares)
    with chart(title, WIDTH, 0.9 + 0.42 * len(kinds)) as drawn:
        axes = drawn.axes
        for i, ((name, share), colour) in enumerate(zip(shares.items(), (BLUE, GREEN, PURPLE), strict=False)):
            places = [place + (i - (len(shares) - 1) / 2) * height for place in range(len(kinds))]
            values = [100 * share.get(kind, 0) for kind in kinds]
            axes.barh(places, values, 0.9 * height, color=colour, label=name)
            for place, value in zip(places, values, strict=True):
                axes.text(value, place, f" {value:.0f}%", va="center", fontsize=8)
        for place, kind in enumerate(kinds):
            axes.plot([100 * HEADROOM[kind]] * 2, [place - 0.45, place + 0.45], color=RED, linewidth=1.6)
        axes.axvline(100, color=INK, linewidth=1)
        axes.set_yticks(range(len(kinds)), [KINDS[kind] for kind in kinds])
        axes.invert_yaxis()
        axes.set_xlim(0, max(115, 112 * max(max(share.values()) for share in shares.values())))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% of the board; red: up to where there is head-room")
        if len(shares) > 1:
            axes.legend(loc="lower right", fontsize=8)
    return drawn.svg


def draw_bars(values: Mapping[str, float], title: str, highlight: Sequence[str] = ()) -> str:
    """A bar per name, in ms; those of `highlight` in another colour."""
    with chart(title, WIDTH, 0.8 + 0.34 * len(values)) as drawn:
        axes = drawn.axes
        colours = [ORANGE if name in highlight else BLUE for name in values]
        axes.barh(range(len(values)), list(values.values()), 0.7, color=colours)
        for place, value in enumerate(values.values()):
            axes.text(value, place, f" {value:.3g} ms" if value < 10 else f" {value:.2f} ms", va="center", fontsize=8)
        axes.set_yticks(range(len(values)), list(values))
        axes.invert_yaxis()
        axes.set_xlim(0, 1.2 * max(values.values()))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms per image")
    return drawn.svg
