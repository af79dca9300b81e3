"""The closed form by itself: it counts what one can count by hand, and moves as it should when its inputs move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw.architecture import Architecture
from hw.layout import Layout
from hw.model.cycles import CycleEstimate, estimate_cycles
from hw.model.latency import (
    OPERATORS,
    RMW_CYCLES,
    Assumptions,
    assumptions,
    engine_depth,
    loop_depths,
    memory_spans,
    pipeline_cycles,
)
from hw.program import Op, Sizes, build_program
from hw.target import resolve_target
from spvit.config import ModelConfig, PruningConfig, resolve_model

ZCU102 = resolve_target("zcu102")
ENGINE = Architecture()
DEIT_T = resolve_model("deit_t")


def estimated(
    model: ModelConfig = DEIT_T.model,
    pruning: PruningConfig = DEIT_T.pruning,
    kept: tuple[int, ...] = (153, 120, 94),
    engine: Architecture = ENGINE,
    **assumed: int,
) -> CycleEstimate:
    return estimate_cycles(
        build_program(Sizes(model, pruning)),
        Layout(model, engine),
        pruning,
        replace(assumptions(engine, ZCU102), **assumed),
        kept,
    )


def test_a_pass_bound_by_its_tokens_takes_a_cycle_per_token_and_tile():
    unpruned = estimated(pruning=DEIT_T.pruning.without(), kept=())
    classes = unpruned.by_pass()
    assert classes["patch_embed"].tokens == 196 * 12 * 3
    assert classes["blocks.mlp.fc1"].total == 12 * 197 * 3 * 12
    assert classes["blocks.attn.scores"].tokens == 12 * 3 * 197 * 4  # keys in four tiles of 64
    assert classes["blocks.attn.context"].tokens == 12 * 3 * 197 * 4
    assert classes["head"].tokens == 3 * 16


def test_a_pass_bound_by_its_fill_takes_a_cycle_per_word():
    classes = estimated(kept=(20, 10, 5), beat_cost=1).by_pass()
    words = 64 * 64 // 32
    last_block_of_stage = classes["blocks.mlp.fc1"]
    assert last_block_of_stage.fifo == 0
    pruned_tiles = 9 * 3 * 12
    with_params = 9 * 12
    at_least = pruned_tiles * words + with_params * 8
    assert last_block_of_stage.total - 3 * 3 * 12 * 197 == pytest.approx(at_least, abs=16)


def test_a_pass_bound_by_the_memory_takes_the_memorys_time():
    slow = estimated(beat_cost=2560)  # ten cycles for a beat, forty for a word
    words = sum(step.total for step in slow.steps) / 40
    assert words == pytest.approx(11.6e6 / 64 + 2600, rel=0.02)  # the weights, and the selectors' again for each head
    assert slow.by_pass()["blocks.mlp.fc1"].fifo > 0.6 * slow.by_pass()["blocks.mlp.fc1"].total


@pytest.mark.parametrize(
    ("ports", "beat_cost", "turns", "header", "table", "inputs"),
    [
        (
            1,
            256,
            0,
            2,
            2 * 320,
            197 * 384 // 8 + 1,
        ),  # the position is later, behind its register; a record takes two words
        (4, 64, 12, 1, 320, 224 * 224 * 3 // 16),  # the image is later; two records lie in a word
    ],
)
def test_the_program_is_taken_and_checked_before_the_inputs(ports, beat_cost, turns, header, table, inputs):
    """The first word comes through ports, checksum and FIFO; then a piece of a record, a record, a word per cycle."""
    engine, deit_s = Architecture(weight_ports=ports), resolve_model("deit_s").model
    loading = estimated(deit_s, engine=engine, beat_cost=beat_cost).steps[0]
    cycles_of_first_tile = loading.fill + loading.fifo + loading.drain
    loops = {"LOAD_HEADER": header, "LOAD_PROGRAM": table, "CHECK_PROGRAM": 320, "LOAD_INPUTS": inputs}
    first_word = 64 + turns + 3 * 2
    each = sum(count + loop_depths(engine)[name] for name, count in loops.items())
    entries = 4 * 3  # of all but the first of these, and of ENGINE
    assert loading.total - cycles_of_first_tile == first_word + each + entries


def test_sums_and_parts():
    estimate = estimated()
    assert estimate.tokens == [155, 123, 98]
    assert estimate.cycles == round(sum(step.total for step in estimate.steps))
    assert estimate.cycles == pytest.approx(sum(step.total for step in estimate.by_pass().values()), abs=0.5)
    assert estimate.latency_ms(200) == pytest.approx(estimate.cycles / 200e3)
    program = build_program(Sizes(DEIT_T.model, DEIT_T.pruning))
    assert [step.name for step in estimate.steps[1:-1]] == [step.name for step in program.steps]


@pytest.mark.parametrize(
    ("policy", "kept", "tokens"),
    [
        ("append", (100, 50, 20), [102, 53, 24]),
        ("append", (196, 50, 50), [197, 52, 52]),
        ("append", (0, 0, 0), [2, 2, 2]),
        ("add", (100, 50, 20), [102, 52, 22]),
        ("none", (100, 50, 20), [101, 51, 21]),
    ],
)
def test_packages_join(policy, kept, tokens):
    assert estimated(pruning=replace(DEIT_T.pruning, package=policy), kept=kept).tokens == tokens


def test_every_assumption_costs_time():
    plain = estimated()
    base = assumptions(ENGINE, ZCU102)

    def total(assumed: Assumptions) -> int:
        program, layout = build_program(Sizes(DEIT_T.model, DEIT_T.pruning)), Layout(DEIT_T.model, ENGINE)
        return estimate_cycles(program, layout, DEIT_T.pruning, assumed, (153, 120, 94)).cycles

    assert total(base) == plain.cycles
    assert total(base.with_bandwidth(0.8)) > plain.cycles
    assert total(base.with_deeper_pipelines(2)) > plain.cycles
    assert total(replace(base, fifo_words=64)) > plain.cycles
    assert total(replace(base, outstanding=1)) > plain.cycles
    assert total(replace(base, loop_entry=100)) > plain.cycles


def test_the_memorys_share_of_a_clock_follows_the_clock():
    at_400, at_200, at_100 = (assumptions(ENGINE, replace(ZCU102, clock_mhz=mhz)).beat_cost for mhz in (400, 200, 100))
    assert at_400 == 128  # 256 / (12.8 GB/s / (16 B * 400 MHz))
    assert at_200 == at_100 == 75  # four ports carry no more: 256 / (85% of four beats)


@pytest.mark.parametrize(("ports", "beat_cost"), [(1, 301), (2, 151), (4, 75)])
def test_few_ports_bring_only_their_part(ports, beat_cost):
    assert assumptions(Architecture(weight_ports=ports), ZCU102).beat_cost == beat_cost


def test_wider_memory_ports_do_not_widen_the_kernels():
    wide = replace(ZCU102, port_bits=256, memory_gbps=200)
    assert assumptions(ENGINE, wide).beat_cost == assumptions(ENGINE, replace(wide, port_bits=128)).beat_cost == 75


@pytest.mark.parametrize("inner_product", ["fast", "direct"])
@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_the_kernels_constants_cover_the_table(size, inner_product):
    """kPipelineCycles must not be below the depth, nor kRmwCycles below any read, change and write."""
    engine = Architecture(size, size, inner_product, 1)
    depth = engine_depth(engine)
    assert 1.5 * depth <= pipeline_cycles(engine) < 1.5 * depth + 8
    assert loop_depths(engine)["ENGINE"] == depth
    assert all(span <= RMW_CYCLES for (loop, _), span in memory_spans().items() if loop == "ENGINE")


def test_ultraram_is_a_cycle_farther_away():
    placed = replace(ENGINE, uram=("x",))
    assert engine_depth(placed) == engine_depth(ENGINE) + 1
    assert engine_depth(replace(ENGINE, uram=("weights",))) == engine_depth(ENGINE)


def test_every_operator_has_a_source():
    assert all(operator.cycles >= 1 and len(operator.source) > 10 for operator in OPERATORS.values())


def test_a_program_of_sizes_has_the_steps_of_the_network():
    """The cycle model must not depend on formats."""
    program = build_program(Sizes(DEIT_T.model, DEIT_T.pruning))
    engine_steps = [step for step in program.steps if step.op is Op.ENGINE]
    assert len(engine_steps) == 1 + 12 * (3 + 2 * 3 + 1 + 2) + 3 * (3 * 4 + 2) + 1
    assert all(step.output_bits == 0 and step.threshold == 0 for step in program.steps)
