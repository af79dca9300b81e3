"""What the means would win: bounds that hold whatever the figures are, and bits counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.architecture import Architecture
from hw.generate import make_design
from hw.model.cycles import estimate_cycles
from hw.model.estimate import make_estimate
from hw.model.latency import assumptions
from hw.model.means import TwoImages, evaluate, packed_shares, tiles, two_images_bram36, two_images_ms, width
from hw.model.memory import bram36
from hw.target import resolve_target
from hw.weights import weight_stream
from spvit.config import resolve_model
from tests.sim.networks import design_of, micro, random_network

ZCU102 = resolve_target("zcu102")


def test_widths_are_those_of_twos_complement():
    for bits in range(1, 17):
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        values = np.array([[low, 0], [high, 0], [low, high]], np.int16)
        assert list(width(values)) == [bits] * 3
    assert width(np.zeros((1, 4), np.int16))[0] == 1


def test_tiles_are_the_stream_without_positions_and_parameters():
    design = design_of(micro())
    sizes = sum(tile.size for tile in tiles(design))
    words, offsets = weight_stream(design)
    parameters = 4 * sum(
        design.layout.out_tiles(step) * design.architecture.tile_out for step in design.program.steps if step.linear
    )
    assert sizes + parameters == (len(words) - offsets[0]) * design.architecture.fill_lanes
    assert offsets[0] > 0


def with_weights(design, value):
    linears = {
        name: replace(linear, weight=np.full_like(linear.weight, value))
        for name, linear in design.network.linears.items()
    }
    return make_design(replace(design.network, linears=linears), design.architecture)


def test_small_weights_pack_and_large_ones_do_not():
    design = design_of(micro(), 16, 16)
    small = packed_shares(with_weights(design, 3))
    assert small["by tile"] == pytest.approx(3 / 16, rel=0.02)  # three bits each and a header
    assert small["by column"] < 0.4 and small["by Huffman code"] < 0.3
    large = packed_shares(with_weights(design, -32768))
    assert 1 < large["by tile"] < 1.002
    assert 0.9 < large["by 8 weights"] <= 1 + 4 / 128  # less than headers cost: padding is zero


def test_finer_widths_never_take_more_than_their_headers():
    design = design_of(
        random_network(np.random.default_rng(0), resolve_model("micro").model, resolve_model("micro").pruning)
    )
    shares = packed_shares(design)
    assert shares["by column"] <= shares["by tile"] + 4 / (16 * design.architecture.tile_in)
    assert shares["by 8 weights"] <= shares["by column"] + 4 / (16 * 8)


@pytest.mark.parametrize(("name", "keep"), [("deit_s", None), ("deit_t", "none")])
def test_two_images_take_no_longer_than_one_after_the_other(name, keep):
    estimate = make_estimate(resolve_model(name, keep), ZCU102)
    assumed = assumptions(estimate.layout.architecture, ZCU102)
    each = two_images_ms(estimate, assumed)
    assert estimate.latency_ms / 2 < each < estimate.latency_ms
    # what they share is the stream: where it costs nothing, nothing is won but what filling cost
    free = replace(assumed, beat_cost=1)
    assert two_images_ms(estimate, free) > sum(step.tokens for step in estimate.cycles.steps) / 200e3 * 0.999


def test_two_images_have_twice_the_tokens():
    spec = resolve_model("deit_t")
    estimate = make_estimate(spec, ZCU102)
    assumed = assumptions(estimate.layout.architecture, ZCU102)
    walk = TwoImages(estimate.program, estimate.layout, spec.pruning, assumed)
    walk.image(estimate.kept)
    one = estimate_cycles(estimate.program, estimate.layout, spec.pruning, assumed, estimate.kept)
    assert sum(step.tokens for step in walk.steps) == 2 * sum(step.tokens for step in one.steps)
    assert two_images_bram36(estimate.layout) > bram36(estimate.layout)


def test_every_means_is_evaluated():
    spec = resolve_model("micro")
    design = design_of(micro())
    found = {one.name: one for one in evaluate(make_estimate(spec, ZCU102), design)}
    assert {
        "as it is",
        "FIFO of 16,384 words",
        "packed by column",
        "PL-side DDR4 beside",
        "two images per pass",
    } <= set(found)
    now = found.pop("as it is").latency_ms
    assert all(one.latency_ms <= now * 1.01 for name, one in found.items() if not name.startswith("packed"))
    deep = make_estimate(replace(spec, engine={**spec.engine, "fifo_words": 16384}), ZCU102)
    assert found["FIFO of 16,384 words"].latency_ms == deep.latency_ms
    assert Architecture.for_target(ZCU102, spec.engine) == design.architecture
