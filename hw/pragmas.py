"""What the rendered sources tell synthesis: every `#pragma HLS` line, read once, for whoever relies on one.

Enters: sources as `{path: text}`, as `hw.render` makes them. Leaves: a list of pragmas, each with where it stands, and
the constants that their options name. Nothing is compiled; preprocessor branches are taken as synthesis takes them.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from spvit.errors import BuildError

PARTITION = ("variable", "type", "factor", "dim", "cyclic", "block", "complete", "off")
DIRECTIVES: Mapping[str, tuple[str, ...]] = {
    "AGGREGATE": ("variable", "compact"),
    "ALLOCATION": ("instances", "limit", "function", "operation"),
    "ARRAY_PARTITION": PARTITION,
    "ARRAY_RESHAPE": (*PARTITION, "object"),
    "BIND_OP": ("variable", "op", "impl", "latency"),
    "BIND_STORAGE": ("variable", "type", "impl", "latency"),
    "DATAFLOW": ("disable_start_propagation",),
    "DEPENDENCE": (
        "variable", "class", "array", "pointer", "type", "inter", "intra", "direction", "raw", "war", "waw",
        "distance", "dependent", "true", "false",
    ),
    "DISAGGREGATE": ("variable",),
    "EXPRESSION_BALANCE": ("off",),
    "FUNCTION_INSTANTIATE": ("variable",),
    "INLINE": ("off", "recursive"),
    "INTERFACE": (
        "mode", "m_axi", "s_axilite", "axis", "ap_none", "ap_vld", "ap_ack", "ap_hs", "ap_ovld", "ap_memory", "bram",
        "ap_fifo", "ap_stable", "ap_ctrl_none", "ap_ctrl_hs", "ap_ctrl_chain", "port", "bundle", "depth", "offset",
        "register", "register_mode", "latency", "max_read_burst_length", "max_write_burst_length",
        "num_read_outstanding", "num_write_outstanding", "max_widen_bitwidth", "name", "clock", "storage_type",
        "storage_impl", "channel",
    ),
    "LATENCY": ("min", "max"),
    "LOOP_FLATTEN": ("off",),
    "LOOP_MERGE": ("force",),
    "LOOP_TRIPCOUNT": ("min", "max", "avg"),
    "OCCURRENCE": ("cycle", "off"),
    "PIPELINE": ("ii", "off", "rewind", "style"),
    "PROTOCOL": ("floating", "fixed"),
    "RESET": ("variable", "off"),
    "SHARED": ("variable",),
    "STABLE": ("variable",),
    "STREAM": ("variable", "depth", "type", "off"),
    "TOP": ("name",),
    "UNROLL": ("factor", "skip_exit_check", "off", "region"),
}  # fmt: skip
"""UG1399's pragmas and their options; a flag that stands alone, as `complete`, is an option without a value."""
DEFINED = ("__SYNTHESIS__",)
"""Macros that Vitis HLS defines when it synthesizes."""


@dataclass(frozen=True)
class Pragma:
    """One `#pragma HLS` line.

    file, line  where it stands
    function    that it stands in, with its class: `PatchCutter::take`; "" at namespace scope
    loop        label of the innermost loop that it stands in; "" outside of loops or in one without a label
    loop_at     line and column (from 1 and 0) of that loop's `for`, `while` or `do`; None outside of loops
    directive   in capitals: `PIPELINE`
    options     names in small letters -> text; a flag has ""
    """

    file: str
    line: int
    function: str
    loop: str
    loop_at: tuple[int, int] | None
    directive: str
    options: Mapping[str, str] = field(hash=False)

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def in_loop(self) -> bool:
        return self.loop_at is not None

    @property
    def variable(self) -> str:
        """What the pragma speaks of, as the source writes it: `engine.memory.x`."""
        return self.options.get("variable", "")

    def has(self, name: str) -> bool:
        """Whether it says so, by a flag or as the value of an option: `complete`, `type = complete`."""
        return name in self.options or name in (value.lower() for value in self.options.values())

    @property
    def is_off(self) -> bool:
        return self.has("off")


@dataclass(frozen=True)
class SourceLoop:
    """A loop of the sources: `at` as a pragma's `loop_at`; `label` is "" where it has none."""

    file: str
    function: str
    label: str
    at: tuple[int, int]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.at[0]}"


@dataclass(frozen=True)
class Dependence:
    """A DEPENDENCE pragma, read.

    inter      between iterations, else within one
    dependent  false: there is none, whatever the addresses
    distance   iterations between those that may meet, at least; 0 where none is given
    """

    pragma: Pragma
    variable: str
    inter: bool
    dependent: bool
    distance: int


def read_pragmas(sources: Mapping[str, str]) -> list[Pragma]:
    """Every pragma that synthesis sees. Raises BuildError on one that it would not know."""
    return [pragma for path, text in sources.items() for pragma in _walk(path, text)[0]]


def read_loops(sources: Mapping[str, str]) -> list[SourceLoop]:
    """Every loop that synthesis sees, those without braces too."""
    return [SourceLoop(path, *loop) for path, text in sources.items() for loop in _walk(path, text)[1].loops]


def read_folder(folder: Path) -> dict[str, str]:
    """The C++ of a build folder's `src/`, as `{name: text}`. Raises BuildError where there is none."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.[ch]pp"))}
    if not sources:
        raise BuildError(f"{folder} holds no C++ sources; run make hls first")
    return sources


def dependences(pragmas: list[Pragma], constants: Constants) -> list[Dependence]:
    """The DEPENDENCE pragmas among them. Raises BuildError on one that says nothing."""
    found = []
    for pragma in pragmas:
        if pragma.directive != "DEPENDENCE":
            continue
        if not pragma.variable:
            raise BuildError(f"{pragma.place}: DEPENDENCE names no variable; add variable = ...")
        distance = pragma.options.get("distance")
        value = 0 if distance is None else constants.value(distance, pragma.place)
        dependent = not pragma.has("false")
        if dependent and distance is None:
            raise BuildError(f"{pragma.place}: DEPENDENCE of {pragma.variable} is true and has no distance; give one")
        found.append(Dependence(pragma, pragma.variable, not pragma.has("intra"), dependent, value))
    return found


@lru_cache(maxsize=256)
def _walk(path: str, text: str) -> tuple[list[Pragma], _Scopes]:
    """A file's pragmas, and its scopes at its end."""
    scopes, found = _Scopes(), list[Pragma]()
    branches = _Branches()
    for number, line in _logical_lines(without_comments(text)):
        directive = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
        if directive and branches.follow(*directive.groups()):
            continue
        if not branches.taken:
            continue
        if directive is None:
            scopes.follow(line, number)
        elif directive[1] == "pragma" and re.match(r"HLS\b", directive[2], re.IGNORECASE):
            found.append(_parse(path, number, directive[2][3:], scopes))
    return found, scopes


def _parse(path: str, line: int, text: str, scopes: _Scopes) -> Pragma:
    name, _, rest = text.strip().partition(" ")
    directive = name.upper()
    place = f"{path}:{line}"
    if directive not in DIRECTIVES:
        raise BuildError(f"{place}: pragma HLS {name or '(nothing)'} is unknown; known are {', '.join(DIRECTIVES)}")
    options: dict[str, str] = {}
    for option, value in re.findall(r"(\S+?)(?:\s*=\s*(\S+)|(?=\s|$))", re.sub(r"\s*=\s*", "=", rest)):
        options[option.lower()] = value
    unknown = [option for option in options if option not in DIRECTIVES[directive]]
    if unknown:
        known = ", ".join(DIRECTIVES[directive])
        raise BuildError(f"{place}: option {unknown[0]} of pragma HLS {directive} is unknown; known are {known}")
    return Pragma(path, line, scopes.function, scopes.loop, scopes.loop_at, directive, options)


class _Branches:
    """Which lines the preprocessor keeps, with `DEFINED` macros and those that a header defines itself."""

    def __init__(self) -> None:
        self._defined = set(DEFINED)
        self._stack: list[tuple[bool, bool]] = []  # taken now; whether a branch of it was taken before

    @property
    def taken(self) -> bool:
        return all(now for now, _ in self._stack)

    def follow(self, name: str, rest: str) -> bool:
        """A preprocessor line; whether it was one that concerns branches."""
        if name in ("if", "ifdef", "ifndef"):
            condition = {"ifdef": f"defined({rest})", "ifndef": f"!defined({rest})"}.get(name, rest)
            value = self._holds(condition)
            self._stack.append((value, value))
        elif name in ("else", "elif"):
            _, before = self._stack.pop()
            value = not before and (name == "else" or self._holds(rest))
            self._stack.append((value, before or value))
        elif name == "endif":
            self._stack.pop()
        elif name == "define" and self.taken:
            self._defined.add(re.split(r"\W", rest)[0])
        else:
            return False
        return True

    def _holds(self, condition: str) -> bool:
        known = re.sub(r"defined\s*\(?\s*(\w+)\s*\)?", lambda found: str(found[1] in self._defined), condition)
        python = known.replace("&&", " and ").replace("||", " or ").replace("!", " not ")
        try:
            return bool(ast.literal_eval(python)) if re.fullmatch(r"\s*\w+\s*", python) else bool(_fold(python))
        except (ValueError, SyntaxError):
            return False  # __has_include and the like: not of these kernels


def _fold(python: str) -> bool:
    names = set(re.findall(r"[A-Za-z_]\w*", python)) - {"and", "or", "not", "True", "False"}
    if names or re.search(r"[^\w\s()]", python):
        raise ValueError(python)
    return bool(eval(python, {"__builtins__": {}}))


@dataclass
class _Scope:
    kind: str  # namespace, class, function, loop, block
    name: str
    at: tuple[int, int]


class _Scopes:
    """The braces around a line: in which function, in which loop."""

    def __init__(self) -> None:
        self._stack: list[_Scope] = []
        self._pending = ""  # text since the last statement ended
        self._places: list[tuple[int, int]] = []  # of its characters
        self._parentheses = 0
        self.loops: list[tuple[str, str, tuple[int, int]]] = []  # function, label, place of each so far

    def follow(self, line: str, number: int) -> None:
        for column, character in enumerate(line):
            if character in "()":
                self._parentheses += 1 if character == "(" else -1
            if self._parentheses == 0 and character in "{};":
                if character == "{":
                    self._stack.append(self._open())
                elif character == "}" and self._stack:
                    self._stack.pop()
                elif character == ";":
                    self._open()  # of a loop whose body is one statement
                self._pending, self._places = "", []
            elif self._pending or not character.isspace():
                self._pending += character
                self._places.append((number, column))
        if self._pending:
            self._pending += " "
            self._places.append((number, len(line)))

    def _open(self) -> _Scope:
        text = self._pending
        label = re.match(r"([A-Za-z_]\w*)\s*:(?!:)\s*", text)
        if label and label[1] not in ("public", "private", "protected", "default"):
            text = text[label.end() :]
        text = text.rstrip()
        at = self._places[label.end() if label else 0] if text else (0, 0)
        if re.match(r"(for|while|do)\b", text):
            self.loops.append((self.function, label[1] if label else "", at))
            return _Scope("loop", label[1] if label else "", at)
        if re.match(r"(if|else|switch|case|try|catch)\b", text) or not text:
            return _Scope("block", "", at)
        bare = _without_template_heads(text)
        kind = re.match(r"(?:inline\s+)?(namespace|struct|class|union|enum|extern)\b\s*(?:class\s+)?(\w*)", bare)
        if kind:
            return _Scope("namespace" if kind[1] in ("namespace", "extern") else "class", kind[2], at)
        name = re.search(r"(operator\s*\S+?|~?\w+)\s*\(", bare)
        in_function = any(scope.kind == "function" for scope in self._stack)
        if name and not in_function and not re.search(r"=\s*$", bare):
            return _Scope("function", name[1].replace(" ", ""), at)
        return _Scope("block", "", at)

    @property
    def function(self) -> str:
        for i, scope in enumerate(self._stack):
            if scope.kind == "function":
                return "::".join(outer.name for outer in self._stack[: i + 1] if outer.kind in ("class", "function"))
        return ""

    @property
    def loop(self) -> str:
        return next((scope.name for scope in reversed(self._stack) if scope.kind == "loop"), "")

    @property
    def loop_at(self) -> tuple[int, int] | None:
        return next((scope.at for scope in reversed(self._stack) if scope.kind == "loop"), None)


def _without_template_heads(text: str) -> str:
    """`template <...>` left out, however deep its brackets."""
    while head := re.match(r"\s*template\s*<", text):
        depth, parentheses, end = 1, 0, head.end()
        while depth and end < len(text):
            parentheses += {"(": 1, ")": -1}.get(text[end], 0)
            depth += {"<": 1, ">": -1}.get(text[end], 0) if parentheses == 0 else 0
            end += 1
        text = text[end:]
    return text.strip()


@lru_cache(maxsize=256)
def without_comments(text: str) -> str:
    """Comments and the insides of strings as blanks; every line stays where it is."""

    def blank(found: re.Match[str]) -> str:
        if found[0][0] in "\"'":
            return found[0][0] + " " * (len(found[0]) - 2) + found[0][0]
        return re.sub(r"[^\n]", " ", found[0])

    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', blank, text, flags=re.DOTALL)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with those that a backslash continues joined, each with the number of its first."""
    joined, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        first = first or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield first, joined + line
        joined, first = "", 0


def _quotient(a: int, b: int) -> int:
    """Towards zero, as C++ divides."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


OPERATORS: Mapping[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: lambda a, b: a - b * _quotient(a, b),
    ast.FloorDiv: _quotient,
    ast.LShift: operator.lshift, ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.Lt: operator.lt, ast.Gt: operator.gt, ast.LtE: operator.le,
    ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.USub: operator.neg, ast.Not: operator.not_,
}  # fmt: skip
"""Of C++'s constant expressions."""


class Constants:
    """The whole-number constants of the sources: `constexpr` at namespace scope, in a struct, in a function.

    A template's `A::kWord` is `Arch::kWord`: a design has one architecture. A name with several definitions that differ
    has no value here.
    """

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._texts: dict[str, list[str]] = {}
        self._functions: dict[str, tuple[list[str], str]] = {}
        for text in sources.values():
            bare = re.sub(r"^\s*#.*$", "", without_comments(text), flags=re.MULTILINE)
            for name, value in re.findall(r"\bconstexpr\s+[\w:]+\s+(\w+)\s*=\s*([^;]+);", bare):
                self._texts.setdefault(name, []).append(value)
            pattern = r"\bconstexpr\s+[\w:]+\s+(\w+)\s*\(([^)]*)\)\s*(?:const\s*)?\{\s*return\s+([^;]+);\s*\}"
            for name, parameters, body in re.findall(pattern, bare):
                self._functions[name] = ([one.split()[-1] for one in parameters.split(",") if one.strip()], body)
            for name, values in re.findall(r"\benum\s+(?:class\s+)?(\w+)[^{;]*\{([^}]*)\}", bare):
                for i, one in enumerate(values.split(",")):
                    if one.strip() and "=" not in one:
                        self._texts.setdefault(f"{name}::{one.strip()}", []).append(str(i))

    def value(self, expression: str, place: str = "") -> int:
        """Of a C++ expression of constants. Raises BuildError."""
        try:
            return self._value(expression, {}, 0)
        except (ValueError, SyntaxError, ZeroDivisionError, RecursionError) as error:
            raise BuildError(f"{place or 'pragma'}: {expression} is no constant of these sources ({error})") from None

    def _value(self, expression: str, names: Mapping[str, int], depth: int) -> int:
        if depth > 50:
            raise ValueError("it refers to itself")
        while inner := re.search(r"\(([^()?]*\?[^()]*)\)", expression):
            chosen = self._value(inner[1], names, depth + 1)
            expression = f"{expression[: inner.start()]}({chosen}){expression[inner.end() :]}"
        choice = _split_choice(expression)
        if choice:
            condition, yes, no = choice
            return self._value(yes if self._value(condition, names, depth + 1) else no, names, depth + 1)
        python = re.sub(r"<\s*A\s*>", "", expression)
        python = re.sub(r"\btemplate\b|\b(?:static_cast|int)\b(?:<\w+>)?", "", python)
        python = python.replace("&&", " and ").replace("||", " or ").replace("/", "//")
        python = re.sub(r"!(?!=)", " not ", python)
        python = re.sub(r"\b(\d+|0x[0-9a-fA-F]+)[uUlL]+\b", r"\1", python)
        python = re.sub(r"\btrue\b", "1", re.sub(r"\bfalse\b", "0", python))
        tree = ast.parse(python.replace("::", ".").strip(), mode="eval")
        return self._node(tree.body, names, depth)

    def _node(self, node: ast.expr, names: Mapping[str, int], depth: int) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return int(node.value)
        if isinstance(node, ast.Name | ast.Attribute):
            return self._named(node, names, depth)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self._functions:
            parameters, body = self._functions[node.func.id]
            values = [self._node(argument, names, depth) for argument in node.args]
            return self._value(body, dict(zip(parameters, values, strict=True)), depth + 1)
        parts = [self._node(part, names, depth) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        if isinstance(node, ast.BinOp | ast.UnaryOp) and type(node.op) in OPERATORS:
            return int(OPERATORS[type(node.op)](*parts))
        if isinstance(node, ast.Compare) and len(parts) == 2 and type(node.ops[0]) in OPERATORS:
            return int(OPERATORS[type(node.ops[0])](*parts))
        if isinstance(node, ast.BoolOp):
            return int(all(parts) if isinstance(node.op, ast.And) else any(parts))
        raise ValueError(f"{ast.unparse(node)} is not understood")

    def _named(self, node: ast.Name | ast.Attribute, names: Mapping[str, int], depth: int) -> int:
        name = node.id if isinstance(node, ast.Name) else node.attr
        if isinstance(node, ast.Name) and name in names:
            return names[name]
        qualified = ast.unparse(node).replace(".", "::")
        texts = self._texts.get(qualified) or self._texts.get(name)
        if not texts:
            raise ValueError(f"{name} is not defined")
        values = {self._value(text, names, depth + 1) for text in texts}
        if len(values) > 1:
            raise ValueError(f"{name} has several values")
        return values.pop()


def _split_choice(expression: str) -> tuple[str, str, str] | None:
    """Of `condition ? yes : no`, the three; None where there is no choice outside of parentheses."""
    depth, question, nested = 0, -1, 0
    for i, character in enumerate(expression):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and character == "?":
            question, nested = (i if question < 0 else question), nested + 1
        elif depth == 0 and character == ":" and question >= 0 and "::" not in expression[i - 1 : i + 2]:
            nested -= 1
            if nested == 0:
                return expression[:question], expression[question + 1 : i], expression[i + 1 :]
    return None
