"""The token packager: less informative tokens become one package token (paper, section 4.3; Eq. 8).

Packages stand behind the patches, the oldest first. They are joined in two ways, on the tokens that are really
there (inference) and on slots that always exist and may be dead (training); living tokens come out the same.
"""

import torch
from torch import Tensor

NEGLIGIBLE = 2.0**-60  # weights with a smaller sum say nothing about their tokens, and their gradients overflow


def package_token(tokens: Tensor, probability: Tensor, dropped: Tensor) -> Tensor:
    """Eq. 8: the mean of the dropped tokens, weighted by their keep probabilities.

    tokens       (..., n, C)
    probability  (..., n) of Eq. 6; where those of the dropped sum up to less than NEGLIGIBLE, each weighs the same
    dropped      (..., n) of 0 and 1
    Returns (..., C); zero if nothing was dropped.
    """
    weights = probability * dropped
    weights = torch.where(weights.sum(dim=-1, keepdim=True) >= NEGLIGIBLE, weights, dropped)
    total = weights.sum(dim=-1, keepdim=True)
    share = weights / torch.where(total > 0, total, 1)
    return (share.unsqueeze(-1) * tokens).sum(dim=-2)


def package_sum(tokens: Tensor, probability: Tensor, dropped: Tensor) -> Tensor:
    """`package_token` as the authors' code has it: the weighted tokens' sum, not divided by that of the weights."""
    return ((probability * dropped).unsqueeze(-1) * tokens).sum(dim=-2)


def join_package(packages: Tensor, package: Tensor, policy: str) -> Tensor:
    """The packages (m, C) of one image and a new one (C), or their sizes (m) and (): append, add or none."""
    if policy == "none":
        return packages
    if policy == "add" and len(packages):
        return packages + package
    return torch.cat([packages, package.unsqueeze(0)])


def join_package_masked(
    slots: Tensor, alive: Tensor, package: Tensor, exists: Tensor, policy: str
) -> tuple[Tensor, Tensor]:
    """`join_package` for a batch whose images need not have a package each.

    slots (B, m, C), alive (B, m): the older packages; package (B, C), exists (B): the new one
    Returns slots and alive, with m + 1 slots after append and with one after add.
    """
    if policy == "none":
        return slots, alive
    new, exists = (package * exists.unsqueeze(-1)).unsqueeze(1), exists.unsqueeze(1)  # (B, 1, C), (B, 1)
    if policy == "add" and slots.shape[1]:
        return slots * alive.unsqueeze(-1) + new, torch.maximum(alive, exists)
    return torch.cat([slots, new], dim=1), torch.cat([alive, exists], dim=1)
