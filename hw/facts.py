"""What the pragmas of a design's sources make of its loops, memories and streams: the facts that models go by.

Enters: sources as `{path: text}`. Leaves: `Facts`, by the names that the sources give to loops (labels), arrays and
streams (variables; of a struct's member the last name). Nothing here says again what a pragma says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hw.pragmas import Constants, Pragma, dependences, read_folder, read_pragmas
from spvit.errors import BuildError

T = TypeVar("T")
LANES = "lane"
"""The array in a vector (types.hpp)."""


@dataclass(frozen=True)
class Ports:
    """Accesses that one bank of a memory takes in a cycle: reads, writes, both together."""

    reads: int
    writes: int
    together: int


STORAGE = {
    "ram_1p": Ports(1, 1, 1),
    "ram_2p": Ports(2, 1, 2),
    "ram_s2p": Ports(1, 1, 2),
    "ram_t2p": Ports(2, 2, 2),
    "rom_1p": Ports(1, 0, 1),
    "rom_2p": Ports(2, 0, 2),
    "rom_np": Ports(1 << 16, 0, 1 << 16),
    "ram_1wnr": Ports(1 << 16, 1, 1 << 16),
}
"""UG1399, BIND_STORAGE."""
DEFAULT_PORTS = STORAGE["ram_s2p"]
"""Where nothing is said the tool chooses: what any of its memories has, apart from those of one port."""


@dataclass(frozen=True)
class Partition:
    """ARRAY_PARTITION of one dimension (1, 2, ...; 0: all of them): `cyclic`, `block` or `complete`, into `factor`."""

    kind: str
    factor: int
    dim: int


@dataclass(frozen=True)
class Facts:
    """By name.

    loops        cycles from an iteration to the next (II) of each pipelined loop
    partitions   of arrays
    ports        of arrays that BIND_STORAGE speaks of
    aggregated   arrays of structs whose elements are one word
    dependences  (loop, array) -> iterations from a write to a read that may meet it, at least; None: they never meet
    streams      words of each FIFO
    constants    of the same sources
    """

    loops: Mapping[str, int]
    partitions: Mapping[str, tuple[Partition, ...]]
    ports: Mapping[str, Ports]
    aggregated: frozenset[str]
    dependences: Mapping[tuple[str, str], int | None]
    streams: Mapping[str, int]
    constants: Constants = field(compare=False)

    def ports_of(self, array: str) -> Ports:
        return self.ports.get(array, DEFAULT_PORTS)


def read_top(folder: Path, unit: str | None = None) -> Facts:
    """Of a build folder's `src/`: the accelerator, or one kernel's own top."""
    return read_facts(top_sources(folder, unit))


def top_sources(folder: Path, unit: str | None = None) -> dict[str, str]:
    """Of a build folder's `src/`, the headers and the one top: other tops have streams of the same names."""
    top = f"{unit or 'top'}.cpp"
    return {name: text for name, text in read_folder(folder).items() if name.endswith(".hpp") or name == top}


def read_facts(sources: Mapping[str, str]) -> Facts:
    """Raises BuildError on what synthesis would not know, and on streams outside of a DATAFLOW region."""
    pragmas, constants = read_pragmas(sources), Constants(sources)
    _check_regions(pragmas)
    pipelined = [pragma for pragma in pragmas if pragma.directive == "PIPELINE" and pragma.loop and not pragma.is_off]
    storage = [pragma for pragma in pragmas if pragma.directive == "BIND_STORAGE"]
    return Facts(
        loops=_once(((p.loop, _number(p, "ii", constants, 1), p) for p in pipelined), "the II of loop"),
        partitions=_partitions(pragmas, constants),
        ports=_once(((name_of(p), _ports(p), p) for p in storage), "the ports of"),
        aggregated=frozenset(name_of(p) for p in pragmas if p.directive == "AGGREGATE"),
        dependences=_dependences(pragmas, constants),
        streams=_once(
            ((name_of(p), _number(p, "depth", constants, 2), p) for p in pragmas if p.directive == "STREAM"),
            "the depth of stream",
        ),
        constants=constants,
    )


def name_of(pragma: Pragma) -> str:
    """The last name of its variable: `x` of `engine.memory.x`; of a vector's lanes the last two."""
    if not pragma.variable:
        raise BuildError(f"{pragma.place}: {pragma.directive} names no variable; add variable = ...")
    names = pragma.variable.split(".")
    return ".".join(names[-2:]) if names[-1] == LANES else names[-1]


def _once(found: Iterable[tuple[str, T, Pragma]], what: str) -> dict[str, T]:
    """By name. Raises BuildError where two pragmas say different things of one name."""
    said: dict[str, T] = {}
    for name, value, pragma in found:
        if said.setdefault(name, value) != value:
            raise BuildError(
                f"{pragma.place}: {what} {name} is {value} here and {said[name]} elsewhere; one name, one fact"
            )
    return said


def _number(pragma: Pragma, option: str, constants: Constants, default: int) -> int:
    text = pragma.options.get(option)
    return default if text is None else constants.value(text, pragma.place)


def _ports(pragma: Pragma) -> Ports:
    kind = pragma.options.get("type", "ram_2p").lower()
    if kind not in STORAGE and kind != "fifo":
        raise BuildError(f"{pragma.place}: storage type {kind} is unknown; known are {', '.join(STORAGE)} and fifo")
    return STORAGE.get(kind, DEFAULT_PORTS)


def _partitions(pragmas: Iterable[Pragma], constants: Constants) -> dict[str, tuple[Partition, ...]]:
    found: dict[str, tuple[Partition, ...]] = {}
    for pragma in pragmas:
        if pragma.directive == "ARRAY_PARTITION" and not pragma.is_off:
            kind = next((one for one in ("cyclic", "block") if pragma.has(one)), "complete")
            factor = 0 if kind == "complete" else _number(pragma, "factor", constants, 2)
            one = Partition(kind, factor, _number(pragma, "dim", constants, 1))
            before = found.get(name_of(pragma), ())
            found[name_of(pragma)] = before if one in before else (*before, one)
    return found


def _dependences(pragmas: list[Pragma], constants: Constants) -> dict[tuple[str, str], int | None]:
    """One in a function's own scope speaks of each of its loops."""
    found: dict[tuple[str, str], int | None] = {}
    loops = [(p.function, p.loop) for p in pragmas if p.directive == "PIPELINE" and p.loop]
    for one in dependences(pragmas, constants):
        if not one.inter:
            continue
        pragma = one.pragma
        speaks_of = [pragma.loop] if pragma.in_loop else [loop for f, loop in loops if f == pragma.function]
        for loop in speaks_of:
            found[loop, name_of(pragma)] = one.distance if one.dependent else None
    return found


def _check_regions(pragmas: list[Pragma]) -> None:
    regions = {(p.file, p.function) for p in pragmas if p.directive == "DATAFLOW"}
    for pragma in pragmas:
        if pragma.directive == "STREAM" and (pragma.file, pragma.function) not in regions:
            raise BuildError(
                f"{pragma.place}: {pragma.function} has stream {pragma.variable} and no DATAFLOW pragma: its processes "
                "would run one after another, and the first would wait for ever for room in its FIFO; add DATAFLOW"
            )
