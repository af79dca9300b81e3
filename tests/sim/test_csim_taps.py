"""The C-simulation against the golden, every value of every tap: engines, builds, token counts, extremes, policies."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hw.hardware import NUM_BANKS
from quant.network import QuantizedNetwork
from sim.bridge import Accelerator
from sim.constructed import deciding, with_linear
from spvit.config import ModelConfig, resolve_model
from tests.sim.conftest import Simulators, golden_of, simulate
from tests.sim.networks import (
    MICRO,
    design_of,
    micro,
    narrowed,
    quantized,
    random_images,
    random_network,
    with_extreme_tensors,
)

DISTILLED = replace(MICRO.model, distilled=True)
PIXELS = random_images(MICRO.model, 3)
slow = pytest.mark.slow
uses_clang = pytest.mark.needs("clang++")


@pytest.fixture(scope="module")
def accelerator(simulators: Simulators) -> Accelerator:
    """Micro on the engine of its registry entry, 8x16."""
    return simulators(design_of(micro()))


def simulate_network(accelerator: Accelerator, network: QuantizedNetwork, images: int = 2) -> list[list[int]]:
    """On C++ compiled for another network of the same sizes; the tokens after each selector."""
    return simulate(accelerator.with_network(network), PIXELS[:images]).tokens


# --- engines and builds ---


@pytest.mark.parametrize(
    ("tile_in", "tile_out", "inner_product"),
    [
        (8, 16, "fast"),
        (16, 8, "fast"),
        (64, 64, "fast"),
        (32, 64, "direct"),
        pytest.param(8, 16, "direct", marks=slow),
        pytest.param(32, 64, "fast", marks=slow),
        pytest.param(16, 8, "direct", marks=slow),
        pytest.param(64, 64, "direct", marks=slow),
        pytest.param(8, 8, "fast", marks=slow),
        pytest.param(64, 8, "fast", marks=slow),
        pytest.param(8, 128, "fast", marks=slow),
        pytest.param(128, 128, "direct", marks=slow),
    ],
)
def test_engines_of_every_shape(simulators, tile_in, tile_out, inner_product):
    """32 channels in heads of 16: tiles that divide them, that are wider, that would hold both heads."""
    golden = simulate(simulators(design_of(micro(), tile_in, tile_out, inner_product)), PIXELS)
    assert len({tuple(stage[i] for stage in golden.tokens) for i in range(len(PIXELS))}) > 1, "they prune alike"


@pytest.mark.parametrize("compiler", ["g++", pytest.param("clang++", marks=[slow, uses_clang])])
def test_exact_widths(simulators, compiler, capfd):
    """A width that is too small shows here and not with machine integers: so the ends of int16 too."""
    exact = simulators(design_of(micro()), exact=True, compiler=compiler)
    assert capfd.readouterr() == ("", "")  # the compiler has nothing to say
    simulate(exact, PIXELS[:1])
    for seed in range(3):
        simulate_network(exact, with_extreme_tensors(micro(), np.random.default_rng(seed)), images=1)


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=slow)])
def test_more_classes_than_a_row_has_lanes(simulators, exact):
    """Logits that run on over the rows behind the first, in the last bank."""
    model = replace(MICRO.model, num_classes=600)
    design = design_of(random_network(np.random.default_rng(0), model, MICRO.pruning))
    assert NUM_BANKS * design.layout.bank_lanes < 600
    simulate(simulators(design, exact=exact), PIXELS)


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=slow)])
def test_narrow_weights_on_the_same_hardware(simulators, exact):
    """One compiled design takes networks of any widths, layer by layer: they are the program's, not the source's."""
    accelerator = simulators(design_of(micro()), exact=exact)
    for widths in ((12, 8, 16), (8,), (12,)):
        simulate_network(accelerator, narrowed(micro(), widths), images=2)
    simulate_network(accelerator, narrowed(with_extreme_tensors(micro(), np.random.default_rng(0)), (8, 12)), images=1)


@uses_clang
def test_clang_compiles_the_same(simulators):
    simulate(simulators(design_of(micro()), compiler="clang++"), PIXELS[:1])


# --- token counts ---


@pytest.mark.parametrize(
    ("scores", "tokens"),
    [
        ((32767, 32767, 32767), [17, 17, 17]),  # none dropped: the maximum to the end, and no package
        ((-32768, 32767, 32767), [2, 2, 2]),  # all dropped at once: later selectors have no candidates
        ((32767, -32768, -32768), [17, 2, 2]),
        ((32767, 32767, -32768), [17, 17, 2]),
    ],
)
def test_all_or_none(accelerator, scores, tokens):
    network = micro()
    for selector, score in enumerate(scores):
        network = deciding(network, selector, score)
    assert simulate_network(accelerator, network) == [[count] * 2 for count in tokens]


@pytest.mark.parametrize(("selector", "tokens"), [(0, [3, None, None]), (1, [17, 3, None]), (2, [17, 17, 3])])
def test_one_kept(accelerator, selector, tokens):
    network = keeping_one(selector)
    for got, wanted in zip(simulate_network(accelerator, network, images=1), tokens, strict=True):
        assert wanted is None or got == [wanted]  # class token, the one, the package


def test_one_dropped(accelerator):
    """Its package is the token itself, but for rounding."""
    network = keeping_one(0, patches=15)
    assert simulate_network(accelerator, network, images=1)[0] == [17]
    golden = golden_of(design_of(network), PIXELS[:1])
    dropped = golden.taps["selectors.0.keep"][0][:, 0] == 0
    difference = golden.taps["blocks.0.mlp.fc2"][0][1:][dropped] - golden.taps["selectors.0.package"][0][-1:]
    assert dropped.sum() == 1 and np.abs(difference).max() <= 1


@cache
def keeping_one(selector: int, patches: int = 1) -> QuantizedNetwork:
    """Micro with nothing dropped before `selector`, and there all but `patches` of the first image's 16."""
    network = micro()
    for before in range(selector):
        network = deciding(network, before, 32767)
    scorer = f"selectors.{selector}.scorers.0.fc3"
    weight = np.array([[-500, 500, 500, -500]], np.int16)  # scores spread as far as the bias can move them
    network = with_linear(network, scorer, weight=weight)
    low, high = -32768, 32767
    while low <= high:
        bias = (low + high) // 2
        tried = with_linear(network, scorer, bias=np.array([bias], np.int16))
        kept = int(golden_of(design_of(tried), PIXELS[:1]).taps[f"selectors.{selector}.keep"][0][:, 0].sum())
        if kept == patches:
            return tried
        low, high = (bias + 1, high) if kept < patches else (low, bias - 1)
    raise AssertionError(f"no bias keeps {patches} patches")


# --- values ---


@pytest.mark.parametrize("seed", range(6))
def test_tensors_at_the_ends_of_int16(accelerator, seed):
    simulate_network(accelerator, with_extreme_tensors(micro(), np.random.default_rng(seed)))


@pytest.mark.parametrize("value", [-32768, 32767])
def test_every_tensor_the_same_extreme(accelerator, value):
    """Constant rows, whose variance is zero, and equal scores everywhere."""
    network = micro()
    for name, linear in network.linears.items():
        network = with_linear(
            network, name, weight=np.full_like(linear.weight, value), bias=np.full_like(linear.bias, value)
        )
    simulate_network(accelerator, replace(network, position=np.full_like(network.position, value)))


def test_all_zero(accelerator):
    """Nothing but epsilon under the root, no weight under the package."""
    network = micro()
    for name, linear in network.linears.items():
        network = with_linear(network, name, weight=np.zeros_like(linear.weight), bias=np.zeros_like(linear.bias))
    simulate_network(accelerator, replace(network, position=np.zeros_like(network.position)))


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_images(accelerator, value):
    simulate(accelerator, np.full_like(PIXELS[:1], value))


def test_images_after_each_other_do_not_disturb_each_other(accelerator):
    """State that one run leaves, with more tokens than the next: nothing of it may be seen."""
    logits = [accelerator.run(image).logits for image in (*PIXELS, *PIXELS[::-1])]
    assert np.array_equal(logits, logits[::-1])


@pytest.mark.parametrize(
    ("extreme", "seed"),
    [(True, 0), pytest.param(False, 1, marks=slow), *(pytest.param(True, seed, marks=slow) for seed in range(1, 20))],
)
def test_random_formats(simulators, extreme, seed):
    network = random_network(np.random.default_rng(seed), MICRO.model, MICRO.pruning, extreme)
    simulate(simulators(design_of(network)), PIXELS)


# --- variants of the model ---


@pytest.mark.parametrize(
    ("model", "pruning"),
    [
        (MICRO.model, {"package": "add"}),
        (MICRO.model, {"package": "none"}),
        (DISTILLED, {"share_heads": False, "features": "single"}),
        (MICRO.model, {"locations": (), "keep": ()}),
        pytest.param(DISTILLED, {"package": "add", "locations": (0, 1, 2, 3), "keep": ()}, marks=slow),
        pytest.param(DISTILLED, {"package": "none"}, marks=slow),
    ],
    ids=lambda case: str(case) if isinstance(case, dict) else f"distilled={case.distilled}",
)
def test_variants(simulators, model, pruning):
    network = quantized(model, replace(MICRO.pruning, **pruning))[1]
    compiled = simulators(design_of(network))
    simulate(compiled, PIXELS)
    if network.pruning.num_selectors:
        for selector in (0, 1):  # a later one adds to, or appends behind, an older package
            gone = deciding(deciding(network, 0, 32767), selector, -32768)
            simulate(compiled.with_network(gone), PIXELS[:1])


@slow
@pytest.mark.parametrize("keep", [None, "none"])
@pytest.mark.parametrize("name", ["deit_digits", "deit_t", "deit_s", "deit_t_distilled"])
def test_models_of_the_registry(simulators, name, keep):
    spec = resolve_model(name, keep)
    check_at_full_size(simulators, spec.model, quantized(spec.model, spec.pruning)[1], spec.engine)


def check_at_full_size(
    simulators: Simulators, model: ModelConfig, network: QuantizedNetwork, engine: dict[str, int]
) -> None:
    size = engine.get("tile_in", 64), engine.get("tile_out", 64)
    golden = simulate(simulators(design_of(network, *size)), random_images(model, 1))
    if network.pruning.num_selectors:
        assert model.num_tokens > golden.tokens[0][0] > golden.tokens[-1][0] > 2


@slow
def test_deit_t_with_exact_widths(simulators):
    spec = resolve_model("deit_t")
    network = quantized(spec.model, spec.pruning)[1]
    simulate(simulators(design_of(network, 64, 64), exact=True), random_images(spec.model, 1))
