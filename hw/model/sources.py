"""Whether the models speak of these sources: what they count must stand in the kernels, as they count it.

Enters: the sources of a design and its layout. Leaves: a sentence for each thing that is otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from hw.declarations import Declarations
from hw.facts import Facts, read_facts
from hw.layout import Layout
from hw.model.latency import (
    COLUMNS_PER_GROUP,
    OPERATORS,
    PACKAGE_SUM_CYCLES,
    RMW_CYCLES,
    STRIPE_WORDS,
    loop_depths,
    memory_spans,
    pipeline_cycles,
)
from hw.model.memory import LUTRAM_DEPTH, Array, on_chip_arrays
from hw.pragmas import read_loops, read_pragmas, without_comments

ARRIVING_WORDS = 8
"""Before the checksum: a word takes two cycles through a FIFO, so that two would pass two in three."""
NOT_COUNTED = ("STORE_X",)
"""Loops of a kernel's own top that hand its result to the testbench."""
Sources = Mapping[str, str]


def disagreements(sources: Sources, layout: Layout) -> list[str]:
    """Of the accelerator, or of one kernel's own top. Raises BuildError on what synthesis would not take at all."""
    facts = read_facts(sources)
    return [
        *_loops(sources, facts, layout),
        *_unrolled(sources),
        *_distances(facts, layout),
        *_streams(facts, layout),
        *_broadcasts(sources, facts),
        *_memories(sources, facts, layout),
    ]


def _loops(sources: Sources, facts: Facts, layout: Layout) -> Iterator[str]:
    """The cycle model has an iteration per cycle, and a depth for each loop."""
    labels = {loop.label for loop in read_loops(sources)}
    counted = loop_depths(layout.architecture).keys()
    for label in sorted(counted - labels):
        yield f"loop {label} is counted and stands in no source"
    for label in sorted((counted & labels) - facts.loops.keys()):
        yield f"loop {label} is counted with an iteration per cycle and has no PIPELINE pragma"
    for label in sorted(facts.loops.keys() - counted - {*NOT_COUNTED}):
        yield f"loop {label} is pipelined and not counted"
    for label in sorted(counted & facts.loops.keys()):
        if facts.loops[label] != 1:
            yield f"loop {label} is counted with an iteration per cycle, its PIPELINE pragma says {facts.loops[label]}"


def _unrolled(sources: Sources) -> Iterator[str]:
    """Every loop says what it becomes in hardware; a constant's own are the compiler's."""
    pragmas = [one for one in read_pragmas(sources) if one.directive in ("PIPELINE", "UNROLL")]
    said = {(one.file, one.loop_at) for one in pragmas}
    constants = {name for text in sources.values() for name in re.findall(r"\bconstexpr\s+\w+\s+(\w+)\(", text)}
    for loop in read_loops(sources):
        if (loop.file, loop.at) not in said and loop.function not in constants:
            name = loop.label or f"of {loop.function}"
            yield f"{loop.place}: loop {name} has neither UNROLL nor PIPELINE; its hardware would be the tool's choice"


def _distances(facts: Facts, layout: Layout) -> Iterator[str]:
    """Iterations from a write to the read behind it: what loops guarantee, models count with, pragmas say."""
    guaranteed = {"ENGINE": RMW_CYCLES, "COMPACT": PACKAGE_SUM_CYCLES}
    for name, expected in (
        ("kRmwCycles", RMW_CYCLES),
        ("kPackageSumCycles", PACKAGE_SUM_CYCLES),
        ("Arch::kPipelineCycles", pipeline_cycles(layout.architecture)),
    ):
        found = facts.constants.value(name)
        if found != expected:
            yield f"{name} is {found}, the cycle model counts with {expected}"
    for loop, array in memory_spans():
        if facts.dependences.get((loop, array)) is None:
            yield (
                f"loop {loop} reads, changes and writes {array}, and no DEPENDENCE pragma says at what distance: "
                "synthesis may take longer than is counted"
            )
    for (loop, array), distance in facts.dependences.items():
        if distance is not None and distance != guaranteed.get(loop):
            yield (
                f"DEPENDENCE of {array} in loop {loop} has distance {distance}, the loop guarantees "
                f"{guaranteed.get(loop, 'none')}"
            )
        if distance is not None and (loop, array) not in memory_spans():
            yield f"DEPENDENCE of {array} in loop {loop} has a distance, and no span is counted for it"


def _streams(facts: Facts, layout: Layout) -> Iterator[str]:
    counted = {"weights": layout.architecture.fifo_words, "stripes": STRIPE_WORDS, "arriving": ARRIVING_WORDS,
               "pixels": STRIPE_WORDS, "checksum": 2}  # fmt: skip
    for name, words in facts.streams.items():
        if words != counted.get(name):
            yield f"stream {name} has {words} words by its STREAM pragma, models count with {counted.get(name, 'none')}"


def _broadcasts(sources: Sources, facts: Facts) -> Iterator[str]:
    """The registers that the latency table and the count of flip-flops have on the way to the columns."""
    found = facts.constants.value("kColumnsPerGroup")
    if found != COLUMNS_PER_GROUP:
        yield f"kColumnsPerGroup is {found}, the models count with {COLUMNS_PER_GROUP}"
    said = [one for one in read_pragmas(sources) if one.function == "broadcast"]
    stages = [
        facts.constants.value(one.options.get(bound, "0"), one.place)
        for one in said
        for bound in ("min", "max")
        if one.directive == "LATENCY"
    ]
    counted = OPERATORS["broadcast"].cycles
    if stages != [counted, counted]:
        yield f"broadcast has LATENCY {stages or 'of no pragma'}, the models count with {counted} registers"
    if not any(one.directive == "INLINE" and one.is_off for one in said):
        yield "broadcast has no INLINE off: synthesis would make the copies of all groups one"
    bare = "".join(map(without_comments, sources.values()))
    for value, what in (("factors", "activations"), ("lanes", "what fills a column"), ("border", "the tile's border")):
        if not re.search(rf"\bbroadcast\({value}\)", bare):
            yield f"broadcast({value}) stands in no source: {what} would reach all columns from one register"


def _memories(sources: Sources, facts: Facts, layout: Layout) -> Iterator[str]:
    """Each array is counted as wide, as deep and in as many banks as it is declared and partitioned."""
    declarations = Declarations(sources, facts.constants)
    counted = {name: array for array in on_chip_arrays(layout) for name in array.kernel}
    described = {
        name
        for text in map(without_comments, sources.values())
        for name in re.findall(r"\btiming::memory\((?:\w+\.)*(\w+),", text)
    }
    for name in sorted(described - {"array"} - {name.rpartition(":")[2] for name in counted}):
        yield from _small(name, declarations, facts)
    for name, array in counted.items():
        yield from _memory(name, array, declarations, facts)


def _small(name: str, declarations: Declarations, facts: Facts) -> Iterator[str]:
    scope = "" if name in declarations else "Memory::"
    _, depth, _ = _banks(scope + name, declarations, facts)
    if depth > LUTRAM_DEPTH:
        yield f"memory {name} is {depth} words deep and not counted"


def _memory(name: str, array: Array, declarations: Declarations, facts: Facts) -> Iterator[str]:
    banks, depth, bits = _banks(name, declarations, facts)
    found, expected = (banks, depth, bits), (array.banks // len(array.kernel), array.depth, array.width)
    if found != expected:
        yield (
            f"memory {name} has {banks} banks of {depth} words of {bits} bits by its declaration and pragmas, "
            f"the memory model counts {' x '.join(map(str, expected))}"
        )


def _banks(name: str, declarations: Declarations, facts: Facts) -> tuple[int, int, int]:
    """How many, how deep, how wide."""
    shape = declarations.shape(name)
    banks = 1
    for dim, size in enumerate(shape.dims, 1):
        for part in facts.partitions.get(name.rpartition(":")[2], ()):
            if part.dim in (0, dim):
                banks *= part.factor or size
    return banks, -(-math.prod(shape.dims) // banks), shape.bits
