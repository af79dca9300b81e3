"""When each operation of a loop runs: least initiation interval, shortest period, depth, and what stands in the way.

Operations are chained behind each other within a state as long as the clock allows, and none crosses a clock edge; the
earliest state of each is the longest path to it (the least solution of the difference constraints that Vitis HLS's SDC
scheduler sees). A recurrence is a strongly connected component; an interval is feasible when its times settle.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hw.schedule.delays import Model, Timing
from hw.schedule.graph import Graph

EPSILON = 1e-6
MAX_INTERVAL = 256
PERIOD_STEP = 0.01
LONGEST_PERIOD = 64.0
TURNS = 8
"""Of a recurrence, after which it counts as one that does not come to rest."""


@dataclass(frozen=True)
class Result:
    """Of one loop by one model.

    ii          least initiation interval at the usable period
    period_ns   shortest usable period at which II = 1 closes; None: at none
    depth       states from an iteration's begin to its end, at `ii`
    critical    nodes of the recurrence that stands in the way of a shorter period, or of a lower interval
    reason      in words, where it is no recurrence
    """

    ii: int
    period_ns: float | None
    depth: int
    critical: tuple[int, ...]
    reason: str = ""


@dataclass
class Problem:
    """A graph as adjacency lists, its components in order; made once, for all models and periods."""

    graph: Graph
    orders_in: list[list[tuple[int, int, int, bool]]] = field(init=False)
    components: list[list[int]] = field(init=False)
    cyclic: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.graph
        count = len(graph.nodes)
        self.orders_in = [[] for _ in range(count)]
        for order in graph.orders:
            self.orders_in[order.to].append((order.source, order.states, order.distance, order.chained))
        sequence = self._sequence()
        place = {node: i for i, node in enumerate(sequence)}
        self.components = _components(count, self._sources)
        for component in self.components:
            component.sort(key=place.__getitem__)
        loops = {o.source for o in graph.orders if o.source == o.to}
        self.cyclic = [c for c in self.components if len(c) > 1 or c[0] in loops]

    def _sources(self, node: int) -> Iterable[int]:
        yield from self.graph.inputs[node]
        if node in self.graph.conditions:
            yield self.graph.conditions[node]
        for source, *_ in self.orders_in[node]:
            yield source

    def _sequence(self) -> list[int]:
        """Every node behind all that it waits for within an iteration."""
        graph = self.graph
        order: list[int] = []
        state = bytearray(len(graph.nodes))
        for root in range(len(graph.nodes)):
            stack = [(root, False)]
            while stack:
                node, done = stack.pop()
                if done:
                    order.append(node)
                    state[node] = 2
                    continue
                if state[node]:
                    continue
                state[node] = 1
                stack.append((node, True))
                before = [*graph.inputs[node], *(s for s, _, d, _ in self.orders_in[node] if d == 0)]
                if node in graph.conditions:
                    before.append(graph.conditions[node])
                stack += [(one, False) for one in before if not state[one]]
        return order


class Solver:
    """One problem by one model."""

    def __init__(self, problem: Problem, model: Model) -> None:
        self._problem = problem
        self._graph = problem.graph
        self._model = model
        self._timing: list[Timing] = [model.timing(node.kind, node.width) for node in self._graph.nodes]
        self._least = max((max(t.before, t.after) for t in self._timing), default=0.0)

    def solve(self, usable_ns: float) -> Result:
        """At the clock whose usable period this is."""
        ports, memory = self._graph.port_interval()
        slow = next((n for n, t in enumerate(self._timing) if max(t.before, t.after) > usable_ns + EPSILON), None)
        period, tight = self._shortest_period()
        if ports > 1:
            period = None
        if slow is not None:
            return Result(0, period, 0, (slow,), "an operation is longer than the period")
        interval = ports
        critical: tuple[int, ...] = ()
        for component in self._problem.cyclic:
            while not self._settles(component, usable_ns, interval):
                critical = self._critical
                interval += 1
                if interval > MAX_INTERVAL:
                    return Result(0, period, 0, critical, "no initiation interval closes")
        depth = self._depth(usable_ns, interval)
        if interval == ports > 1:
            return Result(interval, period, depth, (), f"the ports of {memory}")
        return Result(interval, period, depth, critical or tight)

    def _shortest_period(self) -> tuple[float | None, tuple[int, ...]]:
        """At II = 1; and the recurrence that allows no shorter one."""
        period = self._least
        critical: tuple[int, ...] = ()
        for component in self._problem.cyclic:
            if self._settles(component, period, 1):
                continue
            critical = self._critical
            if not self._settles(component, LONGEST_PERIOD, 1):
                return None, self._critical
            low, high = period, LONGEST_PERIOD
            while high - low > PERIOD_STEP / 10:
                middle = (low + high) / 2
                if self._settles(component, middle, 1):
                    high = middle
                else:
                    low, critical = middle, self._critical
            period = high
        return round(math.ceil(period / PERIOD_STEP - 0.1) * PERIOD_STEP, 2), critical

    def _settles(self, component: list[int], period: float, interval: int) -> bool:
        """Whether a recurrence's times stop growing; if they don't, `_critical` is the cycle that drives them."""
        starts = dict.fromkeys(component, 0.0)
        ready: dict[int, float] = {}
        inside = set(component)
        causes: dict[int, int] = {}
        most = 0.0
        while self._sweep(component, period, interval, starts, ready, causes, inside):
            most = most or TURNS * (period + max(ready.values()))
            cycles = list(_cycles(causes))
            for cycle in cycles:
                if self._grows(cycle, period, interval, starts, ready):
                    self._critical = cycle
                    return False
            if max(starts.values()) > most:  # several cycles that drive each other
                self._critical = max(cycles, key=len, default=tuple(component))
                return False
        return True

    def _grows(
        self, cycle: tuple[int, ...], period: float, interval: int, starts: dict[int, float], ready: dict[int, float]
    ) -> bool:
        """Whether a cycle drives itself on: it is longer than its iterations last, or does not come to rest alone."""
        length = self._length(cycle, period, interval)
        if length is not None and length > EPSILON:
            return True
        own_starts = {node: starts[node] for node in cycle}
        own_ready = {node: ready[node] for node in cycle}
        inside = set(cycle)
        first = own_starts[cycle[0]]
        for _ in range(TURNS):
            if not self._sweep(list(cycle), period, interval, own_starts, own_ready, {}, inside):
                return False
            if own_starts[cycle[0]] >= first + period - EPSILON:
                return True  # everything repeats itself a state later
        return True

    def _length(self, cycle: tuple[int, ...], period: float, interval: int) -> float | None:
        """Of a chained cycle, its delays less the time of the iterations that it spans; None: it is not chained."""
        total = 0.0
        for source, node in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            if self._timing[node].states:
                return None
            total += self._timing[node].after
            if source in self._graph.inputs[node]:
                continue
            spans = [d for s, _, d, chained in self._problem.orders_in[node] if s == source and chained]
            if not spans:
                return None
            total -= min(spans) * interval * period
        return total

    def _depth(self, period: float, interval: int) -> int:
        starts: dict[int, float] = {}
        ready: dict[int, float] = {}
        for component in self._problem.components:
            starts.update(dict.fromkeys(component, 0.0))
            while self._sweep(component, period, interval, starts, ready, {}, None):
                if len(component) == 1 and not any(
                    s == component[0] for s, *_ in self._problem.orders_in[component[0]]
                ):
                    break
        self.starts, self.ready = starts, ready
        return max(math.ceil(one / period - EPSILON) for one in ready.values()) if ready else 1

    def _sweep(
        self, component: list[int], period: float, interval: int, starts: dict[int, float], ready: dict[int, float],
        causes: dict[int, int], inside: set[int] | None,
    ) -> bool:  # fmt: skip
        """Move every operation of a component to where it may begin; whether one moved.

        inside  only what waits for these counts
        """
        graph, moved = self._graph, False
        for node in component:
            start, cause = starts[node], -1
            for source in graph.inputs[node]:
                time = ready.get(source, 0.0) if inside is None or source in inside else 0.0
                if time > start + EPSILON:
                    start, cause = time, source
            if node in graph.conditions:
                source = graph.conditions[node]
                time = ready.get(source, 0.0) if inside is None or source in inside else 0.0
                if not self._model.fifo_waits:
                    time = max(0, math.ceil(time / period - EPSILON) - 1) * period  # the enable of that state
                if time > start + EPSILON:
                    start, cause = time, source
            for source, states, distance, chained in self._problem.orders_in[node]:
                if (inside is not None and source not in inside) or source not in ready:
                    continue
                if chained:
                    time = ready[source] - interval * distance * period
                else:
                    state = math.floor(starts[source] / period + EPSILON)
                    time = (state + states - interval * distance) * period
                if time > start + EPSILON:
                    start, cause = time, source
            timing = self._timing[node]
            state = math.floor(start / period + EPSILON)
            need = timing.before if timing.states else timing.after
            if start - state * period + need > period + EPSILON:
                state += 1
                start = state * period
            end = (state + timing.states) * period + timing.after if timing.states else start + timing.after
            if start > starts[node] + EPSILON or node not in ready:
                moved = True
                if cause >= 0:
                    causes[node] = cause
                starts[node], ready[node] = start, end
        return moved


def _cycles(causes: dict[int, int]) -> Iterator[tuple[int, ...]]:
    """Every cycle of what waits for what, from what waits on."""
    done: set[int] = set()
    for root in causes:
        path: list[int] = []
        place: dict[int, int] = {}
        node = root
        while node in causes and node not in done:
            done.add(node)
            place[node] = len(path)
            path.append(node)
            node = causes[node]
        if node in place:
            yield tuple(reversed(path[place[node] :]))


def _components(count: int, sources: object) -> list[list[int]]:
    """Strongly connected components, each behind those that it waits for. (Tarjan)"""
    index = [-1] * count
    low = [0] * count
    on_stack = bytearray(count)
    stack: list[int] = []
    found: list[list[int]] = []
    counter = 0
    for root in range(count):
        if index[root] >= 0:
            continue
        work = [(root, iter(sources(root)))]  # type: ignore[operator]
        index[root] = low[root] = counter
        counter += 1
        stack.append(root)
        on_stack[root] = 1
        while work:
            node, rest = work[-1]
            for source in rest:
                if index[source] < 0:
                    index[source] = low[source] = counter
                    counter += 1
                    stack.append(source)
                    on_stack[source] = 1
                    work.append((source, iter(sources(source))))  # type: ignore[operator]
                    break
                if on_stack[source]:
                    low[node] = min(low[node], index[source])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = []
                    while True:
                        one = stack.pop()
                        on_stack[one] = 0
                        component.append(one)
                        if one == node:
                            break
                    found.append(component)
    return found
