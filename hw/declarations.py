"""How wide and how deep the kernels' arrays are: read where they are declared.

Enters: sources as `{path: text}`. Leaves: `Shape`s by name. Types are what the kernels use: `Int<W>`, `UInt<W>`,
`Vec<T, N>`, structs of these, and names for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hw.pragmas import Constants, without_comments
from spvit.errors import BuildError


@dataclass(frozen=True)
class Shape:
    """bits  of an element
    dims  elements along each dimension
    """

    bits: int
    dims: tuple[int, ...]


ARRAY = re.compile(r"^\s*(?:static\s+)?(?!return\b|else\b)([A-Za-z_][\w:]*(?:<[^;={}]*>)?)\s+(\w+)((?:\[[^\]]+\])+);")
MEMBER = re.compile(r"^\s*([A-Za-z_][\w:]*(?:<[^;={}()]*>)?)\s+(\w+)\s*;")


class Declarations:
    """The arrays of the sources by name: `accumulators`; `Memory::x` for a struct's member."""

    def __init__(self, sources: Mapping[str, str], constants: Constants) -> None:
        self._constants = constants
        self._arrays: dict[str, tuple[str, str]] = {}  # type and dimensions, as the source writes them
        self._names: dict[str, str] = {}  # of types
        self._structs: dict[str, list[str]] = {}  # types of members
        for text in map(without_comments, sources.values()):
            self._add_arrays(text, "", {})
            for name, body in re.findall(r"\bstruct\s+(\w+)\s*\{\n(.*?)\n\};", text, re.DOTALL):
                own = dict(re.findall(r"\bstatic\s+constexpr\s+int\s+(\w+)\s*=\s*([^;]+);", body))
                self._add_arrays(body, f"{name}::", own)
            for name, body in re.findall(r"\busing\s+(\w+)\s*=\s*([^;]+);", text):
                self._names[name] = body
            for name, body in re.findall(r"\bstruct\s+(\w+)\s*\{([^{}]*)\};", text):
                self._structs[name] = [m[1] for m in map(MEMBER.match, body.split("\n")) if m]

    def _add_arrays(self, text: str, scope: str, own: Mapping[str, str]) -> None:
        """`own` are constants that the scope alone has."""
        for found in filter(None, map(ARRAY.match, text.split("\n"))):
            dims = re.sub(r"(?<![:\w])\w+\b", lambda word: f"({own[word[0]]})" if word[0] in own else word[0], found[3])
            self._arrays.setdefault(scope + found[2], (found[1], dims))

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def shape(self, name: str) -> Shape:
        """Raises BuildError where there is no such array, or its type is none that is understood."""
        if name not in self._arrays:
            raise BuildError(f"no array {name} is declared in these sources")
        kind, dims = self._arrays[name]
        sizes = re.findall(r"\[([^\]]+)\]", dims)
        return Shape(self._bits(kind), tuple(self._constants.value(size, name) for size in sizes))

    def _bits(self, kind: str) -> int:
        kind = kind.strip()
        name, _, inside = kind.partition("<")
        inside = inside.rpartition(">")[0]
        if name in ("Int", "UInt", "ap_int", "ap_uint"):
            return self._constants.value(inside, kind)
        if name == "Vec":
            element, _, lanes = inside.rpartition(",")
            return self._bits(element) * self._constants.value(lanes, kind)
        if name == "bool":
            return 1
        if name in self._structs:
            return sum(map(self._bits, self._structs[name]))
        if name in self._names:
            return self._bits(self._names[name])
        raise BuildError(f"type {kind} is not understood")
