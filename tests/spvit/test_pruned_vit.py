"""One function in two forms: masked and gathered agree to rounding, whatever is pruned, and prune as they should."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.errors import ConfigError
from spvit.pruned_vit import SPViT, seeded
from spvit.vit import VisionTransformer

MICRO = resolve_model("micro")
NONE_DROPPED, ALL_DROPPED = 2.0**-16, 2.0


def random_images(model, count=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, model.in_chans, model.img_size, model.img_size, generator=generator, dtype=torch.float64)


def micro(thresholds, **pruning):
    net = seeded(MICRO.model, replace(MICRO.pruning, **pruning)).double()
    net.thresholds.copy_(torch.tensor(thresholds))
    return net


@st.composite
def pruned_networks(draw):
    heads = draw(st.integers(1, 3))
    depth = draw(st.integers(1, 4))
    model = ModelConfig(
        "drawn",
        img_size=2 * draw(st.integers(1, 4)),  # 1 to 16 patches
        patch_size=2,
        in_chans=draw(st.integers(1, 3)),
        embed_dim=heads * draw(st.sampled_from([4, 8])),
        depth=depth,
        num_heads=heads,
        mlp_ratio=2.0,
        num_classes=3,
        distilled=draw(st.booleans()),
    )
    pruning = PruningConfig(
        tuple(sorted(draw(st.sets(st.integers(0, depth - 1), max_size=3)))),
        package=draw(st.sampled_from(["append", "add", "none"])),
        share_heads=draw(st.booleans()),
        features=draw(st.sampled_from(["split", "single"])),
    )
    net = seeded(model, pruning, draw(st.integers(0, 1000))).double()
    threshold = st.sampled_from([NONE_DROPPED, 0.3, 0.5, 0.7, ALL_DROPPED])
    net.thresholds.copy_(torch.tensor([draw(threshold) for _ in pruning.locations]))
    return net


@settings(max_examples=60)
@given(net=pruned_networks(), batch=st.integers(1, 3), seed=st.integers(0, 1000))
def test_masked_is_gathered(net, batch, seed):
    images = random_images(net.config, batch, seed)
    with torch.no_grad():
        masked, gathered = net.forward_masked(images), net.forward_gathered(images)
    assert torch.isfinite(masked.logits).all()
    torch.testing.assert_close(masked.logits, gathered.logits, rtol=0, atol=1e-10)
    torch.testing.assert_close(masked.patch_features, gathered.patch_features, rtol=0, atol=1e-10)
    assert len(masked.records) == len(gathered.records) == net.pruning.num_selectors
    for ours, theirs in zip(masked.records, gathered.records, strict=True):
        assert torch.equal(ours.keep, theirs.keep)
        assert torch.equal(ours.num_tokens, theirs.num_tokens)
        torch.testing.assert_close(ours.probability, theirs.probability, rtol=0, atol=1e-10)


@pytest.mark.parametrize("package", ["append", "add", "none"])
def test_typical_images_are_pruned_step_by_step_and_differently(package):
    """That the test above is about something: each selector drops, keeps, and counts per image."""
    net = seeded(MICRO.model, replace(MICRO.pruning, package=package)).double()
    with torch.no_grad():
        output = net.forward_gathered(random_images(MICRO.model, 16))
    counts = torch.stack([record.keep.sum(1) for record in output.records])
    assert (counts[0] < 16).sum() > 12 and (counts[1:] <= counts[:-1]).all()
    assert len(set(counts[2].tolist())) > 2
    for stage, record in enumerate(output.records):
        before = output.records[stage - 1].keep if stage else torch.ones(16, 16)
        assert torch.equal(record.probability > 0, before.bool())
        assert torch.equal(record.keep.bool(), (record.probability >= 0.5) & before.bool())
    drops = torch.cat([torch.full((1, 16), 16.0), counts]).diff(dim=0) < 0  # (selectors, images)
    packages = {"append": drops.cumsum(0), "add": drops.cumsum(0).clamp(max=1), "none": 0 * drops.cumsum(0)}[package]
    assert torch.equal(torch.stack([record.num_tokens for record in output.records]), 1 + counts.long() + packages)


@pytest.mark.parametrize(("package", "tokens"), [("append", [2, 2, 2]), ("add", [2, 2, 2]), ("none", [1, 1, 1])])
def test_all_dropped_leaves_class_and_package_and_skips_the_other_selectors(package, tokens):
    net = micro([ALL_DROPPED, 0.5, 0.5], package=package)
    with torch.no_grad():
        output = net.forward_gathered(random_images(MICRO.model, 1))
    assert [record.num_tokens.item() for record in output.records] == tokens
    assert [record.keep.sum().item() for record in output.records] == [0, 0, 0]
    assert [bool(record.probability.any()) for record in output.records] == [True, False, False]


@pytest.mark.parametrize("form", ["forward_masked", "forward_gathered"])
def test_none_dropped_is_the_plain_transformer(form):
    net = micro([NONE_DROPPED] * 3)
    images = random_images(MICRO.model)
    with torch.no_grad():
        output, plain = getattr(net, form)(images), VisionTransformer.forward(net, images)
    torch.testing.assert_close(output.logits, plain, rtol=0, atol=1e-12)
    assert [record.num_tokens.tolist() for record in output.records] == [[17, 17]] * 3


def test_without_selectors_it_is_the_plain_transformer():
    net = seeded(MICRO.model, MICRO.pruning.without()).double()
    images = random_images(MICRO.model)
    with torch.no_grad():
        expected = VisionTransformer.forward(net, images)
        for output in (net.forward_masked(images), net.forward_gathered(images)):
            torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-12)
            assert output.records == ()
            assert output.keep.shape == (2, 16) and output.keep.all()


def test_the_first_package_replaces_the_dropped_tokens():
    """The block after the first selector sees prefix, kept patches in order, and Eq. 8 of the others."""
    net = micro([0.5, NONE_DROPPED, NONE_DROPPED])
    images = random_images(MICRO.model, 1)
    seen = []
    for block in (net.blocks[0], net.blocks[1]):
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    net.blocks[0].register_forward_hook(lambda _, inputs, result: seen.append(result[0]))
    with torch.no_grad():
        record = net.forward_gathered(images).records[0]
    _, before, after = seen
    keep, scores = record.keep[0].bool(), record.probability[0]
    patches = before[1:]
    package = (patches[~keep] * scores[~keep, None]).sum(0) / scores[~keep].sum()
    assert 0 < keep.sum() < 16
    torch.testing.assert_close(after, torch.cat([before[:1], patches[keep], package[None]]), rtol=0, atol=1e-14)


def test_an_older_package_is_neither_scored_nor_packaged():
    """With everything dropped at the first selector, the package alone goes on, and the third finds no candidate."""
    net = micro([0.5, ALL_DROPPED, 0.5])
    widths = []
    net.blocks[2].register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    with torch.no_grad():
        output = net.forward_gathered(random_images(MICRO.model, 1))
    assert widths == [3]  # class token, the first selector's package, the second's
    assert output.records[2].num_tokens.tolist() == [3]


def test_training_draws_and_evaluation_does_not():
    net = seeded(MICRO.model, MICRO.pruning)
    images = random_images(MICRO.model).float()
    with torch.no_grad():
        first, second = net.forward_masked(images), net.forward_masked(images)
        assert torch.equal(first.logits, second.logits)
        net.train()
        draws = [net.forward_masked(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0].logits, draws[1].logits)
    assert not torch.equal(draws[0].records[0].keep, draws[2].records[0].keep)


def test_calling_it_is_masked_in_training_and_gathered_in_evaluation(monkeypatch):
    net = SPViT(MICRO.model, MICRO.pruning)
    monkeypatch.setattr(SPViT, "forward_masked", lambda *_: "masked")
    monkeypatch.setattr(SPViT, "forward_gathered", lambda *_: "gathered")
    assert (net.train()(None), net.eval()(None)) == ("masked", "gathered")


@pytest.mark.parametrize("package", ["append", "add", "none"])
def test_in_training_decisions_are_hard_and_every_parameter_learns(package):
    net = seeded(MICRO.model, replace(MICRO.pruning, package=package)).train()
    output = net.forward_masked(random_images(MICRO.model, 8).float(), torch.Generator().manual_seed(0))
    alive = torch.ones(8, 16)
    for record in output.records:
        assert set(record.keep.unique().tolist()) == {0.0, 1.0}
        assert (record.keep <= alive).all()  # the Hadamard product of the decisions
        alive = record.keep.detach()
    (output.logits.square().sum() + sum(record.keep.mean() for record in output.records)).backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_logits_alone_teach_the_selectors():
    net = seeded(MICRO.model, MICRO.pruning).train()
    net.forward_masked(random_images(MICRO.model, 8).float(), torch.Generator().manual_seed(0)).logits[
        :, 0
    ].sum().backward()
    for name, parameter in net.selectors.named_parameters():
        assert parameter.grad.any(), name


def test_thresholds_are_saved_and_half_to_begin_with():
    net = SPViT(MICRO.model, MICRO.pruning)
    assert net.state_dict()["thresholds"].tolist() == [0.5] * 3


def test_a_selector_before_a_block_that_is_not_there():
    with pytest.raises(ConfigError, match=r"^locations=\[4\]: there is no block 4; depth=4 numbers them 0 to 3$"):
        SPViT(MICRO.model, PruningConfig((4,)))


def test_deit_t_in_both_forms():
    spec = resolve_model("deit_t")
    net = seeded(spec.model, spec.pruning).double()
    images = random_images(spec.model, 1)
    with torch.no_grad():
        masked, gathered = net.forward_masked(images), net.forward_gathered(images)
    torch.testing.assert_close(masked.logits, gathered.logits, rtol=0, atol=1e-10)
    assert 10 < gathered.records[2].num_tokens.item() < 190
