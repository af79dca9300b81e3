"""The command that looks for an engine: `spvit explore --model deit_s --target zcu102 [--latency-ms 5]`.

Enters: the build's arguments (`quant.build`); no weights. Leaves `explore.json` and `explore.svg` in the build folder,
a table, and the `[engine]` lines of the fastest engine that fits the board with head-room
(`hw.model.resources.HEADROOM`). With a latency to keep to, also the keep ratios that meet it. All by the closed
forms of `hw.model.cycles` and `hw.model.resources`: estimates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from rich.text import Text

from hw.architecture import (
    FIFO_SIZES,
    FILL_LANES,
    INNER_PRODUCTS,
    PORT_BITS,
    TILE_SIZES,
    URAM_MEMORIES,
    Architecture,
    most_fill_lanes,
    most_ports,
)
from hw.layout import Layout
from hw.model.budget import latency_ms
from hw.model.explore_plot import draw_front
from hw.model.resources import HEADROOM, Resources, estimate_resources
from hw.options import ExploreOptions
from hw.target import Target, resolve_target, with_clock
from quant.build import build_folder, model_spec
from quant.widths import layer_widths, narrow
from spvit.budget import solve_keep
from spvit.config import DEFAULT_LAYER, ModelSpec
from spvit.console import Console, Table, stage, styled, track
from spvit.cost import kept_patches
from spvit.errors import ConfigError
from spvit.files import check_writable, write_json, write_whole

REPORT, PLOT = "explore.json", "explore.svg"
KINDS = {"dsp": "DSP", "bram36": "BRAM", "uram": "URAM", "lut": "LUT", "ff": "FF"}
SHOWN_FEWER, SHOWN_SLOWER = 0.1, 8
"""A row of the table takes that share fewer DSPs than the one above it, and no more than so many times the fastest."""
SAME_MS = 0.001
"""What differs by less counts as equally fast: then the smaller one wins."""


@dataclass(frozen=True)
class Point:
    """An engine on the board: how long an image takes, what it uses."""

    architecture: Architecture
    target: Target
    latency_ms: float
    resources: Resources

    @property
    def dsp(self) -> int:
        return self.resources.dsp

    @property
    def shares(self) -> dict[str, float]:
        return self.resources.shares(self.target)

    @property
    def fits(self) -> bool:
        return self.resources.fits(self.target)

    @property
    def has_headroom(self) -> bool:
        return tightness(self.resources, self.target) <= 1

    @property
    def rank(self) -> tuple[float, ...]:
        """Fastest first; of equally fast ones the smaller."""
        resources = self.resources
        return round(self.latency_ms / SAME_MS), resources.dsp, resources.bram36, resources.uram, resources.lut

    def document(self) -> dict[str, Any]:
        return {
            "engine": engine_table(self.architecture),
            "latency_ms": self.latency_ms,
            **self.resources.used(),
            "fits": self.fits,
            "headroom": self.has_headroom,
        }


def tightness(resources: Resources, target: Target) -> float:
    """The largest share of the board, each kind beside what head-room allows of it: above 1 there is none."""
    if resources.uram > target.uram:
        return float("inf")
    return max(share / HEADROOM[kind] for kind, share in resources.shares(target).items())


def engines(target: Target) -> list[Architecture]:
    """Every size and inner product, fills as wide as the tile allows and half of it, ports of every useful width and
    number; memories in block RAM."""
    return [
        Architecture(tile_in, tile_out, inner_product, ports, port_bits=bits, fill_lanes=lanes)
        for inner_product in INNER_PRODUCTS
        for tile_in in TILE_SIZES
        for tile_out in TILE_SIZES
        for lanes in fill_choices(tile_in, tile_out)
        for bits in PORT_BITS[:2]
        for ports in sorted({most_ports(lanes, most, bits) for most in range(1, target.ports + 1)} - {0})
    ]


def fill_choices(tile_in: int, tile_out: int) -> tuple[int, ...]:
    most = most_fill_lanes(tile_in, tile_out)
    return (most,) if most == FILL_LANES[0] else (most // 2, most)


def placements(target: Target) -> list[tuple[str, ...]]:
    """What may lie in UltraRAM, fewest first."""
    if not target.uram:
        return [()]
    return [chosen for count in range(len(URAM_MEMORIES) + 1) for chosen in combinations(URAM_MEMORIES, count)]


def place(spec: ModelSpec, engine: Architecture, target: Target) -> tuple[Architecture, Resources]:
    """Memories where they fit: the fewest in UltraRAM that leave head-room, else those that leave the most."""
    options = []
    for uram in placements(target):
        placed = replace(engine, uram=uram)
        resources = estimate_resources(Layout(spec.model, placed))
        options.append((max(tightness(resources, target), 1), len(uram), placed, resources))
    _, _, placed, resources = min(options, key=lambda option: option[:2])
    return placed, resources


def variants(spec: ModelSpec, engine: Architecture, target: Target) -> Iterator[tuple[Architecture, Resources]]:
    """The engine with every depth of the weight FIFO that fits; if none does, as it is."""
    found = []
    for fifo_words in FIFO_SIZES:
        deeper = replace(engine, fifo_words=fifo_words, uram=())
        placed, resources = place(spec, deeper, target)
        if not resources.fits(target):
            break
        found.append((placed, resources))
    yield from found or [place(spec, engine, target)]


def explore(spec: ModelSpec, target: Target, kept: Sequence[int], shown: bool = False) -> tuple[Point, ...]:
    """Every engine on this board, fastest first, for images that keep `kept` patches after each selector."""
    found: dict[Architecture, Point] = {}
    asked = engines(target)
    for engine in track(asked, f"exploring {len(asked)} engines", shown=shown):
        for architecture, resources in variants(spec, engine, target):
            latency = latency_ms(spec, target, architecture)(kept)
            found[architecture] = Point(architecture, target, latency, resources)
    return tuple(sorted(found.values(), key=lambda point: point.rank))


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Of points, fastest first: those than which no other is both as fast and takes fewer DSPs."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: one.rank):
        if not front or point.dsp < front[-1].dsp:
            front.append(point)
    return front


def choose(points: Sequence[Point]) -> Point:
    """The fastest with head-room; if none has any, the fastest that fits. Raises ConfigError where none does."""
    for chosen in ([point for point in points if point.has_headroom], [point for point in points if point.fits]):
        if chosen:
            return chosen[0]
    least = min(points, key=lambda point: tightness(point.resources, point.target))
    shares = ", ".join(f"{share:.0%} of its {KINDS[kind]}" for kind, share in least.shares.items())
    raise ConfigError(
        f"no engine of this model fits {least.target.name}: {engine_name(least.architecture)}, the least of them, "
        f"would take {shares}; choose a smaller model or a larger board"
    )


def choose_for_latency(
    spec: ModelSpec, target: Target, points: Sequence[Point], limit_ms: float
) -> tuple[Point, tuple[float, ...]]:
    """The fastest engine that can keep to a latency, and the keep ratios with which it does.

    Raises ConfigError, with the least possible latency, where none can.
    """
    chosen = choose(points)
    roomy = [point for point in points if point.has_headroom] or [chosen]
    fewest = (1,) * spec.pruning.num_selectors
    least = {point: latency_ms(spec, target, point.architecture)(fewest) for point in roomy}
    able = [point for point in roomy if least[point] <= limit_ms]
    if not able:
        nearest = min(roomy, key=lambda one: least[one])
        raise ConfigError(
            f"{spec.model.name}: {limit_ms:g} ms cannot be met on {target.name} at {target.clock_mhz:g} MHz: the least "
            f"is {least[nearest]:.3f} ms, with {'one patch left after each selector' if fewest else 'no selector'} on "
            f"{engine_name(nearest.architecture)}; allow at least that, or choose a smaller model or a larger board"
        )
    cost = latency_ms(spec, target, able[0].architecture)
    return able[0], solve_keep(spec.model, spec.pruning, cost, limit_ms, "ms")


def engine_table(architecture: Architecture) -> dict[str, int | str]:
    """What `[engine]` says to get it."""
    table: dict[str, int | str] = {
        "tile_in": architecture.tile_in,
        "tile_out": architecture.tile_out,
        "inner_product": architecture.inner_product,
        "weight_ports": architecture.weight_ports,
        "port_bits": architecture.port_bits,
        "fill_lanes": architecture.fill_lanes,
        "fifo_words": architecture.fifo_words,
    }
    return table | ({"uram": ",".join(architecture.uram)} if architecture.uram else {})


def engine_name(architecture: Architecture) -> str:
    return f"{architecture.tile_in}x{architecture.tile_out} {architecture.inner_product}"


def toml_lines(architecture: Architecture) -> list[str]:
    return [
        "[engine]",
        *(f"{key} = {json.dumps(value)}" for key, value in engine_table(architecture).items()),
    ]


def show(points: Sequence[Point], front: Sequence[Point], chosen: Point, console: Console, title: str) -> None:
    """What one chooses from on the front of those with head-room, for people; before it what is faster, but tight."""
    target = chosen.target
    kinds = [kind for kind in KINDS if getattr(target, kind)]
    memories = [("in URAM", "memories")] if target.uram else []
    shares = [(KINDS[kind], "%") for kind in kinds]
    columns: list[str | tuple[str, str]] = ["ports", ("FIFO", "words"), ("latency", "ms"), *shares, "", *memories]
    table = Table(title, "engine", columns, left=range(len(columns) - 1 - len(memories), len(columns)))
    tight = pareto_front(one for one in points if one.fits and not one.has_headroom)
    rows = shown_of(front, chosen)
    for point in [*(one for one in tight if not front or one.rank < front[0].rank), *rows]:
        engine = point.architecture
        verdict = "◄" if point is chosen else "" if point.has_headroom else "tight"
        table.add_row(
            engine_name(engine), str(engine.weight_ports), f"{engine.fifo_words:,}", f"{point.latency_ms:.3f}",
            *(_share(point, kind) for kind in kinds), verdict, *(" ".join(engine.uram) for _ in memories),
            style="bold" if point is chosen else "",
        )  # fmt: skip
    console.print(table)
    if len(rows) < len(front):
        last = front[-1]
        console.print(
            f"the front has {len(front) - len(rows)} more, nearly the same ones or slower, down to {last.dsp:,} DSPs "
            f"at {last.latency_ms:.1f} ms: {REPORT}"
        )


def shown_of(front: Sequence[Point], chosen: Point) -> list[Point]:
    """Of the front, fastest first, those that differ for people, and the chosen one."""
    rows: list[Point] = []
    for point in front:
        differs = not rows or point.dsp <= (1 - SHOWN_FEWER) * rows[-1].dsp
        if point is chosen or (differs and point.latency_ms <= SHOWN_SLOWER * front[0].latency_ms):
            rows.append(point)
    return rows


def _share(point: Point, kind: str) -> Text:
    share = point.shares[kind]
    return styled((f"{100 * share:.0f}", "" if share <= HEADROOM[kind] else "red"))


def document(
    spec: ModelSpec,
    kept: Sequence[int],
    points: Sequence[Point],
    front: Sequence[Point],
    chosen: Point,
    keep: Sequence[float] | None,
) -> dict[str, Any]:
    """`explore.json`."""
    target = chosen.target
    return {
        "kind": "estimate",
        "model": spec.model.name,
        "target": target.name,
        "clock_mhz": target.clock_mhz,
        "kept": list(kept),
        "headroom": HEADROOM,
        "chosen": chosen.document(),
        "keep": None if keep is None else list(keep),
        "front": [point.document() for point in front],
        "points": [point.document() for point in points],
    }


def explored_counts(spec: ModelSpec, limit_ms: float | None) -> tuple[int, ...]:
    """Patches kept after each selector while engines are compared; all of them where a latency is to say how many."""
    if limit_ms is not None and not spec.pruning.keep:
        return (spec.model.num_patches,) * spec.pruning.num_selectors
    return kept_patches(spec.model, spec.pruning)


def verdict(points: Sequence[Point], chosen: Point) -> str:
    """Why this one."""
    target, name = chosen.target, engine_name(chosen.architecture)
    if chosen.has_headroom:
        return f"of {len(points)} engines, {name} (◄) is the fastest that fits {target.name} with head-room"
    over = ", ".join(
        f"{share:.0%} of the {KINDS[kind]} ({HEADROOM[kind]:.0%} wanted)"
        for kind, share in chosen.shares.items()
        if share > HEADROOM[kind]
    )
    return f"nothing fits {target.name} with head-room; the fastest without is {name}, at {over}"


def allowed_widths(args: ExploreOptions) -> list[ModelSpec]:
    """The model with each width of the weights that `WEIGHT_BITS=12,16` allows; of equally fast ones, the
    widest is taken. Raises ConfigError."""
    asked = [part.strip() for part in (args.weight_bits or "").split(",")]
    if len(asked) > 1 and all(part.isdecimal() for part in asked):
        widest_first = sorted(set(asked), key=int, reverse=True)
        return [model_spec(replace(args, weight_bits=bits)) for bits in widest_first]
    return [model_spec(args)]


def quantization_lines(spec: ModelSpec) -> list[str]:
    """Of a model's file, where its weights are narrow."""
    if not narrow(layer_widths(spec)):
        return []
    widths = ", ".join(
        f"{json.dumps(name) if '.' in name else name} = {bits}" for name, bits in spec.weight_bits.items()
    )
    return ["", "[quantization]", f"weight_bits = {{ {widths} }}"]


def run(args: ExploreOptions) -> None:
    if args.design is not None:
        raise ConfigError(f"DESIGN={args.design}: what is explored is the design; leave DESIGN= away")
    target = with_clock(resolve_target(args.target), args.clock)
    specs = allowed_widths(args)
    check_writable(build_folder(args))
    kept = explored_counts(specs[0], args.latency_ms)
    console = Console()
    explored = [(spec, explore(spec, target, kept, shown=True)) for spec in specs]
    spec, points = min(explored, key=lambda one: choose(one[1]).rank)
    if len(specs) > 1:
        for one, found in explored:
            best = choose(found)
            bits = one.weight_bits[DEFAULT_LAYER]
            console.print(f"weights of {bits} bits: {best.latency_ms:.3f} ms on {engine_name(best.architecture)}")
    front = pareto_front(point for point in points if point.has_headroom)
    chosen, keep = choose(points), None
    if args.latency_ms is not None:
        with stage(f"seeking the keep ratios for {args.latency_ms:g} ms"):
            chosen, keep = choose_for_latency(spec, target, points, args.latency_ms)
    title = f"{spec.model.name} on {target.name} at {target.clock_mhz:g} MHz, kept {list(kept)}: estimate"
    show(points, front, chosen, console, title)
    for line in [verdict(points, chosen), "", *toml_lines(chosen.architecture), *quantization_lines(spec)]:
        console.print(line)
    if keep is not None:
        console.print(f"\nKEEP={','.join(map(str, keep)) or 'none'}")
        reached = latency_ms(spec, target, chosen.architecture)([round(one * spec.model.num_patches) for one in keep])
        console.print(f"takes {reached:.3f} ms of {args.latency_ms:g} on that engine")
    folder = build_folder(args)
    with stage("drawing"):
        write_whole(folder / PLOT, draw_front(points, front, chosen, title))
    write_json(folder / REPORT, document(spec, kept, points, front, chosen, keep))
    console.print(f"\n{folder / REPORT}, {folder / PLOT}")
