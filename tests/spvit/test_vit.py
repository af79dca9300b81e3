"""The backbone against PyTorch's own transformer, and masked attention against leaving tokens out."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from spvit.config import ModelConfig, resolve_model
from spvit.initialisation import seeded
from spvit.vit import VisionTransformer, attention_weights, masked_softmax

MICRO = resolve_model("micro", "none")


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_names_are_timms():
    net = VisionTransformer(ModelConfig("one", 8, 4, 3, 8, 1, 2, num_classes=5, distilled=True))
    block = [f"{part}.{kind}" for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
             for kind in ("weight", "bias")]  # fmt: skip
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == {
        "cls_token": (1, 1, 8),
        "dist_token": (1, 1, 8),
        "pos_embed": (1, 6, 8),
        "patch_embed.proj.weight": (8, 3, 4, 4),
        "patch_embed.proj.bias": (8,),
        **dict(zip([f"blocks.0.{name}" for name in block],
                   [(8,), (8,), (24, 8), (24,), (8, 8), (8,), (8,), (8,), (32, 8), (32,), (8, 32), (8,)], strict=True)),
        "norm.weight": (8,),
        "norm.bias": (8,),
        "head.weight": (5, 8),
        "head.bias": (5,),
        "head_dist.weight": (5, 8),
        "head_dist.bias": (5,),
    }  # fmt: skip
    assert net.norm.eps == net.blocks[0].norm1.eps == net.blocks[0].norm2.eps == 1e-6


@pytest.mark.parametrize("distilled", [False, True])
def test_the_backbone_is_pytorchs_pre_norm_encoder(distilled):
    """An independent reading of the same weights: unfold for patches, TransformerEncoderLayer for blocks."""
    model = replace(MICRO.model, distilled=distilled)
    net = seeded(model, MICRO.pruning).double()
    images = random(3, 3, 16, 16)
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4)  # (B, chans, rows, columns, 4, 4)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(3, 16, 48)
    x = patches @ net.patch_embed.proj.weight.reshape(32, 48).T + net.patch_embed.proj.bias
    prefix = [net.cls_token, net.dist_token] if distilled else [net.cls_token]
    x = torch.cat([token.repeat(3, 1, 1) for token in prefix] + [x], 1) + net.pos_embed
    for block in net.blocks:
        layer = nn.TransformerEncoderLayer(32, 2, 128, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True).double()
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": block.attn.qkv.weight,
                "self_attn.in_proj_bias": block.attn.qkv.bias,
                "self_attn.out_proj.weight": block.attn.proj.weight,
                "self_attn.out_proj.bias": block.attn.proj.bias,
                "linear1.weight": block.mlp.fc1.weight,
                "linear1.bias": block.mlp.fc1.bias,
                "linear2.weight": block.mlp.fc2.weight,
                "linear2.bias": block.mlp.fc2.bias,
                "norm1.weight": block.norm1.weight,
                "norm1.bias": block.norm1.bias,
                "norm2.weight": block.norm2.weight,
                "norm2.bias": block.norm2.bias,
            }
        )
        x = layer.train()(x)  # without dropout, training mode differs only in leaving PyTorch's fused path aside
    x = net.norm(x)
    expected = net.head(x[:, 0])
    if distilled:
        expected = (expected + net.head_dist(x[:, 1])) / 2
    torch.testing.assert_close(VisionTransformer.forward(net, images), expected, rtol=0, atol=1e-12)


def test_attention_is_pytorchs():
    q, k, v = (random(2, 3, 5, 4, seed=seed) for seed in range(3))
    found = attention_weights(q, k) @ v
    torch.testing.assert_close(found, scaled_dot_product_attention(q, k, v), rtol=0, atol=1e-14)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from([1.0, 30.0, 1e4]), st.integers(0, 99))
def test_masked_softmax_is_softmax_over_the_living_and_oneself(alive, scale, seed):
    tokens = len(alive)
    logits, mask = random(1, 2, tokens, tokens, seed=seed, scale=scale), torch.tensor([alive], dtype=torch.float64)
    weights = masked_softmax(logits, mask)
    for row in range(tokens):
        keys = [key for key in range(tokens) if alive[key] or key == row]
        expected = torch.zeros(1, 2, tokens, dtype=torch.float64)
        expected[:, :, keys] = logits[:, :, row, keys].softmax(-1)
        torch.testing.assert_close(weights[:, :, row], expected, rtol=0, atol=1e-14)


def test_a_dead_keys_huge_logit_neither_overflows_nor_drowns_the_others():
    logits = torch.zeros(1, 1, 3, 3)
    logits[..., 2] = 1e30  # row 2 is dead and sees itself; rows 0 and 1 must not notice
    weights = masked_softmax(logits, torch.tensor([[1.0, 1.0, 0.0]]))
    assert weights[0, 0].tolist() == [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]]


def test_the_mask_carries_a_finite_gradient():
    alive = torch.tensor([[1.0, 1.0, 0.0]], requires_grad=True)
    logits = torch.tensor([0.0, 1.0, 500.0]).expand(1, 1, 3, 3)
    (masked_softmax(logits, alive) @ torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert torch.isfinite(alive.grad).all()
    assert alive.grad[0, 2] > 0  # to let the third token live would raise the result
