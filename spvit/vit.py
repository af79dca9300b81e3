"""The backbone: ViT and DeiT, under timm's names, so that timm's and facebook's checkpoints load as they are.

Enters: normalised images (B, in_chans, S, S). Leaves: logits (B, num_classes).
Shapes: B images, T tokens, N patches, P prefix tokens, C channels, H heads of d = C / H channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from spvit.config import ModelConfig


def attention_weights(q: Tensor, k: Tensor, alive: Tensor | None = None, log_size: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d) of each head, (B, H, T, T).

    q, k      (B, H, T, d)
    alive     (B, T) of 0 and 1: the keys that may be attended to; None: all of them
    log_size  (B, T) logarithm of how many tokens each key stands for (ToMe's proportional attention); None: one each
    """
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (B, H, T, T)
    if log_size is not None:
        logits = logits + log_size[:, None, None, :]
    return logits.softmax(dim=-1) if alive is None else masked_softmax(logits, alive)


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


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm, of which channels may be left out."""

    def forward(self, x: Tensor, channels: Tensor | None = None) -> Tensor:
        """channels  (B, 1, C) of 0 and 1: those that are there; the others come out as 0. None: all of them"""
        if channels is None:
            return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        count = channels.sum(dim=-1, keepdim=True)
        centred = (x - (x * channels).sum(dim=-1, keepdim=True) / count) * channels
        variance = centred.square().sum(dim=-1, keepdim=True) / count
        return (centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias) * channels


class Attention(nn.Module):
    """keeps_class_row  whether `class_row` is kept after each call: (B, T) what the first token attends to, the heads'
    mean, without its gradient
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.keeps_class_row = False
        self.class_row: Tensor | None = None

    def forward(self, x: Tensor, alive: Tensor | None = None, log_size: Tensor | None = None) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim)  # (B, T, 3C) -> (B, T, 3, H, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        weights = attention_weights(q, k, alive, log_size)
        if self.keeps_class_row:
            self.class_row = weights[:, :, 0].detach().mean(dim=1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))  # (B, H, T, d) -> (B, T, C)


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
        self.norm1 = LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(
        self,
        x: Tensor,
        alive: Tensor | None = None,
        log_size: Tensor | None = None,
        channels: Tensor | None = None,
    ) -> Tensor:
        """Tokens (B, T, C) to tokens; the others as in `attention_weights` and `LayerNorm`."""
        branch = self.attn(self.norm1(x, channels), alive, log_size)
        x = x + (branch if channels is None else branch * channels)
        branch = self.mlp(self.norm2(x, channels))
        return x + (branch if channels is None else branch * channels)


class PatchEmbed(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_chans, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)  # (B, C, grid, grid) -> (B, N, C)


class VisionTransformer(nn.Module):
    """ViT with a class token, DeiT's distillation token or neither, as the configuration asks for it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embed_dim
        if config.pooling == "class":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, width))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(width, eps=config.layer_norm_eps)
        self.head = nn.Linear(width, config.num_classes)
        if config.distilled:
            self.head_dist = nn.Linear(width, config.num_classes)
        self.apply(_init_linear)
        for token in (self.pos_embed, *self._prefix_tokens()):
            nn.init.trunc_normal_(token, std=0.02)

    def _prefix_tokens(self) -> list[Tensor]:
        if self.config.pooling == "mean":
            return []
        return [self.cls_token, self.dist_token] if self.config.distilled else [self.cls_token]

    def embed(self, images: Tensor) -> Tensor:
        """Images (B, in_chans, S, S) to tokens (B, P + N, C), the prefix first."""
        patches = self.patch_embed(images)
        prefix = [token.expand(images.shape[0], -1, -1) for token in self._prefix_tokens()]
        return torch.cat([*prefix, patches], dim=1) + self.pos_embed

    def classify(self, features: Tensor, alive: Tensor | None = None) -> Tensor:
        """Normed tokens (B, T, C) to logits (B, num_classes): of the class token, the mean of both heads, or of the
        mean of the tokens that are alive (B, T), zero without any.
        """
        if self.config.pooling == "mean":
            counts = features.new_ones(features.shape[:2]) if alive is None else alive
            total = (features * counts.unsqueeze(-1)).sum(dim=1)
            return self.head(total / counts.sum(dim=1, keepdim=True).clamp(min=1))
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
