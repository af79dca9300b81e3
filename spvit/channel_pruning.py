"""Structured pruning, a rival (paper, Table 11): channels of the residual stream go, and with them a part of every
token. Which ones is learnt, and the same for all images.

A selector's place is where channels leave; the blocks behind it read and write those that are left alone: narrower
qkv, proj, fc1 and fc2, as many attention channels and hidden units as before. The head reads zeros.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call

ROWS = (
    *("norm1.weight", "norm1.bias", "attn.proj.weight", "attn.proj.bias"),
    *("norm2.weight", "norm2.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
)
SPREAD = 4.0  # standard deviation of the log odds to begin with: most channels are drawn alike for all images
COLUMNS = ("attn.qkv.weight", "mlp.fc1.weight")


class ChannelSelector(nn.Module):
    """A keep probability for each channel."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.log_odds = nn.Parameter(torch.zeros(embed_dim))

    def forward(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Votes and their weight, as of a `TokenSelector`, both like candidates (B, C)."""
        return torch.sigmoid(self.log_odds).expand_as(candidates), torch.ones_like(candidates)

    @torch.no_grad()
    def rank_by_magnitude(self, blocks: nn.ModuleList) -> None:
        """Begin with the size of what the blocks behind make of a channel."""
        squares = sum(
            (layer.weight * norm.weight).square().sum(dim=0)
            for block in blocks
            for norm, layer in ((block.norm1, block.attn.qkv), (block.norm2, block.mlp.fc1))
        )
        logarithm = squares.log()
        spread = logarithm.std(correction=0).clamp(min=1e-6)
        self.log_odds.copy_(SPREAD * (logarithm - logarithm.mean()) / spread)


def spare_the_best(decision: Tensor, probability: Tensor, candidates: Tensor) -> Tensor:
    """The decision, with the most probable candidate of each image kept in any case: without a channel there is no
    token. (B, C) each
    """
    best = probability.masked_fill(candidates == 0, -torch.inf).argmax(dim=1, keepdim=True)
    return decision.scatter(1, best, 1.0)


def run_narrow(block: nn.Module, x: Tensor, living: Tensor) -> Tensor:
    """A block on the living channels alone: x (B, T, n), living (n) positions among the C -> (B, T, n)."""
    parameters = dict(block.named_parameters())
    narrow = {name: parameters[name][living] for name in ROWS}
    narrow |= {name: parameters[name][:, living] for name in COLUMNS}
    return functional_call(block, narrow, (x,))


def run_narrow_norm(norm: nn.Module, x: Tensor, living: Tensor) -> Tensor:
    """A `LayerNorm` likewise."""
    return functional_call(norm, {"weight": norm.weight[living], "bias": norm.bias[living]}, (x,))
