"""How much of the final class token each block's tokens know already: centred kernel alignment (paper, Figure 4)."""

import torch
from torch import Tensor

from spvit.pruned_vit import SPViT


def centred_kernel_alignment(x: Tensor, y: Tensor) -> Tensor:
    """Linear CKA of two sets of features of the same images (Kornblith et al. 2019, Eq. 3): 0 unrelated, 1 alike.

    x (..., B, C), y (..., B, D) -> (...)
    """
    x, y = (features.double() - features.double().mean(dim=-2, keepdim=True) for features in (x, y))
    # Gram matrices over the images: B is small beside the channels' number
    gram_x, gram_y = x @ x.transpose(-2, -1), y @ y.transpose(-2, -1)
    alike = (gram_x * gram_y).sum(dim=(-2, -1))
    scale = gram_x.square().sum(dim=(-2, -1)).sqrt() * gram_y.square().sum(dim=(-2, -1)).sqrt()
    return alike / scale.clamp(min=torch.finfo(scale.dtype).tiny)


@torch.no_grad()
def similarity_to_class_token(net: SPViT, images: Tensor) -> list[float]:
    """For each block, the CKA between its patch tokens and the last block's class token, averaged over the patches.

    net     unpruned
    images  (B, in_chans, S, S), some hundreds
    """
    assert not net.pruning.locations, net.pruning.locations
    first = net.config.num_prefix_tokens
    features: list[list[Tensor]] = [[] for _ in net.blocks]
    final: list[Tensor] = []
    for batch in images.split(64):
        x = net.embed(batch.to(net.pos_embed.device))
        for index, (block, seen) in enumerate(zip(net.blocks, features, strict=True)):
            if (pool := net.pool_before(index)) is not None:
                x = pool(x, first)
            x = block(x)
            seen.append(x[:, first:].cpu())
        # without a class token, the mean that is classified stands in for it
        final.append((x[:, 0] if first else x.mean(dim=1)).cpu())
    last = torch.cat(final)  # (B, C)
    return [_mean_over_patches(torch.cat(seen), last) for seen in features]


def _mean_over_patches(tokens: Tensor, last: Tensor) -> float:
    """tokens (B, N, C), last (B, C)"""
    parts = [centred_kernel_alignment(part, last) for part in tokens.transpose(0, 1).split(16)]
    return torch.cat(parts).mean().item()
