"""program.hpp: the step table on its way in, and what keeps a wrong one from running."""

import numpy as np
import pytest

from hw.interface import Error
from hw.step_table import HEADER, RECORD_LANES, STEP, pack_table, table_checksum
from hw.steps import Epilogue, Memory, Op, Package, Prologue, Rows, Weights, WeightWidth
from tests.hls_templates.worlds import NUM_BANKS

MAX_STEPS = 5
NUM_CLASSES = 11
PASS = {
    "op": Op.ENGINE, "rows": Rows.ALL, "source": Memory.X, "source_lane": 0, "prologue": Prologue.NONE, "split": 0,
    "head": 0, "weights": Weights.STREAM, "weights_lane": 0, "in_tiles": 1, "out_tiles": 1, "epilogue": Epilogue.STORE,
    "dest": Memory.WORK, "dest_lane": 0, "pool": False, "shift": 0, "norm_shift": 3, "epsilon": 0, "residual_shift": 0,
    "second_shift": 16, "norm_channels": 1, "frac_bits": 0, "aux_frac_bits": 0, "threshold": 0, "next_engine": 1,
    "weight_width": WeightWidth.W16,
}  # fmt: skip
PACKAGE = PASS | {"op": Op.PACKAGE}
ROWS = 2


def header_of(world, num_steps, **fields):
    """Of a network of ROWS tokens."""
    return {
        "digest": 7, "num_steps": num_steps, "num_words": 0, "num_rows": ROWS, "num_prefix": 1, "num_heads": world.heads,
        "package": Package.NONE, "grid": 1, "patch_lines": 1, "line_words": 1, "num_classes": NUM_CLASSES, "logits_lane": 0,
    } | fields  # fmt: skip


def decide(world, **fields):
    lanes = {"source_lane": 3 * world.bank_lanes, "weights_lane": world.bank_lanes}
    return PASS | {"op": Op.DECIDE} | lanes | fields


def words_of(world, table):
    """Header and steps, each in whole words. [words, fill_lanes]"""
    parts = []
    for records in (table[:1], table[1:]):
        words = np.zeros((-(-records.size // world.fill_lanes), world.fill_lanes), np.int64)
        words.reshape(-1)[: records.size] = records.reshape(-1)
        parts.append(words)
    return np.concatenate(parts)


def streamed(world, step):
    """Words of a step's weights."""
    if step["op"] is not Op.ENGINE or step["weights"] is not Weights.STREAM:
        return 0
    params = -(-world.tile_out * 4 // world.fill_lanes)
    tile = world.tile_out * world.tile_in * step["weight_width"].value // 16 // world.fill_lanes
    return step["out_tiles"] * (params + step["in_tiles"] * tile)


def load(world, steps, header=None, more_words=0, damage=lambda table: None):
    """The Error of a stream that has this table at its head, and the records in memory."""
    steps = [step | {"next_engine": step["next_engine"] or i + 1} for i, step in enumerate(steps)]
    fields = header_of(world, len(steps), **(header or {}))
    table = pack_table(fields, [(f"step {i}", step) for i, step in enumerate(steps)])
    damage(table)
    words = words_of(world, table)
    rest = (
        fields["num_rows"] * fields["num_heads"] * world.head_lanes // world.fill_lanes
        + sum(streamed(world, step) for step in steps)
        + more_words
    )
    stream = np.ascontiguousarray(np.concatenate([words, np.zeros((max(rest, 0), world.fill_lanes), np.int64)]))
    records = np.zeros((MAX_STEPS, RECORD_LANES), np.int64)
    error = world.call("run_load_program", stream, len(words) + rest, records)
    return Error(error), records, table


def chain(world, *steps):
    return [step | {"next_engine": i + 1} for i, step in enumerate(steps)]


@pytest.mark.parametrize("count", [1, 2, MAX_STEPS])
def test_records_arrive_as_they_were_packed(world, count):
    rng = np.random.default_rng(count)
    steps = chain(world, *(PASS | {"epsilon": int(rng.integers(0, 2**48)), "split": i} for i in range(count)))
    error, records, table = load(world, steps)
    assert error is Error.NONE
    assert np.array_equal(records[:count], table[1:])


@pytest.mark.parametrize("width", list(WeightWidth))
def test_a_stream_of_another_length(world, width):
    steps = chain(world, PASS, PASS | {"weight_width": width})
    assert load(world, steps)[0] is Error.NONE
    for more in (-1, 1):
        assert load(world, steps, more_words=more)[0] is Error.NUM_WORDS


def test_a_table_longer_than_the_stream(world):
    steps = chain(world, PASS, PASS)
    words = words_of(world, pack_table(header_of(world, MAX_STEPS), [(str(i), step) for i, step in enumerate(steps)]))
    records = np.zeros((MAX_STEPS, RECORD_LANES), np.int64)
    error = world.call("run_load_program", np.ascontiguousarray(words), len(words), records)
    assert Error(error) is Error.NUM_WORDS


def test_each_flipped_bit_is_seen(world):
    rng = np.random.default_rng(0)
    steps = chain(world, PASS, PASS | {"epsilon": 12345})
    for record in (1, 2):
        for bit in rng.choice(16 * RECORD_LANES, 24, replace=False):

            def flip(table, record=record, bit=int(bit)):
                table.view(np.uint16)[record, bit // 16] ^= 1 << bit % 16

            assert load(world, steps, damage=flip)[0] is Error.TABLE_CHECKSUM, (record, bit)


def test_another_layout_of_the_table(world):
    def age(table):
        values = HEADER.unpack(table[0])
        table[0] = HEADER.pack(values | {"version": values["version"] + 1}, "the network")

    assert load(world, chain(world, PASS), damage=age)[0] is Error.TABLE_VERSION


def test_headers_beyond_the_design(world):
    def steps_said(count):
        def say(table):
            table[0] = HEADER.pack(HEADER.unpack(table[0]) | {"num_steps": count}, "the network")

        return say

    one = chain(world, PASS)
    assert load(world, one, damage=steps_said(0))[0] is Error.SIZES
    assert load(world, one, damage=steps_said(MAX_STEPS + 1))[0] is Error.SIZES
    last = first_row_lanes(world) - NUM_CLASSES
    for good, bad in (
        ({}, {"num_classes": NUM_CLASSES + 1}),
        ({"logits_lane": last}, {"logits_lane": last + 1}),
        ({"num_rows": world.rows}, {"num_rows": world.rows + 1}),
        ({"num_rows": 1}, {"num_rows": 0}),
        ({"num_prefix": ROWS}, {"num_prefix": ROWS + 1}),
        ({}, {"num_prefix": 0}),
        ({"num_heads": 1}, {"num_heads": 0}),
        ({"num_heads": world.heads}, {"num_heads": world.heads + 1}),
    ):
        assert load(world, one, header=good)[0] is Error.NONE, good
        assert load(world, one, header=bad)[0] is Error.SIZES, bad


def test_a_package_policy_that_is_none(world):
    def say(table):
        first = HEADER.first_bit("package")
        word = int.from_bytes(table[0].tobytes(), "little") | 3 << first
        table[0] = np.frombuffer(word.to_bytes(32, "little"), np.int16)
        values = word & ~0xFFFFFFFF | table_checksum(table)
        table[0] = np.frombuffer(values.to_bytes(32, "little"), np.int16)

    assert load(world, chain(world, PASS), damage=say)[0] is Error.SIZES


@pytest.mark.parametrize(
    ("fields", "words", "fits"),
    [
        ({}, 1, True),
        ({}, 2, False),
        ({"patch_lines": 3, "line_words": 2}, 6, True),
        ({"patch_lines": 3, "line_words": 2}, 5, False),
        ({"grid": 2, "num_rows": 5}, 4, True),
        ({"grid": 2, "num_rows": 5}, 5, False),
        ({"grid": 2, "num_rows": 6}, 4, False),
        ({"grid": 2, "num_rows": 6, "num_prefix": 2}, 4, True),
        ({"grid": 0, "num_rows": 1}, 0, False),
        ({"patch_lines": 0}, 0, False),
        ({"line_words": 0}, 0, False),
    ],
)
def test_images(world, fields, words, fits):
    table = pack_table(header_of(world, 1, **fields), [("step", PASS)])
    error = Error(world.call("run_check_image", np.ascontiguousarray(table[0].astype(np.int64)), words))
    assert error is (Error.NONE if fits else Error.IMAGE_WORDS)


def test_a_patch_that_overflows_its_row(world):
    most = NUM_BANKS * world.bank_lanes // 2  # words of two pixels
    for words, fits in ((most, True), (most + 1, False)):
        for lines in range(1, 256):
            if words % lines == 0 and words // lines < 256:
                break
        table = pack_table(header_of(world, 1, patch_lines=lines, line_words=words // lines), [("step", PASS)])
        error = Error(world.call("run_check_image", np.ascontiguousarray(table[0].astype(np.int64)), words))
        assert error is (Error.NONE if fits else Error.IMAGE_WORDS)


def tiles(lanes, tile):
    return lanes // tile


def first_row_lanes(world):
    """Of WORK, whose last bank has no other rows while the first stands alone."""
    return (NUM_BANKS - 1 + world.rows) * world.bank_lanes


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("V is no source", {}, {"source": Memory.V}),
        ("source beyond X", lambda w: {"in_tiles": tiles(w.embed_lanes, w.tile_in)},
         lambda w: {"in_tiles": tiles(w.embed_lanes, w.tile_in) + 1}),
        ("source beyond WORK", lambda w: {"source": Memory.WORK, "in_tiles": tiles(4 * w.bank_lanes, w.tile_in)},
         lambda w: {"source": Memory.WORK, "in_tiles": tiles(4 * w.bank_lanes, w.tile_in) + 1}),
        ("the first rows' source beyond X",
         lambda w: {"rows": Rows.FIRST, "in_tiles": tiles(w.prefix * w.embed_lanes, w.tile_in)},
         lambda w: {"rows": Rows.FIRST, "in_tiles": tiles(w.prefix * w.embed_lanes, w.tile_in) + 1}),
        ("source off a tile's border", lambda w: {"source": Memory.WORK, "source_lane": w.tile_in},
         lambda w: {"source": Memory.WORK, "source_lane": 1}),
        ("destination beyond X", lambda w: {"dest": Memory.X, "out_tiles": tiles(w.embed_lanes, w.tile_out)},
         lambda w: {"dest": Memory.X, "out_tiles": tiles(w.embed_lanes, w.tile_out) + 1}),
        ("destination beyond V", lambda w: {"dest": Memory.V, "out_tiles": tiles(w.embed_lanes, w.tile_out)},
         lambda w: {"dest": Memory.V, "out_tiles": tiles(w.embed_lanes, w.tile_out) + 1}),
        ("destination beyond WORK", lambda w: {"out_tiles": tiles(4 * w.bank_lanes, w.tile_out)},
         lambda w: {"out_tiles": tiles(4 * w.bank_lanes, w.tile_out) + 1}),
        ("the first row's destination beyond WORK",
         lambda w: {"rows": Rows.FIRST, "out_tiles": tiles(first_row_lanes(w), w.tile_out)},
         lambda w: {"rows": Rows.FIRST, "out_tiles": tiles(first_row_lanes(w), w.tile_out) + 1}),
        ("destination off a tile's border", lambda w: {"dest_lane": w.tile_out}, {"dest_lane": 1}),
        ("streams as many tiles as tokens", {}, {"in_tiles": 0}),
        ("streams to as many tiles as tokens", {}, {"out_tiles": 0}),
        ("keys beyond their bank",
         lambda w: {"weights": Weights.K, "source": Memory.WORK, "in_tiles": tiles(w.bank_lanes, w.tile_in)},
         lambda w: {"weights": Weights.K, "source": Memory.WORK, "in_tiles": tiles(w.bank_lanes, w.tile_in) + 1}),
        ("keys off a tile's border", lambda w: {"weights": Weights.K, "weights_lane": 0},
         {"weights": Weights.K, "weights_lane": 1}),
        ("values beyond V",
         lambda w: {"weights": Weights.V, "weights_lane": w.embed_lanes - w.tile_out},
         lambda w: {"weights": Weights.V, "weights_lane": w.embed_lanes - w.tile_out + 1}),
        ("values of more tokens than there are",
         lambda w: {"weights": Weights.V, "source": Memory.WORK, "in_tiles": tiles(-(-w.rows // w.word) * w.word, w.tile_in)},
         lambda w: {"weights": Weights.V, "source": Memory.WORK, "in_tiles": tiles(-(-w.rows // w.word) * w.word, w.tile_in) + 1}),
        ("a residual outside X", {"epilogue": Epilogue.RESIDUAL, "dest": Memory.X}, {"epilogue": Epilogue.RESIDUAL}),
        ("LayerNorm of WORK", {"prologue": Prologue.LAYER_NORM},
         {"prologue": Prologue.LAYER_NORM, "source": Memory.WORK}),
        ("LayerNorm's shift", {"prologue": Prologue.LAYER_NORM, "norm_shift": 3},
         {"prologue": Prologue.LAYER_NORM, "norm_shift": 2}),
        ("LayerNorm's channels", lambda w: {"prologue": Prologue.LAYER_NORM, "norm_channels": w.heads * w.head_dim},
         lambda w: {"prologue": Prologue.LAYER_NORM, "norm_channels": w.heads * w.head_dim + 1}),
        ("a head too many", lambda w: {"head": w.heads - 1}, lambda w: {"head": w.heads}),
        ("GELU's shift", {"epilogue": Epilogue.GELU, "second_shift": 23}, {"epilogue": Epilogue.GELU, "second_shift": 24}),
        ("GELU's shift, below", {"epilogue": Epilogue.GELU}, {"epilogue": Epilogue.GELU, "second_shift": 15}),
        ("GELU's format", {"epilogue": Epilogue.GELU, "frac_bits": 14}, {"epilogue": Epilogue.GELU, "frac_bits": 15}),
        ("softmax's format", {"prologue": Prologue.SOFTMAX, "frac_bits": 10},
         {"prologue": Prologue.SOFTMAX, "frac_bits": 11}),
        ("no step of the program", {}, {"op": Op.IDLE}),
        ("back to an earlier step", {}, {"next_engine": 0}),
        ("on to a step behind the last", {}, {"next_engine": 3}),
    ],
)  # fmt: skip
def test_steps_that_would_leave_the_memories(world, name, good, bad):
    good, bad = (case(world) if callable(case) else case for case in (good, bad))
    first, _ = chain(world, PASS, PASS)

    def error_of(fields):
        steps = [first, PASS | {"next_engine": 2} | fields]
        table = pack_table(
            header_of(world, 2, num_prefix=world.prefix), [(str(i), step) for i, step in enumerate(steps)]
        )
        words = words_of(world, table)
        rest = ROWS * world.embed_lanes // world.fill_lanes + sum(streamed(world, step) for step in steps)
        stream = np.concatenate([words, np.zeros((rest, world.fill_lanes), np.int64)])
        records = np.zeros((MAX_STEPS, RECORD_LANES), np.int64)
        return Error(world.call("run_load_program", np.ascontiguousarray(stream), len(stream), records))

    assert error_of(good) is Error.NONE, name
    assert error_of(bad) is Error.STEP, name


def test_choices_that_are_none(world):
    for name, largest in (("source", 3), ("dest", 3), ("prologue", 7), ("weights", 3), ("epilogue", 7), ("op", 7)):
        field = next(field for field in STEP.fields if field.name == name)
        first = STEP.first_bit(name)

        def damage(table, first=first, bits=field.bits, code=largest):
            word = int.from_bytes(table[1].tobytes(), "little")
            word = word & ~((2**bits - 1) << first) | code << first
            table[1] = np.frombuffer(word.to_bytes(32, "little"), np.int16)
            values = HEADER.unpack(table[0])
            table[0] = HEADER.pack(values | {"checksum": table_checksum(table)}, "the network")

        steps = chain(world, PASS)
        assert load(world, steps, damage=damage)[0] is Error.STEP, name


@pytest.mark.parametrize(
    "fields",
    [
        lambda w: {"source_lane": 3 * w.bank_lanes - 1},
        lambda w: {"source_lane": 4 * w.bank_lanes - w.heads * w.word + 1},
        lambda w: {"weights_lane": w.bank_lanes - 1},
        lambda w: {"weights_lane": 2 * w.bank_lanes - w.heads + 1},
        lambda w: {"frac_bits": 13},
        lambda w: {"aux_frac_bits": 13},
    ],
)
def test_decisions_that_would_leave_the_memories(world, fields):
    assert load(world, chain(world, decide(world)))[0] is Error.NONE
    assert load(world, chain(world, decide(world, **fields(world))))[0] is Error.STEP


def test_more_selectors_than_the_status_has_room_for(world):
    assert load(world, chain(world, PACKAGE, PACKAGE))[0] is Error.NONE
    assert load(world, chain(world, PACKAGE, PACKAGE, PACKAGE))[0] is Error.STEP
