"""What the engine counts on, looked up in a synthesis: II = 1, a pipeline no deeper than the kernels were told,
pre-adders, adders of three, shared multipliers, memories of the kind, width and number that the pragmas ask for.

Each of them lost costs up to a tenth of the board, or a right result, silently. Enters: csynth's bindings, figures and
log, and the pragmas of the sources that it read. Leaves: findings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hw.layout import Layout
from hw.model.latency import engine_depth, pipeline_cycles
from hw.model.memory import on_chip_arrays
from hw.model.resources import estimate_resources
from hw.pragmas import Pragma
from hw.vendor.reports import Bindings, Figures

PRE_ADDER = re.compile(r"^ama?_(add|sub)mul")  # am_addmul_16s_16s_17s_34_4_1_U7, ama_addmuladd_...
CHAINED = {True: re.compile(r"^ama_"), False: re.compile(r"^mac_muladd_16s_16s")}  # of the fast and the direct product
TABLES = re.compile(r"^k(Exp|GeluBase|GeluSlope)(?:_U)?$")
THREE_OPERANDS = "tadder"  # as csynth calls the implementation of an addition
VALUES = re.compile(r"(?:^|_)memory_v(?:_\d+)?(?:_U)?$")
SUM_LUTS = 17  # of an operand's sum in fabric
CHAIN_LUTS = 18  # of another product among the sums: half an adder of three
TREE_LUTS = 37  # of another adder
EXP_LUTS, GELU_LUTS = 330, 150  # of a lane's tables
MAIN_LOOP = "ENGINE"
MESSAGES = (
    (re.compile(r"\[HLS 214-177\]"), "a pointer is chosen at run time"),
    (re.compile(r"\[HLS 200-880\]"), "a carried dependence does not fit the interval"),
    (re.compile(r"\[HLS 200-885\]"), "a memory has too few ports for the interval"),
    (re.compile(r"\[HLS 200-871\]"), "the clock is missed by the tool's own estimate"),
    (
        re.compile(
            r"^WARNING.*\b(?:pragma|directive)s?\b.*(?:ignor|not (?:be )?(?:appl|support)|no effect|invalid)", re.I
        ),
        "a pragma is ignored",
    ),
)
"""What Vitis HLS says when something was lost, and what it means (UG1448, its messages)."""


@dataclass(frozen=True)
class Finding:
    """ok: True as planned, False lost, None not to be told from the reports; is_wrong: the hardware would not compute
    what the C++ does."""

    name: str
    ok: bool | None
    text: str
    is_wrong: bool = False


def findings(
    layout: Layout, csynth: Figures, bindings: Bindings, pragmas: Sequence[Pragma] = (), log: str = ""
) -> tuple[Finding, ...]:
    """Everything that was looked up, in the order in which it matters.

    pragmas  of the sources that were synthesized
    log      what the tool said
    """
    found = [depth(layout, bindings), _initiation(bindings), _messages(log)]
    if layout.architecture.is_fast:
        found.append(_pre_adders(layout, bindings))
    return (
        *found,
        _chains(layout, bindings),
        _adders_of_three(layout, bindings),
        _lane_multipliers(layout, csynth),
        _tables(layout, bindings),
        _values(layout, bindings),
        _banks(layout, bindings),
        _kinds(bindings, pragmas),
    )


def depth(layout: Layout, bindings: Bindings) -> Finding:
    """Of ENGINE, against what the kernels were told: an iteration that is not through when a pass ends is lost."""
    name, told = "the engine's depth", pipeline_cycles(layout.architecture)
    depths = [loop.depth for loop in bindings.loops if loop.label == MAIN_LOOP and loop.depth is not None]
    if not depths:
        return Finding(name, None, f"not to be told: no iteration latency of {MAIN_LOOP} in the report")
    expected = engine_depth(layout.architecture)
    if max(depths) <= told:
        return Finding(name, True, f"{max(depths)} cycles, kPipelineCycles allows {told}, {expected} expected")
    needed = math.ceil(1000 * max(depths) / expected) / 1000
    return Finding(
        name,
        False,
        f"{MAIN_LOOP} is {max(depths)} cycles deep and kPipelineCycles is {told}, so the hardware would compute wrong "
        f"values: set MARGIN in hw/model/latency.py to {needed:g} or more, then make hls and synthesize again",
        is_wrong=True,
    )


def _messages(log: str) -> Finding:
    """Warnings that mean a lost pragma, interval or clock, by kind: how many, and the first."""
    name = "nothing ignored"
    said = [line.strip() for line in log.splitlines()]
    lost = []
    for pattern, meaning in MESSAGES:
        matching = [line for line in said if pattern.search(line)]
        if matching:
            lost.append(f"{meaning}, {len(matching)} times, first: {matching[0]}")
    if not log:
        return Finding(name, None, "not to be told: the tool's log is not there")
    return _verdict(name, lost, "no warning of a lost pragma, interval or clock")


def _initiation(bindings: Bindings) -> Finding:
    name = "every loop starts an iteration per cycle"
    slow = [
        f"{loop.label} every {loop.interval}" for loop in bindings.loops if loop.pipelined and (loop.interval or 0) > 1
    ]
    main = [loop for loop in bindings.loops if loop.label == MAIN_LOOP]
    if slow:
        return Finding(name, False, f"lost: {', '.join(slow)} cycles")
    if not main or not all(loop.pipelined for loop in main):
        return Finding(name, False, f"lost: the loop {MAIN_LOOP} is not pipelined")
    return Finding(name, True, f"II = 1 in {sum(loop.pipelined for loop in bindings.loops)} loops")


def _pre_adders(layout: Layout, bindings: Bindings) -> Finding:
    name, wanted = "pre-adders", layout.architecture.multipliers
    used = sum(PRE_ADDER.match(operator.name) is not None for operator in bindings.operators)
    if used >= wanted:
        return Finding(name, True, f"{used:,} products take one of their sums in the DSP")
    lost = wanted - used
    return Finding(
        name, False, f"lost: {lost:,} of {wanted:,} products sum both operands in fabric, some {lost * SUM_LUTS:,} LUTs"
    )


def _chains(layout: Layout, bindings: Bindings) -> Finding:
    name, wanted = "products in pairs", layout.architecture.multipliers // 2
    chained = CHAINED[layout.architecture.is_fast]
    used = sum(chained.match(operator.name) is not None for operator in bindings.operators)
    if used >= wanted:
        return Finding(name, True, f"{used:,} DSPs add their product to another's")
    lost = wanted - used
    return Finding(
        name, False, f"lost: {lost:,} of {wanted:,} pairs are added in fabric, some {lost * CHAIN_LUTS:,} LUTs"
    )


def _adders_of_three(layout: Layout, bindings: Bindings) -> Finding:
    """Of the columns' trees. Where csynth made none, Vivado may still make one of two adders within a cycle."""
    name, architecture = "adders of three", layout.architecture
    wanted = architecture.tile_out * adders_of_three(architecture.multipliers // architecture.tile_out // 2)
    used = sum(operator.impl == THREE_OPERANDS for operator in bindings.operators)
    if used >= wanted:
        return Finding(name, True, f"{used:,} additions share a LUT per bit with another")
    luts = f"{(wanted - used) * TREE_LUTS:,} LUTs"
    if used == 0:
        return Finding(name, None, f"not to be told from csynth: without them, some {luts} more")
    return Finding(name, False, f"lost: {wanted - used:,} of {wanted:,} are two adders, some {luts}")


def adders_of_three(terms: int) -> int:
    """In a tree that adds `terms` three at a time."""
    return 0 if terms < 3 else terms // 3 + adders_of_three(-(-terms // 3))


def _tables(layout: Layout, bindings: Bindings) -> Finding:
    name, architecture = "tables in block RAM", layout.architecture
    found = [storage for storage in bindings.storages if TABLES.match(storage.variable)]
    if not found:
        return Finding(name, None, "not to be told: no table in the report is called kExp or kGeluBase")
    lost = {storage.variable.removesuffix("_U") for storage in found if storage.bram18 == 0}
    if not lost:
        return Finding(name, True, f"{sum(storage.bram18 for storage in found)} blocks of 18 Kbit")
    luts = architecture.tile_in * EXP_LUTS * ("kExp" in lost) + architecture.tile_out * GELU_LUTS * bool(
        lost - {"kExp"}
    )
    return Finding(name, False, f"lost: {', '.join(sorted(lost))} in LUTs, some {luts:,} of them")


def _lane_multipliers(layout: Layout, csynth: Figures) -> Finding:
    name, architecture = "lanes share their multiplier", layout.architecture
    if csynth.dsp is None:
        return Finding(name, None, "not to be told: csynth counts no DSPs")
    beside = round(csynth.dsp) - architecture.multipliers
    expected = estimate_resources(layout).dsp - architecture.multipliers
    # lost sharing shows as whole sets of lanes
    if beside <= expected + min(architecture.tile_in, architecture.tile_out) // 2:
        return Finding(name, True, f"{beside:,} DSPs beside the array, {expected:,} expected")
    return Finding(name, False, f"lost: {beside:,} DSPs beside the array in place of {expected:,}")


def _values(layout: Layout, bindings: Bindings) -> Finding:
    name, banks = "V by columns", layout.architecture.word
    found = sum(VALUES.search(storage.variable) is not None for storage in bindings.storages)
    if found == banks:
        return Finding(name, True, f"{banks} banks")
    if found == 0:
        return Finding(name, None, "not to be told: no memory in the report is called memory_v")
    luts = layout.architecture.tile_in * layout.architecture.tile_out * 16
    return Finding(name, False, f"lost: {found} banks in place of {banks}; filling by rows costs some {luts:,} LUTs")


def _banks(layout: Layout, bindings: Bindings) -> Finding:
    """X and WORK: as many memories as their partitioning asks for, each a whole group of lanes wide."""
    name, lost, banks = "X and WORK by banks", [], 0
    arrays = {array.name: array for array in on_chip_arrays(layout)}
    for variable, array in (("memory_x", arrays["residual stream"]), ("memory_work", arrays["work"])):
        found = [storage for storage in bindings.storages if _holds(storage.variable, variable)]
        banks += len(found)
        widths = sorted({storage.width for storage in found if storage.width is not None} - {array.width})
        if found and len(found) != array.banks:
            lost.append(f"{variable} in {len(found)} banks in place of {array.banks}: a partition was not applied")
        if widths:
            lost.append(f"{variable} {widths[0]} bits wide in place of {array.width}: an aggregate was not applied")
    if not banks:
        return Finding(name, None, "not to be told: no memory in the report is called memory_x or memory_work")
    return _verdict(name, lost, f"{banks} banks")


def _kinds(bindings: Bindings, pragmas: Sequence[Pragma]) -> Finding:
    """Each memory that BIND_STORAGE speaks of."""
    name, lost, count = "memories as they were bound", [], 0
    for pragma in pragmas:
        if pragma.directive != "BIND_STORAGE":
            continue
        kind, impl = pragma.options.get("type", ""), pragma.options.get("impl", "")
        for storage in bindings.storages:
            if not _holds(storage.variable, pragma.variable.replace(".", "_")):
                continue
            count += 1
            is_kind, is_impl = storage.kind in ("", kind), not impl or storage.impl in ("", "auto", impl)
            if not (is_kind and is_impl):
                lost.append(f"{storage.variable} is {storage.kind} {storage.impl} in place of {kind} {impl}".rstrip())
    if not count:
        return Finding(name, None, "not to be told: the report has none of the memories that BIND_STORAGE names")
    return _verdict(name, lost, f"{count} memories")


def _holds(storage: str, variable: str) -> bool:
    """Whether a memory of the report, with the names around it and its bank's number, is the variable."""
    return re.search(rf"(?:^|_){re.escape(variable)}(?:_\d+)*(?:_U)?$", storage) is not None


def _verdict(name: str, lost: Sequence[str], kept: str) -> Finding:
    return Finding(name, not lost, f"lost: {'; '.join(lost)}" if lost else kept)


def lines(found: tuple[Finding, ...]) -> Iterator[tuple[str, Finding]]:
    """A line and its finding, for the terminal."""
    for finding in found:
        mark = {True: "as planned", False: "LOST", None: "unknown"}[finding.ok]
        yield f"{mark:10} {finding.name}: {finding.text}", finding
