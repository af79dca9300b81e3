"""The tokens of an SPViT between two blocks, in its two forms: all of a batch with the dead ones among them, or those
of one image that are really there.

Shapes: B images; P prefix tokens, N places of the stage's grid of which n hold living patches, M package slots of which
m are there; T of all of these together; C channels.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskedTokens:
    """All tokens of a batch between two blocks, the dead ones too.

    prefix (B, P, C), patches (B, N, C), packages (B, M, C)
    patches_alive   (B, N) of 0 and 1
    packages_alive  (B, M) of 0 and 1
    package_sizes   (B, M) how many patches each holds
    holder          (B, N) int64: the package that a dropped patch's place went into
    """

    prefix: Tensor
    patches: Tensor
    packages: Tensor
    patches_alive: Tensor
    packages_alive: Tensor
    package_sizes: Tensor
    holder: Tensor

    @classmethod
    def whole(cls, x: Tensor, num_prefix: int) -> "MaskedTokens":
        """Of an image's tokens (B, P + N, C), before any selector."""
        prefix, patches = x.tensor_split([num_prefix], dim=1)
        alive = torch.ones_like(patches[..., 0])
        none = alive[:, :0]
        return cls(prefix, patches, x[:, :0], alive, none, none, alive.long() * 0)

    @property
    def x(self) -> Tensor:
        """(B, T, C)"""
        return torch.cat([self.prefix, self.patches, self.packages], dim=1)

    @property
    def alive(self) -> Tensor:
        """(B, T)"""
        return torch.cat([torch.ones_like(self.prefix[..., 0]), self.patches_alive, self.packages_alive], dim=1)

    @property
    def living_patches(self) -> Tensor:
        """(B, T) 1 for the patches among the living"""
        nothing = (torch.zeros_like(self.prefix[..., 0]), torch.zeros_like(self.packages_alive))
        return torch.cat([nothing[0], self.patches_alive.detach(), nothing[1]], dim=1)

    def with_rows(self, x: Tensor) -> "MaskedTokens":
        """The same tokens with the values (B, T, C) that a block made of them."""
        first, behind = self.prefix.shape[1], self.prefix.shape[1] + self.patches.shape[1]
        prefix, patches, packages = x.tensor_split([first, behind], dim=1)
        return replace(self, prefix=prefix, patches=patches, packages=packages)


@dataclass(frozen=True)
class GatheredTokens:
    """The tokens of one image that are left between two blocks.

    prefix (P, C), patches (n, C), packages (m, C)
    origin         (n) int64: the place in the grid of each living patch, increasing
    package_sizes  (m) how many patches each holds
    holder         (N) int64: the package that a dropped patch's place went into
    """

    prefix: Tensor
    patches: Tensor
    packages: Tensor
    origin: Tensor
    package_sizes: Tensor
    holder: Tensor

    @classmethod
    def whole(cls, x: Tensor, num_prefix: int) -> "GatheredTokens":
        """Of an image's tokens (P + N, C), before any selector."""
        prefix, patches = x.tensor_split([num_prefix])
        places = torch.arange(len(patches), device=x.device)
        return cls(prefix, patches, x[:0], places, x.new_ones(0), places * 0)

    @property
    def x(self) -> Tensor:
        """(1, T, C)"""
        return torch.cat([self.prefix, self.patches, self.packages]).unsqueeze(0)

    @property
    def living_patches(self) -> Tensor:
        """(1, T) 1 for the patches among them"""
        parts = (torch.zeros_like(self.prefix[:, 0]), torch.ones_like(self.patches[:, 0]))
        return torch.cat([*parts, torch.zeros_like(self.packages[:, 0])]).unsqueeze(0)

    def with_rows(self, x: Tensor) -> "GatheredTokens":
        """The same tokens with the values (1, T, C) that a block made of them."""
        first = len(self.prefix)
        prefix, patches, packages = x[0].tensor_split([first, first + len(self.patches)])
        return replace(self, prefix=prefix, patches=patches, packages=packages)
