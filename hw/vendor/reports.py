"""What the vendor's tools report, parsed: csynth, co-simulation, utilization, timing.

Enters: report files of Vitis HLS and Vivado, 2022.2 to 2025.x. Leaves: `Figures`, the same fields for every stage and
None where a tool says nothing, and the `Bindings` of a synthesis: which operator and which memory became what.

hls4ml's parser reads the same csynth.xml (a test holds ours to it), but expects hls4ml's project folder, stops at the
totals, and looks for block RAMs and DSPs where they stand in a report from before placement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hw.clock import TOLERANCE
from spvit.errors import BuildError
from spvit.files import read_bytes
from spvit.schema import shown_text

RESOURCES = ("dsp", "bram36", "uram", "lut", "ff")


class ReportError(BuildError):
    """A report that is missing, cannot be read, or belongs to another design."""


@dataclass(frozen=True)
class Figures:
    """What one stage says of a design.

    stage        estimate | csynth | cosim | vivado
    clock_mhz    the highest that it believes in: of vivado, from the constrained period and the slack
    constrained_mhz  what Vivado was held to: the generated clock's own period, not the one that was asked for
    cycles       of one call; fewest and most differ where loop bounds are run-time values
    wns_ns       worst negative slack after routing
    """

    stage: str
    dsp: float | None = None
    bram36: float | None = None
    uram: float | None = None
    lut: float | None = None
    ff: float | None = None
    clock_mhz: float | None = None
    cycles_min: int | None = None
    cycles_max: int | None = None
    wns_ns: float | None = None
    constrained_mhz: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Figures:
        return cls(**{key: value for key, value in values.items() if key in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Operator:
    """An operator in hardware: its instance's name, the module around it, its DSPs, how it was made."""

    name: str
    module: str
    dsp: int
    impl: str = ""


@dataclass(frozen=True)
class Storage:
    """A memory.

    variable  that it holds
    bram18    its 18 Kbit blocks
    kind      `ram_s2p`, `rom_np`; impl: what it is made of; width: bits of a word
    """

    variable: str
    module: str
    bram18: int
    kind: str = ""
    impl: str = ""
    width: int | None = None


@dataclass(frozen=True)
class Loop:
    """A loop: its label, and the initiation interval that was reached; None where it isn't pipelined.

    depth  cycles of an iteration from its begin to its end; None where the tool does not say
    """

    label: str
    interval: int | None
    pipelined: bool
    depth: int | None = None


@dataclass(frozen=True)
class Bindings:
    """The parts of a synthesized design."""

    operators: tuple[Operator, ...]
    storages: tuple[Storage, ...]
    loops: tuple[Loop, ...]


# --- Vitis HLS ---


def read_csynth(path: Path, top: str, part: str) -> Figures:
    """`<top>_csynth.xml`. Raises ReportError when it is another design's."""
    try:
        root = ElementTree.fromstring(_read(path))
    except ElementTree.ParseError as error:
        raise ReportError(f"{path}: not a synthesis report ({error})") from None
    found = (root.findtext("UserAssignments/TopModelName"), root.findtext("UserAssignments/Part"))
    if found != (top, part):
        raise ReportError(
            f"{path}: this is a report of {shown_text(' on '.join(map(str, found)))}, not of {top} on {part}; "
            "remove it, run make synth"
        )
    area = root.find("AreaEstimates/Resources")
    if area is None:
        raise ReportError(f"{path}: has no AreaEstimates; remove it and run make synth")
    used = {"DSP" if child.tag == "DSP48E" else child.tag: _number(child.text) for child in area}
    latency = root.find("PerformanceEstimates/SummaryOfOverallLatency")
    period = _number(root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod"))
    bram18 = used.get("BRAM_18K")
    return Figures(
        stage="csynth",
        dsp=used.get("DSP"),
        bram36=None if bram18 is None else bram18 / 2,
        uram=used.get("URAM"),
        lut=used.get("LUT"),
        ff=used.get("FF"),
        clock_mhz=None if not period else 1000 / period,
        cycles_min=_cycles(None if latency is None else latency.findtext("Best-caseLatency")),
        cycles_max=_cycles(None if latency is None else latency.findtext("Worst-caseLatency")),
    )


def read_bindings(path: Path) -> Bindings:
    """`csynth.rpt`, the report of the whole design: its tables of loops, operators and memories."""
    text = _read(path)
    operators: dict[tuple[str, str], Operator] = {}
    for module, row in _hierarchy(text, r"Bind Op Report"):
        # an operator has a row for each operation that it took in
        operators[module, row["Name"]] = Operator(row["Name"], module, int(row.get("DSP") or 0), row.get("Impl", ""))
    storages = [
        Storage(
            row.get("Variable") or row["Name"],
            module,
            int(row.get("BRAM") or 0),
            row.get("Type", ""),
            row.get("Impl", ""),
            _cycles(row.get("Bitwidth, Depth, Banks", "").split(",")[0]),
        )
        for module, row in _hierarchy(text, r"(?:Bind )?Storage Report")
    ]
    loops = [
        Loop(
            row["Modules & Loops"][1:].strip(" *"),
            _cycles(row["Interval"]),
            row["Pipelined"] == "yes",
            _cycles(row.get("Iteration Latency")),
        )
        for row in _table(text, r"Synthesis Summary Report")
        if row["Modules & Loops"].startswith("o ")
    ]
    if not operators:
        raise ReportError(f"{path}: has no Bind Op Report; Vitis HLS 2022.2 or later writes one")
    return Bindings(tuple(operators.values()), tuple(storages), tuple(loops))


def read_cosim(path: Path) -> Figures:
    """`<top>_cosim.rpt`. Raises ReportError unless the RTL agreed with the testbench."""
    for line in _read(path).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 8 and cells[0] in ("Verilog", "VHDL") and cells[1] != "NA":
            if cells[1] != "Pass":
                raise ReportError(
                    f"{path}: co-simulation says {shown_text(cells[1])}, so the RTL differs from the golden"
                )
            return Figures(stage="cosim", cycles_min=_cycles(cells[2]), cycles_max=_cycles(cells[4]))
    raise ReportError(f"{path}: no result of a co-simulation in it")


# --- Vivado ---

UTILIZATION_ROWS = {
    "lut": ("CLB LUTs", "Slice LUTs"),
    "ff": ("CLB Registers", "Slice Registers"),
    "bram36": ("Block RAM Tile",),
    "uram": ("URAM",),
    "dsp": ("DSPs",),
}


def read_utilization(path: Path) -> Figures:
    """`report_utilization` of a placed design."""
    used: dict[str, float] = {}
    for line in _read(path).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        for name, rows in UTILIZATION_ROWS.items():
            # a star marks a footnote; the first table that has the row is the summary
            if len(cells) >= 4 and cells[0].rstrip("*") in rows and name not in used:
                number = _number(cells[1])
                used |= {} if number is None else {name: number}
    missing = [name for name in UTILIZATION_ROWS if name not in used and name != "uram"]
    if missing:
        raise ReportError(f"{path}: no row of {UTILIZATION_ROWS[missing[0]][0]} in it")
    return Figures.from_json({"stage": "vivado"} | used)


FABRIC_CLOCKS = (re.compile(r"^clk_out1_"), re.compile(r"^clk_pl_0$"))
"""What Vivado calls the accelerator's clock: the Clocking Wizard's output, or PL0 itself."""


@dataclass(frozen=True)
class Timing:
    """Of the accelerator's clock, routed.

    period_ns   that it is constrained to
    wns_ns      its worst negative slack
    """

    clock: str
    period_ns: float
    wns_ns: float

    @property
    def constrained_mhz(self) -> float:
        return 1000 / self.period_ns

    @property
    def reached_mhz(self) -> float:
        """The fastest clock that its slowest path keeps up with."""
        return 1000 / (self.period_ns - self.wns_ns)


def read_timing(path: Path) -> Timing:
    """`report_timing_summary`: period and slack of the accelerator's clock. Raises ReportError without them."""
    text = _read(path)
    periods = {
        row[0]: 1000 / float(row[-1]) for row in _columns(text, "Clock Summary", 4) if (_number(row[-1]) or 0) > 0
    }
    clock = next((name for pattern in FABRIC_CLOCKS for name in periods if pattern.match(name)), None)
    if clock is None:
        found = f"only {', '.join(periods)}" if periods else "no clock"
        raise ReportError(f"{path}: its Clock Summary has {found}, and neither clk_out1_* nor clk_pl_0")
    for row in _columns(text, "Intra Clock Table", 2):
        if row[0] == clock and (slack := _number(row[1])) is not None and slack < periods[clock]:
            return Timing(clock, periods[clock], slack)
    raise ReportError(f"{path}: no worst negative slack of {clock} in its Intra Clock Table")


def read_implementation(folder: Path, clock_mhz: float) -> Figures:
    """What `vivado.tcl` leaves: utilization.rpt and timing.rpt. Raises ReportError where they are for another clock.

    clock_mhz  that the design was made for
    """
    timing = read_timing(folder / "timing.rpt")
    if abs(timing.constrained_mhz - clock_mhz) > 2 * TOLERANCE * clock_mhz:
        raise ReportError(
            f"{folder / 'timing.rpt'}: {timing.clock} is constrained to {timing.constrained_mhz:.2f} MHz, and the "
            f"design is for {clock_mhz:g}; remove {folder}, run make bitstream"
        )
    return replace(
        read_utilization(folder / "utilization.rpt"), wns_ns=timing.wns_ns, clock_mhz=timing.reached_mhz,
        constrained_mhz=timing.constrained_mhz,
    )  # fmt: skip


# --- text ---


def _read(path: Path) -> str:
    return read_bytes(path, "run the step that writes it again", ReportError).decode(errors="replace")


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None  # `undef`, `-`
    return number if math.isfinite(number) else None


def _cycles(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)


def _table(text: str, title: str) -> Iterator[dict[str, str]]:
    """Rows of the first table of a section, by column; header cells over several lines are joined."""
    section = re.search(rf"^== {title}.*?\n=+\n(.*?)(?=^== |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        return
    header: list[str] = []
    borders = 0
    for line in section[1].splitlines():
        line = line.strip()
        if line.startswith("+-"):
            borders += 1
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if borders == 1:
                header = [" ".join(pair).strip() for pair in zip(header or [""] * len(cells), cells, strict=True)]
            elif borders == 2:
                yield dict(zip(header, cells, strict=True))
        if borders == 3:
            return


def _columns(text: str, title: str, least: int) -> Iterator[list[str]]:
    """Rows of a section of report_timing_summary, by blanks: those with a name and `least` words in all."""
    section = re.search(rf"^\| {title}\n\| -+\n-+\n(.*?)(?=^-{{20,}}$|\Z)", text, re.MULTILINE | re.DOTALL)
    for line in section[1].splitlines() if section else ():
        words = re.sub(r"\{.*?\}", "{}", line).split()
        if len(words) >= least and not words[0].startswith("-"):
            yield words


def _hierarchy(text: str, title: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a table whose first column is a tree of modules, with the module around each."""
    module = ""
    for row in _table(text, title):
        if row["Name"].startswith("+ "):
            module = row["Name"][2:].strip()
        else:
            yield module, row
