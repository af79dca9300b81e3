"""The flow of control of a function: its loops, what dominates what, which block reaches which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hw.schedule.ir import Function


@dataclass(frozen=True)
class Loop:
    """A natural loop: its header, its blocks, the blocks that jump back."""

    header: str
    blocks: frozenset[str]
    latches: tuple[str, ...]


def reverse_post_order(root: str, successors: Mapping[str, Sequence[str]]) -> list[str]:
    """Every block after those that lead to it, but for jumps back."""
    order: list[str] = []
    seen = {root}
    stack = [(root, iter(successors[root]))]
    while stack:
        block, rest = stack[-1]
        for target in rest:
            if target not in seen:
                seen.add(target)
                stack.append((target, iter(successors[target])))
                break
        else:
            order.append(block)
            stack.pop()
    return order[::-1]


def dominators(root: str, successors: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Immediate dominator of each block that is reached; the root's is itself. (Cooper, Harvey, Kennedy 2001)"""
    order = reverse_post_order(root, successors)
    number = {block: i for i, block in enumerate(order)}
    predecessors: dict[str, list[str]] = {block: [] for block in order}
    for block in order:
        for target in successors[block]:
            predecessors[target].append(block)
    found = {root: root}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            known = [p for p in predecessors[block] if p in found]
            best = known[0]
            for other in known[1:]:
                a, b = best, other
                while a != b:
                    while number[a] > number[b]:
                        a = found[a]
                    while number[b] > number[a]:
                        b = found[b]
                best = a
            if found.get(block) != best:
                found[block] = best
                changed = True
    return found


def natural_loops(function: Function) -> list[Loop]:
    """All of them, inner ones too."""
    successors = {name: block.successors for name, block in function.blocks.items()}
    entry = next(iter(function.blocks))
    dominated_by = dominators(entry, successors)

    def dominates(a: str, b: str) -> bool:
        while b != a and dominated_by[b] != b:
            b = dominated_by[b]
        return a == b

    latches: dict[str, list[str]] = {}
    order = {block: i for i, block in enumerate(reverse_post_order(entry, successors))}
    for block in dominated_by:
        for target in successors[block]:
            if order[target] <= order[block] and dominates(target, block):
                latches.setdefault(target, []).append(block)
    found = []
    for header, sources in latches.items():
        blocks, todo = {header}, list(sources)
        while todo:
            block = todo.pop()
            if block not in blocks:
                blocks.add(block)
                todo += [p for p in function.predecessors[block] if p in dominated_by]
        found.append(Loop(header, frozenset(blocks), tuple(sources)))
    return found


def innermost(loops: Iterable[Loop], block: str) -> Loop | None:
    """The smallest loop that holds the block."""
    return min((loop for loop in loops if block in loop.blocks), key=lambda loop: len(loop.blocks), default=None)


class Region:
    """A loop's body without its jumps back: a graph without cycles."""

    EXIT = "(exit)"

    def __init__(self, function: Function, loop: Loop) -> None:
        self.loop = loop
        self.header = loop.header
        self.successors = {
            name: tuple(t for t in function.blocks[name].successors if t in loop.blocks and t != loop.header)
            for name in loop.blocks
        }
        self.order = reverse_post_order(loop.header, self.successors)
        self.predecessors: dict[str, list[str]] = {name: [] for name in self.order}
        for name in self.order:
            for target in self.successors[name]:
                self.predecessors[target].append(name)
        self.dominator = dominators(loop.header, self.successors)

    @cached_property
    def number(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.order)}

    @cached_property
    def post_dominator(self) -> dict[str, str]:
        """Of each block; blocks without a way on lead to EXIT."""
        backwards: dict[str, list[str]] = {name: list(p) for name, p in self.predecessors.items()}
        backwards[self.EXIT] = [name for name in self.order if not self.successors[name]]
        return dominators(self.EXIT, backwards)

    @cached_property
    def _post_depth(self) -> dict[str, int]:
        """Of each block in the tree of post-dominators."""
        found = {self.EXIT: 0}
        for name in reversed(self.order):  # a post-dominator stands behind what it post-dominates
            found[name] = found[self.post_dominator[name]] + 1
        return found

    def always_follows(self, block: str, before: str) -> bool:
        """Whether every path from `before` passes `block`."""
        depth, at = self._post_depth, before
        while depth[at] > depth[block]:
            at = self.post_dominator[at]
        return at == block

    @cached_property
    def reach(self) -> dict[str, int]:
        """Of each block, itself and those behind it, as bits of their numbers."""
        found: dict[str, int] = {}
        for name in reversed(self.order):
            bits = 1 << self.number[name]
            for target in self.successors[name]:
                bits |= found[target]
            found[name] = bits
        return found

    def reaches(self, a: str, b: str) -> bool:
        return bool(self.reach[a] >> self.number[b] & 1)

    @cached_property
    def between(self) -> dict[str, int]:
        """Of each block, those on the ways from its immediate dominator to it, both left out, as bits."""
        arriving: dict[str, int] = {}  # blocks from which it is reached
        found: dict[str, int] = {}
        for name in self.order:
            bits = 0
            for source in self.predecessors[name]:
                bits |= arriving[source] | 1 << self.number[source]
            arriving[name] = bits
            behind = self.reach[self.dominator[name]] & ~(1 << self.number[self.dominator[name]])
            found[name] = bits & behind
        return found
