"""What the scheduler found of a design, as a table for people and `schedule.json` for scripts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from hw.schedule.delays import MODELS, UNCERTAINTY, Model
from hw.schedule.loops import PipelinedLoop
from hw.schedule.solve import Problem, Result, Solver
from spvit.console import Console, Table, styled

LABEL = "schedule (open model)"
SHOWN_STEPS = 6


@dataclass(frozen=True)
class LoopSchedule:
    """A loop by every model. recurrences: model -> what stands in the way of a shorter period, in words."""

    name: str
    place: str
    results: Mapping[str, Result]
    recurrences: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def closes(self, model: str) -> bool:
        return self.results[model].ii == 1


@dataclass(frozen=True)
class Schedule:
    """Every pipelined loop of a top, at a clock."""

    model: str
    target: str
    engine: str
    top: str
    clock_mhz: float
    loops: tuple[LoopSchedule, ...]

    @property
    def usable_ns(self) -> float:
        return usable_ns(self.clock_mhz)

    def all_ii_1(self) -> dict[str, bool]:
        return {model.name: all(loop.closes(model.name) for loop in self.loops) for model in MODELS}

    def clock_that_closes_mhz(self, model: str) -> float | None:
        """The highest at which every loop starts an iteration each cycle; None: at none."""
        periods = [loop.results[model].period_ns for loop in self.loops]
        found = [one for one in periods if one is not None]
        return 1e3 * (1 - UNCERTAINTY) / max(found) if len(found) == len(periods) and found else None

    def document(self) -> dict[str, Any]:
        """`schedule.json`."""
        return {
            "kind": LABEL,
            "model": self.model,
            "target": self.target,
            "engine": self.engine,
            "top": self.top,
            "clock_mhz": self.clock_mhz,
            "usable_ns": round(self.usable_ns, 4),
            "models": [model.name for model in MODELS],
            "all_ii_1": self.all_ii_1(),
            "closes_at_mhz": {model.name: self.clock_that_closes_mhz(model.name) for model in MODELS},
            "loops": [
                {
                    "name": loop.name,
                    "place": loop.place,
                    **{
                        name: {
                            "ii": result.ii or None,
                            "period_ns": result.period_ns,
                            "depth": result.depth or None,
                            "margin_ns": result.period_ns and round(self.usable_ns - result.period_ns, 2),
                            "recurrence": list(loop.recurrences[name]),
                            "reason": result.reason,
                        }
                        for name, result in loop.results.items()
                    },
                    "notes": list(loop.notes),
                }
                for loop in self.loops
            ],
        }  # fmt: skip


def usable_ns(clock_mhz: float) -> float:
    """What the clock's uncertainty leaves of its period."""
    return 1e3 / clock_mhz * (1 - UNCERTAINTY)


def schedule_loop(loop: PipelinedLoop, clock_mhz: float, models: Iterable[Model] = MODELS) -> LoopSchedule:
    """One loop by the models."""
    problem = Problem(loop.graph)
    results, recurrences = {}, {}
    for model in models:
        result = Solver(problem, model).solve(usable_ns(clock_mhz))
        results[model.name] = result
        recurrences[model.name] = in_words(loop, result.critical)
    return LoopSchedule(loop.label, loop.pragma.place, results, recurrences, tuple(dict.fromkeys(loop.graph.notes)))


def worst_of_each(loops: Iterable[LoopSchedule]) -> tuple[LoopSchedule, ...]:
    """Of loops that the source has once and the design several times, the slowest."""
    found: dict[tuple[str, str], LoopSchedule] = {}
    for loop in loops:
        key = (loop.name, loop.place)
        if key not in found or _slowness(loop) > _slowness(found[key]):
            found[key] = loop
    return tuple(found.values())


def _slowness(loop: LoopSchedule) -> list[tuple[float, float, int]]:
    return [(r.ii or 1e9, r.period_ns or 1e9, r.depth) for r in loop.results.values()]


def in_words(loop: PipelinedLoop, nodes: Iterable[int]) -> tuple[str, ...]:
    """The operations of a recurrence, by the source's names and lines."""
    words: list[str] = []
    for number in nodes:
        node = loop.graph.nodes[number]
        place = loop.debug.place(node.debug) if node.debug >= 0 else ""
        if place.endswith(":0"):
            place = ""
        kind = node.kind.partition(":")[0]
        text = " ".join(part for part in (node.name or kind, place) if part)
        if text not in words[-1:]:
            words.append(text)
    return tuple(words)


def show(schedule: Schedule, console: Console) -> None:
    """The table, for people."""
    table = Table(
        f"{schedule.model} on {schedule.target}, {schedule.engine} engine, {schedule.top} at "
        f"{schedule.clock_mhz:g} MHz, of which {schedule.usable_ns:.2f} ns are usable: {LABEL}",
        "loop",
        [(model.name.replace("_", " "), "II @ ns, states") for model in MODELS],
    )
    for loop in schedule.loops:
        table.add_row(loop.name, *(_cell(loop.results[model.name], schedule.usable_ns) for model in MODELS))
    console.print(table)
    console.print("II @ the shortest usable period in ns, the depth in states")
    for loop in schedule.loops:
        steps = loop.recurrences["nominal"]
        if not loop.closes("nominal") or not loop.closes("cautious"):
            steps = steps or loop.recurrences["cautious"]
            reason = loop.results["nominal"].reason
            chain = " → ".join(steps[:SHOWN_STEPS]) + (
                f" → {len(steps) - SHOWN_STEPS} more" if len(steps) > SHOWN_STEPS else ""
            )
            console.print(f"  {loop.name}: {reason or chain}", style="red")
    for name, closes in schedule.all_ii_1().items():
        clock = schedule.clock_that_closes_mhz(name)
        at = (
            f"all loops start an iteration each cycle up to {clock:.0f} MHz"
            if clock
            else "some loop never reaches II 1"
        )
        console.print(
            styled(f"  {name:22} ", ("closes", "green") if closes else ("does not close", "red"), f"; {at}"),
        )


def _cell(result: Result, usable: float) -> Text:
    if not result.ii:
        return styled(("—", "red"))
    period = "—" if result.period_ns is None else f"{result.period_ns:.2f}"
    text = f"{result.ii} @ {period}, {result.depth}"
    return styled((text, "" if result.ii == 1 else "red"))
