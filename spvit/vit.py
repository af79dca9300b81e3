"""The backbone: a vision transformer of parts, under timm's names, so that timm's and facebook's checkpoints load as
they are. ViT, DeiT, LV-ViT and PiT are choices among the parts: spvit/model_config.py says which there are.

Enters: normalised images (B, in_chans, S, S). Leaves: logits (B, num_classes).
Shapes: B images, T tokens, N patches, P prefix tokens, C channels, H heads of d = C / H channels. Behind a pooling, N
and C are the next stage's.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, relu

from spvit.config import ModelConfig
from spvit.model_config import AUX_WEIGHT, STEM_STRIDE, Stage


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

    def __init__(self, stage: Stage, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim = stage.num_heads, stage.head_dim
        self.qkv = nn.Linear(stage.embed_dim, 3 * stage.embed_dim, bias=qkv_bias)
        self.proj = nn.Linear(stage.embed_dim, stage.embed_dim)
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
    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.fc1 = nn.Linear(stage.embed_dim, stage.hidden_dim)
        self.fc2 = nn.Linear(stage.hidden_dim, stage.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: ModelConfig, stage: Stage) -> None:
        super().__init__()
        self.skip_lam = config.skip_lam
        self.norm1 = LayerNorm(stage.embed_dim, eps=config.layer_norm_eps)
        self.attn = Attention(stage, config.qkv_bias)
        self.norm2 = LayerNorm(stage.embed_dim, eps=config.layer_norm_eps)
        self.mlp = Mlp(stage)

    def forward(
        self,
        x: Tensor,
        alive: Tensor | None = None,
        log_size: Tensor | None = None,
        channels: Tensor | None = None,
    ) -> Tensor:
        """Tokens (B, T, C) to tokens; the others as in `attention_weights` and `LayerNorm`."""
        x = self._join(x, self.attn(self.norm1(x, channels), alive, log_size), channels)
        return self._join(x, self.mlp(self.norm2(x, channels)), channels)

    def _join(self, x: Tensor, branch: Tensor, channels: Tensor | None) -> Tensor:
        """The residual addition."""
        branch = branch if self.skip_lam == 1 else branch / self.skip_lam
        return x + (branch if channels is None else branch * channels)


class PatchEmbed(nn.Module):
    """Patches of the image, or of what LV-ViT's stem makes of it, and a linear layer on each: a convolution."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stem, patch, stride = config.stem_chans, config.patch_size, config.stride
        self.has_stem = stem > 0
        if self.has_stem:
            self.conv1 = nn.Conv2d(config.in_chans, stem, 7, stride=STEM_STRIDE, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(stem)
            self.conv2 = nn.Conv2d(stem, stem, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(stem)
            self.conv3 = nn.Conv2d(stem, stem, 3, padding=1, bias=False)
            self.bn3 = nn.BatchNorm2d(stem)
            patch, stride = patch // STEM_STRIDE, stride // STEM_STRIDE
        self.proj = nn.Conv2d(stem or config.in_chans, config.embed_dim, patch, stride=stride)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        if self.has_stem:
            x = relu(self.bn1(self.conv1(x)))  # (B, stem, S/2, S/2), as the next two
            x = relu(self.bn2(self.conv2(x)))
            x = relu(self.bn3(self.conv3(x)))
        return self.proj(x).flatten(2).transpose(1, 2)  # (B, C, grid, grid) -> (B, N, C)


class Pool(nn.Module):
    """From one stage to the next (PiT): the patches' grid by a depthwise convolution, the other tokens by a linear
    layer.
    """

    def __init__(self, before: Stage, after: Stage) -> None:
        super().__init__()
        self.grid_size = before.grid_size
        self.conv = nn.Conv2d(before.embed_dim, after.embed_dim, 3, stride=2, padding=1, groups=before.embed_dim)
        self.fc = nn.Linear(before.embed_dim, after.embed_dim)

    def pooled(self, patches: Tensor) -> Tensor:
        """All places of the grid (B, N, C), row by row, to those of the next stage's."""
        grid = patches.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))  # (B, C, grid, grid)
        return self.conv(grid).flatten(2).transpose(1, 2)

    def centres(self, of_places: Tensor) -> Tensor:
        """Of values of the grid's places (B, N) those at the centres of the convolution's windows, (B, N')."""
        return of_places.unflatten(1, (self.grid_size, self.grid_size))[:, ::2, ::2].flatten(1)

    def forward(self, x: Tensor, num_prefix: int) -> Tensor:
        """Tokens (B, P + N, C), none missing."""
        prefix, patches = x.tensor_split([num_prefix], dim=1)
        return torch.cat([self.fc(prefix), self.pooled(patches)], dim=1)


class VisionTransformer(nn.Module):
    """The unpruned transformer that a configuration asks for."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        stages, eps = config.stages, config.layer_norm_eps
        width, last = config.embed_dim, stages[-1].embed_dim
        if config.pooling == "class":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        placed = config.num_tokens if config.pos_embed == "all" else config.num_patches
        self.pos_embed = nn.Parameter(torch.zeros(1, placed, width))
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config, stage) for stage in stages for _ in stage.blocks)
        self.pools = nn.ModuleList(Pool(before, after) for before, after in pairwise(stages))
        self.norm = LayerNorm(last, eps=eps)
        self.head = nn.Linear(last, config.num_classes)
        if config.distilled:
            self.head_dist = nn.Linear(last, config.num_classes)
        if config.aux_head:
            self.aux_head = nn.Linear(last, config.num_classes)
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
        if self.config.pos_embed == "patches":
            return torch.cat([*prefix, patches + self.pos_embed], dim=1)
        return torch.cat([*prefix, patches], dim=1) + self.pos_embed

    def pool_before(self, block: int) -> Pool | None:
        """What stands between a block and the one before it."""
        stage = self.config.stage_of(block)
        return self.pools[stage.index - 1] if stage.index and block == stage.first_block else None

    def classify(self, features: Tensor, alive: Tensor | None = None, patches: Tensor | None = None) -> Tensor:
        """Normed tokens (B, T, C) to logits (B, num_classes): of the class token, the mean of both heads, or of the
        mean of the tokens that are alive; with an auxiliary head, its maximum over the living patches beside the class
        token's.

        alive    (B, T) of 0 and 1; None: all are
        patches  (B, T) of 0 and 1, the living patches among them; None: all behind the prefix
        """
        if self.config.pooling == "mean":
            counts = features.new_ones(features.shape[:2]) if alive is None else alive
            total = (features * counts.unsqueeze(-1)).sum(dim=1)
            return self.head(total / counts.sum(dim=1, keepdim=True).clamp(min=1))  # of no token: its bias
        logits = self.head(features[:, 0])
        if self.config.distilled:
            return (logits + self.head_dist(features[:, 1])) / 2
        if not self.config.aux_head:
            return logits
        if patches is None:
            return logits + AUX_WEIGHT * self.aux_head(features[:, 1:]).amax(dim=1)
        counts = patches.detach() > 0
        votes = self.aux_head(features).masked_fill(~counts.unsqueeze(-1), -torch.inf).amax(dim=1)
        return logits + AUX_WEIGHT * votes.masked_fill(~counts.any(dim=1, keepdim=True), 0.0)  # no patch, no vote

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images)
        for index, block in enumerate(self.blocks):
            if (pool := self.pool_before(index)) is not None:
                x = pool(x, self.config.num_prefix_tokens)
            x = block(x)
        return self.classify(self.norm(x))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
