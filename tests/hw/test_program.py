"""The program: its kernels in order, each layer once, each operand's format, who may follow whom."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from hw.program import Buffer, Epilogue, Op, Prologue, Rows, Sizes, Weights, build_program
from quant.network import SELECTOR_LAYER_NORM_EPS, linear_shapes
from quant.wiring import stream_before, wiring
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import NetworkError
from tests.sim.networks import MICRO, random_network

OTHER = ModelConfig(
    "other", img_size=8, patch_size=4, embed_dim=24, depth=3, num_heads=3, distilled=True, num_classes=5
)
CASES = [
    (MICRO.model, MICRO.pruning),
    (OTHER, PruningConfig(locations=(0, 2), share_heads=False, features="single")),
    (OTHER, PruningConfig(locations=())),
    (replace(OTHER, num_heads=1), PruningConfig(locations=(1,), package="none")),
]


@pytest.fixture(params=CASES, ids=["micro", "per head", "unpruned", "one head"])
def network(request):
    return random_network(np.random.default_rng(0), *request.param)


@pytest.fixture
def program(network):
    return build_program(network)


def test_kernels_come_in_the_model_s_order(network, program):
    expected = [("patch_embed", 0)]
    for block in range(network.model.depth):
        if block in network.pruning.locations:
            index = network.pruning.locations.index(block)
            expected += [("token_selector", index), ("token_packager", index)]
        expected += [("msa_block", block), ("mlp_block", block)]
    assert [(unit, index) for unit, index, _ in program.units()] == [*expected, ("head", 0)]


def test_kernels_are_ranges_that_cover_all_steps(program):
    spans = list(program.units())
    assert [i for _, _, span in spans for i in span] == list(range(len(program.steps)))
    for unit, index, span in spans:
        assert program.unit(unit, index) == span
        assert {(program.steps[i].unit, program.steps[i].index) for i in span} == {(unit, index)}
    assert program.unit("msa_block", 99) == range(0)


def test_names_are_unique(program):
    assert len({step.name for step in program.steps}) == len(program.steps)


def test_each_layer_is_streamed_for_each_use(network, program):
    """In the order of the network, but K and V before Q; a shared scorer once per head."""
    streamed = [step.linear for step in program.steps if step.op is Op.ENGINE and step.weights is Weights.STREAM]
    assert all(step.linear == "" for step in program.steps if step.weights is not Weights.STREAM)
    shapes = linear_shapes(network.model, network.pruning)
    assert set(streamed) == set(shapes)
    heads = network.model.num_heads
    for name in shapes:
        shared = ".scorers." in name and network.pruning.share_heads
        assert streamed.count(name) == (heads if shared else 1), name
    for block in range(network.model.depth):
        attn = f"blocks.{block}.attn"
        at = [streamed.index(f"{attn}.{name}") for name in ("k", "v", "q", "proj")]
        assert at == sorted(at)


def test_features_are_the_layers_shapes(network, program):
    shapes = linear_shapes(network.model, network.pruning)
    for step in program.steps:
        if step.linear:
            assert (step.out_features, step.in_features) == shapes[step.linear], step.name


def test_formats_are_the_wires(network, program):
    """Of every streamed step: what enters the array, what leaves, what is added."""
    bits, wires = network.frac_bits, wiring(network.model, network.pruning)
    for step in program.steps:
        if not step.linear:
            continue
        wire = wires[step.linear]
        assert step.input_bits == bits[wire.source], step.name
        if step.epilogue is Epilogue.GELU:
            assert (step.gelu_bits, step.output_bits) == (bits[wire.result], bits[f"{wire.result}.gelu"])
        else:
            assert step.output_bits == bits[wire.result]
        assert (step.epilogue is Epilogue.RESIDUAL) == (wire.residual is not None)
        if wire.residual is not None:
            assert step.residual_bits == bits[wire.residual]


def test_attention_s_formats(network, program):
    bits = network.frac_bits
    for step in program.steps:
        attn = step.name.rsplit(".", 2)[0]
        if step.weights is Weights.K:
            assert (step.source_bits, step.weight_bits) == (bits[f"{attn}.q"], bits[f"{attn}.k"])
            assert step.output_bits == bits[f"{attn}.scores"]
        if step.weights is Weights.V:
            assert (step.source_bits, step.weight_bits) == (bits[f"{attn}.scores"], bits[f"{attn}.v"])
            assert step.output_bits == bits[f"{attn}.context"]


def test_the_residual_stream_s_format_is_followed(network, program):
    """Each step that reads X knows the format that the last step that wrote it left."""
    bits = network.frac_bits["patch_embed"]
    for step in program.steps:
        if step.source is Buffer.X and step.op is not Op.POOL:
            assert step.source_bits == bits, step.name
        if step.dest is Buffer.X and step.epilogue is Epilogue.RESIDUAL:
            assert step.residual_bits == bits, step.name
            bits = step.output_bits
    last = stream_before(network.model.depth)
    assert bits == network.frac_bits[last]


def test_layer_norms_know_their_width_and_epsilon(network, program):
    model = network.model
    for step in program.steps:
        if step.prologue in (Prologue.LAYER_NORM, Prologue.HEAD_LAYER_NORM):
            per_head = step.prologue is Prologue.HEAD_LAYER_NORM
            width = model.head_dim if per_head else model.embed_dim
            eps = SELECTOR_LAYER_NORM_EPS if per_head else model.layer_norm_eps
            assert step.norm_features == width
            assert step.epsilon == round(eps * width**2 * 4.0**step.source_bits)
        else:
            assert step.epsilon == step.norm_features == 0


def test_rows(network, program):
    for step in program.steps:
        if step.unit == "patch_embed":
            assert step.rows is Rows.PATCHES
        elif step.unit == "head":
            assert step.rows is Rows.FIRST
        elif step.unit == "token_selector" and step.op is not Op.POOL:
            assert step.rows is Rows.CANDIDATES
        elif step.unit in ("msa_block", "mlp_block"):
            assert step.rows is Rows.ALL


def test_pooling_follows_what_it_pools(program):
    for i, step in enumerate(program.steps):
        if step.op is Op.POOL:
            before, after = program.steps[i - 1], program.steps[i + 1]
            assert before.pool and before.head == step.head
            assert after.prologue is Prologue.CONCAT and after.head == step.head
        else:
            following = program.steps[i + 1] if i + 1 < len(program.steps) else None
            assert not step.pool or (following is not None and following.op is Op.POOL)


def test_decisions_know_their_threshold(network, program):
    decisions = [step for step in program.steps if step.op is Op.DECIDE]
    assert tuple(step.threshold for step in decisions) == network.thresholds
    for step in decisions:
        selector = f"selectors.{step.index}"
        assert step.source_bits == network.frac_bits[f"{selector}.fc3"]
        assert step.branch_bits == network.frac_bits[f"{selector}.head_branch.fc2"]


def test_keys_and_values_are_complete_before_they_are_filled(program):
    """A tile is filled during the engine's step before its own: that must not be the one that writes it."""
    engine = [step for step in program.steps if step.op is Op.ENGINE]
    for before, step in itertools.pairwise(engine):
        written = {Weights.K: Buffer.K, Weights.V: Buffer.V}.get(step.weights)
        assert before.dest is not written, step.name


def test_the_next_step_of_the_engine(program):
    for i in range(-1, len(program.steps)):
        following = program.next_engine(i)
        assert i < following <= len(program.steps)
        assert all(program.steps[j].op is not Op.ENGINE for j in range(i + 1, following))
        assert following == len(program.steps) or program.steps[following].op is Op.ENGINE


# --- formats that no unit of the engine takes ---


@pytest.mark.parametrize(
    ("name", "bits", "sentence"),
    [
        ("blocks.1.mlp.fc1", -1, "blocks.1.mlp.fc1: what enters GELU would have -1 fraction bits, the engine takes 0..14"),
        ("blocks.1.mlp.fc1", 15, "blocks.1.mlp.fc1: what enters GELU would have 15 fraction bits, the engine takes 0..14"),
        ("blocks.1.mlp.fc1.gelu", 14, "blocks.1.mlp.fc1: what leaves GELU would have 14 fraction bits, the engine takes 6..13"),
        ("blocks.0.attn.scores", -1, "blocks.0.attn.scores.0: scores would have -1 fraction bits, the engine takes 0..10"),
        ("blocks.0.attn.scores", 11, "blocks.0.attn.scores.0: scores would have 11 fraction bits, the engine takes 0..10"),
        ("selectors.2.fc3", 13, "selectors.2.keep: scores would have 13 fraction bits, the engine takes 0..12"),
        ("selectors.2.head_branch.fc2", -2, "selectors.2.keep: head weights would have -2 fraction bits, the engine takes 0..12"),
        ("blocks.3.norm2", 15, "blocks.3.mlp.fc1: what leaves LayerNorm would have 15 fraction bits, the engine takes 0..14"),
    ],
)  # fmt: skip
def test_formats_that_no_table_takes_are_refused(name, bits, sentence):
    network = random_network(np.random.default_rng(0), MICRO.model, MICRO.pruning)
    with pytest.raises(NetworkError) as refused:
        build_program(replace(network, frac_bits={**network.frac_bits, name: bits}))
    assert str(refused.value) == (
        f"{sentence}; calibrate with images that are like those in use, or train with smaller weights"
    )


@pytest.mark.parametrize("up", [-1, 5])
def test_contexts_far_from_their_values_are_refused(up):
    network = random_network(np.random.default_rng(0), MICRO.model, MICRO.pruning)
    values = network.frac_bits["blocks.2.attn.v"]
    with pytest.raises(NetworkError) as refused:
        build_program(replace(network, frac_bits={**network.frac_bits, "blocks.2.attn.context": values + up}))
    assert str(refused.value).startswith(
        f"blocks.2.attn.context.0: context would have {values + up} fraction bits, the engine takes {values}..{values + 4};"
    )


def test_products_coarser_than_the_scores_are_refused():
    network = random_network(np.random.default_rng(0), MICRO.model, MICRO.pruning)
    finer = {**network.frac_bits, "blocks.0.attn.q": 2, "blocks.0.attn.k": 2, "blocks.0.attn.scores": 5}
    with pytest.raises(
        NetworkError, match=r"the product of q and k would have 4 fraction bits, the engine takes 13\.\.28;"
    ):
        build_program(replace(network, frac_bits=finer))


@pytest.mark.parametrize(
    ("name", "step", "what"),
    [
        ("blocks.2.attn.scores", "blocks.2.attn.scores.0", "the scores"),
        ("selectors.0.fc2", "selectors.0.fc2.0", "what enters GELU"),
    ],
)
def test_scores_and_what_enters_gelu_have_one_format_each(name, step, what):
    network = random_network(np.random.default_rng(0), MICRO.model, MICRO.pruning)
    bits = network.frac_bits[name]
    with pytest.raises(NetworkError) as refused:
        build_program(replace(network, frac_bits={**network.frac_bits, name: bits - 1}))
    assert str(refused.value) == (
        f"{step}: {what} would have {bits - 1} fraction bits, elsewhere they have {bits}; the engine has one format for "
        "all of them: quantize the network again"
    )
    program = build_program(network)
    assert program.score_frac_bits == network.frac_bits["blocks.0.attn.scores"]
    assert program.gelu_frac_bits == network.frac_bits["blocks.0.mlp.fc1"]


@pytest.mark.parametrize("locations", [(0,), (0, 1, 2, 3), (3,)])
def test_heads_statistics_are_gathered_anew_before_a_selector_reads_them(locations):
    """Neither loading nor the packager brings them: a residual pass over all of the selector's rows does, since the last
    packager."""
    pruning = replace(MICRO.pruning, locations=locations, keep=())
    program = build_program(Sizes(MICRO.model, pruning))
    gathered, readers = False, 0
    for step in program.steps:
        if step.prologue is Prologue.HEAD_LAYER_NORM:
            assert gathered and step.rows is Rows.CANDIDATES, step.name
            readers += 1
        if step.op is Op.PACKAGE:
            gathered = False
        elif step.epilogue is Epilogue.RESIDUAL and step.dest is Buffer.X:
            gathered = gathered or step.rows in (Rows.ALL, Rows.PATCHES)
    assert readers == len(locations) * MICRO.model.num_heads
