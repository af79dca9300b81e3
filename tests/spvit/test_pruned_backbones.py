"""Pruning of LV-ViT and PiT: one function in two forms, across poolings and with an auxiliary head, and what it is."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from spvit.config import ModelConfig, PruningConfig
from spvit.cost import count_parameters
from spvit.errors import ConfigError
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT
from spvit.schema import choices
from spvit.vit import VisionTransformer
from tests.spvit.test_backbones import LVVIT, PIT

NONE_DROPPED, ALL_DROPPED = 2.0**-16, 2.0
PRUNED = PruningConfig(locations=(1, 2, 4), keep=(0.75, 0.5, 0.3))


def random_images(model, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, model.in_chans, model.img_size, model.img_size, generator=generator, dtype=torch.float64)


def pruned(model=PIT, thresholds=(0.5, 0.5, 0.5), seed=0, **changes):
    net = seeded(model, replace(PRUNED, **changes), seed).double()
    net.thresholds.copy_(torch.tensor(thresholds))
    return net


@st.composite
def models(draw):
    """Every part, with and without the others."""
    stages = draw(st.integers(1, 3))
    depths = draw(st.lists(st.integers(1, 2), min_size=stages, max_size=stages))
    stem = draw(st.sampled_from([0, 8]))
    patch, stride = draw(st.sampled_from([(4, 0), (4, 2), (6, 4)] if stem else [(4, 0), (4, 2), (3, 1), (5, 3)]))
    grid = draw(st.integers(2, 7))
    distilled = draw(st.booleans())
    return ModelConfig(
        "mixed",
        img_size=patch + (grid - 1) * (stride or patch),
        patch_size=patch,
        patch_stride=stride,
        in_chans=draw(st.integers(1, 3)),
        embed_dim=16,
        depth=sum(depths),
        num_heads=2,
        num_classes=5,
        mlp_ratio=draw(st.sampled_from([1.0, 3.0])),
        distilled=distilled,
        stem_chans=stem,
        stage_depths=tuple(depths) if stages > 1 else (),
        stage_dims=draw(st.sampled_from([(), (16, 48, 96)[:stages]])) if stages > 1 else (),
        stage_heads=draw(st.sampled_from([(), (2, 4, 4)[:stages]])) if stages > 1 else (),
        qkv_bias=draw(st.booleans()),
        skip_lam=draw(st.sampled_from([1.0, 2.0, 3.0])),
        aux_head=not distilled and draw(st.booleans()),
        pos_embed=draw(st.sampled_from(["all", "patches"])),
    )


@st.composite
def networks(draw):
    """Small random models, whose selectors each keep all, some or none."""
    model = draw(models())
    locations = draw(st.lists(st.integers(0, model.depth - 1), min_size=1, max_size=4, unique=True).map(sorted))
    package = draw(st.sampled_from(choices(PruningConfig, "package")))
    refill = "zero" if package == "none" else draw(st.sampled_from(choices(PruningConfig, "refill")))
    pruning = PruningConfig(
        tuple(locations),
        package=package,
        share_heads=draw(st.booleans()),
        refill=refill,
        after_pooling=draw(st.sampled_from(choices(PruningConfig, "after_pooling"))),
        rules=draw(st.sampled_from(choices(PruningConfig, "rules"))),
        method="selector",
    )
    net = seeded(model, pruning, draw(st.integers(0, 1000))).double()
    for stage in range(len(locations)):
        net.thresholds[stage] = draw(st.sampled_from([NONE_DROPPED, 0.35, 0.5, 0.65, ALL_DROPPED]))
    return net


@settings(max_examples=40)
@given(net=networks(), batch=st.integers(1, 3), seed=st.integers(0, 1000))
@torch.no_grad()
def test_masked_is_gathered(net, batch, seed):
    images = random_images(net.config, batch, seed)
    masked, gathered = net.forward_masked(images), net.forward_gathered(images)
    assert torch.isfinite(masked.logits).all()
    torch.testing.assert_close(masked.logits, gathered.logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(masked.patch_features, gathered.patch_features, rtol=0, atol=1e-10)
    assert torch.equal(masked.keep, gathered.keep)
    for ours, theirs in zip(masked.records, gathered.records, strict=True):
        for part in ("keep", "candidates", "num_tokens"):
            assert torch.equal(getattr(ours, part), getattr(theirs, part)), part
        torch.testing.assert_close(ours.probability, theirs.probability, rtol=0, atol=1e-10)


POLICIES = [("append", "package"), ("append", "zero"), ("add", "package"), ("add", "zero"), ("none", "zero")]


@pytest.mark.parametrize("after", ["carry", "revive"])
@pytest.mark.parametrize(("package", "refill"), POLICIES)
@pytest.mark.parametrize(
    "thresholds", [[NONE_DROPPED] * 3, [ALL_DROPPED] * 3, [0.5, 0.5, ALL_DROPPED], [0.45, 0.5, 0.55]]
)
@torch.no_grad()
def test_a_pit_that_keeps_all_some_or_none(after, package, refill, thresholds):
    net = pruned(PIT, thresholds, package=package, refill=refill, after_pooling=after)
    images = random_images(PIT, 3)
    masked, gathered = net.forward_masked(images), net.forward_gathered(images)
    torch.testing.assert_close(masked.logits, gathered.logits, rtol=0, atol=1e-10)
    if thresholds[0] == NONE_DROPPED:
        plain = VisionTransformer.forward(net, images)
        torch.testing.assert_close(masked.logits, plain, rtol=0, atol=1e-10)
    tokens = torch.stack([record.num_tokens for record in masked.records], dim=1)
    prefix = PIT.num_prefix_tokens
    if thresholds == [ALL_DROPPED] * 3 and after == "carry":
        assert (tokens == prefix + (package != "none")).all()
    if thresholds == [ALL_DROPPED] * 3 and after == "revive":  # each drops its stage's, into a package of its own
        packages = {"append": [1, 2, 3], "add": [1, 1, 1], "none": [0, 0, 0]}[package]
        locations_of_stages = [1, 1, 2]  # the first two selectors are of stage 1, whose patches the first one drops all
        expected = [packages[place - 1] for place in locations_of_stages]
        assert (tokens == prefix + torch.tensor(expected)).all()


def a_selector_that_keeps(net, stage, places):
    """Let a selector keep exactly these places of its stage's grid, among those that are candidates."""
    wanted = torch.zeros(net.num_candidates[stage], dtype=torch.float64)
    wanted[places] = 1
    net.selectors[stage].register_forward_hook(
        lambda _, inputs, result: (wanted.expand_as(result[0]), torch.ones_like(result[1]))
    )


@pytest.mark.parametrize("refill", ["package", "zero"])
@pytest.mark.parametrize("after", ["carry", "revive"])
@torch.no_grad()
def test_what_a_pooling_reads_and_what_lives_behind_it(refill, after):
    """By hand, on the masked form: a 9 x 9 grid of which two places are dropped, pooled to 5 x 5."""
    model = replace(PIT, stage_depths=(2, 3))
    net = pruned(model, [0.5], locations=(1,), keep=(0.9,), refill=refill, after_pooling=after)
    dropped = [4 * 9 + 4, 3 * 9 + 3]  # the centre of a window, and a corner of it
    a_selector_that_keeps(net, 0, [place for place in range(81) if place not in dropped])
    seen = {}
    net.blocks[1].register_forward_hook(lambda _, inputs, result: seen.update(before=result[0]))
    net.blocks[2].register_forward_pre_hook(lambda _, inputs: seen.update(after=inputs[0][0], alive=inputs[1][0]))
    net.forward_masked(random_images(model, 1))
    before, after_pool, pool = seen["before"], seen["after"], net.pools[0]
    grid, package = before[1:82].clone(), before[82]
    grid[dropped] = package if refill == "package" else 0.0
    expected = conv2d(grid.T.reshape(1, 16, 9, 9), pool.conv.weight, pool.conv.bias, 2, 1, groups=16)[0].flatten(1).T
    torch.testing.assert_close(after_pool[1:26], expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(after_pool[0], before[0] @ pool.fc.weight.T + pool.fc.bias, rtol=0, atol=1e-13)
    torch.testing.assert_close(after_pool[26], package @ pool.fc.weight.T + pool.fc.bias, rtol=0, atol=1e-13)
    living = torch.ones(27)
    if after == "carry":
        living[1 + 2 * 5 + 2] = 0  # whose window's centre is the first dropped place
    assert torch.equal(seen["alive"].float(), living)


@pytest.mark.parametrize("form", ["forward_masked", "forward_gathered"])
@torch.no_grad()
def test_a_place_is_refilled_by_the_package_that_it_went_into(form):
    """Two selectors before one pooling; a place that was dropped twice over, in both stages, is held by its own."""
    model = replace(PIT, stage_depths=(3, 2))
    net = pruned(model, [0.5, 0.5], locations=(1, 2), keep=(0.9, 0.8))
    a_selector_that_keeps(net, 0, [place for place in range(81) if place != 10])
    if form == "forward_gathered":
        wanted = torch.tensor([0.0 if place == 20 else 1.0 for place in range(81) if place != 10], dtype=torch.float64)
        net.selectors[1].register_forward_hook(
            lambda _, inputs, result: (wanted.expand_as(result[0]), torch.ones_like(result[1]))
        )
    else:
        a_selector_that_keeps(net, 1, [place for place in range(81) if place not in (10, 20)])
    seen = {}
    net.blocks[2].register_forward_hook(lambda _, inputs, result: seen.update(before=result[0]))
    net.pools[0].conv.register_forward_pre_hook(lambda _, inputs: seen.update(grid=inputs[0][0].flatten(1).T))
    getattr(net, form)(random_images(model, 1))
    first, second = seen["before"][-2], seen["before"][-1]
    torch.testing.assert_close(seen["grid"][10], first, rtol=0, atol=1e-13)
    torch.testing.assert_close(seen["grid"][20], second, rtol=0, atol=1e-13)
    assert not torch.allclose(first, second)


@torch.no_grad()
def test_the_auxiliary_heads_maximum_is_over_the_living_patches_alone():
    """Neither over dropped ones nor over packages; without any, the class token's logits stand alone."""
    net = pruned(LVVIT, [0.5], locations=(1,), keep=(0.6,))
    images, seen, told = random_images(LVVIT, 6), [], {}
    net.norm.register_forward_hook(lambda _, inputs, result: seen.append(result[0]))
    for form in (net.forward_masked, net.forward_gathered):
        for image in images.split(1):
            output = form(image)
            living = output.patch_features[0, output.keep[0].bool()]
            assert 0 < len(living) < 16
            expected = net.head(seen[-1][0]) + 0.5 * net.aux_head(living).max(0)[0]
            torch.testing.assert_close(output.logits[0], expected, rtol=0, atol=1e-12)
            larger = net.aux_head(seen[-1][1:]).max(0)[0] > net.aux_head(living).max(0)[0]
            told[form.__name__] = told.get(form.__name__, False) or bool(larger.any())
    assert told == {"forward_masked": True, "forward_gathered": True}  # else the test would not tell
    net.thresholds.fill_(ALL_DROPPED)
    for form in (net.forward_masked, net.forward_gathered):
        output = form(images[:1])
        torch.testing.assert_close(output.logits[0], net.head(seen[-1][0]), rtol=0, atol=1e-12)


def test_training_reaches_every_parameter_across_poolings_and_through_the_stem():
    for model, pruning in ((PIT, PRUNED), (LVVIT, replace(PRUNED, locations=(1, 2), keep=(0.7, 0.4)))):
        net = seeded(model, pruning).train()
        output = net.forward_masked(random_images(model, 8).float(), torch.Generator().manual_seed(0))
        (output.logits.square().sum() + sum(record.keep.mean() for record in output.records)).backward()
        for name, parameter in net.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name


def test_logits_alone_teach_selectors_before_a_pooling():
    net = seeded(PIT, PRUNED).train()
    net.forward_masked(random_images(PIT, 8).float(), torch.Generator().manual_seed(0)).logits[:, 0].sum().backward()
    for name, parameter in net.selectors.named_parameters():
        assert parameter.grad.any(), name


@pytest.mark.parametrize("after", ["carry", "revive"])
def test_fresh_selectors_keep_their_fractions_of_their_stages_grids(after):
    net = seeded(PIT, replace(PRUNED, after_pooling=after))
    with torch.no_grad():
        records = net.forward_masked(random_images(PIT, 16).float()).records
    kept = [record.keep.mean().item() for record in records]
    assert kept == pytest.approx(PRUNED.keep, abs=0.25)
    assert [record.keep.shape[1] for record in records] == [25, 25, 9]
    candidates = [record.candidates.mean().item() for record in records]
    assert candidates[0] == 1 and candidates[1] == pytest.approx(kept[0])
    assert candidates[2] == 1 if after == "revive" else abs(candidates[2] - kept[1]) < 0.2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "structured"},
         'method="structured" drops channels for good, but stage_depths=[1, 2, 2] makes others of them'),
        ({"proportional_attention": True},
         "proportional_attention=true counts a package's patches, but stage_depths=[1, 2, 2] pools them into fewer"),
        ({"method": "class_attention", "locations": (2, 3), "keep": ()},
         'locations=[2, 3]: method="class_attention" reads the attention of the block before, but a pooling stands '
         "between it and block 3; choose a later block"),
        ({"package": "none"},
         'package="none" makes no package that could stand for dropped patches where stage_depths=[1, 2, 2] pools them; '
         'set refill = "zero"'),
        ({"after_pooling": "revive", "keep": (0.5, 0.6, 0.3)},
         "keep=[0.5, 0.6, 0.3] counts what is left of a stage's patches, so it must not increase between blocks 1 and 2"),
    ],
)  # fmt: skip
def test_pruning_that_a_pooled_model_cannot_have(changes, sentence):
    with pytest.raises(ConfigError) as refused:
        SPViT(PIT, replace(PRUNED, **changes))
    assert str(refused.value) == sentence


def test_where_all_live_again_the_next_stage_may_keep_more():
    SPViT(PIT, replace(PRUNED, after_pooling="revive", keep=(0.5, 0.4, 0.9)))
    SPViT(PIT, replace(PRUNED, locations=(3, 4), keep=(0.5, 0.4), package="none"))  # behind the last pooling


@settings(max_examples=20)
@given(net=networks())
def test_parameters_are_counted_as_pytorch_does(net):
    counted = count_parameters(net.config, net.pruning).total
    assert counted == sum(parameter.numel() for parameter in net.parameters())
