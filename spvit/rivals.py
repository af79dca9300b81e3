"""What else could choose the tokens: the class token's attention (EViT), chance, or the batch in place of a threshold.

Enters: what a block attended to, or the images. Leaves: scores in 0..1 that take the place of the keep probability
(Eq. 6), so that thresholds, packages and the accelerator's contract stay as they are.
Shapes: B images, N patches, T tokens.
"""

import torch
from torch import Tensor

from spvit.config import PruningConfig
from spvit.distributed import rows_of_all

DEFAULT_STAGE_KEEP = 0.7  # fraction of its candidates that a selector keeps, where none is configured
GOLDEN = -7046029254386353131  # 2^64 / golden ratio, as int64


def wanted_keep(pruning: PruningConfig, stage: int) -> float:
    """The kept fraction of the original units after a selector: as configured, else a default."""
    return pruning.keep[stage] if pruning.keep else DEFAULT_STAGE_KEEP ** (stage + 1)


def random_scores(images: Tensor, num_patches: int, drawn_before: int) -> Tensor:
    """Uniform in 0..1, (B, N): drawn from the images' own bits, so that an image always has the same.

    drawn_before  how many numbers the selectors before this one have drawn for an image

    A sum of the bits with odd weights is each image's seed; SplitMix64 draws from it.
    """
    bits = images.detach().double().flatten(1).view(torch.int64)  # (B, values)
    places = torch.arange(bits.shape[1], device=bits.device)
    seeds = (bits * (2 * _mix(places) + 1)).sum(dim=1, keepdim=True)
    draws = torch.arange(num_patches, device=bits.device) + (drawn_before + 1)
    drawn = _mix(seeds + draws * GOLDEN)  # (B, N)
    return (_shift_right(drawn, 11).double() * 2.0**-53).to(images.dtype)


def best_of_batch(scores: Tensor, candidates: Tensor, fraction: float) -> Tensor:
    """1 for the best candidates, `fraction` of the whole batch's patches, and for those as good as the last of them.

    How scores without a gradient decide in training, where their threshold is not known yet. scores, candidates (B, N):
    this process's; the batch is that of all processes.
    """
    ranked = rows_of_all(scores.masked_fill(candidates == 0, -torch.inf)).flatten()
    count = min(round(fraction * ranked.numel()), int((ranked > -torch.inf).sum()))
    if count == 0:
        return torch.zeros_like(scores)
    ranked = ranked.topk(count).values
    return ((scores >= ranked[-1]) & (candidates > 0)).to(scores.dtype)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose products wrap."""
    z = (z ^ _shift_right(z, 30)) * -4658895280553007687
    z = (z ^ _shift_right(z, 27)) * -7723592293110705685
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Without the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
