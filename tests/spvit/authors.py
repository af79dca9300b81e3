"""LV-ViT and PiT as their authors' code computes them, written from the facts, on state dicts in the authors' layout; and
our weights in that layout. Shares nothing with the model but PyTorch.
"""

import torch
from torch.nn.functional import (
    batch_norm,
    conv2d,
    gelu,
    layer_norm,
    linear,
    relu,
    scaled_dot_product_attention,
)


def _norm(state, name, x, eps):
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _linear(state, name, x):
    return linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _block(state, name, x, heads, eps, skip_lam=1.0):
    batch, tokens, width = x.shape
    qkv = _linear(state, f"{name}.attn.qkv", _norm(state, f"{name}.norm1", x, eps))
    q, k, v = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
    x = x + _linear(state, f"{name}.attn.proj", mixed) / skip_lam
    hidden = gelu(_linear(state, f"{name}.mlp.fc1", _norm(state, f"{name}.norm2", x, eps)))
    return x + _linear(state, f"{name}.mlp.fc2", hidden) / skip_lam


def lvvit(state, images, depth, heads, skip_lam):
    """TokenLabeling's LV_ViT in evaluation."""
    x = images
    for number, stride, padding in ((1, 2, 3), (2, 1, 1), (3, 1, 1)):
        x = conv2d(x, state[f"patch_embed.conv{number}.weight"], None, stride, padding)
        norm = [state[f"patch_embed.bn{number}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")]
        x = relu(batch_norm(x, *norm, training=False, eps=1e-5))
    kernel = state["patch_embed.proj.weight"]
    x = conv2d(x, kernel, state["patch_embed.proj.bias"], kernel.shape[-1]).flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], 1) + state["pos_embed"]
    for block in range(depth):
        x = _block(state, f"blocks.{block}", x, heads, 1e-5, skip_lam)
    x = _norm(state, "norm", x, 1e-5)
    return _linear(state, "head", x[:, 0]) + 0.5 * _linear(state, "aux_head", x[:, 1:]).max(1)[0]


def pit(state, images, depths, heads, stride):
    """naver-ai's PoolingTransformer in evaluation; with two class tokens its distilled one."""
    x = conv2d(images, state["patch_embed.conv.weight"], state["patch_embed.conv.bias"], stride) + state["pos_embed"]
    tokens = state["cls_token"].expand(len(x), -1, -1)
    for stage, (depth, number) in enumerate(zip(depths, heads, strict=True)):
        if stage:
            pool = f"pools.{stage - 1}"
            kernel, bias = state[f"{pool}.conv.weight"], state[f"{pool}.conv.bias"]
            x, tokens = conv2d(x, kernel, bias, 2, 1, groups=x.shape[1]), _linear(state, f"{pool}.fc", tokens)
        side, prefix = x.shape[-1], tokens.shape[1]
        rows = torch.cat([tokens, x.flatten(2).transpose(1, 2)], 1)
        for block in range(depth):
            rows = _block(state, f"transformers.{stage}.blocks.{block}", rows, number, 1e-6)
        tokens, x = rows[:, :prefix], rows[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    tokens = _norm(state, "norm", tokens, 1e-6)
    logits = _linear(state, "head", tokens[:, 0])
    return (logits + _linear(state, "head_dist", tokens[:, 1])) / 2 if tokens.shape[1] == 2 else logits


def in_their_layout(net, pools="pools.{}"):
    """An unpruned net's tensors as the authors' code saves them; timm's name of a pool is `transformers.{+1}.pool`."""
    state, theirs = net.state_dict(), {}
    stages = net.config.stages
    for name, tensor in state.items():
        part = name.split(".")
        if name == "thresholds" or (name == "dist_token" and len(stages) > 1):
            continue
        if len(stages) > 1:
            if part[0] == "blocks":
                stage = net.config.stage_of(int(part[1]))
                name = ".".join([f"transformers.{stage.index}.blocks.{int(part[1]) - stage.first_block}", *part[2:]])
            elif part[0] == "pools":
                name = f"{pools.format(part[1]) if '+' not in pools else f'transformers.{int(part[1]) + 1}.pool'}." + (
                    ".".join(part[2:])
                )
            elif name.startswith("patch_embed.proj"):
                name = name.replace("proj", "conv")
            elif name == "pos_embed":
                tensor = tensor.transpose(1, 2).unflatten(2, (stages[0].grid_size,) * 2)
            elif name == "cls_token" and net.config.distilled:
                tensor = torch.cat([tensor, state["dist_token"]], 1)
        theirs[name] = tensor.clone()
    return theirs
