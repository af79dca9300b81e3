"""Each pragma that a model relies on is read where it stands: deleted or changed, it turns something red.

C++ compilers pass pragmas over, so that one library serves all mutations: what it goes by is read from changed sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import pytest

from hw.facts import read_facts, top_sources
from hw.model.cycles import estimate_cycles
from hw.model.latency import assumptions
from hw.model.sources import disagreements
from hw.pragmas import Pragma, read_pragmas
from hw.render import render_sources
from hw.target import resolve_target
from sim.bridge import CsimError
from sim.build import build_library
from sim.timed import closed_form
from sim.timed.timing import TimedAccelerator
from spvit.errors import BuildError
from tests.sim.conftest import Simulators
from tests.sim.networks import MICRO, design_of, micro, random_images
from tests.sim.timed.test_timing_agreement import kept_patches

ZCU102 = resolve_target("zcu102")
RELIED_ON = ("PIPELINE", "UNROLL", "DEPENDENCE", "ARRAY_PARTITION", "AGGREGATE", "DATAFLOW", "STREAM", "LATENCY")
PIXELS = random_images(MICRO.model, 1)[0]
Sources = Mapping[str, str]
Verdict = Callable[[Sources], list[str]]


def sources_of_micro() -> dict[str, str]:
    sources = render_sources(design_of(micro()).layout, "micro on zcu102")
    return {name: text for name, text in sources.items() if name.endswith(".hpp") or name == "top.cpp"}


@pytest.fixture(scope="module")
def accelerator(simulators: Simulators) -> TimedAccelerator:
    design = design_of(micro())
    source = simulators.folder(design) / "src"
    facts = read_facts(top_sources(source))
    return TimedAccelerator(design, build_library(source, timed=True), assumptions(design.architecture, ZCU102), facts)


def red_in_the_models(sources: Sources) -> list[str]:
    """Before anything runs."""
    try:
        return disagreements(sources, design_of(micro()).layout)
    except BuildError as error:
        return [str(error)]


def red_in_the_clock(accelerator: TimedAccelerator, sources: Sources) -> list[str]:
    """An image on the timed C-simulation: what it refuses, or where it counts otherwise than the closed form."""
    design, assumed = accelerator.design, accelerator.assumed
    try:
        accelerator.facts = read_facts(sources)
        result, timing = accelerator.run(PIXELS)
    except (BuildError, CsimError) as error:
        return [str(error)]
    kept = kept_patches(design, result.trace)
    estimated = estimate_cycles(design.program, design.layout, design.network.pruning, assumed, kept)
    return list(closed_form.disagreements(estimated, timing, assumed))


def without(sources: Sources, pragma: Pragma) -> dict[str, str]:
    """The sources with one pragma's line blank."""
    lines = sources[pragma.file].split("\n")
    assert "#pragma HLS" in lines[pragma.line - 1]
    lines[pragma.line - 1] = ""
    return {**sources, pragma.file: "\n".join(lines)}


def changed(sources: Sources, pragma: Pragma, pattern: str, value: str) -> dict[str, str]:
    """The sources with a part of one pragma's line replaced."""
    lines = sources[pragma.file].split("\n")
    lines[pragma.line - 1], count = re.subn(pattern, value, lines[pragma.line - 1])
    assert count == 1, lines[pragma.line - 1]
    return {**sources, pragma.file: "\n".join(lines)}


def relied_on(sources: Sources, *directives: str) -> list[Pragma]:
    return [pragma for pragma in read_pragmas(sources) if pragma.directive in (directives or RELIED_ON)]


def mutations() -> Iterator[tuple[str, dict[str, str]]]:
    """Every pragma of the accelerator that a model relies on deleted, and each number of theirs changed."""
    sources = sources_of_micro()
    for one in relied_on(sources):
        name = f"{one.file}:{one.line} {one.directive} {one.variable or one.loop}"
        yield f"{name} deleted", without(sources, one)
        if one.directive == "PIPELINE" and not one.is_off:
            yield f"{name} II = 2", changed(sources, one, "II = 1", "II = 2")
            yield f"{name} off", changed(sources, one, "II = 1", "off")
        if "distance" in one.options:
            for distance in ("1", "kRmwCycles - 1", "2 * kRmwCycles"):
                yield (
                    f"{name} {distance}",
                    changed(sources, one, r"distance = \w+", f"distance = {distance.replace(' ', '')}"),
                )
            yield f"{name} false", changed(sources, one, r"true distance = \w+", "false")
        if one.directive == "LATENCY":
            yield f"{name} max", changed(sources, one, r"max = \d+", "max = 3")
        if one.directive == "STREAM":
            for depth in ("1", "16"):
                yield f"{name} {depth}", changed(sources, one, r"depth = \d+", f"depth = {depth}")
        if one.directive == "ARRAY_PARTITION":
            yield f"{name} cyclic", changed(sources, one, "complete", "cyclic factor = 1")


def test_the_sources_as_they_are_are_not_red(accelerator):
    sources = sources_of_micro()
    assert red_in_the_models(sources) == []
    assert red_in_the_clock(accelerator, sources) == []
    assert {one.directive for one in relied_on(sources)} == set(RELIED_ON)
    assert len(relied_on(sources)) > 80


def test_every_mutation_of_a_pragma_is_seen(accelerator):
    names, unseen = [], []
    for name, sources in mutations():
        names.append(name)
        if not red_in_the_models(sources) and not red_in_the_clock(accelerator, sources):
            unseen.append(name)
    assert unseen == []
    assert len(names) == len(set(names)) > 150


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("broadcast(factors)", "factors", "broadcast(factors) stands in no source: activations would reach all columns"),
        ("broadcast(border)", "border", "broadcast(border) stands in no source: the tile's border would reach all columns"),
        ("kColumnsPerGroup = 8", "kColumnsPerGroup = 4", "kColumnsPerGroup is 4, the models count with 8"),
        ("kRmwCycles = 8", "kRmwCycles = 16", "kRmwCycles is 16, the cycle model counts with 8"),
        ("Int<27> exp_sum[A::kRows]", "Int<28> exp_sum[A::kRows]", "memory Memory::exp_sum has 1 banks of 17 words of 28 bits"),
        ("Int<24> probability[A::kRows]", "Int<24> probability[2 * A::kRows]", "has 1 banks of 34 words of 24 bits"),
        ('ENGINE:\n', 'MATRIX:\n', "loop ENGINE is counted and stands in no source"),
    ],
)  # fmt: skip
def test_what_the_models_count_stands_in_the_kernels(old, new, sentence):
    sources = sources_of_micro()
    holding = [name for name, text in sources.items() if old in text]
    assert len(holding) == 1
    mutated = {**sources, holding[0]: sources[holding[0]].replace(old, new)}
    assert any(sentence in red for red in red_in_the_models(mutated)), red_in_the_models(mutated)


# --- what the clock alone sees ---


def one_of(sources: Sources, directive: str, name: str) -> Pragma:
    found = [one for one in relied_on(sources, directive) if (one.variable or one.loop).endswith(name)]
    return found[0]


SEEN_BY_THE_CLOCK = {
    "a DEPENDENCE deleted": ("DEPENDENCE", "accumulators", None, None,
                             "loop ENGINE reads and writes accumulators, and no DEPENDENCE pragma says when they meet"),
    "no DEPENDENCE of X": ("DEPENDENCE", "memory.x", None, None,
                           "reads and writes x, and no DEPENDENCE pragma says when they meet"),
    "a longer distance": ("DEPENDENCE", "accumulators", r"distance = \w+", "distance = 40",
                          "cycles after it was written, its DEPENDENCE pragma claims 40"),
    "a shorter distance": ("DEPENDENCE", "partial_score_max", r"distance = \w+", "distance = 3",
                           "loop ENGINE claims a distance of 3 for partial_score_max, whose read, change and write take 4"),
    "V in one bank": ("ARRAY_PARTITION", "memory.v", None, None, "of v 2 times, beside "),
    "X in one bank": ("ARRAY_PARTITION", "memory.x", None, None, "of x 2 times, beside "),
    "no registers for the tile": ("ARRAY_PARTITION", "tile.active", None, None,
                                  "active is used whole in each iteration, and no ARRAY_PARTITION pragma makes it registers"),
    "no PIPELINE": ("PIPELINE", "DECIDE", None, None, "loop DECIDE has no PIPELINE pragma: synthesis would start an iteration "),
    "no DATAFLOW": ("DATAFLOW", "", None, None, "stream_and_run has stream stripes and no DATAFLOW pragma: its processes would "),
    "no STREAM": ("STREAM", "arriving", None, None, "stream arriving has no STREAM pragma: synthesis would give it two words"),
    "structs split": ("AGGREGATE", "memory.work", None, None, "work is an array of structs without an AGGREGATE pragma"),
}  # fmt: skip


@pytest.mark.parametrize("what", SEEN_BY_THE_CLOCK)
def test_the_clock_sees_it_by_itself(accelerator, what):
    directive, name, pattern, value, sentence = SEEN_BY_THE_CLOCK[what]
    sources = sources_of_micro()
    pragma = one_of(sources, directive, name)
    mutated = without(sources, pragma) if pattern is None else changed(sources, pragma, pattern, value)
    assert any(sentence in red for red in red_in_the_clock(accelerator, mutated)), red_in_the_clock(
        accelerator, mutated
    )


def test_an_engine_of_two_cycles_an_iteration_takes_twice_as_long(accelerator):
    sources = sources_of_micro()
    mutated = changed(sources, one_of(sources, "PIPELINE", "ENGINE"), "II = 1", "II = 2")
    cycles = []
    for each in (sources, mutated):
        accelerator.facts = read_facts(each)
        timing = accelerator.run(PIXELS)[1]
        cycles.append(sum(step.tokens + step.fill for step in timing.steps))
    assert cycles[1] == 2 * cycles[0]
    assert any(red.startswith("all: ") for red in red_in_the_clock(accelerator, mutated))
