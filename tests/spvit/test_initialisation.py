"""Seeded networks: reproducible, and alive enough to make tests of pruning and quantization mean something."""

from dataclasses import replace

import pytest
import torch

from spvit.config import resolve_model
from spvit.initialisation import _smooth_images, initialise_selectors, seeded
from spvit.pruned_vit import SPViT

SPECS = {name: resolve_model(name) for name in ("micro", "deit_digits", "deit_t")}


def made_up_images(net, seed=7):
    return _smooth_images(net, torch.Generator().manual_seed(seed))


def test_equal_seeds_give_equal_networks_and_others_others():
    nets = [seeded(SPECS["micro"].model, SPECS["micro"].pruning, seed) for seed in (3, 3, 4)]
    first, same, other = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name != "thresholds")


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    net = SPViT(SPECS["micro"].model, SPECS["micro"].pruning)
    torch.manual_seed(1)
    initialise_selectors(net, 0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", SPECS)
def test_activations_are_like_a_trained_networks(name):
    net = seeded(SPECS[name].model, SPECS[name].pruning)
    assert not net.training
    with torch.no_grad():
        images = made_up_images(net)
        output = net.forward_masked(images)
        x = net.embed(images)
        before = x.std()
        for block in net.blocks:
            x = block(x)
    assert 1 < output.logits.std() < 4
    assert x.std() > 1.3 * before  # the residual stream grows
    for block in net.blocks:  # and some of its channels are strong
        for writer in (block.attn.proj, block.mlp.fc2):
            strength = writer.weight.norm(dim=1)
            assert strength.max() > 1.8 * strength.median()


@pytest.mark.parametrize("name", SPECS)
def test_selectors_part_the_tokens_near_the_configured_fractions(name):
    spec = SPECS[name]
    for seed in range(3):
        net = seeded(spec.model, spec.pruning, seed)
        with torch.no_grad():
            records = net.forward_masked(made_up_images(net, seed=seed + 50)).records
        for record, fraction in zip(records, spec.pruning.keep, strict=True):
            assert abs(record.keep.mean().item() - fraction) < 0.3
            scores = record.probability[record.probability > 0]
            assert scores.std() > 0.08
            assert scores.min() < 0.5 <= scores.max()


def test_selectors_alone_leave_the_backbone():
    net = seeded(SPECS["micro"].model, SPECS["micro"].pruning)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    initialise_selectors(net, 9)
    changed = {name.split(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"selectors"}


def test_a_single_patch_and_no_fractions_are_no_obstacle():
    model = replace(SPECS["micro"].model, img_size=4)
    net = seeded(model, replace(SPECS["micro"].pruning, keep=()))
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())
