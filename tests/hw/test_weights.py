"""The weight stream, taken apart again by a decoder of its own, as the accelerator would."""

from dataclasses import replace

import numpy as np
import pytest

from hw.architecture import Architecture
from hw.generate import make_design
from hw.program import Epilogue, Op, Weights
from hw.step_table import HEADER, STEP
from hw.weights import pair_terms, port_stripes, row_words, shifts, step_words, stream_checksum, weight_stream
from quant.wiring import wiring
from sim.constructed import with_linear
from spvit.errors import NetworkError
from tests.sim.networks import MICRO, design_of, micro, random_network

ENGINES = [(8, 16, "fast", 1), (16, 8, "direct", 1), (64, 64, "fast", 4), (32, 64, "direct", 2), (128, 8, "fast", 4)]


class Decoder:
    """Reads the ports side by side, value after value, and counts what it took."""

    def __init__(self, stripes):
        self.words = [[value for port in stripes for value in port[w].tolist()] for w in range(stripes.shape[1])]
        self.position = 0

    def take(self, count):
        lanes = len(self.words[0])
        assert count % lanes == 0
        taken = [value for word in self.words[self.position : self.position + count // lanes] for value in word]
        self.position += count // lanes
        return taken


def decode_records(decoder, record, count):
    """The fields of each: they fill whole words."""
    lanes = len(decoder.words[0])
    taken = decoder.take(-(-16 * count // lanes) * lanes)
    assert not any(taken[16 * count :])
    return [record.unpack(np.array(taken[16 * i : 16 * (i + 1)], np.int16)) for i in range(count)]


def decode_step(decoder, architecture, in_tiles, out_tiles):
    """Weights by (output lane, input lane); bias and shift by output lane."""
    weights, biases, shift_of = {}, {}, {}
    for out_tile in range(out_tiles):
        params = decoder.take(4 * architecture.tile_out)
        for column in range(architecture.tile_out):
            low, middle, high, shift = params[4 * column : 4 * column + 4]
            lane = out_tile * architecture.tile_out + column
            biases[lane] = (low & 0xFFFF) + ((middle & 0xFFFF) << 16) + (high << 32)
            shift_of[lane] = shift
        for in_tile in range(in_tiles):
            for column in range(architecture.tile_out):
                for i, value in enumerate(decoder.take(architecture.tile_in)):
                    lane = out_tile * architecture.tile_out + column
                    weights[lane, in_tile * architecture.tile_in + i] = value
    return weights, biases, shift_of


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize(("tile_in", "tile_out", "inner_product", "ports"), ENGINES)
def test_every_weight_bias_and_shift_is_recovered(tile_in, tile_out, inner_product, ports, extreme):
    network = random_network(np.random.default_rng(0), replace(MICRO.model, distilled=True), MICRO.pruning, extreme)
    architecture = Architecture(tile_in, tile_out, inner_product, ports)
    design = make_design(network, architecture)
    layout, bits, wires = design.layout, network.frac_bits, wiring(network.model, network.pruning)
    words, offsets = weight_stream(design)
    decoder = Decoder(port_stripes(words, ports))

    (header,) = decode_records(decoder, HEADER, 1)
    assert (header["num_steps"], header["num_words"]) == (len(design.program.steps), len(words))
    records = decode_records(decoder, STEP, len(design.program.steps))
    assert [record["op"] for record in records] == [step.op for step in design.program.steps]

    rows = np.array(decoder.take(layout.rows * layout.embed_lanes)).reshape(layout.rows, layout.embed_lanes)
    assert np.array_equal(rows[:, layout.embedding()], network.position)
    assert not np.delete(rows, layout.embedding(), axis=1).any()

    for index, step in enumerate(design.program.steps):
        assert decoder.position == offsets[index], step.name
        if step.op is not Op.ENGINE or step.weights is not Weights.STREAM:
            continue
        in_tiles, out_tiles = records[index]["in_tiles"], records[index]["out_tiles"]
        weights, biases, shift_of = decode_step(decoder, architecture, in_tiles, out_tiles)
        linear, wire = network.linears[step.linear], wires[step.linear]
        inputs, outputs = layout.in_columns(step).tolist(), layout.out_columns(step).tolist()
        for out_feature, out_lane in enumerate(outputs):
            row = linear.weight[out_feature].tolist()
            assert [weights[out_lane, lane] for lane in inputs] == row, step.name
            product_bits = bits[wire.source] + int(linear.weight_frac_bits[out_feature])
            bias = int(linear.bias[out_feature]) << product_bits - linear.bias_frac_bits
            if inner_product == "fast":  # less sum w[j] w[j + h] of each tile
                lanes = [weights[out_lane, lane] for lane in range(in_tiles * tile_in)]
                tiles = [lanes[i : i + tile_in] for i in range(0, len(lanes), tile_in)]
                half = tile_in // 2
                bias -= sum(a * b for tile in tiles for a, b in zip(tile[:half], tile[half:], strict=True))
            assert biases[out_lane] == bias, step.name
            assert shift_of[out_lane] == product_bits - bits[wire.result] - 8, step.name
        used = {(out_lane, lane) for out_lane in outputs for lane in inputs}
        assert not any(value for place, value in weights.items() if place not in used), "padding must be zero"
        assert all(biases[lane] == shift_of[lane] == 0 for lane in biases if lane not in outputs)
    assert decoder.position == len(decoder.words) == offsets[-1]


def test_shared_scorers_are_streamed_for_each_head():
    design = design_of(micro())
    steps = {step.name: step for step in design.program.steps}
    first, second = (step_words(design, steps[f"selectors.1.fc1.{head}"]) for head in range(2))
    assert np.array_equal(first, second) and len(first)


def test_steps_without_streamed_weights_take_no_word():
    design = design_of(micro())
    for step in design.program.steps:
        assert (len(step_words(design, step)) == 0) == (not step.linear)


def test_rows_travel_padded_head_by_head():
    design = design_of(micro(), 64, 64)
    x = np.arange(3 * 32, dtype=np.int16).reshape(3, 32) + 1
    rows = row_words(design, x).reshape(3, 2, 64)
    assert np.array_equal(rows[:, :, :16].reshape(3, 32), x) and not rows[:, :, 16:].any()


def test_ports_carry_an_equal_share_of_each_word():
    words = np.arange(5 * 32, dtype=np.int16).reshape(5, 32)
    stripes = port_stripes(words, 4)
    assert stripes.shape == (4, 5, 8) and stripes.flags.c_contiguous
    assert stripes[2, 3].tolist() == list(range(3 * 32 + 16, 3 * 32 + 24))
    assert port_stripes(words, 1).tolist() == [words.tolist()]


def test_pair_terms_at_the_ends_of_int16():
    tiles = np.full((2, 128), -32768, np.int16)
    tiles[1, :64] = 32767
    assert pair_terms(tiles).tolist() == [64 * 2**30, -64 * 32767 * 32768]


def test_the_checksum_depends_on_every_word_and_their_order():
    words = np.random.default_rng(0).integers(-32768, 32768, (40, 8)).astype(np.int16)
    total = stream_checksum(words)
    assert stream_checksum(words[::-1]) != total and stream_checksum(words[:-1]) != total
    for word in range(40):
        changed = words.copy()
        changed[word, word % 8] ^= 64
        assert stream_checksum(changed) != total


# --- what the engine cannot do ---


def refused(network, layer):
    design = design_of(network)
    step = next(step for step in design.program.steps if step.linear == layer)
    with pytest.raises(NetworkError) as error:
        shifts(step, network.linears[layer])
    with pytest.raises(NetworkError):
        weight_stream(design)
    return str(error.value)


@pytest.mark.parametrize(("by", "text"), [(-20, "-"), (25, "")])
def test_shifts_beyond_the_engine_s(by, text):
    network, layer = micro(), "blocks.1.mlp.fc1"
    linear = network.linears[layer]
    changed = with_linear(network, layer, weight_frac_bits=(linear.weight_frac_bits + by).astype(np.int16),
                          bias_frac_bits=linear.bias_frac_bits + by)  # fmt: skip
    message = refused(changed, layer)
    assert message.startswith(f"layer {layer}: its formats ask for shifts of {text}")
    assert message.endswith(" bits, the engine has 8..23; calibrate with images that are like those in use")


def with_shift(channel: int, shift: int):
    """Micro with one output channel of a layer that needs this shift; the layer's step."""
    network, layer = micro(), "blocks.1.mlp.fc1"
    step = next(step for step in design_of(network).program.steps if step.linear == layer)
    bits = network.linears[layer].weight_frac_bits.copy()
    bits[channel] = shift - step.input_bits + step.gelu_bits
    return with_linear(network, layer, weight_frac_bits=bits), step


@pytest.mark.parametrize("shift", [8, 23])
@pytest.mark.parametrize("channel", [0, 127])
def test_the_least_and_the_largest_shift_are_taken(channel, shift):
    network, step = with_shift(channel, shift)
    assert shifts(step, network.linears[step.linear])[channel] == shift


@pytest.mark.parametrize("shift", [7, 24])
@pytest.mark.parametrize("channel", [0, 127])
def test_one_channel_s_shift_beyond_them_is_refused(channel, shift):
    network, step = with_shift(channel, shift)
    rest = shifts(step, micro().linears[step.linear])
    found = f"7..{rest.max()}" if shift == 7 else f"{rest.min()}..24"
    assert refused(network, step.linear).startswith(
        f"layer {step.linear}: its formats ask for shifts of {found} bits, "
    )


def residual_moved(up: int):
    """Micro with the first block's attention added to a residual that is moved by so many bits; the step."""
    network, layer = micro(), "blocks.0.attn.proj"
    changed = replace(network, frac_bits={**network.frac_bits, "patch_embed": network.frac_bits[layer] - up})
    step = next(step for step in design_of(changed).program.steps if step.linear == layer)
    assert step.epilogue is Epilogue.RESIDUAL
    return changed, step


@pytest.mark.parametrize("up", [-6, 1])
def test_the_farthest_that_a_residual_may_be_moved(up):
    network, step = residual_moved(up)
    assert len(shifts(step, network.linears[step.linear])) == 32


@pytest.mark.parametrize("up", [-7, 2])
def test_a_residual_far_from_its_result(up):
    network, step = residual_moved(up)
    assert refused(network, step.linear) == (
        f"layer {step.linear}: the residual would be moved by {up} bits, the engine has -6..1; "
        "calibrate with images that are like those in use"
    )


def with_largest_sum(magnitude: int, bits_up: int):
    """Micro with a layer whose largest sum is `magnitude * 2^bits_up`, all of it bias; the step."""
    network, layer = micro(), "blocks.0.attn.proj"
    linear = network.linears[layer]
    product = network.frac_bits["blocks.0.attn.context"] + int(linear.weight_frac_bits.max())
    changed = with_linear(
        network, layer, weight=np.zeros_like(linear.weight), bias=np.full_like(linear.bias, magnitude),
        weight_frac_bits=np.full_like(linear.weight_frac_bits, linear.weight_frac_bits.max()),
        bias_frac_bits=product - bits_up,
    )  # fmt: skip
    return changed, next(step for step in design_of(changed).program.steps if step.linear == layer)


@pytest.mark.parametrize(("magnitude", "bits_up"), [(32767, 32), (-32767, 32), (16383, 33), (1, 46)])
def test_sums_that_just_fit_the_accumulator(magnitude, bits_up):
    network, step = with_largest_sum(magnitude, bits_up)
    assert len(shifts(step, network.linears[step.linear])) == 32


@pytest.mark.parametrize(("magnitude", "bits_up"), [(-32768, 32), (16384, 33), (1, 47)])
def test_sums_that_may_not_fit_the_accumulator(magnitude, bits_up):
    """A bias far beyond what its products have."""
    network, step = with_largest_sum(magnitude, bits_up)
    assert refused(network, step.linear) == (
        f"layer {step.linear}: its sums may need 49 bits, the engine has 48; "
        "calibrate with images that are like those in use"
    )
