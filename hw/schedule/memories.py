"""What the design's variables become: registers, or memories with banks and ports, as the pragmas in the IR say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

from hw.pragmas import Pragma
from hw.schedule.control import Loop, innermost
from hw.schedule.ir import Function, Instruction, Module
from hw.schedule.layout import Debug, Region, llvm_members, llvm_regions, llvm_size
from spvit.errors import BuildError

LUT_RAM_BITS = 1024
"""A memory that is smaller than this becomes LUTRAM where no pragma chooses."""
LUT_RAM_DEPTH = 64
PORTS: dict[str, tuple[int, int] | None] = {
    "ram_1p": (1, 1), "ram_2p": None, "ram_s2p": (1, 1), "ram_t2p": None, "ram_1wnr": (99, 1),
    "rom_1p": (1, 0), "rom_2p": (2, 0), "rom_np": (99, 0),
}  # fmt: skip
"""Reads and writes per cycle of BIND_STORAGE's types (UG1399); None: two of either kind."""


@dataclass(frozen=True)
class Address:
    """object + offset + sum of index * stride, in bytes. terms: (name of the index, stride)."""

    object: str
    offset: int
    terms: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Choice:
    """A pointer that is one of several, and a way on from it."""

    instruction: Instruction
    block: str
    offset: int = 0
    terms: tuple[tuple[str, int], ...] = ()


@dataclass
class Storage:
    """How an array is built.

    kind        register, or what `hw.schedule.delays` knows: block ram, lut ram, rom; axi
    partitions  per dimension: (complete | cyclic | block, factor)
    """

    region: Region
    kind: str = ""
    partitions: dict[int, tuple[str, int]] = field(default_factory=dict)
    aggregated: bool = False
    ports: tuple[int, int] | None = None
    implementation: str = ""
    marked: bool = False

    def bank_dims(self) -> list[tuple[int, str, int]]:
        """(dimension, type, banks) of those that are partitioned."""
        return [
            (dim, how, self.region.dims[dim] if how == "complete" else min(factor, self.region.dims[dim]))
            for dim, (how, factor) in sorted(self.partitions.items())
        ]

    @property
    def banks(self) -> int:
        count = 1
        for _, _, banks in self.bank_dims():
            count *= banks
        return count


class Memories:
    """The variables of a function that everything was inlined into."""

    def __init__(self, module: Module, function: Function, pragmas: list[Pragma], loops: list[Loop]) -> None:
        self._module = module
        self._function = function
        self.debug = Debug(module)
        self._storages: dict[tuple[str, int], Storage] = {}
        self._dependences: dict[tuple[str, str, int, bool], int | None] = {}
        for block, mark in self._marks():
            self._read_mark(block, mark, pragmas, loops)

    def _marks(self) -> Iterator[tuple[str, Instruction]]:
        for block in self._function.blocks.values():
            for instruction in block.instructions:
                if instruction.op == "call" and instruction.detail == "spvit_mark_variable":
                    yield block.name, instruction

    def _read_mark(self, block: str, mark: Instruction, pragmas: list[Pragma], loops: list[Loop]) -> None:
        number, pointer, size, value = mark.operands
        pragma = pragmas[int(number)]
        address = self.address(pointer)
        if isinstance(address, Choice):
            raise BuildError(f"{pragma.place}: {pragma.variable} is one of several variables; name one")
        for region in self.regions(address.object):
            if not address.offset <= region.offset < address.offset + int(size):
                continue
            storage = self.storage(address.object, region)
            if pragma.directive == "DEPENDENCE":
                loop = innermost(loops, block)
                if loop is None:
                    raise BuildError(f"{pragma.place}: DEPENDENCE of {pragma.variable} stands in no loop")
                distance = None if pragma.has("false") else max(1, int(value))
                self._dependences[loop.header, address.object, region.offset, not pragma.has("intra")] = distance
            elif pragma.directive == "AGGREGATE":
                storage.aggregated = True
            elif pragma.directive == "BIND_STORAGE":
                self._bind(storage, pragma)
            elif not pragma.is_off:
                self._partition(storage, pragma, int(value))

    def _bind(self, storage: Storage, pragma: Pragma) -> None:
        kind = pragma.options.get("type", "").lower()
        if kind in PORTS:
            storage.ports = PORTS[kind]
        implementation = pragma.options.get("impl", "").lower()
        storage.implementation = implementation
        storage.marked = True

    def _partition(self, storage: Storage, pragma: Pragma, factor: int) -> None:
        how = next((one for one in ("cyclic", "block", "complete") if pragma.has(one)), "complete")
        dim = int(pragma.options.get("dim", "1"))
        dims = range(len(storage.region.dims)) if dim == 0 else [dim - 1]
        for one in dims:
            if one < len(storage.region.dims):
                if how != "complete" and factor < 2:
                    continue
                storage.partitions[one] = (how, factor)
        storage.marked = True

    @cache  # noqa: B019 - lives as long as its function
    def regions(self, name: str) -> tuple[Region, ...]:
        """What an object is made of."""
        if name in self._module.globals:
            variable = self._module.globals[name]
            if variable.debug >= 0:
                source, kind = self.debug.global_variable(variable.debug)
                if source:
                    return self.debug.regions(kind, source)
            return llvm_regions(variable.kind, name.strip('@"'), self._module.types)
        instruction, _ = self._function.defined[name]
        plain = re.sub(r"\.i\d*\b|\.sroa[.\d]*|%", "", name)
        if name in self._function.variables:
            number, _, width = self._function.variables[name]
            source, kind = self.debug.local_variable(number)
            found = self.debug.regions(kind, source) if width == 0 and kind >= 0 else ()
            if found and sum(one.bytes for one in found) <= llvm_size(instruction.detail, self._module.types)[0]:
                return found
            plain = source or plain
        return llvm_regions(instruction.detail, plain, self._module.types)

    def region(self, address: Address) -> Region | None:
        """The array or number that an address lies in."""
        for region in self.regions(address.object):
            if region.offset <= address.offset < region.offset + region.bytes:
                return region
        return None

    def storage(self, name: str, region: Region) -> Storage:
        return self._storages.setdefault((name, region.offset), Storage(region))

    def kind(self, name: str, region: Region, is_local: bool) -> str:
        """What holds it. `is_local`: a variable of one loop's own, that no pragma binds."""
        storage = self.storage(name, region)
        is_constant = name in self._module.globals and self._module.globals[name].is_constant
        complete = all(storage.partitions.get(dim, ("",))[0] == "complete" for dim in range(len(region.dims)))
        if (not region.dims or complete) and not is_constant:
            return "register"
        if is_local and not storage.marked and not is_constant:
            return "register"
        depth = region.num_elements // storage.banks
        small = depth <= LUT_RAM_DEPTH or depth * region.bits <= LUT_RAM_BITS
        if storage.implementation in ("lutram", "lut_ram"):
            small = True
        elif storage.implementation in ("bram", "uram"):
            small = False
        if is_constant:
            return "rom" if small else "block ram"
        return "lut ram" if small else "block ram"

    def ports(self, name: str, region: Region) -> tuple[int, int] | None:
        """Per bank and cycle; without a pragma, two of either kind."""
        return self.storage(name, region).ports

    def distance(self, loop: Loop, name: str, region: Region, inter: bool) -> int | None:
        """Iterations between accesses to an array that may meet, at least, as the pragma says; None: they never do.

        inter  between iterations, else within one
        """
        return self._dependences.get((loop.header, name, region.offset, inter), 1 if inter else 0)

    @cache  # noqa: B019 - lives as long as its function
    def address(self, token: str) -> Address | Choice:
        """Where a pointer points."""
        if token.startswith("getelementptr"):
            found = re.match(r"getelementptr (?:inbounds |nuw |nusw )*\((.*)\)$", token)
            assert found, token
            kind, pointer, *indices = _operands(found[1])
            return self._step(self.address(pointer), kind, indices)
        if token.startswith("@"):
            return Address(token, 0, ())
        if token not in self._function.defined:
            return Address(token, 0, ())  # an argument
        instruction, block = self._function.defined[token]
        if instruction.op == "getelementptr":
            pointer, *indices = instruction.operands
            return self._step(self.address(pointer), instruction.detail, indices)
        if instruction.op in ("select", "phi"):
            values = instruction.operands[1:] if instruction.op == "select" else instruction.operands
            if len(set(values)) == 1:
                return self.address(values[0])
            return Choice(instruction, block)
        if instruction.op == "alloca":
            return Address(token, 0, ())
        raise BuildError(f"a pointer comes from {instruction.op}, which the scheduler cannot follow")

    def _step(self, base: Address | Choice, kind: str, indices: list[str]) -> Address | Choice:
        types = self._module.types
        offset, terms = base.offset, list(base.terms)
        for i, index in enumerate(indices):
            if i > 0 and (found := re.fullmatch(r"\[(\d+) x (.*)\]", kind)):
                kind = found[2]
            elif i > 0:
                member = list(llvm_members(kind, types))[int(index)]
                kind, offset = member[0], offset + member[1]
                continue
            stride = llvm_size(kind, types)[0]
            if re.fullmatch(r"-?\d+", index):
                offset += int(index) * stride
            else:
                terms.append((index, stride))
        return replace(base, offset=offset, terms=tuple(terms))


def _operands(text: str) -> list[str]:
    """`i8, ptr @g, i32 12` -> [i8, @g, 12]."""
    depth, parts, start = 0, [], 0
    for i, character in enumerate(text):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    parts.append(text[start:].strip())
    return [parts[0], *(part.split(" ", 1)[1] for part in parts[1:])]
