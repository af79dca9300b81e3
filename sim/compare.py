"""The C-simulation against the golden: every value of every step, padding and untouched rows too, logits, status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw import interface
from hw.layout import Design
from hw.program import Op, Rows, Step
from hw.records import network_word
from hw.render import design_interface
from hw.weights import stream_checksum, weight_stream
from sim.bridge import UNTOUCHED, Accelerator, CsimResult
from sim.golden import GoldenResult


@dataclass(frozen=True)
class Mismatch:
    """The first value of a tap that differs, and how many do.

    index  (row among the step's tokens, feature), or where the accelerator wrote and should not have
    """

    tap: str
    index: tuple[int, int]
    csim: int
    golden: int
    count: int

    def __str__(self) -> str:
        written = "nothing" if self.csim == UNTOUCHED else str(self.csim)
        expected = "nothing" if self.golden == UNTOUCHED else str(self.golden)
        return f"{self.tap}{list(self.index)}: C-simulation {written}, golden {expected} ({self.count} values differ)"


@dataclass(frozen=True)
class Comparison:
    taps: int
    values: int
    mismatches: tuple[Mismatch, ...]


def compare_run(accelerator: Accelerator, result: CsimResult, golden: GoldenResult, image: int = 0) -> Comparison:
    """Everything that one image leaves: taps, logits, tokens, and each word of the status buffer."""
    comparison = compare_taps(accelerator.design, result.trace, golden, image)
    status = expected_status(accelerator.design, golden, accelerator.checksum, image)
    vectors = {
        "logits": (result.logits, golden.logits[image]),
        "tokens": (np.array(result.tokens), np.array([stage[image] for stage in golden.tokens])),
        "status": (result.status, status),
    }
    found = [vector_mismatch(name, *pair) for name, pair in vectors.items() if not np.array_equal(*pair)]
    return Comparison(comparison.taps, comparison.values, (*comparison.mismatches, *found))


def refusal_mismatches(accelerator: Accelerator) -> list[Mismatch]:
    """A host that sends too short a stream, or one for another design, is told so, and nothing runs."""
    own = design_interface(accelerator.design.layout)
    words = weight_stream(accelerator.design)[0]
    arrived = np.uint32(stream_checksum(words[:-1])).astype(np.int32)
    found = []
    for error, register, value, checksum in (
        (interface.Error.NUM_WORDS, "num_words", len(words) - 1, arrived),
        (interface.Error.DIGEST, "digest", own.digest ^ 1, interface.UNWRITTEN),
    ):
        expected = np.full(own.status_words, interface.UNWRITTEN, np.int32)
        expected[interface.STATUS_ERROR], expected[interface.STATUS_STAGES] = error, 0
        expected[interface.STATUS_CHECKSUM] = checksum
        status = accelerator.answer(**{register: value})
        if not np.array_equal(status, expected):
            found.append(vector_mismatch(f"status to another host ({error.name})", status, expected))
    return found


def compare_taps(
    design: Design, trace: dict[str, NDArray[np.int32]], golden: GoldenResult, image: int = 0
) -> Comparison:
    """Compare every traced step with the golden's taps of one image."""
    mismatches, values = [], 0
    for step in design.program.steps:
        if step.name not in trace:
            continue
        tap, written = golden.taps[step.name][image], trace[step.name]
        values += tap.size
        mismatch = compare_tap(design, step, written, tap)
        if mismatch is not None:
            mismatches.append(mismatch)
    return Comparison(len(trace), values, tuple(mismatches))


def compare_tap(design: Design, step: Step, written: NDArray[np.int32], tap: NDArray[np.int32]) -> Mismatch | None:
    """One step. written [rows, lanes], tap [tokens, features]; None when they are equal everywhere."""
    first = first_row(design, step)
    columns = design.layout.out_columns(step)[: tap.shape[1]]
    expected = np.full_like(written, UNTOUCHED)
    expected[first : first + len(tap), : written_lanes(design, step, len(tap))] = 0  # padding lanes
    expected[first : first + len(tap), columns] = tap
    different = written != expected
    count = int(np.count_nonzero(different))
    if count == 0:
        return None
    row, lane = (int(i) for i in np.argwhere(different)[0])
    feature = np.flatnonzero(columns == lane)
    return Mismatch(
        step.name,
        (row - first, int(feature[0]) if len(feature) else lane),
        int(written[row, lane]),
        int(expected[row, lane]),
        count,
    )


def expected_status(design: Design, golden: GoldenResult, checksum: int, image: int = 0) -> NDArray[np.int32]:
    """What the accelerator must leave in the status buffer for one image of the golden's. See hw.interface."""
    own, model = design_interface(design.layout), design.network.model
    status = np.full(own.status_words, interface.UNWRITTEN, np.int32)
    status[interface.STATUS_ERROR] = interface.Error.NONE
    status[interface.STATUS_STAGES] = design.network.pruning.num_selectors
    status[interface.STATUS_CHECKSUM] = np.uint32(checksum).astype(np.int32)
    status[interface.STATUS_NETWORK] = np.uint32(network_word(design.network)).astype(np.int32)
    rows, stage = model.num_tokens, 0
    decided = np.zeros((0, 2), np.int32)
    for step in design.program.steps:
        if step.op is Op.DECIDE:
            decided = golden.taps[step.name][image]
        elif step.op is Op.PACKAGE:
            flags = np.zeros(own.keep_words * interface.KEEP_ROWS_PER_WORD, np.uint8)
            flags[:rows] = 1
            flags[model.num_prefix_tokens : model.num_prefix_tokens + len(decided)] = decided[:, 0]
            rows = golden.tokens[stage][image]
            record = interface.STATUS_HEADER + stage * own.stage_words
            status[record] = rows
            status[record + 1 : record + own.stage_words] = np.packbits(flags, bitorder="little").view("<i4")
            stage += 1
    return status


def vector_mismatch(
    name: str, csim: NDArray[np.signedinteger[Any]], golden: NDArray[np.signedinteger[Any]]
) -> Mismatch:
    """Two vectors that are not equal. [n], [n]"""
    different = np.flatnonzero(csim != golden)
    first = int(different[0])
    return Mismatch(name, (0, first), int(csim[first]), int(golden[first]), len(different))


def first_row(design: Design, step: Step) -> int:
    """The row of the accelerator's memories that a tap's first row stands in."""
    prefix = design.network.model.num_prefix_tokens
    if step.op not in (Op.ENGINE, Op.DECIDE):
        return 0
    return prefix if step.rows in (Rows.PATCHES, Rows.CANDIDATES) else 0


def written_lanes(design: Design, step: Step, num_tokens: int) -> int:
    """Lanes of a row that a step writes, padding included."""
    if step.op is Op.ENGINE and step.out_features is None:
        tile_out = design.architecture.tile_out
        return -(-num_tokens // tile_out) * tile_out
    return design.layout.trace_lanes(step)
