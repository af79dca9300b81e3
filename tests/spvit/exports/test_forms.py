"""The exported forms in PyTorch: `forward_gathered`'s decisions, and its logits to float64's last digits."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from spvit.config import PruningConfig, resolve_model
from spvit.errors import ConfigError
from spvit.exports.forms import Gathered, Masked, refuse_what_has_no_graph
from spvit.initialisation import seeded
from tests.spvit.test_backbones import LVVIT, PIT

MICRO = resolve_model("micro")
MODEL_FIELDS = ("distilled", "pooling")
VARIANTS = [
    {},
    {"package": "add"},
    {"package": "none"},
    {"package": "none", "pooling": "mean"},
    {"pooling": "mean"},
    {"distilled": True, "package": "add"},
    {"share_heads": False, "features": "single"},
    {"heads": "average", "activation": "relu"},
    {"heads": "single", "activation": "hardswish"},
    {"proportional_attention": True},
    {"proportional_attention": True, "package": "add"},
    {"rules": "released"},
    {"rules": "released", "package": "add"},
    {"locations": (), "keep": ()},
    {"locations": (0, 1), "keep": (0.6, 0.3)},
]


def make_net(seed=0, **variant):
    model = {key: variant.pop(key) for key in MODEL_FIELDS if key in variant}
    return seeded(replace(MICRO.model, **model), replace(MICRO.pruning, **variant), seed)


def images(count, seed=1, size=16):
    random = torch.Generator().manual_seed(seed)
    coarse, fine = torch.randn(count, 3, 4, 4, generator=random), torch.randn(count, 3, size, size, generator=random)
    return 1.2 * interpolate(coarse, size=(size, size), mode="bicubic") + 0.3 * fine


@pytest.mark.parametrize("threshold", [None, 0.0, 2.0], ids=["some", "all", "none"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_both_forms_decide_and_answer_as_the_model_does(variant, threshold):
    net = make_net(**variant).double()
    if threshold is not None:
        net.thresholds.fill_(threshold)
    batch = images(5).double()
    expected = net.forward_gathered(batch)
    gathered = [Gathered(net)(image) for image in batch.split(1)]
    for found in (Masked(net)(batch), type(gathered[0])(*(torch.cat(part) for part in zip(*gathered, strict=True)))):
        assert (found.logits - expected.logits).abs().max() < 1e-10
        assert found.keep.shape == (5, net.pruning.num_selectors, 16)
        for stage, record in enumerate(expected.records):
            assert torch.equal(found.keep[:, stage], record.keep)
            assert torch.equal(found.num_tokens[:, stage], record.num_tokens)


BACKBONES = [
    (LVVIT, {}),
    (LVVIT, {"package": "none"}),
    (PIT, {}),
    (PIT, {"package": "add"}),
    (PIT, {"package": "none", "refill": "zero"}),
    (PIT, {"refill": "zero", "after_pooling": "revive"}),
    (PIT, {"after_pooling": "revive", "package": "add", "locations": (0, 1, 3), "keep": (0.8, 0.6, 0.5)}),
    (replace(PIT, distilled=True), {"rules": "released"}),
]


@pytest.mark.parametrize("threshold", [None, 0.0, 2.0], ids=["some", "all", "none"])
@pytest.mark.parametrize(("model", "variant"), BACKBONES, ids=lambda one: getattr(one, "name", str(one)))
@torch.no_grad()
def test_other_backbones_too(model, variant, threshold):
    locations = (1, 2) if model is LVVIT else (1, 2, 4)
    pruning = PruningConfig(**{"locations": locations, "keep": (0.7, 0.5, 0.3)[: len(locations)], **variant})
    net = seeded(model, pruning).double()
    if threshold is not None:
        net.thresholds.fill_(threshold)
    batch = images(3, size=model.img_size).double()
    expected = net.forward_gathered(batch)
    gathered = [Gathered(net)(image) for image in batch.split(1)]
    for found in (Masked(net)(batch), type(gathered[0])(*(torch.cat(part) for part in zip(*gathered, strict=True)))):
        assert (found.logits - expected.logits).abs().max() < 1e-10
        assert found.keep.shape == (3, net.pruning.num_selectors, model.num_patches)
        for stage, record in enumerate(expected.records):
            assert torch.equal(found.keep[:, stage, : record.keep.shape[1]], record.keep)
            assert not found.keep[:, stage, record.keep.shape[1] :].any()
            assert torch.equal(found.num_tokens[:, stage], record.num_tokens)


@pytest.mark.parametrize(
    ("variant", "named"),
    [({"method": "random"}, 'method = "random"'), ({"scorer": "conv3"}, 'scorer = "conv3"')],
)
def test_what_has_no_graph_is_refused(variant, named):
    spec = replace(MICRO, pruning=replace(MICRO.pruning, **variant))
    field, default = named.split()[0], "selector" if "method" in named else "mlp"
    with pytest.raises(ConfigError) as error:
        refuse_what_has_no_graph(spec, "a.toml")
    assert str(error.value) == (
        f'a.toml: [pruning] {named} is not exported, {field} = "{default}" is; export with that, or KEEP=none'
    )
    refuse_what_has_no_graph(replace(spec, pruning=spec.pruning.without()), "a.toml")
