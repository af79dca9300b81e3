"""The backbone: ViT and DeiT, under timm's names, so that timm's and facebook's checkpoints load as they are.

Enters: normalised images (B, in_chans, S, S). Leaves: logits (B, num_classes).
Shapes: B images, T tokens, N patches, P prefix tokens, C channels, H heads of d = C / H channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from spvit.config import ModelConfig


def attention(q: Tensor, k: Tensor, v: Tensor, alive: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v of each head.

    q, k, v  (B, H, T, d)
    alive    (B, T) of 0 and 1: the keys that may be attended to; None: all of them
    """
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (B, H, T, T)
    weights = logits.softmax(dim=-1) if alive is None else masked_softmax(logits, alive)
    return weights @ v  # (B, H, T, d)


def masked_softmax(logits: Tensor, alive: Tensor) -> Tensor:
    """Softmax over the living keys and the row's own, which makes a dead row harmless in place of undefined.

    The result is differentiable in `alive`, whose entries are exactly 0 or 1 but may carry a gradient. The maximum
    is taken over the keys that count, since a dead key's logit could push all others below what exp can tell from
    zero; dead keys are cut off at that maximum, so that 0 · exp(logit) stays 0.

    logits  (B, H, T, T)
    alive   (B, T)
    """
    own = torch.eye(alive.shape[-1], dtype=logits.dtype, device=logits.device)
    counts = alive[:, None, None, :] * (1 - own) + own  # (B, 1, T, T)
    maximum = logits.detach().masked_fill(counts == 0, -torch.inf).amax(dim=-1, keepdim=True)
    weights = (logits - maximum).clamp(max=0).exp() * counts
    return weights / weights.sum(dim=-1, keepdim=True)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, alive: Tensor | None = None) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)  # (B, T, 3C) -> (B, T, 3, H, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        heads = attention(q, k, v, alive)
        return self.proj(heads.transpose(1, 2).reshape(batch, tokens, width))  # (B, H, T, d) -> (B, T, C)


class Mlp(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.hidden_dim)
        self.fc2 = nn.Linear(config.hidden_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, alive: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), alive)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_chans, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, C, grid, grid) -> (B, N, C)


class VisionTransformer(nn.Module):
    """ViT with a class token, and DeiT's distillation token where the configuration asks for it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, width))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.head = nn.Linear(width, config.num_classes)
        if config.distilled:
            self.head_dist = nn.Linear(width, config.num_classes)
        self.apply(_init_linear)
        for token in (self.pos_embed, *self._prefix_tokens()):
            nn.init.trunc_normal_(token, std=0.02)

    def _prefix_tokens(self) -> list[Tensor]:
        return [self.cls_token, self.dist_token] if self.config.distilled else [self.cls_token]

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, in_chans, S, S) to tokens (B, P + N, C), the prefix first."""
        patches = self.patch_embed(images)
        prefix = [token.expand(len(images), -1, -1) for token in self._prefix_tokens()]
        return torch.cat([*prefix, patches], dim=1) + self.pos_embed

    def classify(self, features: Tensor) -> Tensor:
        """Normed tokens (B, T, C) to logits (B, num_classes): of the class token, or the mean of both heads."""
        logits = self.head(features[:, 0])
        return (logits + self.head_dist(features[:, 1])) / 2 if self.config.distilled else logits

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.classify(self.norm(x))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
