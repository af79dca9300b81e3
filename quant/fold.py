"""A float SPViT as plain linear layers: what the accelerator does not do at run time is multiplied into weights here.

Enters: a float `SPViT`. Leaves: a `FoldedNetwork` in float64, with the names and shapes of `network.linear_shapes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quant.network import linear_shapes
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import CheckpointError
from spvit.pruned_vit import SPViT


@dataclass(frozen=True)
class FoldedLinear:
    """y = x W^T + b in float64: weight [out, in], bias [out]."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> FoldedLinear:
        weight = layer.weight.double()
        return cls(weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double())

    def after_norm(self, norm: nn.LayerNorm) -> FoldedLinear:
        """With the scale and shift of the LayerNorm in front taken in: W' = W gamma, b' = b + W beta."""
        gamma, beta = norm.weight.double(), norm.bias.double()
        return FoldedLinear(self.weight * gamma, self.bias + self.weight @ beta)

    def scaled(self, factor: float) -> FoldedLinear:
        return FoldedLinear(self.weight * factor, self.bias * factor)

    def rows(self, rows: slice) -> FoldedLinear:
        return FoldedLinear(self.weight[rows], self.bias[rows])


@dataclass(frozen=True)
class FoldedNetwork:
    """The whole network as linear layers and what stands between them.

    position    [prefix + patches, C] position embedding with the prefix tokens added to their rows
    thresholds  per selector, the keep probability from which a token is kept
    """

    model: ModelConfig
    pruning: PruningConfig
    linears: Mapping[str, FoldedLinear]
    position: Tensor
    thresholds: tuple[float, ...]


@torch.no_grad()
def fold(net: SPViT) -> FoldedNetwork:
    """Fold `net`. Raises CheckpointError, with the tensor's name, if a weight is not finite."""
    return fold_with_gradients(net)


def fold_with_gradients(net: SPViT) -> FoldedNetwork:
    """`fold`, through which gradients reach the float model's own weights."""
    for name, tensor in net.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{name} holds NaN or infinite weights and cannot be quantized; train or load it again"
            )
    model, pruning = net.config, net.pruning
    linears = {"patch_embed.proj": _patch_embedding(net)}
    for index, block in enumerate(net.blocks):
        if index in pruning.locations:
            linears |= _selector(net, pruning.locations.index(index))
        attn, mlp = f"blocks.{index}.attn", f"blocks.{index}.mlp"
        qkv = FoldedLinear.of(block.attn.qkv).after_norm(block.norm1)
        q, k, v = (qkv.rows(slice(i * model.embed_dim, (i + 1) * model.embed_dim)) for i in range(3))
        # softmax(q k / sqrt(d)) is 2^(q' k) normalised
        linears[f"{attn}.q"] = q.scaled(math.log2(math.e) / math.sqrt(model.head_dim))
        linears[f"{attn}.k"], linears[f"{attn}.v"] = k, v
        linears[f"{attn}.proj"] = FoldedLinear.of(block.attn.proj).scaled(1 / model.skip_lam)
        linears[f"{mlp}.fc1"] = FoldedLinear.of(block.mlp.fc1).after_norm(block.norm2)
        linears[f"{mlp}.fc2"] = FoldedLinear.of(block.mlp.fc2).scaled(1 / model.skip_lam)
    linears["head"] = _head(net)
    shapes = {name: tuple(linear.weight.shape) for name, linear in linears.items()}
    assert shapes == linear_shapes(model, pruning), "the folded layers do not have the network's shapes"
    return FoldedNetwork(
        model, pruning, linears, _position(net), tuple(float(threshold) for threshold in net.thresholds)
    )


def _patch_embedding(net: SPViT) -> FoldedLinear:
    """The convolution as a linear layer over a patch's raw pixels, 0..255 in (y, x, channel) order."""
    weight = net.patch_embed.proj.weight.double()  # (C, chans, P, P)
    bias = net.patch_embed.proj.bias.double()
    mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (net.config.mean, net.config.std)
    )
    raw = weight / (255 * std)
    return FoldedLinear(raw.permute(0, 2, 3, 1).flatten(1), bias - (weight * (mean / std)).flatten(1).sum(dim=1))


def _position(net: SPViT) -> Tensor:
    position = net.pos_embed.double()[0].clone()
    if net.config.pos_embed == "patches":
        position = torch.cat([position.new_zeros(net.config.num_prefix_tokens, position.shape[1]), position])
    position[0] += net.cls_token.double()[0, 0]
    if net.config.distilled:
        position[1] += net.dist_token.double()[0, 0]
    return position


def _selector(net: SPViT, index: int) -> dict[str, FoldedLinear]:
    selector = net.selectors[index]
    linears: dict[str, FoldedLinear] = {}
    for head, scorer in enumerate(selector.scorers):
        name = f"selectors.{index}.scorers.{head}"
        embed = FoldedLinear.of(scorer.embed).after_norm(scorer.norm)
        if net.pruning.features == "single":  # local and pooled features are the same: make them twice
            embed = FoldedLinear(embed.weight.repeat(2, 1), embed.bias.repeat(2))
        fc3 = FoldedLinear.of(scorer.fc3)
        linears |= {
            f"{name}.embed": embed,
            f"{name}.fc1": FoldedLinear.of(scorer.fc1),
            f"{name}.fc2": FoldedLinear.of(scorer.fc2),
            # softmax over (keep, drop) is the sigmoid of their difference
            f"{name}.fc3": FoldedLinear(fc3.weight[:1] - fc3.weight[1:], fc3.bias[:1] - fc3.bias[1:]),
        }
    head_dim = net.config.head_dim
    fc1, fc2 = FoldedLinear.of(selector.head_branch.fc1), FoldedLinear.of(selector.head_branch.fc2)
    branch = f"selectors.{index}.head_branch"
    # fc1 sees the mean over each head's channels
    linears[f"{branch}.fc1"] = FoldedLinear(fc1.weight.repeat_interleave(head_dim, dim=1) / head_dim, fc1.bias)
    linears[f"{branch}.fc2"] = fc2
    return linears


def _head(net: SPViT) -> FoldedLinear:
    head = FoldedLinear.of(net.head).after_norm(net.norm)
    if not net.config.distilled:
        return head
    distilled = FoldedLinear.of(net.head_dist).after_norm(net.norm)
    return FoldedLinear(torch.cat([head.weight, distilled.weight], dim=1), head.bias + distilled.bias).scaled(0.5)
