"""From a pipelined loop in the IR to its graph (`hw.schedule.graph`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from hw.schedule.control import Loop, Region
from hw.schedule.delays import MODELS, product_kind
from hw.schedule.graph import Access, Graph, Memory
from hw.schedule.ir import Function, Instruction
from hw.schedule.layout import Field
from hw.schedule.layout import Region as Variable
from hw.schedule.memories import Address, Choice, Memories, Storage
from spvit.errors import BuildError

FREE = ("zext", "sext", "trunc", "freeze", "bitcast")
MIN_MAX = re.compile(r"llvm\.([su])(min|max)\.i\d+")
Index = tuple[tuple[int, tuple[str, ...]], ...]
"""Of an access, per dimension: a constant and the names that are added to it."""
ALWAYS = -1
"""Condition of a block that every iteration runs."""
NOMINAL = next(model for model in MODELS if model.name == "nominal")
STATE_NS = 3.65


def is_constant(token: str) -> bool:
    return not token.startswith("%")


@dataclass(frozen=True)
class Site:
    """An access to a memory, to be ordered."""

    node: int
    is_write: bool
    banks: frozenset[int]
    index: Index
    block: str
    position: int


class Levels:
    """How late each node's value is known, roughly: the longest path by the nominal delays, clock edges left out."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._found: list[float] = []

    def __getitem__(self, node: int) -> float:
        if node == ALWAYS:
            return 0.0
        graph = self._graph
        while len(self._found) < len(graph.nodes):
            i = len(self._found)
            timing = NOMINAL.timing(graph.nodes[i].kind, graph.nodes[i].width)
            before = max((self._found[one] for one in graph.inputs[i]), default=0.0)
            self._found.append(before + timing.states * STATE_NS + timing.after)
        return self._found[node]


class Builder:
    """Builds one loop's graph: `Builder(...).graph`."""

    def __init__(
        self, function: Function, memories: Memories, loop: Loop, label: str, name: str, local: frozenset[str]
    ) -> None:
        """local: variables that only this loop uses."""
        self._function = function
        self._memories = memories
        self._loop = loop
        self._region = Region(function, loop)
        self._local = local
        self._nodes: dict[str, int | None] = {}  # of each value computed in the loop; None: a constant
        self._widths: dict[str, int] = {}
        self._conditions: dict[tuple[str, str], int] = {}
        self._definitions: dict[tuple[str, int], dict[str, int | None]] = {}  # leaf -> block -> its value at the end
        self._entries: dict[tuple[str, int, str], int | None] = {}
        self._carried: dict[tuple[str, int], int] = {}
        self._sites: dict[tuple[str, int, int], list[Site]] = {}
        self._words: dict[tuple[object, ...], int] = {}
        self._epoch: dict[tuple[str, int], int] = {}
        self._fifos: dict[tuple[str, str], list[int]] = {}
        self._axi: dict[str, list[int]] = {}
        self._residues: dict[tuple[str, int], int | None] = {}
        self._position = 0
        self.graph = Graph(name, label)
        self._levels = Levels(self.graph)
        self._start = self.graph.add("start", 1)
        for block in self._region.order:
            for instruction in function.blocks[block].instructions:
                self._instruction(instruction, block)
        self._close()

    # values

    def _value(self, token: str) -> int | None:
        return None if is_constant(token) else self._nodes.get(token)

    def _width(self, token: str) -> int:
        """Bits that carry a value: without what an extension repeats."""
        if is_constant(token):
            return max(1, int(token).bit_length()) if re.fullmatch(r"-?\d+", token) else 1
        if token not in self._widths:
            self._widths[token] = self._bits(token)
        return self._widths[token]

    def _bits(self, token: str) -> int:
        if token not in self._function.defined:
            return 32
        instruction, _ = self._function.defined[token]
        if instruction.op in ("zext", "sext"):
            return self._width(instruction.operands[0])
        if instruction.op == "trunc":
            return min(instruction.width, self._width(instruction.operands[0]))
        if instruction.op == "and":
            masks = [int(one).bit_length() for one in instruction.operands if re.fullmatch(r"\d+", one)]
            return min([instruction.width, *masks])
        if instruction.op == "lshr" and re.fullmatch(r"\d+", instruction.operands[1]):
            return max(1, instruction.width - int(instruction.operands[1]))
        return instruction.width

    def _name(self, token: str) -> str:
        if token in self._function.variables:
            return self._memories.debug.path(*self._function.variables[token])
        return ""

    def _add(self, instruction: Instruction, kind: str, width: int, inputs: list[int | None]) -> int:
        name = self._name(instruction.name) if instruction.name else ""
        return self.graph.add(kind, width, inputs, name, instruction.debug)

    # conditions

    def _edge(self, source: str, target: str) -> int:
        """Node of the condition under which `source` goes on to `target`, given that it runs."""
        terminator = self._function.blocks[source].terminator
        if terminator.op == "br":
            stays = self._region.successors[source]
            if len(terminator.labels) == 1 or len(stays) == 1:
                return ALWAYS
            node = self._value(terminator.operands[0])
            return ALWAYS if node is None else node
        node = self._value(terminator.operands[0])
        key = (f"{source}>", target)
        if key not in self._conditions:
            cases = sum(label == target for label in terminator.labels)
            width = self._width(terminator.operands[0])
            equal = self.graph.add("icmp", width, [node], debug=terminator.debug)
            self._conditions[key] = equal if cases == 1 else self.graph.add("logic", 1, [equal])
        return self._conditions[key]

    def _and(self, a: int, b: int) -> int:
        if ALWAYS in (a, b) or a == b:
            return max(a, b)
        return self.graph.add("logic", 1, [a, b])

    def _condition(self, block: str, since: str) -> int:
        """Node of the condition under which `block` runs, given that `since`, which dominates it, does."""
        region = self._region
        while block != since and region.always_follows(block, region.dominator[block]):
            block = region.dominator[block]
        if block == since:
            return ALWAYS
        key = (block, since)
        if key not in self._conditions:
            paths = [
                self._and(self._condition(source, since), self._edge(source, block))
                for source in region.predecessors[block]
            ]
            found = paths[0]
            for path in paths[1:]:
                found = self.graph.add("logic", 1, [found, path])
            self._conditions[key] = found
        return self._conditions[key]

    def _runs(self, block: str) -> int:
        return self._condition(block, self._region.header)

    def _merge(self, block: str, values: dict[str, int | None], width: int, name: str, debug: int) -> int | None:
        """A choice between what several paths into a block bring.

        values  predecessor -> node; None for a constant
        """
        groups: dict[int | None, list[str]] = {}
        for source, value in values.items():
            groups.setdefault(value, []).append(source)
        if len(groups) == 1 and (len(values) == 1 or None not in groups):
            return next(iter(groups))
        dominator = self._region.dominator[block]
        if len(groups) == 1:  # constants that differ
            groups = {-1 - i: [source] for i, source in enumerate(values)}
        controls = [
            [self._and(self._condition(source, dominator), self._edge(source, block)) for source in sources]
            for sources in groups.values()
        ]
        # one of the values is taken when no other is: the one whose condition is known last
        controls.sort(key=lambda paths: (max(self._levels[path] for path in paths), len(paths)))
        needed = [path for paths in controls[:-1] for path in paths if path != ALWAYS]
        live = [value for value in groups if value is not None and value >= 0]
        return self.graph.add(f"choice:{len(groups)}", width, [*live, *needed], name, debug)

    # instructions

    def _instruction(self, instruction: Instruction, block: str) -> None:
        op, operands = instruction.op, instruction.operands
        if op == "phi":
            self._phi(instruction, block)
        elif op == "call":
            self._call(instruction, block)
        elif op == "load":
            self._nodes[instruction.name] = self._load(self._memories.address(operands[0]), instruction, block)
        elif op == "store":
            self._store(instruction, block)
        elif op not in ("br", "switch", "getelementptr", "alloca", "unreachable"):
            if instruction.width == 32 and op == "select" and self._is_pointer(operands[1]):
                self._nodes[instruction.name] = self._value(operands[0])
                return
            self._nodes[instruction.name] = self._operation(instruction)

    def _is_pointer(self, token: str) -> bool:
        if token.startswith(("@", "getelementptr")):
            return True
        return token in self._function.defined and self._function.defined[token][0].op in ("getelementptr", "alloca")

    def _operation(self, instruction: Instruction) -> int | None:
        op, operands = instruction.op, instruction.operands
        inputs = [self._value(one) for one in operands]
        live = [one for one in inputs if one is not None]
        if op in FREE:
            return inputs[0]
        if not live and all(is_constant(one) or one not in self._nodes for one in operands):
            return None  # the same in every iteration
        constants = [int(one) for one in operands if re.fullmatch(r"-?\d+", one)]
        widths = [self._width(one) for one in operands]
        if op == "icmp":
            sign = (instruction.detail in ("slt", "sge") and operands[1] == "0") or (
                instruction.detail in ("sgt", "sle") and operands[1] == "-1"
            )  # the sign bit
            return inputs[0] if sign else self._add(instruction, "icmp", max(widths), inputs)
        if op == "select":
            if instruction.width == 1 and (len(live) < 3):
                return self._add(instruction, "logic", 1, inputs)
            return self._add(instruction, "select", max(widths[1:]), inputs)
        if op in ("shl", "lshr", "ashr"):
            if constants and is_constant(operands[1]):
                return inputs[0]
            return self._add(instruction, "shift", instruction.width, inputs)
        if op in ("and", "or", "xor"):
            if (op == "and" and constants) or (op == "or" and self._is_disjoint(*operands)):
                return live[0] if len(live) == 1 else self._add(instruction, "wire", instruction.width, inputs)
            return self._add(instruction, "logic", instruction.width, inputs)
        if op in ("add", "sub"):
            return self._add(instruction, op, min(instruction.width, max(widths) + 1), inputs)
        if op == "mul":
            return self._multiply(instruction, constants, widths, inputs)
        if op in ("sdiv", "udiv", "srem", "urem"):
            if constants and constants[0] > 0 and constants[0] & (constants[0] - 1) == 0 and is_constant(operands[1]):
                return inputs[0] if op[0] == "u" else self._add(instruction, "signed division", widths[0], inputs)
            return self._add(instruction, "divide", widths[0], inputs)
        raise BuildError(f"{self._place(instruction)}: the scheduler does not know LLVM's {op}")

    def _multiply(
        self, instruction: Instruction, constants: list[int], widths: list[int], inputs: list[int | None]
    ) -> int | None:
        if not constants:
            return self._add(instruction, product_kind(*widths), instruction.width, inputs)
        digits = _signed_digits(abs(constants[0]))
        if digits <= 1 and constants[0] >= 0:
            return next(one for one in inputs if one is not None)
        if digits <= 4:
            return self._add(instruction, f"tree:{max(1, (digits - 1).bit_length())}", instruction.width, inputs)
        return self._add(instruction, product_kind(*widths), instruction.width, inputs)

    def _is_disjoint(self, a: str, b: str) -> bool:
        """Whether one is shifted beyond what the other holds: bits side by side."""
        for low, high in ((a, b), (b, a)):
            shift = self._function.defined.get(high, (None, ""))[0]
            if shift is not None and shift.op == "shl" and re.fullmatch(r"\d+", shift.operands[1]):
                extended = self._function.defined.get(low, (None, ""))[0]
                if extended is not None and extended.op == "zext" and self._width(low) <= int(shift.operands[1]):
                    return True
        return False

    def _place(self, instruction: Instruction) -> str:
        return self._memories.debug.place(instruction.debug) if instruction.debug >= 0 else self.graph.name

    def _phi(self, instruction: Instruction, block: str) -> None:
        if any(self._is_pointer(one) for one in instruction.operands):
            self._nodes[instruction.name] = None
            return
        if block == self._region.header:
            self._nodes[instruction.name] = self._add(instruction, "phi", instruction.width, [])
            return
        values = {
            source: self._value(token)
            for token, source in zip(instruction.operands, instruction.labels, strict=True)
            if source in self._region.predecessors[block]
        }
        tokens = set(instruction.operands)
        if len(tokens) == 1:
            self._nodes[instruction.name] = self._value(instruction.operands[0])
            return
        name = self._name(instruction.name)
        self._nodes[instruction.name] = self._merge(block, values, instruction.width, name, instruction.debug)

    def _call(self, instruction: Instruction, block: str) -> None:
        callee, operands = instruction.detail, instruction.operands
        if callee in ("spvit_mark", "spvit_mark_variable"):
            return
        if callee.startswith("spvit_fifo"):
            self._fifo(instruction, block)
        elif callee.startswith(("llvm.ctlz", "llvm.cttz")):
            self._nodes[instruction.name] = self._add(
                instruction, "count zeros", instruction.width, [self._value(operands[0])]
            )
        elif MIN_MAX.match(callee):
            inputs = [self._value(one) for one in operands]
            width = max(self._width(one) for one in operands)
            compared = self._add(instruction, "icmp", width, inputs)
            self._nodes[instruction.name] = self._add(instruction, "select", width, [compared, *inputs])
        elif callee.startswith("llvm.abs"):
            negated = self._add(instruction, "sub", instruction.width, [self._value(operands[0])])
            self._nodes[instruction.name] = self._add(
                instruction, "select", instruction.width, [negated, self._value(operands[0])]
            )
        elif callee.startswith(("llvm.fshl", "llvm.fshr")):
            inputs = [self._value(one) for one in operands]
            if is_constant(operands[2]):
                self._nodes[instruction.name] = self._add(instruction, "wire", instruction.width, inputs)
            else:
                self._nodes[instruction.name] = self._add(instruction, "shift", instruction.width, inputs)
        elif callee.startswith("llvm.memset"):
            self._memset(instruction, block)
        else:
            raise BuildError(f"{self._place(instruction)}: the scheduler does not know the function {callee}")

    # streams

    def _fifo(self, instruction: Instruction, block: str) -> None:
        callee, operands = instruction.detail, instruction.operands
        inputs = [self._value(one) for one in operands]
        if callee in ("spvit_fifo_read", "spvit_fifo_write"):
            kind = "fifo read" if callee == "spvit_fifo_read" else "fifo write"
            address = self._memories.address(operands[0])
            assert isinstance(address, Address)
            name = self._stream_name(address)
            node = self.graph.add(kind, 1, inputs[1:], name, instruction.debug)
            condition = self._runs(block)
            if condition != ALWAYS:
                self.graph.conditions[node] = condition
            before = self._fifos.setdefault((f"{address.object}+{address.offset}", kind), [])
            for other in before:
                self.graph.order(other, node, 1, why=name)
            before.append(node)
            self._nodes[instruction.name] = node
        else:  # a piece of the word, or whether there was one
            self._nodes[instruction.name] = self.graph.add("wire", instruction.width, inputs, debug=instruction.debug)

    def _stream_name(self, address: Address) -> str:
        if address.object in self._function.defined or address.object.startswith("@"):
            region = self._memories.region(address)
            if region is not None:
                return region.name.rpartition(".handle_")[0] or region.name
        return address.object.strip("%")

    # memories

    def _load(self, address: Address | Choice, instruction: Instruction, block: str) -> int | None:
        if isinstance(address, Choice):
            raise BuildError(
                f"{self._place(instruction)}: a load through a choice between pointers, which synthesis refuses where "
                f"they point to different arrays; choose between values, or between indices"
            )
        if self._is_argument(address):
            return self._axi_access(address, instruction, block, [])
        variable = self._variable(address, instruction)
        kind = self._memories.kind(address.object, variable, address.object in self._local)
        size = max(1, -(-instruction.width // 8))
        if kind == "register":
            return self._read_registers(address, variable, size, instruction, block)
        if not variable.dims or (kind == "rom" and not address.terms):
            return None  # a constant
        return self._access(address, variable, kind, instruction, block, None)

    def _store(self, instruction: Instruction, block: str) -> None:
        value, pointer = instruction.operands
        address = self._memories.address(pointer)
        if isinstance(address, Choice):
            raise BuildError(f"{self._place(instruction)}: a store through a choice of pointers; choose an index")
        if self._is_argument(address):
            self._axi_access(address, instruction, block, [self._value(value)])
            return
        variable = self._variable(address, instruction)
        kind = self._memories.kind(address.object, variable, address.object in self._local)
        size = max(1, -(-instruction.width // 8))
        if kind == "register":
            self._write_registers(address, variable, size, self._value(value), block, instruction)
        else:
            self._access(address, variable, kind, instruction, block, value)

    def _memset(self, instruction: Instruction, block: str) -> None:
        address = self._memories.address(instruction.operands[0])
        assert isinstance(address, Address)
        end = address.offset + int(instruction.operands[2])
        for variable in self._memories.regions(address.object):
            if address.offset <= variable.offset < end:
                kind = self._memories.kind(address.object, variable, address.object in self._local)
                if kind != "register":
                    raise BuildError(f"{self._place(instruction)}: {variable.name} is cleared at once; it is a memory")
                for leaf in self._leaves(variable):
                    self._define(address.object, leaf.offset, block, None)

    def _is_argument(self, address: Address) -> bool:
        return address.object in self._function.arguments

    def _variable(self, address: Address, instruction: Instruction) -> Variable:
        variable = self._memories.region(address)
        if variable is None:
            raise BuildError(f"{self._place(instruction)}: an address lies outside of {address.object}")
        return variable

    def _axi_access(self, address: Address, instruction: Instruction, block: str, inputs: list[int | None]) -> int:
        values = [*inputs, *(self._value(index) for index, _ in address.terms)]
        node = self.graph.add("axi", instruction.width, values, address.object.strip("%"), instruction.debug)
        condition = self._runs(block)
        if condition != ALWAYS:
            self.graph.conditions[node] = condition
        before = self._axi.setdefault(address.object, [])
        for other in before:
            self.graph.order(other, node, 1, why=address.object)
        before.append(node)
        return node

    # registers: values in SSA form, leaf by leaf

    def _leaves(self, variable: Variable) -> list[Field]:
        return [
            replace(one, offset=variable.offset + i * variable.element_bytes + one.offset)
            for i in range(variable.num_elements)
            for one in variable.fields
        ]

    def _candidates(self, address: Address, variable: Variable) -> tuple[list[tuple[int, tuple[int, ...]]], list[str]]:
        """Byte offsets that an address may mean, each with its indices; and the names of the indices."""
        by_stride: dict[int, list[str]] = {}
        for index, stride in address.terms:
            by_stride.setdefault(stride, []).append(index)
        relative = address.offset - variable.offset
        choices: list[list[tuple[int, int]]] = []
        names: list[str] = []
        strides = [(s, d) for s, d in zip(variable.strides, variable.dims, strict=True)]
        for stride, found in by_stride.items():
            dim = next((d for s, d in strides if s == stride), None)
            if dim is None:  # within an element: a lane
                inner = variable.element_bytes // stride
                dim = inner
            choices.append([(k * stride, k) for k in range(dim)])
            names += found
        offsets = []
        for one in product(*choices):
            offset = variable.offset + (relative + sum(o for o, _ in one)) % variable.bytes
            offsets.append((offset, tuple(k for _, k in one)))
        return offsets, names

    def _read_registers(
        self, address: Address, variable: Variable, size: int, instruction: Instruction, block: str
    ) -> int | None:
        offsets, names = self._candidates(address, variable)
        values: list[int | None] = []
        for offset, _ in offsets:
            values += [self._current(address.object, leaf, block) for leaf in self._covered(variable, offset, size)]
        if not names:
            live = [one for one in values if one is not None]
            return live[0] if len(live) == 1 else self._wire(live, instruction)
        self._note_index(variable, instruction)
        indices = [self._value(name) for name in names]
        return self._add(instruction, f"mux:{len(offsets)}", instruction.width, [*indices, *values])

    def _wire(self, live: list[int], instruction: Instruction) -> int | None:
        return self._add(instruction, "wire", instruction.width, list(live)) if live else None

    def _note_index(self, variable: Variable, instruction: Instruction) -> None:
        self.graph.notes.append(
            f"{self._place(instruction)}: {variable.name} is taken as registers, and indexed at run time"
        )

    def _write_registers(
        self, address: Address, variable: Variable, size: int, value: int | None, block: str, instruction: Instruction
    ) -> None:
        offsets, names = self._candidates(address, variable)
        if not names:
            for leaf in self._covered(variable, offsets[0][0], size):
                self._define(address.object, leaf, block, value)
            return
        self._note_index(variable, instruction)
        indices = [self._value(name) for name in names]
        for offset, which in offsets:
            key = ("decode", *names, which)
            if key not in self._words:
                width = max(1, (len(offsets) - 1).bit_length())
                self._words[key] = self.graph.add("icmp", width, indices, debug=instruction.debug)
            for leaf in self._covered(variable, offset, size):
                before = self._current(address.object, leaf, block)
                chosen = self.graph.add(
                    "select", instruction.width, [self._words[key], value, before], variable.name, instruction.debug
                )
                self._define(address.object, leaf, block, chosen)

    def _covered(self, variable: Variable, offset: int, size: int) -> list[int]:
        """Offsets of the numbers in `size` bytes from `offset` on."""
        within = (offset - variable.offset) % variable.element_bytes
        base = offset - within
        return [
            base + one.offset
            for one in variable.fields
            if within <= one.offset < within + size or one.offset <= within < one.offset + -(-one.bits // 8)
        ]

    def _define(self, name: str, offset: int, block: str, value: int | None) -> None:
        self._definitions.setdefault((name, offset), {})[block] = value

    def _current(self, name: str, offset: int, block: str) -> int | None:
        found = self._definitions.get((name, offset), {})
        return found[block] if block in found else self._entry(name, offset, block)

    def _entry(self, name: str, offset: int, block: str) -> int | None:
        """A number's value where a block begins."""
        region = self._region
        defined = self._definitions.get((name, offset), {})
        at, merges = self._anchor(frozenset(defined), block)
        if not merges and at in defined and at != block:
            return defined[at]
        if not merges:
            if (name, offset) not in self._carried:
                self._carried[name, offset] = self.graph.add("phi", 1, [], self._leaf_name(name, offset))
            return self._carried[name, offset]
        key = (name, offset, at)
        if key not in self._entries:
            values = {source: self._current(name, offset, source) for source in region.predecessors[at]}
            self._entries[key] = self._merge(at, values, 32, self._leaf_name(name, offset), -1)
        return self._entries[key]

    @cache  # noqa: B019 - lives as long as its loop
    def _anchor(self, defined: frozenset[str], block: str) -> tuple[str, bool]:
        """Where what blocks define comes from, seen from a block's begin.

        The block that defines it, or the header; or a block at which several paths meet (True). Lanes side by side are
        defined in the same blocks, so most answers are known.
        """
        region = self._region
        bits = sum(1 << region.number[one] for one in defined)
        at = block
        while at != region.header:
            if region.between[at] & bits:
                return at, True
            at = region.dominator[at]
            if at in defined:
                return at, False
        return at, False

    def _leaf_name(self, name: str, offset: int) -> str:
        for variable in self._memories.regions(name):
            inside = offset - variable.offset
            if 0 <= inside < variable.bytes:
                pairs = zip(variable.strides, variable.dims, strict=True)
                return variable.name + "".join(f"[{inside // stride % dim}]" for stride, dim in pairs)
        return name

    # memories: accesses in order

    def _access(
        self, address: Address, variable: Variable, kind: str, instruction: Instruction, block: str, value: str | None
    ) -> int | None:
        """A read, or with `value` a write, of the word that the address lies in."""
        storage = self._memories.storage(address.object, variable)
        relative = address.offset - variable.offset
        within = relative % variable.element_bytes
        field = next((one for one in variable.fields if one.offset == within), None)
        part = within if not storage.aggregated and field is not None and "[" not in field.name else -1
        if part < 0 and not storage.aggregated and len(variable.fields) > 1:
            self.graph.notes.append(f"{variable.name}: structs without AGGREGATE are taken as one word")
        index = self._index(address, variable, relative)
        epoch = self._epoch.get((address.object, variable.offset), 0)
        key = (
            "" if value is None else block,
            address.object,
            variable.offset,
            part,
            index,
            epoch if value is None else -1,
        )
        inputs = [self._value(name) for name, _ in address.terms]
        if key in self._words:
            node = self._words[key]
            if value is not None:
                extra = [one for one in (self._value(value), *inputs) if one is not None]
                self.graph.inputs[node] = tuple(dict.fromkeys((*self.graph.inputs[node], *extra)))
            return node
        banks = self._banks(index, storage)
        if value is None:
            node = self.graph.add(f"load:{kind}", field.bits if field else instruction.width, inputs,
                                  variable.name, instruction.debug)  # fmt: skip
            result = node
            if len(banks) > 1:
                result = self.graph.add(f"mux:{len(banks)}", instruction.width, [node, *inputs])
        else:
            condition = self._runs(block)
            node = self.graph.add("store", instruction.width,
                                  [self._value(value), *inputs, None if condition == ALWAYS else condition],
                                  variable.name, instruction.debug)  # fmt: skip
            result = node
            self._epoch[address.object, variable.offset] = epoch + 1
        self._words[key] = result
        self._position += 1
        sites = self._sites.setdefault((address.object, variable.offset, part), [])
        sites.append(Site(node, value is not None, banks, index, block, self._position))
        return result

    def _index(self, address: Address, variable: Variable, relative: int) -> Index:
        """Per dimension: the constant part and the names that are added to it."""
        found = []
        for stride, dim in zip(variable.strides, variable.dims, strict=True):
            names = tuple(sorted(name for name, s in address.terms if s == stride))
            found.append((relative // stride % dim, names))
        return tuple(found)

    def _banks(self, index: Index, storage: Storage) -> frozenset[int]:
        """Which banks an access may touch."""
        ranges: list[list[int]] = []
        for dim, how, banks in storage.bank_dims():
            constant, names = index[dim]
            if how == "block":
                size = -(-storage.region.dims[dim] // banks)
                ranges.append(list(range(banks)) if names else [constant // size])
                continue
            residue: int | None = constant % banks
            for name in names:
                rest = self._residue(name, banks)
                residue = None if residue is None or rest is None else (residue + rest) % banks
            ranges.append(list(range(banks)) if residue is None else [residue])
        strides, total = [], 1
        for _, _, banks in reversed(storage.bank_dims()):
            strides.append(total)
            total *= banks
        strides.reverse()
        return frozenset(sum(b * s for b, s in zip(one, strides, strict=True)) for one in product(*ranges))

    def _residue(self, token: str, modulus: int) -> int | None:
        """token mod modulus, where the IR shows it; a value that depends on itself shows nothing."""
        if re.fullmatch(r"-?\d+", token):
            return int(token) % modulus
        if modulus == 1:
            return 0
        key = (token, modulus)
        if key not in self._residues:
            self._residues[key] = None
            self._residues[key] = self._find_residue(token, modulus)
        return self._residues[key]

    def _find_residue(self, token: str, modulus: int) -> int | None:
        if token not in self._function.defined:
            return None
        instruction = self._function.defined[token][0]
        a, *rest = instruction.operands or ("",)
        op = instruction.op
        constant = int(rest[0]) if rest and re.fullmatch(r"-?\d+", rest[0]) else None
        if op in FREE:
            return self._residue(a, modulus)
        if op in ("add", "sub"):
            x, y = self._residue(a, modulus), self._residue(rest[0], modulus)
            return None if x is None or y is None else (x + y if op == "add" else x - y) % modulus
        if op == "mul" and constant is not None:
            return self._scaled(a, constant, modulus)
        if op == "shl" and constant is not None:
            return self._scaled(a, 1 << constant, modulus)
        if op in ("ashr", "lshr", "sdiv", "udiv") and constant is not None and constant >= 0:
            divisor = 1 << constant if op in ("ashr", "lshr") else constant
            x = self._residue(a, modulus * divisor) if divisor else None
            return None if x is None else x // divisor % modulus
        if op in ("select", "phi"):
            options = {self._residue(one, modulus) for one in (rest if op == "select" else (a, *rest))}
            return options.pop() if len(options) == 1 else None
        return None

    def _scaled(self, token: str, factor: int, modulus: int) -> int | None:
        """token * factor mod modulus: known too where the factor brings the modulus, or a part of it."""
        if factor % modulus == 0:
            return 0
        shared = _gcd(factor, modulus)
        x = self._residue(token, modulus // shared)
        return None if x is None else x * factor % modulus

    # at the end

    def _close(self) -> None:
        graph = self.graph
        self._carry_values()
        self._carry_registers()
        for (name, offset, part), sites in self._sites.items():
            self._order(name, offset, part, sites)
        for accesses in (*self._fifos.values(), *self._axi.values()):
            graph.order(accesses[-1], accesses[0], 1, 1, why="one access at a time")
        for source in self._region.order:
            block = self._function.blocks[source]
            if any(target not in self._loop.blocks for target in block.successors) and block.terminator.operands:
                node = self._value(block.terminator.operands[0])
                if node is not None:
                    graph.order(node, self._start, 0, 1, chained=True, why="the loop's condition")
        for node in range(1, len(graph.nodes)):
            if not graph.inputs[node]:
                graph.order(self._start, node, 0)

    def _carry_values(self) -> None:
        for instruction in self._function.blocks[self._region.header].instructions:
            if instruction.op != "phi" or self._nodes.get(instruction.name) is None:
                continue
            phi = self._nodes[instruction.name]
            for token, source in zip(instruction.operands, instruction.labels, strict=True):
                if source in self._loop.latches and token != instruction.name:
                    value = self._value(token)
                    if value is not None and phi is not None:
                        self._carry(value, phi)

    def _carry(self, value: int, phi: int) -> None:
        if value == phi:
            return
        node = self.graph.nodes[phi]
        stored = self.graph.add("carry", node.width, [value], node.name, self.graph.nodes[value].debug)
        self.graph.order(stored, phi, 0, 1, chained=True, why=node.name)

    def _carry_registers(self) -> None:
        for name, offset in list(self._carried):
            values = {latch: self._current(name, offset, latch) for latch in self._loop.latches}
            phi = self._carried[name, offset]
            for value in values.values():
                if value is not None:
                    self._carry(value, phi)
        for (name, offset), blocks in self._definitions.items():
            if (name, offset) not in self._carried and name not in self._local:
                for latch in self._loop.latches:
                    value = self._current(name, offset, latch)
                    if value is not None and any(one is not None for one in blocks.values()):
                        self.graph.add("carry", 1, [value], self._leaf_name(name, offset))

    def _order(self, name: str, offset: int, part: int, sites: list[Site]) -> None:
        """What the accesses to one memory wait for."""
        variable = next(one for one in self._memories.regions(name) if one.offset == offset)
        storage = self._memories.storage(name, variable)
        kind = self._memories.kind(name, variable, name in self._local)
        field = next((one.name for one in variable.fields if one.offset == part), "") if part >= 0 else ""
        memory = Memory(variable.name + field, kind, storage.banks, self._memories.ports(name, variable))
        memory.accesses = [Access(one.node, one.is_write, one.banks) for one in sites]
        self.graph.memories.append(memory)
        if not any(one.is_write for one in sites):
            return
        inter = self._memories.distance(self._loop, name, variable, inter=True)
        intra = self._memories.distance(self._loop, name, variable, inter=False)
        for first in sites:
            for second in sites:
                if not (first.is_write or second.is_write) or not first.banks & second.banks:
                    continue
                states = 1 if first.is_write else 0
                before = first.position < second.position and self._region.reaches(first.block, second.block)
                if intra is not None and before and not _differ(first.index, second.index):
                    self.graph.order(first.node, second.node, states, why=memory.name)
                if inter is not None:
                    self.graph.order(first.node, second.node, states, inter, why=memory.name)


def _differ(a: Index, b: Index) -> bool:
    """Whether two indices are never equal: the same names, another constant."""
    return any(x[1] == y[1] and x[0] != y[0] for x, y in zip(a, b, strict=True))


def _gcd(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


def _signed_digits(value: int) -> int:
    """Powers of two that must be added or subtracted to make it."""
    count = 0
    while value:
        if value & 1:
            count += 1
            value += 1 if value & 2 else -1
        value >>= 1
    return count
