"""The anchor in RTL: the engine's control in Verilog, run by Verilator over a design's program.

Enters: a design, patches alive after each selector, assumptions. Leaves: cycles of each step, to be the timed
C-simulation's own. The control reads the program's rows and makes tiles, borders and fills of them itself; given are
the token counts that the selectors decided, and the cycles of the steps that are not the engine's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hw.architecture import PARAM_LANES
from hw.hardware import NUM_BANKS
from hw.layout import Design
from hw.model.cycles import Pass, Walk
from hw.model.latency import RMW_CYCLES, STRIPE_WORDS, Assumptions, pipeline_cycles, position_lanes
from hw.program import Op, Rows, Sizes, build_program
from hw.records import step_values
from hw.step_table import RECORD_LANES, STEP, Values
from hw.steps import Memory
from hw.weights import weight_stream
from spvit.errors import BuildError

SOURCES = Path(__file__).parent
CONTROL = SOURCES / "engine_control.sv"
ARRIVING_WORDS = 8
"""Before the checksum (weight_stream.hpp)."""


@dataclass(frozen=True)
class RtlStep:
    """cycles   from its first to the next one's first
    tokens   of them, in which a token enters the array
    rows     sum of these tokens' rows in memory
    sources  and of the lanes that each of them is read from,
    dests    and written to"""

    cycles: int
    tokens: int
    rows: int
    sources: int
    dests: int


def entry_cycles() -> int:
    """Of a run of the engine, before its first iteration: what the control says."""
    found = re.search(r"localparam int ENTRY_CYCLES = (\d+);", CONTROL.read_text(encoding="utf-8"))
    assert found
    return int(found[1])


def parameters(design: Design) -> dict[str, int]:
    """Of the control, as the kernels' types and constants have them (config.hpp, memory.hpp, control.hpp)."""
    architecture, layout, model = design.architecture, design.layout, design.network.model
    classes = -(-model.num_classes // architecture.word) * architecture.word
    lanes = max(NUM_BANKS * layout.bank_lanes, classes)
    num_steps = len(design.program.steps)
    return {
        "NUM_STEPS": num_steps,
        "TILE_IN": architecture.tile_in,
        "TILE_OUT": architecture.tile_out,
        "FILL_LANES": architecture.fill_lanes,
        "PARAM_LANES": PARAM_LANES,
        "PREFIX": model.num_prefix_tokens,
        "HEAD_LANES": layout.head_lanes,
        "BANK_LANES": layout.bank_lanes,
        "RMW_CYCLES": RMW_CYCLES,
        "PIPELINE_CYCLES": pipeline_cycles(architecture),
        "INDEX_BITS": (num_steps + 1).bit_length(),  # the idle step, and one before the first
        "ROW_BITS": layout.rows.bit_length(),
        "LANE_BITS": lanes.bit_length(),
        "TILE_BITS": (lanes // architecture.group).bit_length(),
        "LENGTH_BITS": max(layout.rows, pipeline_cycles(architecture)).bit_length(),
    }


def program_words(design: Design) -> str:
    """program.hex: what the control reads of the program's records (`hw.records.step_values`); idle to the end."""
    sizes = parameters(design)
    digits = -(-(8 + 3 * sizes["LANE_BITS"] + 2 * sizes["TILE_BITS"] + sizes["INDEX_BITS"]) // 4)
    records = _records(design)
    rows = [_word(record, sizes) for record in records]
    rows += [_word({**records[0], "op": Op.IDLE}, sizes)] * ((1 << sizes["INDEX_BITS"]) - len(rows))
    return "".join(f"{row:0{digits}x}\n" for row in rows)


def _records(design: Design) -> list[Values]:
    steps = range(len(design.program.steps))
    return [step_values(design, i, steps) for i in steps]


def _word(record: Values, sizes: Mapping[str, int]) -> int:
    """step_t of engine_control.sv."""
    lane, tile = sizes["LANE_BITS"], sizes["TILE_BITS"]
    packed = (
        (int(record["op"] is Op.ENGINE), 1),
        (_code("rows", record), 2),
        (int(record["source"] is Memory.X), 1),
        (_code("weights", record), 2),
        (_code("source_lane", record), lane),
        (_code("dest_lane", record), lane),
        (_code("weights_lane", record), lane),
        (_code("in_tiles", record), tile),
        (_code("out_tiles", record), tile),
        (_code("next_engine", record), sizes["INDEX_BITS"]),
        (_code("weight_width", record), 2),
    )
    word = 0
    for value, bits in packed:
        assert 0 <= value < 1 << bits
        word = word << bits | value
    return word


def _code(name: str, record: Values) -> int:
    """A field as the record holds it."""
    return next(field for field in STEP.fields if field.name == name).encode(record[name])


def build_skeleton(design: Design, stream_latency: int, folder: Path) -> Path:
    """The skeleton with a design's sizes, compiled. Raises BuildError."""
    if shutil.which("verilator") is None:
        raise BuildError("verilator not found: install it (Debian: apt-get install verilator)")
    sizes = parameters(design) | {
        "PORTS": design.architecture.weight_ports,
        "BEATS": design.architecture.beats_per_word,
        "LOAD_PARTS": design.architecture.fill_lanes // position_lanes(design.architecture),
        "STREAM_LATENCY": stream_latency,
        "ENTRY_CYCLES": entry_cycles(),
    }
    command = ["verilator", "--cc", "--exe", "--build", "-O3", "-Wall", "-Wno-fatal", "--top-module", "skeleton"]
    command += [*(f"-G{name}={value}" for name, value in sizes.items()), "--Mdir", str(folder), "-CFLAGS", "-O0"]
    command += [str(SOURCES / name) for name in ("skeleton.sv", CONTROL.name, "harness.cpp")] + ["-o", "skeleton"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode != 0:
        raise BuildError(f"verilator could not compile {SOURCES}: {result.stderr.strip()[:300]}")
    return folder / "skeleton"


class _Around(Walk):
    """What the selectors decided, and the cycles of what is not the engine's."""

    def image(self, kept: Sequence[int]) -> None:
        self.left: list[tuple[int, int]] = []  # tokens and packages behind each packager
        self.passes: list[Pass] = []
        super().image(kept)

    @property
    def param_words(self) -> int:
        """Of the stream: columns' biases and shifts."""
        return sum(one.out_tiles * (one.first_words - one.words) for one in self.passes)

    def _engine(self, one: Pass, following: Pass) -> None:
        self.passes.append(one)
        super()._engine(one, following)

    def _package(self, kept: int) -> None:
        super()._package(kept)
        self.left.append((self.tokens, self.packages))


def run_skeleton(skeleton: Path, design: Design, assumed: Assumptions, kept: Sequence[int]) -> tuple[RtlStep, ...]:
    """One image: loading, the program's steps, storing."""
    layout, model, pruning = design.layout, design.network.model, design.network.pruning
    around = _Around(build_program(Sizes(model, pruning, design.network.weight_bits)), layout, pruning, assumed)
    around.image(kept)
    arguments = {
        "words": len(weight_stream(design)[0]),
        "pieces": max(1, RECORD_LANES // layout.architecture.fill_lanes),
        "position_words": model.num_tokens * layout.model_lanes // layout.architecture.fill_lanes,
        "pixels": layout.image_words,
        "rows": model.num_tokens,
        "loop_entry": assumed.loop_entry,
        "header_depth": assumed.depths["LOAD_HEADER"],
        "program_depth": assumed.depths["LOAD_PROGRAM"],
        "check_depth": assumed.depths["CHECK_PROGRAM"],
        "load_depth": assumed.depths["LOAD_INPUTS"],
        "engine_depth": assumed.depths["ENGINE"],
        "store_cycles": round(around.steps[-1].total),
        "read_latency": assumed.read_latency,
        "burst_beats": assumed.burst_beats,
        "outstanding": assumed.outstanding,
        "beat_cost": assumed.beat_cost,
        "fifo_words": assumed.fifo_words,
        "stripe_words": STRIPE_WORDS,
        "arriving_words": ARRIVING_WORDS,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "program.hex").write_text(program_words(design), encoding="utf-8")
        (Path(folder) / "steps.hex").write_text(_steps(design, around), encoding="utf-8")
        command = [str(skeleton), *(f"+{key}={value}" for key, value in arguments.items())]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", cwd=folder)
    if result.returncode != 0:
        raise BuildError(f"the skeleton stopped: {(result.stderr or result.stdout).strip()[:300]}")
    lines = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("step ")]
    steps = tuple(RtlStep(*map(int, line)) for line in lines)
    assert sum(step.cycles for step in steps) == int(result.stdout.split()[-1])
    _check_places(design, around, steps)
    params = next(int(line.split()[1]) for line in result.stdout.splitlines() if line.startswith("params "))
    if params != (expected := around.param_words):
        raise BuildError(f"the skeleton filled {params} words of parameters, the stream has {expected}")
    return steps


def _check_places(design: Design, around: _Around, steps: Sequence[RtlStep]) -> None:
    """Each token of each tile at its row and lanes, by their sums. Raises BuildError."""
    architecture, prefix = design.architecture, design.network.model.num_prefix_tokens
    passes = iter(around.passes)
    for step, record, of_rtl in zip(design.program.steps, _records(design), steps[1:], strict=False):
        if step.op is not Op.ENGINE:
            continue
        one = next(passes)
        first = prefix if step.rows in (Rows.PATCHES, Rows.CANDIDATES) else 0
        sources = [_code("source_lane", record) + tile * architecture.tile_in for tile in range(one.in_tiles)]
        dests = [_code("dest_lane", record) + tile * architecture.tile_out for tile in range(one.out_tiles)]
        expected = (
            one.in_tiles * one.out_tiles * sum(range(first, first + one.rows)),
            one.out_tiles * one.rows * sum(sources),
            one.in_tiles * one.rows * sum(dests),
        )
        if expected != (of_rtl.rows, of_rtl.sources, of_rtl.dests):
            raise BuildError(f"the skeleton's tokens of {step.name} lie elsewhere: {of_rtl}, not {expected}")


def _steps(design: Design, around: _Around) -> str:
    """steps.hex: cycles (the engine's are the control's to find), tokens and packages behind the step."""
    lines, counts = [], (design.network.model.num_tokens, 0)
    left = iter(around.left)
    for step, cycles in zip(design.program.steps, around.steps[1:-1], strict=True):
        if step.op is Op.PACKAGE:
            counts = next(left)
        total = 0 if step.op is Op.ENGINE else round(cycles.total)
        lines.append(f"{total:08x}{counts[0]:08x}{counts[1]:08x}\n")
    return "".join(lines)
