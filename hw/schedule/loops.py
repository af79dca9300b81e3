"""The pipelined loops of a top, each as a graph."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hw.pragmas import Pragma
from hw.schedule.build import Builder
from hw.schedule.control import Loop, innermost, natural_loops
from hw.schedule.frontend import to_ir
from hw.schedule.graph import Graph
from hw.schedule.ir import Function, Module, read_module
from hw.schedule.layout import Debug
from hw.schedule.memories import Memories
from spvit.errors import BuildError


@dataclass(frozen=True)
class PipelinedLoop:
    """label as the source says it; the pragma that pipelines it; its graph."""

    label: str
    pragma: Pragma
    graph: Graph
    debug: Debug


def pipelined_loops(sources: Mapping[str, str], top: str = "top.cpp") -> Iterator[PipelinedLoop]:
    """Every loop with PIPELINE that the top reaches, in the order of the source. Raises BuildError."""
    check_labels(sources)
    text, pragmas = to_ir(sources, top)
    module = read_module(text)
    for function in module.functions.values():
        yield from _of_function(module, function, pragmas)


def _of_function(module: Module, function: Function, pragmas: list[Pragma]) -> Iterator[PipelinedLoop]:
    loops = natural_loops(function)
    memories = Memories(module, function, pragmas, loops)
    marked: dict[str, tuple[Loop, Pragma]] = {}
    for block in function.blocks.values():
        for instruction in block.instructions:
            if instruction.op == "call" and instruction.detail == "spvit_mark":
                pragma = pragmas[int(instruction.operands[0])]
                loop = innermost(loops, block.name)
                if pragma.is_off or not pragma.in_loop:
                    continue  # a function that is a pipeline is scheduled as a part of the loop that calls it
                if loop is None:
                    continue  # its loop runs once, or never: nothing is left to be pipelined
                marked[loop.header] = (loop, pragma)
    uses = _uses(function, memories, [loop for loop, _ in marked.values()])
    for loop, pragma in sorted(marked.values(), key=lambda one: pragmas.index(one[1])):
        inner = [one for one in loops if one.header in loop.blocks and one.header != loop.header]
        if inner:
            raise BuildError(
                f"{pragma.place}: a loop is left within the pipelined loop {pragma.loop}; give it a constant number of "
                f"iterations and UNROLL"
            )
        local = frozenset(name for name, users in uses.items() if users == {loop.header})
        name = pragma.loop or f"{pragma.function} ({pragma.place})"
        builder = Builder(function, memories, loop, name, name, local)
        yield PipelinedLoop(name, pragma, builder.graph, memories.debug)


def _uses(function: Function, memories: Memories, loops: list[Loop]) -> dict[str, set[str]]:
    """Local variable -> headers of the pipelined loops that use it."""
    derived: dict[str, str] = {}
    found: dict[str, set[str]] = {}
    for block in function.blocks.values():
        for instruction in block.instructions:
            if instruction.op == "alloca":
                derived[instruction.name] = instruction.name
                found[instruction.name] = set()
    changed = True
    while changed:
        changed = False
        for block in function.blocks.values():
            for one in block.instructions:
                if one.op in ("getelementptr", "phi", "select") and one.name not in derived:
                    base = next((derived[o] for o in one.operands if o in derived), None)
                    if base is not None:
                        derived[one.name], changed = base, True
    for block in function.blocks.values():
        headers = {loop.header for loop in loops if block.name in loop.blocks}
        for instruction in block.instructions:
            if instruction.op in ("load", "store"):
                for operand in instruction.operands:
                    if operand in derived:
                        found[derived[operand]] |= headers
    return found


def check_labels(sources: Mapping[str, str]) -> None:
    """Every loop that the kernels call a pipeline has its pragma. Raises BuildError."""
    from hw.pragmas import read_pragmas

    pipelined = {(p.file, p.loop) for p in read_pragmas(sources) if p.directive == "PIPELINE" and not p.is_off}
    for path, text in sources.items():
        for label in re.findall(r"timing::Pipeline \w+\(\"(\w+)\"\)", text):
            if (path, label) not in pipelined:
                raise BuildError(f"{path}: the loop {label} has no PIPELINE; add #pragma HLS PIPELINE II = 1")
