"""What lies where in a variable: its arrays and fields with their names, out of the debug information.

places = Debug(module).regions(type, "engine")    one Region per array, and per number outside of arrays
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

from hw.schedule.ir import Module, split

FIELD = re.compile(r'(\w+): (?:!(\d+)|"([^"]*)"|([\w.| -]+))')

SHIM_FILES = ("ap_int.h", "hls_stream.h")


@dataclass(frozen=True)
class Field:
    """A number within an array's element: name, offset in bytes, width in bits."""

    name: str
    offset: int
    bits: int


@dataclass(frozen=True)
class Region:
    """An array, or a number that stands in none.

    offset        bytes, within the variable
    dims          elements per dimension; () for a number alone
    element_bytes from one element to the next
    fields        of an element
    """

    name: str
    offset: int
    dims: tuple[int, ...]
    element_bytes: int
    fields: tuple[Field, ...]

    @property
    def num_elements(self) -> int:
        count = 1
        for dim in self.dims:
            count *= dim
        return count

    @property
    def bytes(self) -> int:
        return self.num_elements * self.element_bytes

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from an index to the next, per dimension."""
        found, stride = [], self.element_bytes
        for dim in reversed(self.dims):
            found.append(stride)
            stride *= dim
        return tuple(reversed(found))

    @property
    def bits(self) -> int:
        """Of one element."""
        return sum(field.bits for field in self.fields)


class Debug:
    """The debug information of a module: names, places and types of what the source calls variables."""

    def __init__(self, module: Module) -> None:
        self._metadata = module.metadata

    @cache  # noqa: B019 - lives as long as its module
    def node(self, number: int) -> dict[str, str]:
        """A metadata node's fields; a reference is the number of the node that it refers to."""
        text = self._metadata.get(number, "")
        found = {key: ref or string or word for key, ref, string, word in FIELD.findall(text)}
        found["kind"] = text.partition("(")[0]
        return found

    @cache  # noqa: B019 - lives as long as its module
    def place(self, location: int) -> str:
        """`engine.hpp:312` of a DILocation: of the innermost call that stands in the design's own sources."""
        while location >= 0:
            node = self.node(location)
            if "scope" not in node or "line" not in node:
                return ""
            file = self.file(int(node["scope"]))
            if file not in SHIM_FILES or "inlinedAt" not in node:
                return f"{file}:{node['line']}"
            location = int(node["inlinedAt"])
        return ""

    def file(self, scope: int) -> str:
        node = self.node(scope)
        while "file" not in node and "scope" in node:
            node = self.node(int(node["scope"]))
        name = self.node(int(node["file"])).get("filename", "") if node.get("file", "").isdigit() else ""
        return name.rpartition("/")[2]

    def global_variable(self, expression: int) -> tuple[str, int]:
        """Name and type of what a global's !dbg speaks of; ("", -1) where it has no name."""
        node = self.node(expression)
        variable = self.node(int(node["var"])) if node["kind"] == "!DIGlobalVariableExpression" else node
        return variable.get("name", ""), int(variable.get("type", -1))

    def local_variable(self, number: int) -> tuple[str, int]:
        node = self.node(number)
        return node.get("name", ""), int(node.get("type", -1))

    def path(self, variable: int, start: int, width: int) -> str:
        """The source's name for some bits of a variable: `at.cycle`."""
        name, kind = self.local_variable(variable)
        if width == 0:
            return name
        for region in self.regions(kind, name):
            inside = start // 8 - region.offset
            if 0 <= inside < region.bytes:
                index = "".join(f"[{inside // s % d}]" for s, d in zip(region.strides, region.dims, strict=True))
                within = inside % region.element_bytes
                fields = [one.name for one in region.fields if one.offset == within]
                return region.name + index + (fields[0] if fields else "")
        return name

    @cache  # noqa: B019 - lives as long as its module
    def regions(self, kind: int, name: str) -> tuple[Region, ...]:
        """Every array and number of a type, in order of their offsets."""
        return tuple(self._regions(kind, name, 0))

    def _regions(self, kind: int, name: str, offset: int) -> Iterator[Region]:
        kind = self._bare(kind)
        dims: tuple[int, ...] = ()
        node = self.node(kind)
        if "DW_TAG_array_type" in node.get("tag", ""):
            while "DW_TAG_array_type" in self.node(kind).get("tag", ""):
                dims = (*dims, *self._counts(kind))
                kind = self._bare(int(self.node(kind)["baseType"]))
            yield Region(name, offset, dims, self.size(kind), tuple(self._fields(kind)))
        elif self._is_number(kind):
            yield Region(name, offset, (), self.size(kind), tuple(self._fields(kind)))
        else:
            for member, base, place in self.members(kind):
                yield from self._regions(base, f"{name}.{member}" if member else name, offset + place)

    def _fields(self, kind: int) -> Iterator[Field]:
        """Every number of an array's element."""
        if self._is_number(self._bare(kind)):
            yield Field("", 0, self._bits(self._bare(kind)))
            return
        for region in self._regions(kind, "", 0):
            for i in range(region.num_elements):
                index = f"[{i}]" if region.dims else ""
                for one in region.fields:
                    offset = region.offset + i * region.element_bytes + one.offset
                    yield replace(one, name=f"{region.name}{index}{one.name}", offset=offset)

    def _bare(self, kind: int) -> int:
        """Without typedefs, const, references."""
        node = self.node(kind)
        while node["kind"] == "!DIDerivedType" and "baseType" in node and "pointer" not in node["tag"]:
            kind = int(node["baseType"])
            node = self.node(kind)
        return kind

    def _is_number(self, kind: int) -> bool:
        node = self.node(kind)
        return (
            node["kind"] in ("!DIBasicType", "!DIDerivedType")
            or "enumeration" in node.get("tag", "")
            or re.match(r"ap_u?int", node.get("name", "")) is not None
            or "elements" not in node
        )

    def _bits(self, kind: int) -> int:
        node = self.node(kind)
        if found := re.match(r"ap_u?int(?:_base)?<(\d+)", node.get("name", "")):
            return int(found[1])
        return int(node.get("size", 8))

    def size(self, kind: int) -> int:
        """In bytes."""
        node = self.node(self._bare(kind))
        return int(node.get("size", 8)) // 8

    def members(self, kind: int) -> Iterator[tuple[str, int, int]]:
        """(name, type, offset in bytes) of a struct's data; a base class has no name."""
        for number in self._list(self.node(kind).get("elements")):
            node = self.node(number)
            tag = node.get("tag", "")
            if "DIFlagStaticMember" in self._metadata.get(number, ""):
                continue
            if "DW_TAG_member" in tag or "DW_TAG_inheritance" in tag:
                yield node.get("name", ""), int(node["baseType"]), int(node.get("offset", 0)) // 8

    def _counts(self, kind: int) -> tuple[int, ...]:
        return tuple(int(self.node(one).get("count", 1)) for one in self._list(self.node(kind).get("elements")))

    def _list(self, number: str | None) -> list[int]:
        return [int(one) for one in re.findall(r"!(\d+)", self._metadata.get(int(number), ""))] if number else []

    @cached_property
    def functions(self) -> dict[int, str]:
        """Number of a DISubprogram -> the function's name."""
        return {
            n: self.node(n).get("name", "") for n, text in self._metadata.items() if text.startswith("!DISubprogram")
        }


def llvm_regions(kind: str, name: str, types: dict[str, str]) -> tuple[Region, ...]:
    """Of a variable without debug information, by its LLVM type."""
    return tuple(_llvm_regions(kind, name, types, 0))


def _llvm_regions(kind: str, name: str, types: dict[str, str], offset: int) -> Iterator[Region]:
    dims: tuple[int, ...] = ()
    while found := re.fullmatch(r"\[(\d+) x (.*)\]", kind):
        dims, kind = (*dims, int(found[1])), found[2]
    size = llvm_size(kind, types)[0]
    if dims or re.fullmatch(r"i\d+|ptr", kind):
        yield Region(name, offset, dims, size, tuple(_llvm_fields(kind, types)))
        return
    for i, (member, place) in enumerate(llvm_members(kind, types)):
        yield from _llvm_regions(member, f"{name}.{i}", types, offset + place)


def _llvm_fields(kind: str, types: dict[str, str]) -> Iterator[Field]:
    if re.fullmatch(r"i\d+|ptr", kind):
        yield Field("", 0, int(kind[1:]) if kind != "ptr" else 32)
        return
    for region in _llvm_regions(kind, "", types, 0):
        for i in range(region.num_elements):
            for one in region.fields:
                yield replace(one, name=f"[{i}]", offset=region.offset + i * region.element_bytes + one.offset)


def llvm_members(kind: str, types: dict[str, str]) -> Iterator[tuple[str, int]]:
    """(type, offset in bytes) of a struct's members, also where it is `<{ packed }>`."""
    place, text = 0, types.get(kind, kind).removeprefix("type ")
    found = re.fullmatch(r"<?\{ ?(.*?) ?\}>?", text)
    for member in split(found[1]) if found and found[1] else []:
        size, align = llvm_size(member, types)
        place = place if text.startswith("<") else -(-place // align) * align
        yield member, place
        place += size


def llvm_size(kind: str, types: dict[str, str]) -> tuple[int, int]:
    """Bytes and alignment."""
    if found := re.fullmatch(r"i(\d+)", kind):
        size = 1 << max(0, (int(found[1]) - 1).bit_length() - 3)
        return size, min(size, 8)
    if kind == "ptr":
        return 4, 4
    if found := re.fullmatch(r"\[(\d+) x (.*)\]", kind):
        size, align = llvm_size(found[2], types)
        return int(found[1]) * size, align
    end, align, is_packed = 0, 1, types.get(kind, kind).removeprefix("type ").startswith("<")
    for member, place in llvm_members(kind, types):
        size, own = llvm_size(member, types)
        end, align = place + size, align if is_packed else max(align, own)
    return -(-end // align) * align, align
