from dataclasses import replace

import numpy as np
import pytest
import torch

from quant.calibrate import (
    Headroom,
    choose_formats,
    float_arithmetic,
    gelu_inputs,
    is_residual,
    observe_ranges,
)
from quant.dataflow import run_image
from quant.fold import FoldedLinear, FoldedNetwork
from quant.formats import MAX_SHIFT, MIN_SHIFT, FixedPoint
from quant.model import Formats
from quant.network import activation_names
from quant.wiring import wiring
from tests.quant.conftest import make_stages


def check_rules(folded: FoldedNetwork, formats: Formats) -> None:
    """The rules that `quant/calibrate.py` states, and the functions' own."""
    f = formats.activations
    assert set(f) == set(activation_names(folded.model, folded.pruning))
    for name, wire in wiring(folded.model, folded.pruning).items():
        product = f[wire.source] + formats.weights[name]
        drop, bias_up = product - f[wire.result], product - formats.biases[name]
        assert drop.min() >= MIN_SHIFT == 8 and drop.max() <= MAX_SHIFT == 23, name
        assert bias_up.min() >= 0 and bias_up.max() <= 31, name
        assert formats.weights[name].max() <= 30, name
        if wire.residual is not None:
            assert -6 <= f[wire.result] - f[wire.residual] <= 1, name
    for block in range(folded.model.depth):
        attn, mlp = f"blocks.{block}.attn", f"blocks.{block}.mlp"
        assert 0 <= f[f"{attn}.context"] - f[f"{attn}.v"] <= 4
        assert MIN_SHIFT <= f[f"{attn}.q"] + f[f"{attn}.k"] - f[f"{attn}.scores"] <= MAX_SHIFT
        assert f[f"{attn}.scores"] == f["blocks.0.attn.scores"] and f[f"{mlp}.fc1"] == f["blocks.0.mlp.fc1"]
        assert f[f"{attn}.scores"] <= 10 and f[f"{mlp}.fc1"] <= 14 and f[f"{mlp}.fc1.gelu"] <= 13
    for selector in range(folded.pruning.num_selectors):
        assert max(f[f"selectors.{selector}.fc3"], f[f"selectors.{selector}.head_branch.fc2"]) <= 12
        for layer in ("embed", "fc1", "fc2", "head_branch.fc1"):
            assert f[f"selectors.{selector}.{layer}"] == f["blocks.0.mlp.fc1"]
            assert f[f"selectors.{selector}.{layer}.gelu"] <= 13
    assert f["pixels"] == 0
    assert max(f.values()) <= 14


@pytest.mark.parametrize("variant", [{}, {"distilled": True}, {"share_heads": False}], ids=str)
def test_formats_obey_the_rules(variant):
    stages = make_stages(**variant)
    check_rules(stages.folded, stages.formats)


@pytest.mark.parametrize("spread", [3, 12, 40])
@pytest.mark.parametrize("seed", range(10))
def test_formats_obey_the_rules_whatever_the_ranges_and_weights(micro, seed, spread):
    random = np.random.default_rng(seed)

    def factor() -> float:
        return float(2.0 ** random.uniform(-spread, spread / 2))

    ranges = {name: factor() for name in activation_names(micro.folded.model, micro.folded.pruning)}
    linears = {
        name: FoldedLinear(linear.weight * factor(), linear.bias * factor())
        for name, linear in micro.folded.linears.items()
    }
    wild = replace(micro.folded, linears=linears)
    check_rules(wild, choose_formats(wild, ranges))


def test_dead_channels_and_silent_tensors_get_a_format(micro):
    linear = micro.folded.linears["blocks.0.mlp.fc1"]
    weight = linear.weight.clone()
    weight[3] = 0
    linears = {**micro.folded.linears, "blocks.0.mlp.fc1": FoldedLinear(weight, torch.zeros_like(linear.bias))}
    folded = replace(micro.folded, linears=linears)
    check_rules(folded, choose_formats(folded, dict.fromkeys(micro.ranges, 0.0)))


def test_ordinary_ranges_are_not_coarsened(micro):
    """The shifts' rules cost nothing where values are ordinary: each activation has its finest format, or the finest that
    holds all that enters a GELU."""
    caps = {".scores": 10, ".gelu": 13, ".fc3": 12, ".head_branch.fc2": 12}
    finest = {
        name: FixedPoint.fitting(
            micro.ranges[name],
            headroom=Headroom().of(name),
            max_frac_bits=next((cap for end, cap in caps.items() if name.endswith(end)), 14),
        ).frac_bits
        for name in micro.formats.activations
        if name != "pixels"
    }
    inputs = gelu_inputs(finest)
    assert len(inputs) == 4 + 3 * 4
    finest |= dict.fromkeys(inputs, min(finest[name] for name in inputs))
    assert micro.formats.activations == {"pixels": 0, **finest}


def test_weights_are_as_fine_as_int16_allows(micro):
    for name, linear in micro.folded.linears.items():
        largest = linear.weight.abs().amax(dim=1) * torch.exp2(micro.formats.weights[name].double())
        assert (largest <= 32767.5).all(), name
        assert (largest > 16383).float().mean() > 0.9, name


def test_ranges_are_the_largest_over_all_images_not_an_average(micro):
    each = [observe_ranges(micro.folded, micro.pixels[index : index + 1]) for index in range(len(micro.pixels))]
    assert micro.ranges == {name: max(image.get(name, 0.0) for image in each) for name in micro.ranges}


def test_the_position_counts_for_the_first_stream(micro):
    folded = replace(micro.folded, position=micro.folded.position.clone())
    folded.position[5, 2] = 1000.0
    assert observe_ranges(folded, micro.pixels[:1])["patch_embed"] >= 1000.0


def test_headroom_is_separate_for_the_residual_stream(micro):
    assert {name for name in micro.formats.activations if is_residual(name)} == {
        "patch_embed",
        *(f"blocks.{block}.attn.proj" for block in range(4)),
        *(f"blocks.{block}.mlp.fc2" for block in range(4)),
    }
    roomy = choose_formats(micro.folded, micro.ranges, Headroom(residual=8 * Headroom().residual)).activations
    for name, frac_bits in micro.formats.activations.items():
        assert roomy[name] == frac_bits - 3 * is_residual(name), name


def test_with_headroom_the_calibration_images_do_not_saturate(micro):
    arithmetic = float_arithmetic(micro.folded)
    seen = {}
    arithmetic.observer = lambda name, value, before, frac_bits: seen.__setitem__(name, value)
    with torch.no_grad():
        run_image(micro.folded.model, micro.folded.pruning, arithmetic, micro.pixels[3])
    for name, value in seen.items():
        if name in micro.formats.activations:
            limit = 32767 * 2.0 ** -micro.formats.activations[name]
            assert value.abs().max() * Headroom().of(name) <= limit * 1.0001, name


def test_a_tensor_that_no_image_reaches_gets_a_cautious_format(micro):
    blind = {name: value for name, value in micro.ranges.items() if not name.startswith("selectors.2")}
    formats = choose_formats(micro.folded, blind)
    assert formats.activations["selectors.2.fc3"] == 11
    check_rules(micro.folded, formats)
