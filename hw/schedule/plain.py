"""LLVM IR as clang leaves it, made plainer before LLVM's passes see it: text in, text out.

Integers of odd widths are stored as wide as their place in memory is, and structs are copied field by field: then SROA
takes into registers whatever is no memory of the design.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from hw.schedule.layout import llvm_members, llvm_regions, llvm_size

MACHINE_WIDTHS = (1, 8, 16, 32, 64)
NAME = r"[%@](?:[\w.]+|\".*?\")"
COPY = re.compile(rf"  call void @llvm\.memcpy\.\S+\(ptr[^%@]*({NAME}), ptr[^%@]*({NAME}), i32 (\d+), i1 false\)(.*)")
ADDRESS = re.compile(rf"  (%[\w.]+) = getelementptr (?:inbounds |nuw |nusw )*(\[.*\]|{NAME}|i\d+), ptr {NAME}, (.*)")
EFFECTS = {
    "spvit_mark": "memory(inaccessiblemem: readwrite)",
    "spvit_mark_variable": "memory(inaccessiblemem: readwrite)",
    "spvit_fifo_read": "memory(inaccessiblemem: readwrite)",
    "spvit_fifo_write": "memory(inaccessiblemem: readwrite)",
}
"""Of the shim's opaque functions; the others have none."""


def make_plain(text: str) -> str:
    """Everything that is done to a module's text."""
    types = _struct_types(text)
    lines: list[str] = []
    function: dict[str, str] = {}  # pointer -> the type that it points to
    for line in _without_local_names(text):
        if line.startswith("define"):
            function = {name: kind for kind, name in re.findall(rf"sret\(({NAME})\)[^%]*(%[\w.]+)", line)}
        elif found := re.match(rf"  (%[\w.]+) = alloca (\[.*\]|{NAME}|i\d+),", line):
            function[found[1]] = found[2]
        elif found := ADDRESS.match(line):
            function[found[1]] = _pointee(found[2], found[3], types)
        lines += _plain_line(line, types, function, len(lines))
    return _with_attributes("\n".join(lines))


def _without_local_names(text: str) -> Iterator[str]:
    """Lines, without what only names the variables of helpers.

    What is carried is a variable of the loop's function, and passes take twice as long when each lane of each helper
    has a name.
    """
    for function in re.split(r"^(?=define )", text, flags=re.MULTILINE):
        keeps = "call void @spvit_mark(" in function
        yield from (line for line in function.rstrip("\n").split("\n") if keeps or not line.startswith("    #dbg_"))


def _plain_line(line: str, types: dict[str, str], pointers: dict[str, str], fresh: int) -> list[str]:
    if found := re.match(r"  store i(\d+) (\S+), (ptr .*)", line):
        width = _width(found[1])
        if width:
            wide = f"%plain.{fresh}"
            return [f"  {wide} = sext i{found[1]} {found[2]} to i{width}", f"  store i{width} {wide}, {found[3]}"]
    elif found := re.match(r"  (\S+) = load i(\d+), (ptr .*)", line):
        width = _width(found[2])
        if width:
            wide = f"%plain.{fresh}"
            return [f"  {wide} = load i{width}, {found[3]}", f"  {found[1]} = trunc i{width} {wide} to i{found[2]}"]
    elif found := COPY.match(line):
        kind = pointers.get(found[1]) or pointers.get(found[2])
        bits = 8 * int(found[3])
        if kind and llvm_size(kind, types)[0] * 8 == bits:
            fields = list(_fields(kind, types))
        elif bits in MACHINE_WIDTHS:
            fields = [(0, bits)]
        else:
            return [line]
        place = "".join(re.findall(r", !dbg !\d+", found[4]))
        return [
            one for i, field in enumerate(fields) for one in _copy(found[1], found[2], field, f"{fresh}.{i}", place)
        ]
    return [line]


def _copy(to: str, source: str, field: tuple[int, int], name: str, place: str) -> list[str]:
    offset, width = field
    return [
        f"  %copy.{name}.s = getelementptr inbounds i8, ptr {source}, i32 {offset}{place}",
        f"  %copy.{name}.v = load i{width}, ptr %copy.{name}.s, align 1{place}",
        f"  %copy.{name}.t = getelementptr inbounds i8, ptr {to}, i32 {offset}{place}",
        f"  store i{width} %copy.{name}.v, ptr %copy.{name}.t, align 1{place}",
    ]


def _pointee(kind: str, indices: str, types: dict[str, str]) -> str:
    """What an address points to: `kind` stepped into."""
    for index in [part.split()[1] for part in indices.split(", ") if not part.startswith("!")][1:]:
        if found := re.fullmatch(r"\[(\d+) x (.*)\]", kind):
            kind = found[2]
        else:
            kind = [member for member, _ in llvm_members(kind, types)][int(index)]
    return kind


def _width(text: str) -> int:
    """Of the place in memory, for a width that no machine has; else 0."""
    width = int(text)
    if width in MACHINE_WIDTHS:
        return 0
    rounded = -(-width // 64) * 64 if width > 64 else next(w for w in (8, 16, 32, 64) if w >= width)
    return 0 if rounded == width else rounded


def _struct_types(text: str) -> dict[str, str]:
    return dict(re.findall(rf"^({NAME}) = (type .*)$", text, flags=re.MULTILINE))


def _fields(kind: str, types: dict[str, str]) -> Iterator[tuple[int, int]]:
    """(offset in bytes, width in bits) of each integer of a type."""
    for region in llvm_regions(kind, "", types):
        for i in range(region.num_elements):
            for field in region.fields:
                yield region.offset + i * region.element_bytes + field.offset, field.bits


def _with_attributes(text: str) -> str:
    """Every function to be inlined, the shim's with their effects, every width of integer legal."""
    legal = ":".join(str(width) for width in range(1, 129))
    text = re.sub(r'^(target datalayout = ".*?)-n[\d:]+', rf"\1-n{legal}", text, flags=re.MULTILINE)
    text = re.sub(
        r"^attributes (#\d+) = \{.*\}$", r"attributes \1 = { alwaysinline nounwind }", text, flags=re.MULTILINE
    )

    def declared(found: re.Match[str]) -> str:
        if not found[2].startswith("spvit_"):
            return found[0]
        arguments = re.sub(r"\bptr\b", "ptr captures(none) readnone", found[3])
        effect = EFFECTS.get(found[2], "memory(none)")
        return f"{found[1]}@{found[2]}({arguments}) {effect} nounwind willreturn"

    return re.sub(r"^(declare [^@]*)@(\w+)\(([^)]*)\).*$", declared, text, flags=re.MULTILINE)
