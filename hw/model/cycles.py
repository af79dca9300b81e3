"""The cycles of an image in closed form, from its token counts: a pure function, in milliseconds of run time.

It walks the program tile by tile in groups of equal tiles, with the weight FIFO as a level that rises with the memory's
rate and falls while tiles are filled:

    a tile lasts   max(tokens, fill, least)       least: kRmwCycles; a pass's last tile kPipelineCycles
    its fill       words, while the FIFO holds them; (words - level) / rate from when it is empty

Everything else is a loop: entry + iterations + depth (`hw.model.latency`). Agreement with the timed C-simulation, which
the tests hold it to, shows that both are consistent, not that they are true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hw.architecture import PARAM_LANES
from hw.layout import Layout
from hw.model.latency import (
    COST_FRACTION,
    PACKAGE_SUM_CYCLES,
    RMW_CYCLES,
    STRIPE_WORDS,
    Assumptions,
    pipeline_cycles,
    position_lanes,
)
from hw.program import Op, Program, Rows, Step, Weights
from hw.step_table import RECORD_LANES
from hw.weights import num_table_words
from spvit.config import PruningConfig

KEEP_ROWS_PER_WORD = 32
"""Of the status buffer (status.hpp)."""
LOADING, STORING = "loading", "storing"
PARTS = ("tokens", "fill", "fifo", "drain", "other")


@dataclass
class StepCycles:
    """Cycles of one step, and for whom they pass.

    tokens  a token enters the array
    fill    waiting until the next tile is filled
    fifo    waiting longer, for words of the weight stream
    drain   waiting for results to land
    other   in loops that are not the engine's
    """

    name: str
    tokens: float = 0
    fill: float = 0
    fifo: float = 0
    drain: float = 0
    other: float = 0

    @property
    def total(self) -> float:
        return self.tokens + self.fill + self.fifo + self.drain + self.other

    @property
    def pass_class(self) -> str:
        """The name without numbers of blocks and heads: `blocks.attn.scores`."""
        return ".".join(part for part in self.name.split(".") if not part.isdigit())


@dataclass
class CycleEstimate:
    """Loading, the program's steps in order, storing."""

    steps: list[StepCycles]
    tokens: list[int] = field(default_factory=list)
    """Rows after each selector."""

    @property
    def cycles(self) -> int:
        return round(sum(step.total for step in self.steps))

    def latency_ms(self, clock_mhz: float) -> float:
        return self.cycles / clock_mhz / 1e3

    def by_pass(self) -> dict[str, StepCycles]:
        """Sums over blocks and heads, in order of first use."""
        sums: dict[str, StepCycles] = {}
        for step in self.steps:
            total = sums.setdefault(step.pass_class, StepCycles(step.pass_class))
            for part in PARTS:
                setattr(total, part, getattr(total, part) + getattr(step, part))
        return sums


def estimate_cycles(
    program: Program, layout: Layout, pruning: PruningConfig, assumed: Assumptions, kept: Sequence[int]
) -> CycleEstimate:
    """One image.

    kept  patches alive after each selector
    """
    walk = Walk(program, layout, pruning, assumed)
    walk.image(kept)
    return CycleEstimate(walk.steps, walk.stages)


def estimate_tokens(program: Program, layout: Layout, assumed: Assumptions, tokens: int) -> CycleEstimate:
    """An image that has so many tokens from the first pass to the last; the program has no selectors."""
    walk = Walk(program, layout, PruningConfig().without(), assumed)
    walk.tokens = tokens
    walk.image(())
    return CycleEstimate(walk.steps)


def estimate_unit(
    program: Program,
    layout: Layout,
    pruning: PruningConfig,
    assumed: Assumptions,
    span: range,
    tokens: int,
    packages: int = 0,
    kept: Sequence[int] = (),
) -> CycleEstimate:
    """A kernel as a top of its own: `span` of the program's steps, on so many rows."""
    walk = Walk(program, layout, pruning, assumed)
    walk.tokens, walk.packages = tokens, packages
    walk.load(span, with_image=False)
    walk.run(span, kept)
    return CycleEstimate(walk.steps, walk.stages)


@dataclass(frozen=True)
class Pass:
    """An engine step at run time."""

    rows: int
    in_tiles: int
    out_tiles: int
    first_words: int  # that an output tile's first fill takes cycles for
    words: int  # its others
    first_taken: int  # of the stream, likewise
    taken: int


class Walk:
    """Time, and the weight FIFO's level, along the program."""

    def __init__(self, program: Program, layout: Layout, pruning: PruningConfig, assumed: Assumptions) -> None:
        architecture = layout.architecture
        self.program, self.layout, self.pruning, self.assumed = program, layout, pruning, assumed
        self.tokens, self.packages = layout.model.num_tokens, 0
        self.stages: list[int] = []
        self.steps: list[StepCycles] = []
        beats = architecture.beats_per_word  # of each port
        bandwidth = COST_FRACTION / (assumed.beat_cost * architecture.weight_ports)
        requested = (
            assumed.outstanding * assumed.burst_beats
        )  # per port: after these it waits for the first one's answer
        self.rate = min(1.0, bandwidth, requested / (assumed.read_latency + assumed.burst_beats)) / beats
        self.capacity = assumed.fifo_words + (STRIPE_WORDS + assumed.outstanding * assumed.burst_beats) / beats
        self.level = 0.0
        self.least = -(-RMW_CYCLES * assumed.scale_percent // 100)
        self.least_of_pass = -(-pipeline_cycles(architecture) * assumed.scale_percent // 100)
        self.idle = Pass(0, 1, 1, 0, 0, 0, 0)

    def image(self, kept: Sequence[int]) -> None:
        """All of one image; `kept` patches are alive after each selector."""
        program = range(len(self.program.steps))
        self.load(program, with_image=True)
        self.run(program, kept)
        self.store()

    # what is around the program

    def load(self, span: range, with_image: bool) -> None:
        """X from the stream, the image from its own port: until the later one has arrived."""
        self.steps.append(StepCycles(LOADING))
        layout, assumed = self.layout, self.assumed
        fifos = 3 if with_image else 2  # behind the port, before the checksum, before the engine
        architecture = layout.architecture
        rows = self.tokens * layout.model_lanes // architecture.fill_lanes
        words = num_table_words(architecture, len(span)) + rows
        parts = architecture.fill_lanes // position_lanes(architecture)  # of a word, that are loaded one by one
        steps = (self.program.steps[index] for index in span)
        weights_follow = any(step.op is Op.ENGINE and step.weights is Weights.STREAM for step in steps)
        beats = architecture.beats_per_word
        burst = assumed.burst_beats if weights_follow else min(words * beats, assumed.burst_beats)
        turns = (architecture.weight_ports - 1) * burst * assumed.beat_cost / COST_FRACTION
        under_way = (
            assumed.read_latency + turns + fifos * assumed.stream_latency + beats - 1
        )  # a word is there with its last port's last beat
        begin = self._program_taken(len(span), under_way) + assumed.loop_entry
        front = 1  # cycle in a register (FrontWord), before a word's first lanes are taken
        arrived = front + max(under_way + words / self.rate, begin + rows * parts)
        if with_image:
            pixels = layout.image_words
            beat = max(1.0, assumed.beat_cost / COST_FRACTION)
            in_last_burst = min(pixels, assumed.burst_beats)
            image = (pixels - in_last_burst) * beat + in_last_burst
            arrived = max(arrived, assumed.read_latency + assumed.stream_latency + image, begin + pixels)
        self.level = -self.rate * (under_way - assumed.stream_latency) - words
        self.other(arrived + assumed.depths["LOAD_INPUTS" if with_image else "LOAD_POSITION"])

    def _program_taken(self, num_steps: int, first_word: float) -> float:
        """When the program has been taken from the stream and checked.

        first_word  when it arrives
        """
        architecture, assumed = self.layout.architecture, self.assumed
        pieces = max(1, RECORD_LANES // architecture.fill_lanes)  # of a record
        header = math.ceil(first_word) + pieces + assumed.depths["LOAD_HEADER"]
        words = num_table_words(architecture, num_steps)
        in_last_burst = (words - 1) % assumed.burst_beats + 1
        arrived = math.ceil(first_word + (words - in_last_burst) / self.rate) + in_last_burst
        taken = max(arrived, header + assumed.loop_entry + num_steps * pieces) + assumed.depths["LOAD_PROGRAM"]
        return taken + assumed.loop_entry + num_steps + assumed.depths["CHECK_PROGRAM"]

    def store(self) -> None:
        self.steps.append(StepCycles(STORING))
        self._loop("LOGITS", self.layout.model.num_classes)
        self.other(3 * self.assumed.write_latency)  # the network's digest, the checksum, the error

    # the program

    def run(self, span: range, kept: Sequence[int]) -> None:
        steps = self.program.steps
        remaining = list(kept)
        self._begin_run()
        first = self._next_engine(span.start - 1, span)
        if steps[span.start].op is not Op.ENGINE:
            first = self.idle
        # the weight FIFO's first word goes into a register (FrontWord) before a fill can take it
        self.tile(
            self.idle, first.first_words, first.first_taken, 1, self.least_of_pass, front=int(first.first_taken > 0)
        )
        running = True
        for index in span:
            step = steps[index]
            if step.op is not Op.ENGINE:
                if running:
                    self._end_run()
                    running = False
                self.steps.append(StepCycles(step.name))
                if step.op is Op.PACKAGE:
                    self._package(remaining.pop(0))
                elif step.op is Op.DECIDE:
                    self._loop("DECIDE", self._rows(Rows.CANDIDATES) * self.layout.model.num_heads)
                else:
                    self._loop("POOL_FEATURES", self.layout.head_lanes)
                continue
            self.steps.append(StepCycles(step.name))
            if not running:
                self._begin_run()
                running = True
            self._engine(self._make_pass(step), self._next_engine(index, span))
        if running:
            self._end_run()

    def _begin_run(self) -> None:
        self.other(self.assumed.loop_entry)

    def _end_run(self) -> None:
        self.drain(self.assumed.depths["ENGINE"])

    def _next_engine(self, index: int, span: range) -> Pass:
        found = next((i for i in range(index + 1, span.stop) if self.program.steps[i].op is Op.ENGINE), None)
        return self.idle if found is None else self._make_pass(self.program.steps[found])

    def _make_pass(self, step: Step) -> Pass:
        architecture, tokens = self.layout.architecture, self.tokens
        streams = step.weights is Weights.STREAM
        words = architecture.tile_out * (architecture.tile_in // architecture.fill_lanes if streams else 1)
        params = -(-architecture.tile_out * PARAM_LANES // architecture.fill_lanes) if streams else 0
        return Pass(
            self._rows(step.rows),
            self.layout.in_tiles(step) or -(-tokens // architecture.tile_in),
            self.layout.out_tiles(step) or -(-tokens // architecture.tile_out),
            words + params,
            words,
            words * step.weight_width.value // 16 + params if streams else 0,
            words * step.weight_width.value // 16 if streams else 0,
        )

    def _rows(self, rows: Rows) -> int:
        prefix = self.layout.model.num_prefix_tokens
        return {
            Rows.ALL: self.tokens,
            Rows.PATCHES: self.tokens - prefix,
            Rows.CANDIDATES: self.tokens - prefix - self.packages,
            Rows.FIRST: 1,
        }[rows]

    def _engine(self, one: Pass, following: Pass) -> None:
        for out_tile in range(one.out_tiles):
            if one.in_tiles > 1:
                self.tile(one, one.words, one.taken, one.in_tiles - 1, self.least)
            if out_tile + 1 < one.out_tiles:
                self.tile(one, one.first_words, one.first_taken, 1, self.least)
        self.tile(one, following.first_words, following.first_taken, 1, self.least_of_pass)

    def _package(self, kept: int) -> None:
        layout, policy = self.layout, self.pruning.package
        before = self.tokens
        parts = max(layout.model_lanes // layout.architecture.word, PACKAGE_SUM_CYCLES)
        self._loop("COMPACT", before * parts)
        candidates = self._rows(Rows.CANDIDATES)
        self.tokens -= candidates - kept
        if kept < candidates and policy != "none":
            self._loop("WRITE_PACKAGE", layout.model_lanes)
            if policy == "append" or self.packages == 0:
                self.tokens += 1
                self.packages += 1
        self.stages.append(self.tokens)
        self.other(2 * self.assumed.write_latency)
        self._loop("KEEP_FLAGS", -(-layout.rows // KEEP_ROWS_PER_WORD) * KEEP_ROWS_PER_WORD)

    # time

    def _loop(self, name: str, iterations: int) -> None:
        self.other(self.assumed.loop_entry + iterations + self.assumed.depths[name])

    def drain(self, count: int) -> None:
        self.steps[-1].drain += count
        self._elapse(count)

    def other(self, count: float) -> None:
        self.steps[-1].other += count
        self._elapse(count)

    def _elapse(self, count: float) -> None:
        self.level = min(self.capacity, self.level + self.rate * count)

    def tile(self, one: Pass, words: int, taken: int, count: int, least: int, front: int = 0) -> None:
        """`count` equal tiles, each of which fills one of `words` from `taken` of the stream, `front` cycles late."""
        while count > 0:
            lasts, repeats = self._same(one.rows, taken, words, count, least)
            lasts = max(lasts, words + front)
            step = self.steps[-1]
            step.tokens += repeats * one.rows
            unstalled = max(one.rows, words)
            step.fill += repeats * (unstalled - one.rows)
            step.fifo += repeats * (front + max(0.0, lasts - max(unstalled + front, least)))
            step.drain += repeats * max(0, least - unstalled - front)
            self.level = min(self.capacity, self.level + repeats * (self.rate * lasts - taken))
            count -= repeats

    def _same(self, rows: int, taken: int, words: int, count: int, least: int) -> tuple[float, int]:
        """How long the next tile lasts, and how many of the next tiles last as long."""
        plain = float(max(rows, words, least))
        if taken == 0:
            return plain, count
        reserve = max(0.0, taken - self.rate * words)  # level at which the words just last
        change = self.rate * plain - taken  # of the level, per tile
        if self.level >= reserve:
            if change >= 0:
                return plain, count
            return plain, max(1, min(count, int((self.level - reserve) / -change) + 1))
        lasts = max(plain, (taken - self.level) / self.rate)
        starved = self.level <= 0 and lasts > plain
        return lasts, count if starved and taken / self.rate >= plain else 1
