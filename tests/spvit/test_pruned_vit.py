"""One function in two forms: masked and gathered agree to rounding, whatever is pruned, and prune as they should."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.errors import ConfigError
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT
from spvit.schema import choices
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
    pooling = draw(st.sampled_from(choices(ModelConfig, "pooling")))
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
        distilled=pooling == "class" and draw(st.booleans()),
        pooling=pooling,
    )
    method = draw(
        st.sampled_from([m for m in choices(PruningConfig, "method") if m != "class_attention" or pooling == "class"])
    )
    first = 1 if method == "class_attention" else 0
    package = draw(st.sampled_from(["append", "add", "none"]))
    pruning = PruningConfig(
        tuple(sorted(draw(st.sets(st.integers(first, depth - 1), max_size=3)))) if depth > first else (),
        package=package,
        share_heads=draw(st.booleans()),
        features=draw(st.sampled_from(["split", "single"])),
        method=method,
        heads=draw(st.sampled_from(choices(PruningConfig, "heads"))),
        scorer=draw(st.sampled_from(choices(PruningConfig, "scorer"))),
        activation=draw(st.sampled_from(choices(PruningConfig, "activation"))),
        proportional_attention=package != "none" and method != "structured" and draw(st.booleans()),
    )
    net = seeded(model, pruning, draw(st.integers(0, 1000))).double()
    for name, buffer in net.named_buffers():  # as training leaves them
        if name.endswith("running_mean"):
            buffer += 0.3
    typical = net.thresholds.tolist()  # of scores that no layer can move, such as attention
    for stage, usual in enumerate(typical):
        net.thresholds[stage] = draw(st.sampled_from([NONE_DROPPED, 0.6 * usual, usual, 1.4 * usual, ALL_DROPPED]))
    return net


@settings(max_examples=150)
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


VARIANTS = [
    {"method": "class_attention"},
    {"method": "random"},
    {"method": "structured"},
    {"heads": "average"},
    {"heads": "single"},
    {"scorer": "conv1"},
    {"scorer": "conv3"},
    {"activation": "relu"},
    {"activation": "hardswish"},
    {"proportional_attention": True},
    {"proportional_attention": True, "package": "add"},
    {"method": "class_attention", "proportional_attention": True},
]


@pytest.mark.parametrize(
    ("pooling", "variant"),
    [("class", variant) for variant in VARIANTS]
    + [("mean", variant) for variant in VARIANTS if variant.get("method") != "class_attention"],
    ids=str,
)
def test_a_variants_training_keeps_what_is_asked_and_its_gradients_are_finite(pooling, variant):
    net = seeded(replace(MICRO.model, pooling=pooling), replace(MICRO.pruning, **variant)).train()
    output = net.forward_masked(random_images(MICRO.model, 32).float(), torch.Generator().manual_seed(0))
    for record, wanted in zip(output.records, MICRO.pruning.keep, strict=True):
        assert set(record.keep.unique().tolist()) == {0.0, 1.0}
        assert record.keep.mean().item() == pytest.approx(wanted, abs=0.35)  # a draw, from an untrained selector
        if variant.get("method") in ("class_attention", "random"):
            assert record.keep.mean().item() == pytest.approx(wanted, abs=0.01)
    assert output.keep.shape == (32, 16)
    (output.logits.square().sum() + sum(record.keep.mean() for record in output.records)).backward()
    for name, parameter in net.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
    assert all(parameter.grad.any() for parameter in net.selectors.parameters())


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_variant_prunes_typical_images_step_by_step(variant):
    net = seeded(MICRO.model, replace(MICRO.pruning, **variant)).double()
    with torch.no_grad():
        output = net.forward_gathered(random_images(MICRO.model, 16))
    counts = torch.stack([record.keep.mean() for record in output.records])
    assert (counts < 1).all() and (counts > 0).all() and (counts.diff() < 0).all()
    assert not torch.equal(output.logits, seeded(MICRO.model, MICRO.pruning).double().forward_gathered(
        random_images(MICRO.model, 16)).logits)  # fmt: skip


def test_a_packages_size_counts_its_tokens(monkeypatch):
    """Every original patch is in one token exactly, so the sizes of all tokens sum up to the model's."""
    sizes = []
    for package in ("append", "add"):
        net = seeded(MICRO.model, replace(MICRO.pruning, package=package, proportional_attention=True)).double()
        for block in net.blocks[1:]:
            block.attn.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[2].exp().sum(dim=1)))
        with torch.no_grad():
            net.forward_gathered(random_images(MICRO.model, 4))
    assert len(sizes) == 24
    torch.testing.assert_close(torch.cat(sizes), torch.full((24,), 17.0).double())


def test_proportional_attention_is_attention_to_copies():
    """A key that stands for three tokens weighs what three such keys do."""
    block = seeded(MICRO.model, MICRO.pruning).double().blocks[0]
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    copies = torch.cat([x, x[:, -1:], x[:, -1:]], dim=1)
    with torch.no_grad():
        found = block(x, None, torch.tensor([[1.0, 1, 1, 1, 3]], dtype=torch.float64).log())
        torch.testing.assert_close(found, block(copies)[:, :5], rtol=0, atol=1e-12)


def test_class_attention_keeps_what_the_class_token_looks_at():
    net = seeded(MICRO.model, replace(MICRO.pruning, method="class_attention")).double()
    images, rows = random_images(MICRO.model, 1), []
    attention = net.blocks[0].attn
    attention.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0]))
    with torch.no_grad():
        record = net.forward_gathered(images).records[0]
        q, k, _ = attention.qkv(rows[0]).reshape(17, 3, 2, 16).permute(1, 2, 0, 3)  # (H, T, d) each
        expected = (q[:, 0, None] @ k.transpose(1, 2) / 4).softmax(-1).mean(0)[0, 1:]
    torch.testing.assert_close(record.probability[0], expected, rtol=0, atol=1e-12)
    assert torch.equal(record.keep[0], (expected >= net.thresholds[0]).double())
    assert 0 < record.keep.sum() < 16


def test_random_pruning_is_the_images_own_and_uniform():
    net = seeded(MICRO.model, replace(MICRO.pruning, method="random")).double()
    images = random_images(MICRO.model, 64)
    with torch.no_grad():
        together, alone = net.forward_masked(images).records, net.forward_masked(images[3:4]).records
    assert all(torch.equal(a.keep[3:4], b.keep) for a, b in zip(together, alone, strict=True))
    scores = torch.cat([together[0].probability.flatten(), together[1].probability[together[1].probability > 0]])
    assert len(scores.unique()) == len(scores)
    assert scores.mean().item() == pytest.approx(0.5, abs=0.1)
    assert together[0].probability.mean().item() == pytest.approx(0.5, abs=0.03)
    assert together[0].probability.std().item() == pytest.approx(12**-0.5, abs=0.02)


def test_mean_pooling_has_no_class_token_and_classifies_the_mean_of_the_living():
    net = seeded(replace(MICRO.model, pooling="mean"), MICRO.pruning).double()
    images, seen = random_images(MICRO.model, 1), []
    net.norm.register_forward_hook(lambda _, inputs, result: seen.append(result[0]))
    with torch.no_grad():
        output = net.forward_gathered(images)
        torch.testing.assert_close(output.logits[0], net.head(seen[0].mean(dim=0)), rtol=0, atol=1e-12)
    assert "cls_token" not in net.state_dict() and net.pos_embed.shape == (1, 16, 32)
    assert len(seen[0]) == output.records[-1].num_tokens.item()


@pytest.mark.parametrize("form", ["forward_masked", "forward_gathered"])
def test_mean_pooling_of_no_token_is_the_heads_bias(form):
    net = seeded(replace(MICRO.model, pooling="mean"), replace(MICRO.pruning, package="none")).double()
    net.thresholds.fill_(ALL_DROPPED)
    with torch.no_grad():
        output = getattr(net, form)(random_images(MICRO.model, 2))
    torch.testing.assert_close(output.logits, net.head.bias.expand(2, -1), rtol=0, atol=1e-12)


def test_a_convolution_sees_the_next_living_tokens():
    """Of three candidates among five patches, the middle one's neighbours are the other two."""
    selector = seeded(MICRO.model, replace(MICRO.pruning, scorer="conv3")).selectors[0].double()
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    candidates = torch.tensor([[1.0, 0, 0, 1, 1]], dtype=torch.float64)
    with torch.no_grad():
        masked, _ = selector(x, candidates)
        gathered, _ = selector(x[:, [0, 3, 4]], torch.ones(1, 3, dtype=torch.float64))
        torch.testing.assert_close(masked[:, [0, 3, 4]], gathered, rtol=0, atol=1e-14)
        x[0, 0] += 1
        assert not torch.equal(selector(x, candidates)[0][0, 3], masked[0, 3])


def test_a_batch_norm_with_one_candidate_in_training_takes_the_running_statistics():
    selector = seeded(MICRO.model, replace(MICRO.pruning, scorer="conv1", heads="single")).selectors[0].train()
    x, one = torch.randn(1, 5, 32), torch.tensor([[0.0, 1, 0, 0, 0]])
    trained, _ = selector(x, one)
    assert torch.equal(trained[0, 1], selector.eval()(x, one)[0][0, 1])


def test_structured_pruning_really_narrows_the_stream():
    net = seeded(MICRO.model, replace(MICRO.pruning, method="structured")).double()
    widths = []
    for block in net.blocks:
        block.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[-1]))
    with torch.no_grad():
        output = net.forward_gathered(random_images(MICRO.model, 1))
    assert widths == [32, 24, 16, 8]
    assert [record.keep.sum().item() for record in output.records] == widths[1:]
    net.thresholds.fill_(ALL_DROPPED)
    with torch.no_grad():
        counts = [record.keep.sum().item() for record in net.forward_masked(random_images(MICRO.model, 2)).records]
    assert counts == [2.0] * 3  # one channel of each image is always left


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
