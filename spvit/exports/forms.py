"""SPViT in the two forms that graphs without Python's branches can have.

Enters: normalised images. Leaves: `Decided`, with the logits and decisions of `SPViT.forward_gathered`.
Shapes: T tokens, N patches of the stage's grid, P prefix tokens, C channels; n patches and m packages are alive.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from spvit.config import ModelSpec
from spvit.errors import ConfigError
from spvit.pruned_vit import SPViT
from spvit.token_selector import keep_decision
from spvit.vit import Pool

OUTPUTS = ("logits", "keep", "num_tokens")
EXPORTED = {"method": "selector", "scorer": "mlp"}  # what of [pruning] a graph can express


class Decided(NamedTuple):
    logits: Tensor  # (B, num_classes)
    # (B, selectors, N) 1 where the patch lives on after a selector, else 0; N is the first stage's, and a smaller grid
    # is in front, zeros behind it
    keep: Tensor
    num_tokens: Tensor  # (B, selectors) int64: tokens that go on to the next block, prefix and packages included


def refuse_what_has_no_graph(spec: ModelSpec, source: str) -> None:
    """Raise ConfigError for selectors that only Python runs.

    source  what MODEL= says
    """
    for field, expressed in EXPORTED.items():
        found = getattr(spec.pruning, field)
        if spec.pruning.num_selectors and found != expressed:
            raise ConfigError(
                f'{source}: [pruning] {field} = "{found}" is not exported, {field} = "{expressed}" is; '
                "export with that, or KEEP=none"
            )


class Masked(nn.Module):
    """All tokens of a batch, the dead ones masked: static shapes but for the batch."""

    def __init__(self, net: SPViT) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Decided:
        """Images (B, in_chans, S, S)."""
        output = self.net.forward_masked(images)
        if not output.records:
            return Decided(output.logits, *_nothing(images, self.net))
        return Decided(
            output.logits,
            torch.stack([_padded(record.keep, self.net) for record in output.records], dim=1),
            torch.stack([record.num_tokens for record in output.records], dim=1),
        )


class Rows(NamedTuple):
    """The tokens of one image that are left, and what each is."""

    x: Tensor  # (T, C)
    patch: Tensor  # (T) 1 for patches, 0 for prefix and packages
    package: Tensor  # (T) 1 for packages
    size: Tensor  # (T) how many tokens it stands for
    origin: Tensor  # (T) int64: which place of the grid it has; N where it is no patch
    slot: Tensor  # (T) int64: which package it is, as the masked form counts them; their number where it is none

    def taken(self, alive: Tensor) -> "Rows":
        """Those where `alive` (T) is not 0."""
        chosen = alive.nonzero()[:, 0]
        return Rows(*(part[chosen] for part in self))


class Gathered(nn.Module):
    """One image, its dropped tokens really gone: the shapes behind a selector follow the image.

    Each selector sees all rows and votes on the patches among them; one gather then leaves those that live, whether
    some were dropped, none or all. (Prefix and packages are scored for nothing: so no reduction is over no row.)
    """

    def __init__(self, net: SPViT) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Decided:
        """Image (1, in_chans, S, S)."""
        net, num_patches = self.net, self.net.config.num_patches
        rows = self._embedded(image)
        alive = torch.ones_like(rows.x[rows.x.shape[0] - num_patches :, 0])  # (N)
        holder = torch.zeros_like(rows.origin[:num_patches])  # (N) the slot that a dropped patch's place went into
        keeps, tokens = list[Tensor](), list[Tensor]()
        for index, block in enumerate(net.blocks):
            if (pool := net.pool_before(index)) is not None:
                rows, alive, holder = self._pooled(pool, rows, alive, holder)
            if index in net.pruning.locations:
                rows = self._pruned(len(keeps), image, rows)
                keep = self._living(rows, alive)
                holder = torch.where(alive > keep, self._slot(len(keeps)), holder)
                alive = keep
                keeps.append(_padded(keep.unsqueeze(0), net)[0])
                tokens.append(torch.ones_like(rows.origin).sum())
            log_size = rows.size.clamp(min=1).log().unsqueeze(0) if net.pruning.proportional_attention else None
            rows = rows._replace(x=block(rows.x.unsqueeze(0), None, log_size)[0])
        prefix = net.config.num_prefix_tokens
        if net.config.aux_head:
            logits = net.classify(net.norm(rows.x.unsqueeze(0)), None, rows.patch.unsqueeze(0))
        else:
            classified = rows.x[:prefix] if prefix else rows.x
            logits = net.classify(net.norm(classified.unsqueeze(0)))
        if not keeps:
            return Decided(logits, *_nothing(image, net))
        return Decided(logits, torch.stack(keeps).unsqueeze(0), torch.stack(tokens).unsqueeze(0))

    def _embedded(self, image: Tensor) -> Rows:
        x, config = self.net.embed(image)[0], self.net.config
        place = torch.arange(config.num_tokens, device=x.device) - config.num_prefix_tokens
        is_patch = place >= 0
        origin = torch.where(is_patch, place, config.num_patches)
        no_slot = torch.full_like(origin, self.net.pruning.num_selectors)
        return Rows(x, is_patch.to(x.dtype), torch.zeros_like(x[:, 0]), torch.ones_like(x[:, 0]), origin, no_slot)

    def _living(self, rows: Rows, of_grid: Tensor) -> Tensor:
        """1 for the places of the grid that living patches have, like `of_grid` (N)."""
        places = of_grid.shape[0]
        return rows.x.new_zeros(places + 1).scatter(0, rows.origin, torch.ones_like(rows.size))[:places]

    def _slot(self, stage: int) -> int:
        """Of the package that a selector makes."""
        return stage if self.net.pruning.package == "append" else 0

    def _pooled(self, pool: Pool, rows: Rows, alive: Tensor, holder: Tensor) -> tuple[Rows, Tensor, Tensor]:
        """What `pool_gathered` does, by one gather: a place reads its patch's row, its package's, or zeros."""
        pruning, places = self.net.pruning, alive.shape[0]
        number = torch.ones_like(rows.origin).cumsum(dim=0)  # of each row, from 1; 0 is the row of zeros
        source = torch.zeros_like(torch.cat([holder, holder[:1]])).scatter(0, rows.origin, number)[:places]
        if pruning.refill == "package" and pruning.num_selectors:
            slots = torch.zeros(pruning.num_selectors + 1, dtype=torch.int64, device=number.device)
            source = torch.where(source > 0, source, slots.scatter(0, rows.slot, number)[holder])
        grid = torch.cat([torch.zeros_like(rows.x[:1]), rows.x])[source]
        x = pool.pooled(grid.unsqueeze(0))[0]  # (N', C')
        one = torch.ones_like(x[:, 0])
        living = pool.centres(alive.unsqueeze(0))[0] if pruning.after_pooling == "carry" else one
        origin = torch.arange(x.shape[0], device=x.device)
        patches = Rows(x, one, 0 * one, one, origin, torch.full_like(origin, pruning.num_selectors)).taken(living)
        others = rows.taken(1 - rows.patch)
        nowhere = torch.full_like(others.origin, x.shape[0])
        others = others._replace(x=pool.fc(others.x), origin=nowhere)
        prefix = self.net.config.num_prefix_tokens
        parts = ((ahead[:prefix], one, ahead[prefix:]) for ahead, one in zip(others, patches, strict=True))
        return Rows(*(torch.cat(part) for part in parts)), living, pool.centres(holder.unsqueeze(0))[0]

    def _pruned(self, stage: int, image: Tensor, rows: Rows) -> Rows:
        net, policy = self.net, self.net.pruning.package
        kept, weight = self._decide(stage, image, rows)
        dropped = rows.patch * (1 - kept)  # (T)
        if policy == "none":
            return rows.taken(1 - dropped)
        package, number = net.package(rows.x, weight, dropped).unsqueeze(0), dropped.sum(dim=0, keepdim=True)
        exists = torch.ones_like(number) if net.released else (number > 0).to(number.dtype)
        if policy == "append":
            alive = torch.cat([1 - dropped, exists])
        else:  # the older one becomes part of the new one
            older = rows.package.sum(dim=0, keepdim=True)
            package = package * exists + (rows.x * rows.package.unsqueeze(-1)).sum(dim=0, keepdim=True)
            number = number + (rows.size * rows.package).sum(dim=0, keepdim=True)
            alive = torch.cat([1 - dropped - rows.package, torch.maximum(older, exists)])
        return self._joined(rows, package, number, stage).taken(alive)

    def _decide(self, stage: int, image: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Of each row (T): 1 where it would be kept, else 0; and its weight in a package. Meaningful for patches."""
        net, x = self.net, rows.x
        counted = rows.patch + rows.package if net.released else rows.patch
        lead = 0 if net.config.num_prefix_tokens else 1
        if lead:  # there may be no row at all
            x, counted = torch.cat([torch.zeros_like(net.pos_embed[0, :1]), x]), torch.cat([x.new_zeros(1), counted])
        nothing = (x.new_zeros(1, 0, x.shape[1]), x.new_zeros(1, 0))
        score = net.score(stage, image, x.unsqueeze(0), counted.unsqueeze(0), nothing)
        return keep_decision(score.votes, score.weight, net.thresholds[stage])[0, lead:], score.package_weight[0, lead:]

    def _joined(self, rows: Rows, package: Tensor, size: Tensor, stage: int) -> Rows:
        """A package (1, C) of `size` (1) tokens behind the rows."""
        one = torch.ones_like(size)
        nowhere = torch.full_like(size, self.net.num_candidates[stage], dtype=torch.int64)
        last = Rows(package, torch.zeros_like(size), one, size, nowhere, torch.full_like(nowhere, self._slot(stage)))
        return Rows(*(torch.cat(both) for both in zip(rows, last, strict=True)))


def _padded(keep: Tensor, net: SPViT) -> Tensor:
    """Of a stage's grid (B, N) to that of the first stage."""
    return pad(keep, (0, net.config.num_patches - keep.shape[1]))


def _nothing(images: Tensor, net: SPViT) -> tuple[Tensor, Tensor]:
    """The decisions of an unpruned model: of no selector."""
    batch = images.shape[0]
    return images.new_zeros(batch, 0, net.config.num_patches), images.new_zeros(batch, 0, dtype=torch.int64)
