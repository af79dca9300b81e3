"""Pruned tokens across a pooling between stages (PiT): the convolution reads a grid, so what was dropped must stand for
something there, and what lives behind it is a choice (`refill` and `after_pooling` of [pruning]).

Each dropped place knows its holder, the package that its patch went into. Behind the pooling, a place is held by what
held its window's centre. In two forms that give the same living tokens: on slots that always exist and may be dead
(training), and on the tokens that are really there (inference).
"""

import torch
from torch import Tensor

from spvit.config import PruningConfig
from spvit.tokens import GatheredTokens, MaskedTokens
from spvit.vit import Pool


def pool_masked(pool: Pool, tokens: MaskedTokens, pruning: PruningConfig) -> MaskedTokens:
    """The tokens of the next stage; differentiable in which patches are alive."""
    pooled = pool.pooled(refilled_masked(tokens, pruning.refill))
    carries = pruning.after_pooling == "carry"
    return MaskedTokens(
        prefix=pool.fc(tokens.prefix),
        patches=pooled,
        packages=pool.fc(tokens.packages),
        patches_alive=pool.centres(tokens.patches_alive) if carries else torch.ones_like(pooled[..., 0]),
        packages_alive=tokens.packages_alive,
        package_sizes=tokens.package_sizes,
        holder=pool.centres(tokens.holder),
    )


def pool_gathered(pool: Pool, tokens: GatheredTokens, pruning: PruningConfig) -> GatheredTokens:
    """The tokens of the next stage that are there."""
    pooled = pool.pooled(refilled_gathered(tokens, pruning.refill).unsqueeze(0))[0]
    alive = torch.zeros_like(tokens.holder).index_fill(0, tokens.origin, 1)
    alive, holder = pool.centres(torch.stack([alive, tokens.holder]))
    carries = pruning.after_pooling == "carry"
    origin = alive.nonzero()[:, 0] if carries else torch.arange(len(alive), device=alive.device)
    return GatheredTokens(
        prefix=pool.fc(tokens.prefix),
        patches=pooled[origin],
        packages=pool.fc(tokens.packages),
        origin=origin,
        package_sizes=tokens.package_sizes,
        holder=holder,
    )


def refilled_masked(tokens: MaskedTokens, refill: str) -> Tensor:
    """The whole grid (B, N, C), something in each dropped patch's place."""
    alive = tokens.patches_alive.unsqueeze(-1)
    living = tokens.patches * alive
    if refill == "zero" or not tokens.packages.shape[1]:
        return living
    held = tokens.packages.gather(1, tokens.holder.unsqueeze(-1).expand_as(living))
    return living + held * (1 - alive)


def refilled_gathered(tokens: GatheredTokens, refill: str) -> Tensor:
    """The whole grid (N, C) of one image."""
    grid = tokens.patches.new_zeros(len(tokens.holder), tokens.patches.shape[1])
    if refill == "package" and len(tokens.packages):
        grid = tokens.packages[tokens.holder]
    return grid.index_copy(0, tokens.origin, tokens.patches)
