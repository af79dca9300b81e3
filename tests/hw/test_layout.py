"""Where things lie: every feature in a lane of its own, whole words, nothing over another thing that still lives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.architecture import TILE_SIZES, Architecture
from hw.hardware import NUM_BANKS, Capacities
from hw.layout import BUFFER_BANK, Layout
from hw.program import Buffer, Op, Sizes, Weights, build_program
from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.errors import ConfigError


@st.composite
def designs(draw):
    heads = draw(st.integers(1, 5))
    head_dim = 4 * draw(st.integers(1, 24))
    patch = draw(st.integers(1, 5))
    model = ModelConfig(
        "m",
        img_size=patch * draw(st.integers(1, 6)),
        patch_size=patch,
        in_chans=draw(st.integers(1, 4)),
        embed_dim=heads * head_dim,
        depth=2,
        num_heads=heads,
        mlp_ratio=draw(st.sampled_from([0.5, 1.0, 2.75, 4.0])),
        num_classes=draw(st.integers(1, 300) | st.integers(301, 5000)),
        distilled=draw(st.booleans()),
    )
    pruning = PruningConfig(locations=(1,), share_heads=draw(st.booleans()))
    tile_in, tile_out = draw(st.sampled_from(TILE_SIZES)), draw(st.sampled_from(TILE_SIZES))
    own = Capacities.of(model)
    more = {
        name: getattr(own, name) + draw(st.integers(0, 70))
        for name in ("num_tokens", "num_heads", "head_dim", "hidden_dim", "patch_dim", "num_classes")
    }
    room = draw(st.sampled_from([own, replace(own, embed_dim=min(2 * own.embed_dim, 2047), **more)]))
    layout = Layout(model, Architecture(tile_in, tile_out, "fast", 1), room)
    return layout, build_program(Sizes(model, pruning))


@given(designs())
def test_every_feature_has_a_lane_of_its_own_in_the_tiles(design):
    layout, program = design
    tile_in, tile_out = layout.architecture.tile_in, layout.architecture.tile_out
    for step in program.steps:
        if step.op is not Op.ENGINE:
            continue
        if step.in_features is not None:
            columns = layout.in_columns(step)
            assert len(np.unique(columns)) == len(columns) == step.in_features
            assert columns.min() == 0 and columns.max() < layout.in_tiles(step) * tile_in
        else:
            assert layout.in_tiles(step) == 0 and step.weights is Weights.V
        if step.out_features is not None:
            columns = layout.out_columns(step)
            assert len(np.unique(columns)) == len(columns) == step.out_features
            assert columns.min() == 0 and columns.max() < layout.out_tiles(step) * tile_out
        else:
            assert layout.out_tiles(step) == 0 and step.weights is Weights.K
        assert layout.trace_lanes(step) > layout.out_columns(step).max()


@given(designs())
def test_what_one_step_writes_the_next_reads_in_the_same_lanes(design):
    layout, program = design
    written: dict[Buffer, np.ndarray] = {}
    for step in program.steps:
        if step.op is not Op.ENGINE or step.head is not None or step.in_features is None:
            continue
        if step.source in written:
            copies = step.in_features // len(written[step.source])  # two rows side by side before the head
            assert np.array_equal(layout.in_columns(step)[: step.in_features // copies], written[step.source]), (
                step.name
            )
        written[step.dest] = layout.out_columns(step)
        if step.dest is Buffer.Q:
            written[Buffer.CONTEXT] = layout.out_columns(step)


@given(designs())
def test_words_are_whole(design):
    layout, _ = design
    word, model, room = layout.architecture.word, layout.model, layout.capacities
    assert layout.head_lanes % word == 0 and 0 <= layout.head_lanes - room.head_dim < word
    assert layout.embed_lanes == room.num_heads * layout.head_lanes
    assert layout.model_lanes == model.num_heads * layout.head_lanes <= layout.embed_lanes
    assert layout.bank_lanes % word == 0
    assert layout.rows == room.num_tokens >= model.num_tokens
    embedding = layout.embedding()
    assert len(np.unique(embedding)) == model.embed_dim
    assert (embedding // layout.head_lanes == np.arange(model.embed_dim) // model.head_dim).all()
    lanes = layout.image_lanes
    assert (model.patch_size * model.in_chans) % lanes == 0 and lanes & (lanes - 1) == 0
    assert lanes <= min(16, layout.architecture.group)


@given(designs())
def test_no_step_writes_over_what_it_reads(design):
    """In WORK: source, keys and destination of a step are different lanes, and all lie inside."""
    layout, program = design
    tile_in, tile_out = layout.architecture.tile_in, layout.architecture.tile_out
    whole = NUM_BANKS * layout.bank_lanes
    for step in program.steps:
        if step.op is not Op.ENGINE:
            continue
        source = layout.first_lane(step.source, step.head if step.source is Buffer.Q else None)
        in_tiles = layout.in_tiles(step) or -(-layout.rows // tile_in)
        reads = set(range(source, source + in_tiles * tile_in)) if step.source not in (Buffer.X, Buffer.V) else set()
        if step.weights is Weights.K:
            keys = layout.first_lane(Buffer.K, step.head)
            reads |= set(range(keys, keys + layout.in_tiles(step) * tile_in))
        dest = layout.first_lane(step.dest, step.head if step.dest in (Buffer.CONTEXT, Buffer.TOKEN_SCORES) else None)
        out_tiles = layout.out_tiles(step) or -(-layout.rows // tile_out)
        writes = set(range(dest, dest + out_tiles * tile_out)) if step.dest not in (Buffer.X, Buffer.V) else set()
        assert not reads & writes, step.name
        # the logits are one row's: behind the last bank's lanes of it lie those of the rows behind
        last = whole + (layout.rows - 1) * layout.bank_lanes if step.dest is Buffer.LOGITS else whole
        assert all(0 <= lane < whole for lane in reads) and all(0 <= lane < last for lane in writes), step.name


def lanes_of(layout, buffer, lanes):
    first = BUFFER_BANK[buffer] * layout.bank_lanes
    return range(first, first + lanes)


@given(designs())
def test_what_lives_together_does_not_overlap(design):
    """While attention runs: queries (then contexts), keys and one head's scores; while tokens are selected: the rest."""
    layout, _ = design
    word, heads, d = layout.architecture.word, layout.model.num_heads, layout.model.head_dim
    together = [
        [
            (Buffer.Q, layout.embed_lanes),
            (Buffer.K, layout.embed_lanes),
            (Buffer.SCORES, -(-layout.rows // word) * word),
        ],
        [(Buffer.FEATURES, d), (Buffer.FC1, d // 2), (Buffer.FC2, d // 4), (Buffer.TOKEN_SCORES, heads * word)],
        [(Buffer.BRANCH_HIDDEN, max(heads // 2, 1)), (Buffer.BRANCH, heads), (Buffer.TOKEN_SCORES, heads * word)],
    ]
    for buffers in together:
        lanes = [lane for buffer, count in buffers for lane in lanes_of(layout, buffer, count)]
        assert len(set(lanes)) == len(lanes) and max(lanes) < NUM_BANKS * layout.bank_lanes


def test_deit_s_by_hand():
    layout = Layout(resolve_model("deit_s").model, Architecture())
    assert (layout.rows, layout.head_lanes, layout.embed_lanes) == (197, 64, 384)
    assert layout.bank_lanes == 384  # four of them hold the 1,536 of the hidden layer
    assert layout.image_lanes == 16  # a patch's line is 48 pixels
    assert layout.first_lane(Buffer.SCORES) == 768 and layout.first_lane(Buffer.K, 2) == 384 + 128
    assert layout.first_lane(Buffer.TOKEN_SCORES, 5) == 3 * 384 + 5 * 64


def test_heads_of_40_are_padded_to_64():
    model = replace(resolve_model("deit_s").model, embed_dim=120, num_heads=3)
    layout = Layout(model, Architecture())
    assert (layout.head_lanes, layout.embed_lanes) == (64, 192)
    assert layout.embedding()[[0, 39, 40, 80, 119]].tolist() == [0, 39, 64, 128, 167]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"embed_dim": 2048, "num_heads": 32}, "m: embed_dim=2048 overflows the engine's sums; it has room for 2047"),
        ({"embed_dim": 512, "num_heads": 256}, "m: num_heads=256 overflows the engine's sums; it has room for 255"),
        ({"patch_size": 7, "img_size": 224}, "m: num_tokens=1025 overflows the engine's sums; it has room for 1023"),
    ],
)
def test_sizes_that_overflow_the_engine_s_sums_are_refused(fields, sentence):
    with pytest.raises(ConfigError) as refused:
        Layout(ModelConfig("m", **fields), Architecture())
    assert str(refused.value) == sentence
