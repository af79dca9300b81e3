"""The golden against the Brevitas model at every tap, against int64 arithmetic, and against itself."""

from __future__ import annotations

from collections import UserDict
from dataclasses import replace
from typing import Any

import array_api_compat.numpy as numpy_arrays
import array_api_compat.torch as torch_arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.layout import Design
from quant.export import from_network, to_network
from sim.constructed import deciding, with_linear
from sim.golden import Golden, GoldenResult, cut_patches
from spvit.config import ModelConfig
from tests.quant.integers import Golden as Witness
from tests.sim.networks import MICRO, design_of, golden_taps, micro, quantized, random_images, random_network

# What never leaves the accelerator's pipeline: the LayerNorms' results, and what GELU takes.
UNTAPPED = ("pixels", "norm", ".norm", ".norm1", ".norm2", ".embed", ".fc1", ".fc2")
OTHER_MODEL = ModelConfig("other", img_size=12, patch_size=3, in_chans=1, embed_dim=24, depth=3, num_heads=3,
                          mlp_ratio=2.5, num_classes=1)  # fmt: skip
CASES: list[tuple[ModelConfig, dict[str, Any]]] = [
    (MICRO.model, {}),
    (MICRO.model, {"package": "add"}),
    (MICRO.model, {"package": "none"}),
    (MICRO.model, {"share_heads": False, "features": "single"}),
    (MICRO.model, {"features": "single"}),
    (replace(MICRO.model, distilled=True), {}),
    (OTHER_MODEL, {"locations": (0, 2), "keep": (), "share_heads": False}),
    (OTHER_MODEL, {"locations": (), "keep": ()}),
]


def run(network: Any, pixels: Any, arrays: Any = numpy_arrays, taps: bool = True) -> GoldenResult:
    return Golden(network, design_of(network).program, arrays).run(pixels, taps=taps)


class Noted(UserDict[str, Any]):
    """Notes which keys are asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)


def check_taps(design: Design, golden: GoldenResult, image: int, taps: dict[str, Any]) -> None:
    """Each of the golden's taps equals the model's, and each of the model's has been compared."""
    names, noted = [], Noted(taps)
    for name, expected in golden_taps(design, noted):
        got = golden.taps[name][image]
        names.append(name)
        if expected is None:
            empty = got[: 0 if name.endswith(".package") else None]
            assert not empty.any(), f"image {image}: {name} of no candidates"
        else:
            assert np.array_equal(got, expected), f"image {image}: {name}"
    assert names == list(golden.taps)
    assert all(name.endswith(UNTAPPED) for name in taps.keys() - noted.asked)


@pytest.mark.parametrize("widths", [(12,), (8,), (8, 16, 12)])
def test_every_tap_equals_the_brevitas_model_with_narrow_weights(widths):
    net, network = quantized(MICRO.model, MICRO.pruning, 0, widths)
    assert set(network.weight_bits.values()) == set(widths)
    pixels, taps = random_images(MICRO.model, 2), []
    with torch.no_grad():
        net(torch.from_numpy(pixels), taps)
    golden = run(network, pixels)
    for image in range(2):
        check_taps(design_of(network), golden, image, taps[image])
    assert to_network(from_network(network)).digest == network.digest


@pytest.mark.parametrize(
    ("model", "pruning"), CASES, ids=lambda case: str(case) if isinstance(case, dict) else case.name
)
def test_every_tap_equals_the_brevitas_model(model, pruning):
    net, network = quantized(model, replace(MICRO.pruning, **pruning))
    pixels = random_images(model, 3)
    golden = run(network, pixels)
    taps: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        logits = net(torch.from_numpy(pixels), taps)
    for image in range(len(pixels)):
        check_taps(design_of(network), golden, image, taps[image])
    assert np.array_equal(golden.logits * 2.0 ** -network.frac_bits["head"], logits.numpy())


@pytest.mark.parametrize("extreme", [False, True])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), distilled=st.booleans(), package=st.sampled_from(["append", "add", "none"]))
def test_random_integers_equal_int64_arithmetic(extreme, seed, distilled, package):
    """Also where everything saturates: the witness has shifts and masks in place of float64."""
    model, pruning = replace(MICRO.model, distilled=distilled), replace(MICRO.pruning, package=package)
    network = random_network(np.random.default_rng(seed), model, pruning, extreme)
    pixels = random_images(model, 2, seed)
    golden = run(network, pixels)
    for image in range(len(pixels)):
        check_taps(design_of(network), golden, image, Witness(network, pixels[image]).taps)


def same(one: GoldenResult, other: GoldenResult) -> None:
    assert np.array_equal(one.logits, other.logits)
    assert one.tokens == other.tokens
    assert one.saturations == other.saturations
    assert one.taps.keys() == other.taps.keys()
    for name, tap in one.taps.items():
        assert len(tap) == len(other.taps[name])
        for a, b in zip(tap, other.taps[name], strict=True):
            assert a.dtype == b.dtype == np.int32
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("extreme", [False, True])
def test_torch_computes_what_numpy_computes(extreme):
    network = random_network(np.random.default_rng(5), MICRO.model, MICRO.pruning, extreme)
    pixels = random_images(MICRO.model, 3)
    same(run(network, pixels), run(network, pixels, torch_arrays))


def test_a_batch_is_its_images_one_by_one():
    network = micro()
    pixels = random_images(MICRO.model, 5)
    together, alone = run(network, pixels), [run(network, pixels[i : i + 1]) for i in range(5)]
    assert len({tuple(stage[i] for stage in together.tokens) for i in range(5)}) > 1, "the images prune alike"
    for image, single in enumerate(alone):
        assert np.array_equal(together.logits[image], single.logits[0])
        assert [stage[image] for stage in together.tokens] == [stage[0] for stage in single.tokens]
        for name, tap in single.taps.items():
            assert np.array_equal(tap[0], together.taps[name][image]), name
    total = {name: sum(single.saturations[name] for single in alone) for name in together.saturations}
    assert together.saturations == total


def test_without_taps_the_logits_and_tokens_are_the_same():
    network, pixels = micro(), random_images(MICRO.model, 2)
    with_taps, without = run(network, pixels), run(network, pixels, taps=False)
    assert np.array_equal(with_taps.logits, without.logits) and with_taps.tokens == without.tokens
    keeps = [with_taps.taps[f"selectors.{stage}.keep"] for stage in range(len(with_taps.tokens))]
    assert with_taps.kept == [[int(keep[:, 0].sum()) for keep in stage] for stage in keeps] == without.kept
    assert without.taps == {} and without.saturations == {}


def test_a_golden_runs_twice():
    network, pixels = micro(), random_images(MICRO.model, 2)
    golden = Golden(network, design_of(network).program, numpy_arrays)
    golden.run(pixels[:1])
    same(golden.run(pixels, taps=True), run(network, pixels))


def test_progress_is_told_after_each_step():
    network, done = micro(), []
    program = design_of(network).program
    Golden(network, program, numpy_arrays).run(random_images(MICRO.model, 1), progress=done.append)
    assert done == list(range(1, len(program.steps) + 1))


def test_saturations_are_counted():
    """The head's bias alone decides: three classes at the end of int16 and beyond."""
    network = micro()
    head = network.linears["head"]
    assert (network.frac_bits["head"], head.bias_frac_bits) != (0, 0)
    bias = np.array([32767, 32767, 100, 0, 0, -32768, 5], np.int16)
    coarse = replace(network, frac_bits={**network.frac_bits, "head": head.bias_frac_bits + 1})
    coarse = with_linear(coarse, "head", weight=np.zeros_like(head.weight), bias=bias,
                         weight_frac_bits=np.full_like(head.weight_frac_bits, head.weight_frac_bits.max() + 8))  # fmt: skip
    golden = run(coarse, random_images(MICRO.model, 2))
    assert golden.saturations["head"] == 2 * 3
    assert golden.logits.tolist() == [[32767, 32767, 200, 0, 0, -32768, 10]] * 2


@pytest.mark.parametrize(
    ("scores", "tokens"),
    [((32767, 32767, 32767), [17, 17, 17]), ((-32768, 0, 0), [2, 2, 2]), ((32767, -32768, 32767), [17, 2, 2])],
)
def test_forced_decisions_give_these_token_counts(scores, tokens):
    network = micro()
    for selector, score in enumerate(scores):
        network = deciding(network, selector, score)
    assert run(network, random_images(MICRO.model, 2)).tokens == [[count] * 2 for count in tokens]


def test_patches_are_cut_row_by_row_pixel_by_pixel():
    pixels = np.arange(2 * 6 * 6 * 2, dtype=np.uint8).reshape(2, 6, 6, 2)
    patches = cut_patches(pixels, 3)
    assert patches.shape == (8, 18)
    for n in range(2):
        for y in range(2):
            for x in range(2):
                square = pixels[n, 3 * y : 3 * y + 3, 3 * x : 3 * x + 3]
                assert patches[4 * n + 2 * y + x].tolist() == square.ravel().tolist()
