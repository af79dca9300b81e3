from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from quant.calibrate import float_arithmetic
from quant.dataflow import cut_patches, run_image
from quant.fold import FoldedNetwork, fold
from quant.network import linear_shapes
from spvit.config import PruningConfig, resolve_model
from spvit.errors import CheckpointError
from spvit.images.preprocess import Preprocessing
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT

VARIANTS = [
    {},
    {"package": "add"},
    {"package": "none"},
    {"share_heads": False},
    {"features": "single"},
    {"share_heads": False, "features": "single", "locations": (0, 3), "keep": ()},
    {"locations": (), "keep": ()},
]


def folded_logits(folded: FoldedNetwork, pixels: Tensor) -> Tensor:
    arithmetic = float_arithmetic(folded)
    return torch.stack([run_image(folded.model, folded.pruning, arithmetic, image) for image in pixels])


def images(count: int = 4) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8))


@pytest.mark.parametrize("distilled", [False, True], ids=["plain", "distilled"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_the_folded_network_is_the_network(variant, distilled):
    spec = resolve_model("micro")
    model = replace(spec.model, distilled=distilled, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    net = seeded(model, replace(spec.pruning, **variant), seed=3).double()
    pixels = images()
    expected = net.forward_gathered(torch.from_numpy(Preprocessing.from_model(model).normalise(pixels.numpy())))
    assert (folded_logits(fold(net), pixels) - expected.logits).abs().max() < 1e-9
    assert expected.logits.std() > 0.1  # something was compared


@pytest.mark.parametrize("part", [{"qkv_bias": False}, {"skip_lam": 3.0}, {"pos_embed": "patches", "distilled": True}])
@torch.no_grad()
def test_parts_of_other_backbones_fold_too(part):
    spec = resolve_model("micro")
    model = replace(spec.model, **part)
    net = seeded(model, spec.pruning, seed=3).double()
    pixels = images()
    expected = net.forward_gathered(torch.from_numpy(Preprocessing.from_model(model).normalise(pixels.numpy()))).logits
    assert (folded_logits(fold(net), pixels) - expected).abs().max() < 1e-9


@torch.no_grad()
def test_one_head_and_one_channel_fold_too():
    spec = resolve_model("micro")
    model = replace(spec.model, num_heads=1, in_chans=1, mean=(), std=())
    net = seeded(model, spec.pruning).double()
    pixels = images()[..., :1].contiguous()
    expected = net.forward_gathered(torch.from_numpy(Preprocessing.from_model(model).normalise(pixels.numpy()))).logits
    assert (folded_logits(fold(net), pixels) - expected).abs().max() < 1e-9


def test_patches_are_cut_in_y_x_channel_order():
    pixels = torch.arange(4 * 4 * 3).reshape(4, 4, 3)
    patches = cut_patches(pixels, 2)
    assert patches.shape == (4, 12)
    assert patches[1].tolist() == [*range(6, 12), *range(18, 24)]  # top right: two rows of two pixels of three channels


def test_layers_have_the_networks_shapes():
    spec = resolve_model("micro")
    folded = fold(seeded(spec.model, spec.pruning))
    shapes = {name: tuple(linear.weight.shape) for name, linear in folded.linears.items()}
    assert shapes == linear_shapes(spec.model, spec.pruning)
    assert all(linear.bias.shape == linear.weight.shape[:1] for linear in folded.linears.values())
    assert all(linear.weight.dtype == linear.bias.dtype == torch.float64 for linear in folded.linears.values())


def test_folding_leaves_the_network_alone():
    spec = resolve_model("micro")
    net = seeded(spec.model, spec.pruning)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    fold(net).position.fill_(0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    net = SPViT(resolve_model("micro").model, PruningConfig(locations=(1,)))
    with torch.no_grad():
        net.blocks[2].mlp.fc1.weight[3, 4] = value
    with pytest.raises(CheckpointError, match=r"blocks\.2\.mlp\.fc1\.weight holds NaN or infinite weights"):
        fold(net)
