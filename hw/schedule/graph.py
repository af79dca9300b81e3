"""A pipelined loop as operations and what each must wait for.

Control is turned into data: every block of the loop is computed, a value that depends on the path is a choice between
values, and what leaves a trace (a store, a FIFO) waits for the condition of its block. Registers, and arrays that are
partitioned completely, become values; what stays a memory keeps its order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Node:
    """One operation.

    kind   as `hw.schedule.delays` knows it
    name   of the source's variable, if it has one
    debug  number of its DILocation, or -1
    """

    kind: str
    width: int
    name: str = ""
    debug: int = -1


@dataclass(frozen=True, slots=True)
class Order:
    """`to` waits for `source`, `distance` iterations before.

    chained  it begins when the other's value is there; else, `states` after the state in which the other begins
    """

    source: int
    to: int
    states: int
    distance: int
    chained: bool
    why: str = ""


@dataclass(frozen=True)
class Access:
    """A site: one read or write of a memory's word per iteration. `banks`: those that it may touch."""

    node: int
    is_write: bool
    banks: frozenset[int]


@dataclass
class Memory:
    """ports: (reads, writes) per bank and cycle; None: two of either kind."""

    name: str
    kind: str
    banks: int
    ports: tuple[int, int] | None
    accesses: list[Access] = field(default_factory=list)


@dataclass
class Graph:
    """The operations of one loop's iteration.

    inputs   per node, those whose values it takes: it begins when they are there, chained behind them
    orders   everything else that it waits for
    fifo     node of a FIFO's access -> the condition that it stands under
    notes    what was assumed, for want of a pragma
    """

    name: str
    label: str
    nodes: list[Node] = field(default_factory=list)
    inputs: list[tuple[int, ...]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    conditions: dict[int, int] = field(default_factory=dict)
    memories: list[Memory] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, width: int, inputs: Iterable[int | None] = (), name: str = "", debug: int = -1) -> int:
        self.nodes.append(Node(kind, width, name, debug))
        self.inputs.append(tuple(dict.fromkeys(i for i in inputs if i is not None)))
        return len(self.nodes) - 1

    def order(self, source: int, to: int, states: int, distance: int = 0, chained: bool = False, why: str = "") -> None:
        self.orders.append(Order(source, to, states, distance, chained, why))

    def port_interval(self) -> tuple[int, str]:
        """The initiation interval that the memories' ports allow, and the memory that asks for it."""
        worst, name = 1, ""
        for memory in self.memories:
            for bank in range(memory.banks):
                reads = sum(bank in one.banks for one in memory.accesses if not one.is_write)
                writes = sum(bank in one.banks for one in memory.accesses if one.is_write)
                if memory.ports is None:
                    need = -(-(reads + writes) // 2)
                else:
                    need = max(-(-reads // memory.ports[0]), -(-writes // memory.ports[1]) if writes else 0)
                if need > worst:
                    worst, name = need, memory.name
        return worst, name
