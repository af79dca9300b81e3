"""That the comparison sees what is wrong: a bit in the weights, an entry of a table, a line of a kernel."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest

import sim.bridge
from hw.layout import Design
from hw.weights import num_table_words, port_stripes, weight_stream
from sim.bridge import Accelerator, CsimError
from sim.build import build_library
from sim.compare import Mismatch
from sim.units import compare_unit
from tests.sim.conftest import Simulators, golden_of, mismatches
from tests.sim.networks import MICRO, design_of, micro, random_images

PIXELS = random_images(MICRO.model, 2)


@pytest.fixture(scope="module")
def design() -> Design:
    return design_of(micro())


@pytest.fixture(scope="module")
def accelerator(simulators: Simulators, design: Design) -> Accelerator:
    return simulators(design)


def differences(accelerator: Accelerator) -> list[Mismatch | str]:
    golden = golden_of(accelerator.design, PIXELS)
    found = []
    for image, pixels in enumerate(PIXELS):
        found += mismatches(accelerator.design, accelerator.run(pixels), golden, image)
    return found


# --- the weight stream ---


def with_bit_flipped(accelerator: Accelerator, word: int, lane: int, bit: int) -> Accelerator:
    """On an engine of one port, whose words are 8 lanes."""
    words = weight_stream(accelerator.design)[0].copy()
    words[word, lane] ^= np.int16(1 << bit)
    other = Accelerator.__new__(Accelerator)
    other.__dict__ |= accelerator.__dict__ | {
        "_stripes": port_stripes(words, accelerator.design.architecture.weight_ports)
    }
    return other


def first_word(design: Design, step: str) -> int:
    position = next(i for i, s in enumerate(design.program.steps) if s.name == step)
    return int(weight_stream(design)[1][position])


@pytest.mark.parametrize("step", ["patch_embed", "blocks.1.mlp.fc1", "selectors.2.fc2.0", "head"])
@pytest.mark.parametrize(("what", "word", "lane", "bit"), [("bias", 0, 1, 6), ("shift", 0, 3, 0), ("weight", 8, 1, 12)])
def test_one_bit_of_the_weights(accelerator, design, step, what, word, lane, bit):
    """Of the step's first output: 16 columns' parameters are its first 8 words."""
    found = differences(with_bit_flipped(accelerator, first_word(design, step) + word, lane, bit))
    first = found[0]
    assert isinstance(first, Mismatch)
    assert first.tap == step and first.index[1] == 0 and first.csim != first.golden
    assert f"{step}[{first.index[0]}, 0]: C-simulation {first.csim}, golden {first.golden}" in str(first)
    assert first.count <= design.layout.rows  # one column


def test_one_bit_of_the_position(accelerator, design):
    first = num_table_words(design.architecture, len(design.program.steps))
    found = differences(
        with_bit_flipped(accelerator, first + 5 * design.layout.embed_lanes // 8, 0, 7)
    )  # row 5, channel 0
    assert isinstance(found[0], Mismatch) and (found[0].tap, found[0].index) == ("patch_embed", (4, 0))


@pytest.mark.parametrize("by", [-1, 1])
def test_a_stream_of_another_length_is_refused(accelerator, by):
    other = Accelerator.__new__(Accelerator)
    shapes = replace(accelerator._shapes, num_words=accelerator._shapes.num_words + by)
    other.__dict__ |= accelerator.__dict__ | {"_shapes": shapes}
    other._stripes = np.resize(accelerator._stripes, (1, shapes.num_words, accelerator._stripes.shape[2]))
    with pytest.raises(CsimError, match=r"^it refused its own design: NUM_WORDS$"):
        other.run(PIXELS[0])


def test_another_designs_host_is_refused(accelerator):
    other = Accelerator.__new__(Accelerator)
    interface = replace(accelerator._interface, digest=accelerator._interface.digest ^ 1)
    other.__dict__ |= accelerator.__dict__ | {"_interface": interface}
    with pytest.raises(CsimError, match=r"^it refused its own design: DIGEST$"):
        other.run(PIXELS[0])


@pytest.mark.parametrize(
    "cut", [lambda words: words[:-1], lambda words: np.concatenate([words, words[:1]])], ids=["one less", "one more"]
)
def test_a_kernel_s_stream_of_another_length_is_refused(simulators, design, monkeypatch, cut):
    accelerator, golden = simulators(design, unit="mlp_block"), golden_of(design, PIXELS)
    monkeypatch.setattr(sim.bridge, "port_stripes", lambda words, ports: port_stripes(cut(words), ports))
    with pytest.raises(CsimError, match=r"^it refused its own steps: NUM_WORDS$"):
        compare_unit(accelerator, "mlp_block", golden)
    monkeypatch.undo()
    assert compare_unit(accelerator, "mlp_block", golden).mismatches == ()  # and the next run is sound again


# --- the sources ---


@dataclass(frozen=True)
class Mutation:
    """A text of a generated file, what takes its place, and the kind of tap that shows it first."""

    file: str
    old: str
    new: str
    shows_in: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old[:50]}"


MUTATIONS = [
    Mutation("fixed_point.hpp", "(more || (floor & 1) != 0)", "true", ""),
    Mutation("prologue.hpp", "i < tokens ? exp2_negative", "true ? exp2_negative", ".context."),
    Mutation("token_packager.hpp", "memory.x, to, part * A::kWord", "memory.x, tokens.num_tokens - 1 - to, part * A::kWord", ".package"),
    Mutation("tables.hpp", "kReciprocalBase[256] = {\n    1", "kReciprocalBase[256] = {\n    2", ""),
    *(
        pytest.param(mutation, marks=pytest.mark.slow)
        for mutation in [
            Mutation("engine.hpp", "(first_in ? Int<48>(0) : so_far[column])", "Int<48>(0)", "patch_embed"),
            Mutation("tables.hpp", "kGeluBase[160] = {\n    ", "kGeluBase[160] = {\n    64 + ", ".fc1"),
            Mutation("tables.hpp", "kExp[1024] = {\n    2", "kExp[1024] = {\n    1", ".context."),
            Mutation("tables.hpp", "kSigmoidBase[512] = {\n    2", "kSigmoidBase[512] = {\n    1", ".keep"),
            Mutation("tables.hpp", "kRsqrtBase[256] = {\n    1", "kRsqrtBase[256] = {\n    2", ""),
            Mutation("epilogue.hpp", "i < tokens ? scores[i]", "true ? scores[i]", ".context."),
            Mutation("engine.hpp", "first_token ? Int<27>(0) : sums[i]", "sums[i]", ".pool."),
            Mutation("engine.hpp", "gather(tile.out_tile == 0, of_row", "gather(true, of_row", ".attn.k"),
            Mutation("engine.hpp", "gather(tile.part == 0, of_head", "gather(tile.out_tile == 0, of_head", ".embed."),
            Mutation("engine.hpp", "tile.out_tile != 0 && before > largest", "before > largest", ".context."),
            Mutation("prologue.hpp", "first_lane >= A::kEmbedLanes ? 1 : 0;", "1;", ".attn.k"),
            Mutation("memory.hpp", "const int skew = (first_dim + key)", "const int skew = (first_dim)", ".context."),
            Mutation("prologue.hpp", "first_lane + i >= split", "first_lane + i > split", ".fc1."),
            Mutation("token_packager.hpp", "store(memory.row_statistics, to, load(memory.row_statistics, from));", "", ".attn.k"),
            Mutation("token_packager.hpp", "weight += probability;", "weight += 1;", ".package"),
            Mutation("token_packager.hpp", "memory.row_statistics[row] = row_sums;", "", ".attn.k"),
            Mutation("token_packager.hpp", "++tokens.num_packages;", "", ".embed."),
            Mutation("token_selector.hpp", "count > 0 ? count : 1", "count + 1", ".pool."),
            Mutation("token_selector.hpp", "Int<48>(Int<48>(weights) * step.threshold)", "Int<48>(Int<48>(weights) << 21)", ".keep"),
            Mutation("inner_product.hpp", "Int<17>(a[j]) + w[j + N / 2]", "Int<17>(Int<16>(a[j] + w[j + N / 2]))", ""),
            Mutation("tile.hpp", "tile.shadow_bias[column] = 0;", "", ""),
            Mutation("input_loader.hpp", "locate<A>(to_int(lane) + to_int(word.value)", "locate<A>(to_int(word.value)", "patch_embed"),
        ]
    ),
]  # fmt: skip


def test_every_line_to_break_is_still_there(simulators, design):
    source = simulators.folder(design) / "src"
    for mutation in MUTATIONS:
        chosen = mutation if isinstance(mutation, Mutation) else mutation.values[0]
        assert (source / chosen.file).read_text().count(chosen.old) == 1, f"{chosen}: write the mutation anew"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_wrong_line_is_seen(simulators, design, tmp_path, mutation):
    found = differences(Accelerator(design, mutated_library(simulators, design, tmp_path, mutation)))
    first = found[0]
    assert isinstance(first, Mismatch) and first.csim != first.golden
    assert mutation.shows_in in first.tap


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("streams ? 1 +", "a stream was read while it was empty: more words are taken than were sent"),
        pytest.param(
            "streams ? -1 +", "words are left in a stream: fewer are taken than were sent", marks=pytest.mark.slow
        ),
    ],
    ids=["dry", "over"],
)
def test_streams_that_run_dry_or_over(simulators, design, tmp_path, capfd, new, message):
    """Of a kernel that does not take the words that it counted."""
    mutation = Mutation("tile.hpp", "fill.left = streams ?", f"fill.left = {new}", "")
    library = mutated_library(simulators, design, tmp_path, mutation, "mlp_block")
    with pytest.raises(CsimError, match=f"^{message} "):
        compare_unit(Accelerator(design, library), "mlp_block", golden_of(design, PIXELS))


def mutated_library(simulators, design, folder, mutation, unit=None):
    shutil.copytree(simulators.folder(design) / "src", folder / "src")
    path = folder / "src" / mutation.file
    text = path.read_text()
    path.write_text(text.replace(mutation.old, mutation.new, 1))
    return build_library(folder / "src", unit)
