"""Weights that say the same in other tensors compute the same; what does not is named."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from spvit.checkpoint_options import CheckpointOptions
from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import CheckpointError
from spvit.initialisation import seeded
from spvit.vit import VisionTransformer

MODEL = ModelConfig("plain", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)
UNPRUNED = PruningConfig(locations=())


def backbone(model=MODEL):
    return {name: value for name, value in seeded(model, UNPRUNED, 1).state_dict().items() if name != "thresholds"}


def images(size=32):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def load(tmp_path, state, model=MODEL, **options):
    torch.save(state, tmp_path / "vit.pth")
    return load_checkpoint_with_report(tmp_path / "vit.pth", model, UNPRUNED, CheckpointOptions(**options))


def refused(tmp_path, state, model=MODEL, **options):
    with pytest.raises(CheckpointError) as error:
        load(tmp_path, state, model, **options)
    assert str(error.value).startswith(f"{tmp_path / 'vit.pth'}: ") and "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{tmp_path / 'vit.pth'}: ")


@pytest.mark.parametrize(
    "names", [("blocks.{}.ls1.gamma", "blocks.{}.ls2.gamma"), ("blocks.{}.gamma_1", "blocks.{}.gamma_2")]
)
def test_layer_scale_is_multiplied_in(tmp_path, names):
    state, generator = backbone(), torch.Generator().manual_seed(3)
    scales = {name.format(i): torch.rand(32, generator=generator) + 0.1 for i in range(2) for name in names}
    net, report = load(tmp_path, {**state, **scales})
    assert report.notes == ("layer scale is multiplied into attn.proj and mlp.fc2",)
    scaled = seeded(MODEL, UNPRUNED, 1)
    for i, block in enumerate(scaled.blocks):  # as timm computes it
        for part, name in zip((block.attn, block.mlp), names, strict=True):
            gamma = scales[name.format(i)]
            part.register_forward_hook(lambda _, inputs, result, gamma=gamma: result * gamma)
    with torch.no_grad():
        expected, found = (VisionTransformer.forward(each, images()) for each in (scaled, net))
        assert not torch.allclose(found, VisionTransformer.forward(seeded(MODEL, UNPRUNED, 1), images()), atol=1e-2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_layer_scale_of_ones_changes_no_bit(tmp_path):
    state = backbone()
    net, _ = load(tmp_path, {**state, **{f"blocks.{i}.ls{j}.gamma": torch.ones(32) for i in range(2) for j in (1, 2)}})
    assert all(torch.equal(net.state_dict()[name], value) for name, value in state.items())


def test_a_layer_scale_of_another_width(tmp_path):
    assert refused(tmp_path, {**backbone(), "blocks.0.ls2.gamma": torch.ones(16)}) == (
        "blocks.0.ls2.gamma has the shape (16,) and cannot scale blocks.0.mlp.fc2.weight, (32, 128); "
        "save the checkpoint again"
    )


def test_no_bias_of_q_k_and_v_is_a_bias_of_zeros(tmp_path):
    state = {name: value for name, value in backbone().items() if not name.endswith("qkv.bias")}
    net, report = load(tmp_path, state)
    assert report.notes == ("no block has a bias of q, k and v: zeros stand for it",)
    assert all(not block.attn.qkv.bias.any() for block in net.blocks)
    del (some := backbone())["blocks.1.attn.qkv.bias"]
    net, report = load(tmp_path, some)
    assert report.notes == ("there is no blocks.1.attn.qkv.bias: zeros stand for it",)
    assert net.blocks[0].attn.qkv.bias.any() and not net.blocks[1].attn.qkv.bias.any()


@pytest.mark.parametrize("distilled", [False, True])
def test_positions_of_patches_alone(tmp_path, distilled):
    model = replace(MODEL, distilled=distilled)
    state, prefix = backbone(model), 2 if distilled else 1
    net, report = load(tmp_path, {**state, "pos_embed": state["pos_embed"][:, prefix:]}, model)
    assert report.notes == ("only patches have positions: zeros stand for the class token's",)
    assert not net.pos_embed[:, :prefix].any()
    assert torch.equal(net.pos_embed[:, prefix:], state["pos_embed"][:, prefix:])


@pytest.mark.parametrize(("trained", "prefix"), [(48, 1), (16, 1), (48, 0)])
def test_another_image_size_is_resized_as_timm_does_where_asked_for(tmp_path, trained, prefix):
    state = backbone(replace(MODEL, img_size=trained))
    state["pos_embed"] = state["pos_embed"][:, 1 - prefix :]
    grid = trained // 8
    text = refused(tmp_path, state)
    assert text == (
        f"pos_embed has the shape (1, {prefix + grid * grid}, 32), but plain needs (1, 17, 32); it was trained at "
        f"img_size={trained}, {grid} x {grid} patches in place of 4 x 4: set that, or let POS=interpolate resize the "
        "positions, bicubic, as timm does"
    )
    net, report = load(tmp_path, state, interpolate=True)
    assert report.notes[0] == f"positions are resized from {grid} x {grid} patches to 4 x 4, bicubic"
    square = state["pos_embed"][0, prefix:].T.reshape(1, 32, grid, grid)
    resized = interpolate(square, size=(4, 4), mode="bicubic", antialias=True)[0].flatten(1).T
    torch.testing.assert_close(net.pos_embed[0, 1:], resized, rtol=0, atol=1e-6)
    expected = state["pos_embed"][0, :1] if prefix else torch.zeros(1, 32)
    assert torch.equal(net.pos_embed[0, :1], expected)


def test_interpolation_leaves_alone_what_fits(tmp_path):
    net, report = load(tmp_path, backbone(), interpolate=True)
    assert report.notes == () and torch.equal(net.pos_embed, backbone()["pos_embed"])


def test_other_patches_are_not_resized(tmp_path):
    state = backbone(replace(MODEL, patch_size=4))
    for interpolated in (False, True):
        assert refused(tmp_path, state, interpolate=interpolated).startswith(
            "pos_embed has the shape (1, 65, 32), but plain needs (1, 17, 32); choose the MODEL= with the img_size, patch"
        )


def test_no_head(tmp_path):
    state = {name: value for name, value in backbone().items() if not name.startswith("head.")}
    assert refused(tmp_path, state) == (
        "has no head, as a network of 0 classes is saved: it gives features and names no class; "
        "take the checkpoint with its head, or add head.weight and head.bias for 5 classes"
    )


def test_other_hidden_units_ask_for_their_number(tmp_path):
    state = backbone(replace(MODEL, mlp_ratio=3.5))
    assert refused(tmp_path, state) == (
        "blocks.0.mlp.fc1.weight has the shape (112, 32), but plain needs (128, 32); "
        "set hidden_dim or mlp_ratio as it was trained, or choose the MODEL= that it was trained as"
    )
