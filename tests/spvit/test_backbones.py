"""LV-ViT and PiT from the authors' files: the authors' function, and a sentence for what does not fit."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from spvit.checkpoint_options import CheckpointOptions
from spvit.checkpoints import load_checkpoint, load_checkpoint_with_report
from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.cost import count_macs
from spvit.errors import CheckpointError
from spvit.initialisation import seeded
from spvit.vit import VisionTransformer
from tests.spvit import authors
from tests.spvit.test_checkpoints import authors_state

UNPRUNED = PruningConfig(locations=())
LVVIT = ModelConfig(
    "lv", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, mlp_ratio=3.0, num_classes=7,
    layer_norm_eps=1e-5, stem_chans=8, qkv_bias=False, skip_lam=2.0, aux_head=True,
)  # fmt: skip
PIT = ModelConfig(
    "pit", img_size=20, patch_size=4, patch_stride=2, embed_dim=16, depth=5, num_heads=2, num_classes=7,
    stage_depths=(1, 2, 2), pos_embed="patches",
)  # fmt: skip
TWO_STAGES = replace(PIT, img_size=18, stage_depths=(2, 3), stage_dims=(16, 48), stage_heads=(2, 3))
TOLERANCE = 1e-5  # of logits around 1, in float32


def images(model, count=2):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, model.in_chans, model.img_size, model.img_size, generator=generator)


def their_logits(model, state, batch):
    if model.stage_depths:
        stages = model.stages
        return authors.pit(state, batch, [one.depth for one in stages], [one.num_heads for one in stages], model.stride)
    return authors.lvvit(state, batch, model.depth, model.num_heads, model.skip_lam)


MODELS = [LVVIT, PIT, replace(PIT, distilled=True), TWO_STAGES]


@pytest.mark.parametrize("model", MODELS, ids=["lvvit", "pit", "pit distilled", "two stages"])
@torch.no_grad()
def test_the_authors_file_computes_the_authors_function(model, tmp_path):
    net = seeded(model, UNPRUNED, seed=1)
    state, batch = authors.in_their_layout(net), images(model)
    path = tmp_path / "theirs-83.3.pth.tar"
    torch.save(state, path)
    loaded, report = load_checkpoint_with_report(path, model, UNPRUNED)
    assert report.source == ("naver" if model.stage_depths else "tokenlabeling")
    expected = their_logits(model, state, batch)
    assert expected.std() > 0.3
    for logits in (
        VisionTransformer.forward(loaded, batch),
        loaded.forward_masked(batch).logits,
        loaded.forward_gathered(batch).logits,
    ):
        torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("lvvit_s", "lvvit_m", "pit_s_distilled", "pit_b")]


@pytest.mark.parametrize("name", ["lvvit_t", "pit_t", *SLOW])
@torch.no_grad()
def test_at_their_sizes(name):
    model = resolve_model(name, "none").model
    net = seeded(model, UNPRUNED)
    batch = images(model, 1)
    expected = their_logits(model, authors.in_their_layout(net), batch)
    assert expected.std() > 0.3
    torch.testing.assert_close(VisionTransformer.forward(net, batch), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("wrapper", ["state_dict", "state_dict_ema"])
def test_under_a_training_scripts_keys(wrapper, tmp_path):
    net, path = seeded(LVVIT, UNPRUNED), tmp_path / "lv.pth.tar"
    torch.save({"epoch": 3, wrapper: authors.in_their_layout(net)}, path)
    loaded = load_checkpoint(path, LVVIT, UNPRUNED)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("distilled", [False, True])
def test_timms_names_of_a_pit(distilled, tmp_path):
    model = replace(PIT, distilled=distilled)
    net, path = seeded(model, UNPRUNED), tmp_path / "pit.pth"
    state = authors.in_their_layout(net, "transformers.{+1}.pool")
    assert "transformers.2.pool.fc.bias" in state and not any(name.startswith("pools") for name in state)
    torch.save(state, path)
    loaded, report = load_checkpoint_with_report(path, model, UNPRUNED)
    assert report.source == "timm"
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in net.state_dict().items())


def changed(model, **tensors):
    """The authors' file of a model, with tensors changed or, where None, left out."""
    state = authors.in_their_layout(seeded(model, UNPRUNED)) | tensors
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("model", "tensors", "sentence"),
    [
        (LVVIT, {"patch_embed.conv2.weight": torch.zeros(64, 64, 3, 3)},
         "patch_embed.conv2.weight has the shape (64, 64, 3, 3), but lv needs (8, 8, 3, 3); set stem_chans as it was "
         "trained, or choose the MODEL= that it was trained as"),
        (LVVIT, {"patch_embed.bn1.running_var": None},
         "patch_embed.bn1.running_var is missing, which lv needs; set stem_chans as it was trained, or choose the "
         "MODEL= that it was trained as"),
        (LVVIT, {"blocks.1.attn.qkv.bias": torch.zeros(72)},
         "blocks.1.attn.qkv.bias is there, which lv does not have; set qkv_bias as it was trained"),
        (LVVIT, {"aux_head.weight": torch.zeros(9, 24)},
         "aux_head.weight has the shape (9, 24), but lv needs (7, 24); set num_classes and aux_head as it was trained"),
        (PIT, {"pools.1.conv.weight": torch.zeros(64, 1, 5, 5)},
         "pools.1.conv.weight has the shape (64, 1, 5, 5), but pit needs (64, 1, 3, 3); choose the MODEL= that it was "
         "trained as"),
        (PIT, {"transformers.0.blocks.1.norm1.bias": torch.zeros(16)},
         "transformers.0.blocks.1.norm1.bias is there, which pit does not have; choose the MODEL= that it was trained "
         "as"),
        (PIT, {"pos_embed": torch.zeros(1, 16, 7, 7)},
         "pos_embed has the shape (1, 49, 16), but pit needs (1, 81, 16); it was trained at img_size=16, 7 x 7 patches "
         "in place of 9 x 9: set that, or let POS=interpolate resize the positions, bicubic, as timm does"),
        (PIT, {"cls_token": torch.zeros(1, 2, 16)},
         "cls_token has the shape (1, 2, 16), but pit needs (1, 1, 16); choose the MODEL= that it was trained as"),
        (replace(PIT, distilled=True), {"cls_token": torch.zeros(1, 1, 16)},
         "dist_token is missing, which pit needs; choose a MODEL= that is distilled, or is not, as it was trained"),
        (PIT, {"pools.0.fc.bias": torch.tensor([float("nan")] * 32)},
         "pools.0.fc.bias has 32 of 32 numbers that are NaN or infinite; take a checkpoint from before the training "
         "diverged"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(model, tensors, sentence, tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(changed(model, **tensors), path)
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path, model, UNPRUNED)
    assert str(refused.value) == f"{path}: {sentence}"


@pytest.mark.parametrize(
    ("theirs", "asked", "sentence"),
    [
        (LVVIT, PIT, "patch_embed.conv1.weight belongs to a stem of convolutions, as LV-ViT has, which pit does not"),
        (PIT, LVVIT, "transformers.0.blocks.0.norm1.weight belongs to stages between which the grid is pooled, as PiT"),
    ],
)
def test_one_family_for_the_other(theirs, asked, sentence, tmp_path):
    path = tmp_path / "theirs.pth"
    torch.save(changed(theirs), path)
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path, asked, UNPRUNED)
    assert str(refused.value).startswith(f"{path}: {sentence}")


@torch.no_grad()
def test_positions_of_another_grid_are_resized_when_asked(tmp_path):
    net, path = seeded(PIT, UNPRUNED), tmp_path / "pit.pth"
    torch.save(authors.in_their_layout(net), path)
    larger = replace(PIT, img_size=24)
    loaded, report = load_checkpoint_with_report(path, larger, UNPRUNED, CheckpointOptions(interpolate=True))
    assert loaded.pos_embed.shape == (1, 121, 16)
    assert "positions are resized from 9 x 9 patches to 11 x 11, bicubic" in str(report)


@pytest.mark.parametrize("model", MODELS, ids=["lvvit", "pit", "pit distilled", "two stages"])
def test_macs_are_those_that_torch_multiplies(model):
    """As PyTorch's counter sees them, two operations each."""
    net = seeded(model, UNPRUNED)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        VisionTransformer.forward(net, images(model, 1))
    assert count_macs(model, UNPRUNED).total * 2 == counter.get_total_flops()


def test_the_spvit_authors_selectors_in_front_of_an_lv_vits_blocks(tmp_path):
    net, path = seeded(LVVIT, PruningConfig((1, 2), keep=(0.7, 0.4))), tmp_path / "theirs.pth.tar"
    torch.save({"model": authors_state(net)}, path)
    loaded, report = load_checkpoint_with_report(path, LVVIT, net.pruning)
    assert (report.source, report.selectors_found) == ("spvit-authors", True)
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in net.state_dict().items())
    assert load_checkpoint_with_report(path, LVVIT, UNPRUNED)[1].ignored
