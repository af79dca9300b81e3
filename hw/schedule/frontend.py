"""From rendered sources to LLVM IR that a scheduler can read: `spvit schedule` begins here.

Enters: sources as `{path: text}`. Leaves: the IR of one top, everything inlined, unrolled and in SSA form, with a mark
where each pragma stood, so that the IR itself says of which loop or array a pragma speaks.

clang comes in the `ziglang` wheel, LLVM's passes in `llvmlite`: both install with the project, on any machine. An LLVM
reads what an older one wrote; zig's is 20, llvmlite's 22. `reassociate` and `instcombine` stay out: they would choose
another shape for sums and addresses than the source has, and Vitis HLS's own choice is unknown.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from hw.pragmas import Pragma, read_pragmas
from hw.schedule.plain import make_plain
from spvit.errors import BuildError

SHIM = Path(__file__).with_name("shim")
COMPILER = (sys.executable, "-m", "ziglang", "c++")
# wasm32: structs pass through memory, whole, not packed into the registers of some processor
FLAGS = (
    "-target", "wasm32-wasi", "-std=c++14", "-D__SYNTHESIS__", "-O1", "-Xclang", "-disable-llvm-passes",
    "-Xclang", "-fexperimental-max-bitint-width=1024",  # ports are up to 512 bits wide
    "-Xclang", "-disable-lifetime-markers", "-g", "-fno-discard-value-names", "-fno-exceptions", "-fno-rtti",
    "-fno-sanitize=all", "-fno-stack-protector", "-fno-threadsafe-statics", "-Wno-unused-label",
)  # fmt: skip
OPTIONS = (
    "-simplifycfg-merge-cond-stores=false",  # two conditional stores stay two sites
    "-pragma-unroll-threshold=1000000000",
    "-pragma-unroll-full-max-iterations=1000000",
    "-unroll-full-max-count=1000000",
)
# each function on its own first: then what is inlined a thousand times is small
PASSES = (
    "sroa", "simplify_cfg", "loop_simplify", "lcssa", "loop_unroll", "sroa", "sccp", "new_gvn", "aggressive_dce",
    "simplify_cfg", "always_inliner", "global_dead_code_eliminate", "sroa", "sccp", "new_gvn", "aggressive_dce",
    "simplify_cfg", "loop_simplify", "lcssa", "loop_unroll", "sroa", "sccp", "new_gvn",
    "dead_store_elimination", "aggressive_dce", "simplify_cfg",
)  # fmt: skip
MARKED = ("PIPELINE", "DEPENDENCE", "ARRAY_PARTITION", "ARRAY_RESHAPE", "BIND_STORAGE", "AGGREGATE")
"""Directives that change what the scheduler does with a loop or an array."""


def to_ir(sources: Mapping[str, str], top: str = "top.cpp") -> tuple[str, list[Pragma]]:
    """The IR of one top as text, and the pragmas that its marks count.

    Raises BuildError with the compiler's first error, or where clang or LLVM is missing.
    """
    pragmas = read_pragmas(sources)
    check_tools()
    text = _compile(_with_marks(sources, pragmas), top)
    return _optimise(text), pragmas


def check_tools() -> None:
    """Raises BuildError where clang or LLVM's passes are not installed."""
    for package, what in (("ziglang", "clang"), ("llvmlite", "LLVM's passes")):
        if find_spec(package) is None:
            raise BuildError(
                f"{what} not found: the Python package {package} of requirements.txt is not installed; "
                f"run pip install -r requirements.txt, or make clean and make"
            )


def _with_marks(sources: Mapping[str, str], pragmas: list[Pragma]) -> dict[str, str]:
    """The sources with a call, on the same line, in place of each pragma that matters here."""
    lines = {path: text.split("\n") for path, text in sources.items()}
    unroll: dict[tuple[str, int, int], str] = {}
    for i, pragma in enumerate(pragmas):
        text = lines[pragma.file]
        while text[pragma.line - 1].endswith("\\"):  # a pragma over several lines becomes one
            text[pragma.line - 1] = text[pragma.line - 1][:-1] + text[pragma.line]
            text[pragma.line] = ""
        text[pragma.line - 1] = _mark(i, pragma)
        if pragma.directive in ("UNROLL", "PIPELINE") and pragma.loop_at and not pragma.is_off:
            how = "full" if pragma.directive == "UNROLL" else "disable"
            unroll[pragma.file, *pragma.loop_at] = how
    for (path, line, column), how in sorted(unroll.items(), reverse=True):
        text = lines[path]
        before, after = text[line - 1][:column], text[line - 1][column:]
        text[line - 1] = f'{before}_Pragma("clang loop unroll({how})") {after}'
    return {path: "\n".join(text) for path, text in lines.items()}


def _mark(number: int, pragma: Pragma) -> str:
    if pragma.directive not in MARKED or not pragma.function:
        return ""
    if pragma.directive == "PIPELINE":
        return f"::spvit_mark({number});"
    value = pragma.options.get("distance") or pragma.options.get("factor") or "0"
    variable = pragma.variable
    return f"::spvit_mark_variable({number}, &({variable}), sizeof({variable}), {value});"


def _compile(sources: Mapping[str, str], top: str) -> str:
    with tempfile.TemporaryDirectory(prefix="schedule-") as scratch:
        folder = Path(scratch)
        for path, text in sources.items():
            (folder / path).write_text(text, encoding="utf-8")
        command = [*COMPILER, *FLAGS, f"-I{SHIM}", "-I.", "-S", "-emit-llvm", top, "-o", "top.ll"]
        result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace")
        if result.returncode != 0:
            errors = [line for line in result.stderr.splitlines() if "error:" in line]
            first = errors[0] if errors else result.stderr.strip()[:300]
            raise BuildError(f"clang could not compile {top} for the scheduler: {first}")
        return (folder / "top.ll").read_text(encoding="utf-8")


def _optimise(text: str) -> str:
    """Everything inlined into the tops, unrolled, in SSA form."""
    import llvmlite.binding as llvm

    for option in OPTIONS:
        llvm.set_option("", option)
    llvm.initialize_native_target()
    builder = llvm.create_pass_builder(
        llvm.Target.from_default_triple().create_target_machine(), llvm.create_pipeline_tuning_options(2)
    )
    module = llvm.parse_assembly(make_plain(text))
    manager = llvm.create_new_module_pass_manager()
    for name in PASSES:
        getattr(manager, f"add_{name}_pass")()
    manager.run(module, builder)
    return str(module)
