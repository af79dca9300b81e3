"""LLVM IR's text, read: what `hw.schedule.frontend` leaves.

llvmlite reads IR too, but shows neither the predicates of comparisons, nor the types of addresses, nor debug records;
its text has all of them, an instruction a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

BINARY = ("add", "sub", "mul", "sdiv", "udiv", "srem", "urem", "shl", "lshr", "ashr", "and", "or", "xor")
CASTS = ("zext", "sext", "trunc", "bitcast", "freeze", "ptrtoint", "inttoptr")
NAME = r'(?:[\w.$-]+|"[^"]*")'
DEFINITION = re.compile(rf"^define .*?@({NAME})\((.*)\)[^()]*\{{$")
LABEL = re.compile(rf"^({NAME}):")
RESULT = re.compile(rf"^  (%{NAME}) = (.*)$")
DEBUG = re.compile(r", !dbg !(\d+)")
RECORD = re.compile(
    r"^ +#dbg_(value|declare)\((?:i\d+|ptr) (%[\w.$-]+|%\"[^\"]*\"), !(\d+), !DIExpression\((.*?)\), !(\d+)\)"
)
FRAGMENT = re.compile(r"DW_OP_LLVM_fragment, (\d+), (\d+)")
FLAGS = re.compile(r"\b(?:nuw|nsw|exact|nneg|disjoint|inbounds|nusw|samesign|volatile|tail|notail|inrange\([^)]*\)) ")
ATTRIBUTES = re.compile(
    r"\b(?:noundef|nonnull|zeroext|signext|returned|readnone|readonly|writeonly|noalias|range\([^)]*\)"
    r"|align \d+|dereferenceable\(\d+\)|captures\([^)]*\)) ?"
)


@dataclass(slots=True)
class Instruction:
    """One of SSA form.

    name      `%x`; "" if it has no result
    op        LLVM's opcode; of a call to a named function, `call`
    width     bits of the result; of a store, of what is stored
    operands  names, constants; of a phi, its values
    detail    the predicate of icmp, the callee of call, the source type of getelementptr, the types of its indices
    labels    of a phi, the blocks that its values come from; of a terminator, its targets
    debug     number of its DILocation, or -1
    """

    name: str
    op: str
    width: int
    operands: tuple[str, ...]
    detail: str = ""
    labels: tuple[str, ...] = ()
    debug: int = -1


@dataclass
class Block:
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    @property
    def terminator(self) -> Instruction:
        return self.instructions[-1]

    @property
    def successors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.terminator.labels))


@dataclass
class Function:
    """variables: SSA name or alloca -> (number of its DILocalVariable, offset and width in bits of what it holds)."""

    name: str
    arguments: tuple[str, ...]
    blocks: dict[str, Block]
    variables: dict[str, tuple[int, int, int]]

    @cached_property
    def defined(self) -> dict[str, tuple[Instruction, str]]:
        """Name -> instruction and its block."""
        return {i.name: (i, b.name) for b in self.blocks.values() for i in b.instructions if i.name}

    @cached_property
    def predecessors(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {name: [] for name in self.blocks}
        for block in self.blocks.values():
            for target in block.successors:
                found[target].append(block.name)
        return found


@dataclass(frozen=True)
class Global:
    """name with its @; whether it is constant; its LLVM type; number of its DIGlobalVariable's expression, or -1."""

    name: str
    is_constant: bool
    kind: str
    debug: int


@dataclass
class Module:
    functions: dict[str, Function]
    globals: dict[str, Global]
    types: dict[str, str]
    metadata: dict[int, str]


def read_module(text: str) -> Module:
    functions: dict[str, Function] = {}
    globals_: dict[str, Global] = {}
    types: dict[str, str] = {}
    metadata: dict[int, str] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        if line.startswith("!"):
            if found := re.match(r"^!(\d+) = (?:distinct )?(.*)$", line):
                metadata[int(found[1])] = found[2]
        elif line.startswith("define"):
            function = _function(line, lines)
            functions[function.name] = function
        elif line.startswith("@"):
            if found := re.match(rf"^(@{NAME}) = [^@]*?\b(constant|global) (?=[\[%<{{ip])", line):
                debug = re.search(r", !dbg !(\d+)", line)
                kind = _first_type(line[found.end() :])
                globals_[found[1]] = Global(found[1], found[2] == "constant", kind, int(debug[1]) if debug else -1)
        elif found := re.match(rf"^(%{NAME}) = type (.*)$", line):
            types[found[1]] = found[2]
    return Module(functions, globals_, types, metadata)


def _first_type(text: str) -> str:
    """The type that a text begins with."""
    if not text.startswith(("[", "{", "<")):
        return re.match(rf"%{NAME}|\w+", text)[0]  # type: ignore[index]
    depth = 0
    for i, character in enumerate(text):
        depth += {"[": 1, "{": 1, "<": 1, "]": -1, "}": -1, ">": -1}.get(character, 0)
        if depth == 0:
            return text[: i + 1]
    raise AssertionError(text[:80])


def _function(head: str, lines: Iterator[str]) -> Function:
    found = DEFINITION.match(head)
    assert found, head[:200]
    arguments = tuple(re.findall(rf"(%{NAME})(?=,|$)", found[2]))
    blocks: dict[str, Block] = {}
    variables: dict[str, tuple[int, int, int]] = {}
    block = Block("")
    for line in lines:
        if line == "}":
            break
        if line.startswith("    "):
            record = RECORD.match(line)
            if record and record[2] not in variables:
                fragment = FRAGMENT.search(record[4])
                if fragment or record[4] in ("", "DW_OP_LLVM_convert"):
                    start, width = (int(fragment[1]), int(fragment[2])) if fragment else (0, 0)
                    variables[record[2]] = (int(record[3]), start, width)
            continue
        if line.startswith("  "):
            if " switch " in line[:10]:
                while not line.endswith("]") and "]" not in line.split("!dbg")[0][-4:]:
                    line += " " + next(lines).strip()
                    if line.rstrip().endswith("]") or "], !" in line:
                        break
            instruction = _instruction(line)
            if instruction:
                block.instructions.append(instruction)
        elif label := LABEL.match(line):
            block = blocks.setdefault(label[1], Block(label[1]))
        elif line:
            raise AssertionError(line[:200])
        if not blocks:
            block = blocks.setdefault("entry", block)
            block.name = "entry"
    return Function(found[1], arguments, blocks, variables)


def _instruction(line: str) -> Instruction | None:
    debug_text = DEBUG.search(line)
    debug = int(debug_text[1]) if debug_text else -1
    body = re.sub(r", ![\w.]+ !\d+|, ![\w.]+ !\{\}|, align \d+", "", line)
    result = RESULT.match(body)
    name, body = (result[1], result[2]) if result else ("", body.strip())
    op, _, rest = body.partition(" ")
    rest = FLAGS.sub("", rest + " ").rstrip()
    if op in BINARY:
        kind, a, b = re.match(r"(\S+) (\S+), (\S+)$", rest).groups()  # type: ignore[union-attr]
        return Instruction(name, op, _bits(kind), (a, b), debug=debug)
    if op == "icmp":
        predicate, kind, a, b = re.match(r"(\w+) (\S+) (.+), (\S+)$", rest).groups()  # type: ignore[union-attr]
        return Instruction(name, op, _bits(kind), (a, b), predicate, debug=debug)
    if op in CASTS:
        kind, value, _, to = re.match(r"(\S+) (.+?)( to (\S+))?$", rest).groups()  # type: ignore[union-attr]
        return Instruction(name, op, _bits(to or kind), (value,), kind, debug=debug)
    if op == "select":
        c, kind, a, b = re.match(r"i1 (\S+), (\S+) (.+), \S+ (.+)$", rest).groups()  # type: ignore[union-attr]
        return Instruction(name, op, _bits(kind), (c, a, b), debug=debug)
    if op == "phi":
        kind, _, values = rest.partition(" ")
        pairs = re.findall(rf"\[ (.+?), %({NAME}) \]", values)
        return Instruction(
            name, op, _bits(kind), tuple(v for v, _ in pairs), labels=tuple(b for _, b in pairs), debug=debug
        )
    if op == "load":
        kind, address = re.match(r"(\S+), ptr (.+)$", rest).groups()  # type: ignore[union-attr]
        return Instruction(name, op, _bits(kind), (address,), debug=debug)
    if op == "store":
        kind, value, address = re.match(r"(\S+) (.+?), ptr (.+)$", rest).groups()  # type: ignore[union-attr]
        return Instruction(name, op, _bits(kind), (value, address), debug=debug)
    if op == "getelementptr":
        kind = _first_type(rest)
        parts = split(rest[len(kind) + 2 :])
        operands = tuple(part.split(" ", 1)[1] for part in parts)
        return Instruction(name, op, 32, operands, kind, debug=debug)
    if op in ("call", "tail"):
        return _call(name, rest, debug)
    if op == "br":
        labels = re.findall(rf"label %({NAME})", rest)
        condition = re.match(r"i1 (\S+),", rest)
        return Instruction("", op, 1, (condition[1],) if condition else (), labels=tuple(labels), debug=debug)
    if op == "switch":
        kind, value, default, cases = re.match(rf"(\S+) (\S+), label %({NAME}) \[(.*)\]", rest).groups()  # type: ignore[union-attr]
        pairs = re.findall(rf"(\S+), label %({NAME})", cases)
        return Instruction(
            "", op, _bits(kind), (value, *(v for v, _ in pairs)), labels=(default, *(b for _, b in pairs)), debug=debug
        )
    if op == "alloca":
        return Instruction(name, op, 32, (), _first_type(rest), debug=debug)
    return Instruction(name, op, 0, tuple(re.findall(rf"%{NAME}", rest)), debug=debug)


def _call(name: str, rest: str, debug: int) -> Instruction | None:
    found = re.match(rf"(.*?)@({NAME})\((.*)\)(?: #\d+)?$", rest)
    if not found:
        return Instruction(name, "call", 0, tuple(re.findall(rf"%{NAME}", rest)), "?", debug=debug)
    callee = found[2]
    if callee.startswith(("llvm.lifetime", "llvm.experimental.noalias", "llvm.dbg", "llvm.assume")):
        return None
    parts = [ATTRIBUTES.sub("", part).strip() for part in split(found[3])] if found[3] else []
    operands = tuple(part.split(" ", 1)[1] if " " in part else part for part in parts)
    kind = ATTRIBUTES.sub("", found[1]).split()
    return Instruction(name, "call", _bits(kind[0]) if kind else 0, operands, callee, debug=debug)


def split(text: str) -> list[str]:
    """At commas outside of quotes, parentheses, brackets and braces."""
    if '"' in text:
        names = re.findall(r'"[^"]*"', text)
        rest = iter(names)
        return [re.sub("\0", lambda _: next(rest), part) for part in split(re.sub(r'"[^"]*"', "\0", text))]
    if not any(bracket in text for bracket in "([{"):
        return text.split(", ")
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _bits(kind: str) -> int:
    return int(kind[1:]) if re.fullmatch(r"i\d+", kind) else 32 if kind == "ptr" else 0
