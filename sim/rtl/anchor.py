"""The anchor in RTL: the skeleton of `sim/rtl` in Verilator, over the schedule of a program and its token counts.

Enters: a design, patches alive after each selector, assumptions. Leaves: cycles, to be the timed C-simulation's own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hw.layout import Design, Layout
from hw.model.cycles import Pass, Walk
from hw.model.latency import STRIPE_WORDS, Assumptions
from hw.program import Program, Sizes, build_program
from hw.weights import weight_stream
from spvit.config import PruningConfig
from spvit.errors import BuildError

SOURCES = Path(__file__).parent
ARRIVING_WORDS = 8
"""Before the checksum (weight_stream.hpp)."""
WAIT, LOAD, STREAM_TILE, CHIP_TILE, DONE = range(5)
Record = tuple[int, int, int, int]


class Schedule(Walk):
    """What the tile loop does, in order: tiles, and waits of so many cycles between them."""

    def __init__(self, program: Program, layout: Layout, pruning: PruningConfig, assumed: Assumptions) -> None:
        super().__init__(program, layout, pruning, assumed)
        self.records: list[Record] = []

    def load(self, span: range, with_image: bool) -> None:
        super().load(span, with_image)
        model, layout = self.layout.model, self.layout
        words = layout.rows * layout.embed_lanes // layout.architecture.fill_lanes
        self.pixels = model.img_size**2 * model.in_chans // layout.image_lanes
        self.records = [
            (WAIT, self.assumed.loop_entry, 0, 0),
            (LOAD, words, self.pixels, 0),
            (WAIT, self.assumed.depths["LOAD_INPUTS"], 0, 0),
        ]

    def other(self, count: float) -> None:
        super().other(count)
        self.records.append((WAIT, round(count), 0, 0))

    def drain(self, count: int) -> None:
        super().drain(count)
        self.records.append((WAIT, count, 0, 0))

    def tile(self, one: Pass, words: int, streams: bool, count: int, least: int, front: int = 0) -> None:
        super().tile(one, words, streams, count, least, front)
        self.records += [(STREAM_TILE if streams else CHIP_TILE, one.rows, words, least)] * count


def make_schedule(design: Design, assumed: Assumptions, kept: Sequence[int]) -> Schedule:
    """Of one image."""
    model, pruning = design.network.model, design.network.pruning
    schedule = Schedule(build_program(Sizes(model, pruning)), design.layout, pruning, assumed)
    schedule.image(kept)
    return schedule


def build_skeleton(ports: int, stream_latency: int, folder: Path) -> Path:
    """The skeleton with so many weight ports, compiled. Raises BuildError."""
    if shutil.which("verilator") is None:
        raise BuildError("verilator not found: install it (Debian: apt-get install verilator)")
    command = ["verilator", "--cc", "--exe", "--build", "-O3", "-Wall", "-Wno-fatal", "--top-module", "skeleton"]
    command += [f"-GPORTS={ports}", f"-GSTREAM_LATENCY={stream_latency}", "--Mdir", str(folder)]
    command += ["-CFLAGS", "-O2", str(SOURCES / "skeleton.sv"), str(SOURCES / "harness.cpp"), "-o", "skeleton"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode != 0:
        raise BuildError(f"verilator could not compile {SOURCES}: {result.stderr.strip()[:300]}")
    return folder / "skeleton"


def run_skeleton(skeleton: Path, design: Design, assumed: Assumptions, kept: Sequence[int]) -> int:
    """Cycles of one image."""
    schedule = make_schedule(design, assumed, kept)
    arguments = {
        "words": len(weight_stream(design)[0]),
        "pixels": schedule.pixels,
        "read_latency": assumed.read_latency,
        "burst_beats": assumed.burst_beats,
        "outstanding": assumed.outstanding,
        "beat_cost": assumed.beat_cost,
        "fifo_words": assumed.fifo_words,
        "stripe_words": STRIPE_WORDS,
        "arriving_words": ARRIVING_WORDS,
    }
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".hex") as file:
        file.writelines(_lines([record for record in schedule.records if record[:2] != (WAIT, 0)]))
        file.flush()
        command = [str(skeleton), f"+schedule={file.name}", *(f"+{key}={value}" for key, value in arguments.items())]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if result.returncode != 0:
        raise BuildError(f"the skeleton stopped: {(result.stderr or result.stdout).strip()[:300]}")
    return int(result.stdout.split()[-1])


def _lines(records: Sequence[Record]) -> Iterator[str]:
    for record in (*records, (DONE, 0, 0, 0)):
        yield "".join(f"{field:08x}" for field in record) + "\n"
