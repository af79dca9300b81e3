"""The weight stream: every word the engine takes from DDR, in order of use.

    step table | position rows | for each streamed step, for each tile of outputs: biases and shifts (less MIN_SHIFT),
    then for each tile of inputs its columns, one after the other, packed where the layer's weights are narrow

A word is `fill_lanes` int16 wide. Each port carries an equal share of its lanes, the first port the first, and the
shares of all words are one contiguous stripe.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hw.architecture import PARAM_LANES, Architecture
from hw.interface import Shapes
from hw.layout import Design
from hw.program import Epilogue, Op, Step, Weights
from hw.records import program_table
from hw.step_table import RECORD_LANES, Lanes
from hw.steps import WeightWidth
from quant.formats import MAX_RESIDUAL_UP, MAX_SHIFT, MIN_SHIFT, RESIDUAL_GUARD_BITS
from quant.network import QuantizedLinear
from spvit.errors import NetworkError

ACCUMULATOR_BITS = 48
Words = NDArray[np.int16]


def table_words(design: Design, num_rows: int, steps: range | None = None, num_words: int = 0) -> Words:
    """The program (`hw.records`): header and steps, each in whole words. [words, fill_lanes]

    num_rows   of X that follow
    steps      positions of those that run; None: all
    num_words  of the whole stream, these with them
    """
    table = program_table(design, num_rows, steps, num_words)
    return np.concatenate([_whole_words(part, design.architecture) for part in (table[:1], table[1:])])


def num_table_words(architecture: Architecture, num_steps: int) -> int:
    """Of the stream's head."""
    return sum(-(-records * RECORD_LANES // architecture.fill_lanes) for records in (1, num_steps))


def position_words(design: Design) -> Words:
    """X before the first pass. [words, fill_lanes]"""
    return row_words(design, design.network.position)


def row_words(design: Design, x: NDArray[np.int16]) -> Words:
    """Rows of X as they travel in the stream. [tokens, C] -> [words, fill_lanes]"""
    layout = design.layout
    rows = np.zeros((len(x), layout.model_lanes), np.int16)
    rows[:, layout.embedding()] = x
    return rows.reshape(-1, design.architecture.fill_lanes)


def step_words(design: Design, step: Step) -> Words:
    """What one step takes from the stream. [words, fill_lanes]"""
    architecture, layout = design.architecture, design.layout
    if step.op is not Op.ENGINE or step.weights is not Weights.STREAM:
        return np.zeros((0, architecture.fill_lanes), np.int16)
    tile_out, out_tiles = architecture.tile_out, layout.out_tiles(step)
    linear = design.network.linears[step.linear]
    rows = layout.out_columns(step)[:, None]
    bias = np.zeros(out_tiles * tile_out, np.int64)
    bias[rows[:, 0]] = linear.bias_at(step.input_bits)
    shift = np.full(out_tiles * tile_out, MIN_SHIFT)
    shift[rows[:, 0]] = shifts(step, linear)

    tiles = step_tiles(design, step)
    if architecture.is_fast:
        bias -= pair_terms(tiles).sum(axis=1).reshape(-1)
    params = _param_words(bias, shift - MIN_SHIFT, architecture).reshape(out_tiles, -1)
    packed = pack_words(tiles.reshape(-1, architecture.fill_lanes), step.weight_width.value)
    stream = np.concatenate([params, packed.reshape(out_tiles, -1)], axis=1)
    words: Words = stream.reshape(-1, architecture.fill_lanes)
    return words


def step_tiles(design: Design, step: Step) -> NDArray[np.int16]:
    """A streamed step's weights. [out_tiles, in_tiles, tile_out, tile_in]"""
    architecture, layout = design.architecture, design.layout
    tile_in, tile_out = architecture.tile_in, architecture.tile_out
    in_tiles, out_tiles = layout.in_tiles(step), layout.out_tiles(step)
    weight = np.zeros((out_tiles * tile_out, in_tiles * tile_in), np.int16)
    weight[layout.out_columns(step)[:, None], layout.in_columns(step)] = design.network.linears[step.linear].weight
    return weight.reshape(out_tiles, tile_out, in_tiles, tile_in).swapaxes(1, 2)


def pack_words(words: Words, bits: int) -> Words:
    """Weights of 16, 12 or 8 bits, the highest of their lanes, as they travel: in place of the zeros below them lie the
    bits of others. Of 8, a word brings the one behind it; of 12, three words bring the fourth, four bits each, the
    first its highest. Every tile is whole such groups. [words, lanes] -> [words * bits / 16, lanes]
    """
    if bits == WeightWidth.W16.value:
        return words
    lanes = words.view(np.uint16)
    if bits == WeightWidth.W8.value:
        packed = lanes[0::2] | lanes[1::2] >> 8
    else:
        fourth = lanes[3::4]
        packed = np.stack([lanes[i::4] | (fourth >> 12 - 4 * i & 0xF) for i in range(3)], axis=1)
    narrow: Words = packed.astype(np.uint16).view(np.int16).reshape(-1, words.shape[1])
    return narrow


def shifts(step: Step, linear: QuantizedLinear) -> NDArray[np.int64]:
    """How many bits the epilogue drops, per output channel. [out]"""
    rounded_bits = step.gelu_bits if step.epilogue is Epilogue.GELU else step.output_bits
    shift = step.input_bits + linear.weight_frac_bits.astype(np.int64) - rounded_bits
    if shift.min() < MIN_SHIFT or shift.max() > MAX_SHIFT:
        raise NetworkError(
            f"layer {step.linear}: its formats ask for shifts of {shift.min()}..{shift.max()} bits, the engine has "
            f"{MIN_SHIFT}..{MAX_SHIFT}; calibrate with images that are like those in use"
        )
    up = step.output_bits - step.residual_bits
    if step.epilogue is Epilogue.RESIDUAL and not -RESIDUAL_GUARD_BITS <= up <= MAX_RESIDUAL_UP:
        raise NetworkError(
            f"layer {step.linear}: the residual would be moved by {up} bits, the engine has "
            f"{-RESIDUAL_GUARD_BITS}..{MAX_RESIDUAL_UP}; calibrate with images that are like those in use"
        )
    bits = _accumulator_bits(step, linear)
    if bits > ACCUMULATOR_BITS:
        raise NetworkError(
            f"layer {step.linear}: its sums may need {bits} bits, the engine has {ACCUMULATOR_BITS}; calibrate with "
            "images that are like those in use"
        )
    return shift


def _accumulator_bits(step: Step, linear: QuantizedLinear) -> int:
    """What holds the sums with their bias, whatever int16 enters; the residual joins after the shift."""
    largest = np.abs(linear.weight.astype(np.float64)).sum(axis=1) * 2.0**15
    largest += np.abs(linear.bias_at(step.input_bits))
    return int(np.ceil(np.log2(largest.max() + 1))) + 1


def pair_terms(tiles: NDArray[np.int16]) -> NDArray[np.int64]:
    """sum w[j] w[j + h] of the fast inner product, per column. [..., tile_in] -> [...]"""
    half = tiles.shape[-1] // 2
    wide = tiles.astype(np.int64)
    terms: NDArray[np.int64] = (wide[..., :half] * wide[..., half:]).sum(axis=-1)
    return terms


def port_stripes(words: Words, ports: int) -> NDArray[np.int16]:
    """[words, fill_lanes] -> [ports, words, stripe_lanes]: what lies behind each AXI port."""
    return np.ascontiguousarray(words.reshape(len(words), ports, -1).swapaxes(0, 1))


def weight_stream(design: Design) -> tuple[Words, NDArray[np.int64]]:
    """The whole stream and, for each step, at which word it begins. [words, fill_lanes], [steps + 1]"""
    words, begins = _with_table(design, position_words(design), range(len(design.program.steps)))
    return words, begins


def network_shapes(design: Design, num_words: int) -> Shapes:
    """What the host must know of a network.

    num_words  of its weight stream
    """
    model = design.network.model
    return Shapes(
        num_words=num_words,
        img_size=model.img_size,
        in_chans=model.in_chans,
        num_classes=model.num_classes,
        num_stages=design.network.pruning.num_selectors,
        num_prefix_tokens=model.num_prefix_tokens,
        num_tokens=model.num_tokens,
    )


def unit_stream(design: Design, steps: range, x: NDArray[np.int16]) -> Words:
    """What a kernel that is a top of its own takes: some steps, and the rows of X that they find. [words, fill_lanes]

    x  [tokens, C]
    """
    return _with_table(design, row_words(design, x), steps)[0]


def _with_table(design: Design, rows: Words, steps: range) -> tuple[Words, NDArray[np.int64]]:
    parts = [step_words(design, design.program.steps[i]) for i in steps]
    before = num_table_words(design.architecture, len(steps)) + len(rows)
    begins = before + np.cumsum([0, *(len(part) for part in parts)])
    num_rows = len(rows) * design.architecture.fill_lanes // design.layout.model_lanes
    return np.concatenate([table_words(design, num_rows, steps, int(begins[-1])), rows, *parts]), begins


def stream_checksum(words: Words) -> int:
    """What the accelerator's `checksum_words` makes of this stream: for each word rotate by one, XOR 32 bits at a time.

    words  [words, fill_lanes]
    """
    halves = np.bitwise_xor.reduce(words.view(np.uint16).reshape(len(words), -1, 2), axis=1).astype(np.uint32)
    folded = halves[:, 0] | (halves[:, 1] << 16)
    turns = np.arange(len(words) - 1, -1, -1, dtype=np.uint32) % 32  # that follow each word
    return int(np.bitwise_xor.reduce((folded << turns) | (folded >> (-turns % 32))))


def _whole_words(records: Lanes, architecture: Architecture) -> Words:
    words = np.zeros((-(-records.size // architecture.fill_lanes), architecture.fill_lanes), np.int16)
    words.reshape(-1)[: records.size] = records.reshape(-1)
    return words


def _param_words(bias: NDArray[np.int64], shift: NDArray[np.int64], architecture: Architecture) -> NDArray[np.int16]:
    """48-bit bias in three lanes, low first, and the shift in a fourth."""
    lanes = np.stack([bias, bias >> 16, bias >> 32, shift], axis=-1)
    assert lanes.shape[-1] == PARAM_LANES and np.all(np.abs(bias) < 2**47)
    words: Words = (lanes & 0xFFFF).astype(np.uint16).view(np.int16).reshape(-1, architecture.fill_lanes)
    return words
