"""SPViT: the backbone with token selectors between its blocks (paper, Figure 2).

Enters: normalised images (B, in_chans, S, S). Leaves: `Output`. One function in two forms with the same logits:
`forward_masked` keeps every token and masks the dead ones, so that it can be trained in batches;
`forward_gathered` really removes tokens, image by image, as the hardware does.
Token order: prefix (P), patches (N, or those that live), packages (M).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spvit.channel_pruning import ChannelSelector, run_narrow, run_narrow_norm, spare_the_best
from spvit.config import ModelConfig, PruningConfig, check_selectors_fit
from spvit.distributed import draw_exponential
from spvit.model_config import Stage
from spvit.records import Output, SelectorRecord
from spvit.rivals import best_of_batch, random_scores, wanted_keep
from spvit.token_packager import join_package, join_package_masked, package_sum, package_token
from spvit.token_pooling import pool_gathered, pool_masked
from spvit.token_selector import TokenSelector, gumbel_decision, keep_decision, keep_probability
from spvit.tokens import GatheredTokens, MaskedTokens
from spvit.vit import VisionTransformer

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Score:
    """What a selector says of each patch, all (B, n): kept where votes >= threshold * weight."""

    votes: Tensor
    weight: Tensor
    probability: Tensor  # their ratio
    package_weight: Tensor  # what the patch weighs in a package

    @classmethod
    def of(cls, votes: Tensor, weight: Tensor) -> "Score":
        """By the paper's rules: one probability, Eq. 6, both decides and weighs."""
        probability = keep_probability(votes, weight)
        return cls(votes, weight, probability, probability)


def make_selector(stage: Stage, pruning: PruningConfig) -> nn.Module:
    """What there is to learn of a selector before a block of the stage."""
    if pruning.method == "selector":
        return TokenSelector(stage, pruning)
    return ChannelSelector(stage.embed_dim) if pruning.method == "structured" else nn.Identity()


class SPViT(VisionTransformer):
    """The pruned transformer; without locations in its pruning, the plain one.

    thresholds  (selectors) keep probability from which a token is kept at inference; 0.5 until calibrated
    """

    thresholds: Tensor

    def __init__(self, model: ModelConfig, pruning: PruningConfig) -> None:
        check_selectors_fit(model, pruning)
        super().__init__(model)
        self.pruning = pruning
        self.released = pruning.rules == "released"  # four rules of the authors' code: docs/released_code.md
        stages = [model.stage_of(location) for location in pruning.locations]
        self.num_candidates = [stage.num_patches for stage in stages]  # of each selector, at most
        self.selectors = nn.ModuleList(make_selector(stage, pruning) for stage in stages)
        if pruning.method == "class_attention":
            for location in pruning.locations:
                self.blocks[location - 1].attn.keeps_class_row = True
        self.register_buffer("thresholds", torch.full((pruning.num_selectors,), DEFAULT_THRESHOLD))

    def forward(self, images: Tensor) -> Output:
        return self.forward_masked(images) if self.training else self.forward_gathered(images)

    def forward_masked(self, images: Tensor, generator: torch.Generator | None = None) -> Output:
        """All tokens, the dead ones masked.

        In training mode, selectors draw from the Gumbel-softmax (with `generator`, or torch's own); in evaluation
        mode they compare with their thresholds, and the logits equal `forward_gathered`'s.
        """
        if self.pruning.method == "structured":
            return self._forward_masked_channels(images, generator)
        tokens, records = MaskedTokens.whole(self.embed(images), self.config.num_prefix_tokens), list[SelectorRecord]()
        for index, block in enumerate(self.blocks):
            if (pool := self.pool_before(index)) is not None:
                tokens = pool_masked(pool, tokens, self.pruning)
            if index in self.pruning.locations:
                tokens, record = self._prune_masked(len(records), images, tokens, generator)
                records.append(record)
            num_singles = tokens.prefix.shape[1] + tokens.patches.shape[1]
            log_size = self._log_size(num_singles, tokens.package_sizes) if records else None
            tokens = tokens.with_rows(block(tokens.x, tokens.alive if records else None, log_size))
        features = self.norm(tokens.x)
        tokens = tokens.with_rows(features)
        logits = self.classify(features, tokens.alive if records else None, tokens.living_patches)
        patch_features = tokens.patches * tokens.patches_alive.detach().unsqueeze(-1)
        return Output(logits, patch_features, tuple(records), tokens.patches_alive)

    def _prune_masked(
        self, stage: int, images: Tensor, tokens: MaskedTokens, generator: torch.Generator | None
    ) -> tuple[MaskedTokens, SelectorRecord]:
        """Select and package."""
        patches, candidates, policy = tokens.patches, tokens.patches_alive, self.pruning.package
        older = (tokens.packages, tokens.packages_alive)
        decision, score = self._decide(stage, images, patches, candidates, older, generator)
        alive = candidates * decision
        dropped = candidates - alive
        package = self.package(patches, score.package_weight, dropped)
        number = dropped.detach().sum(dim=1)
        exists = torch.ones_like(number) if self.released else (number > 0).to(patches.dtype)
        sizes, _ = join_package_masked(
            tokens.package_sizes.unsqueeze(-1), tokens.packages_alive, number.unsqueeze(-1), exists, policy
        )
        packages, packages_alive = join_package_masked(*older, package, exists, policy)
        left = replace(
            tokens, patches_alive=alive, packages=packages, packages_alive=packages_alive,
            package_sizes=sizes.squeeze(-1),
            holder=tokens.holder.masked_fill(dropped.detach() > 0, max(packages.shape[1] - 1, 0)),
        )  # fmt: skip
        count = tokens.prefix.shape[1] + alive.detach().sum(dim=1) + packages_alive.sum(dim=1)
        return left, SelectorRecord(alive, score.probability * candidates, count.long(), candidates.detach())

    def _decide(
        self,
        stage: int,
        images: Tensor,
        patches: Tensor,
        candidates: Tensor,
        older: tuple[Tensor, Tensor],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, "Score"]:
        """The selector's decision (B, N), and its scores, on patches (B, N, C); the others as in `score`."""
        score = self.score(stage, images, patches, candidates, older)
        if not self.training:
            return keep_decision(score.votes, score.weight, self.thresholds[stage]), score
        if self.pruning.method not in ("class_attention", "random"):
            return gumbel_decision(score.probability, generator), score
        votes = score.votes  # no gradient, no threshold yet
        if self.pruning.method == "random":
            votes = draw_exponential(votes, generator).neg().exp()  # uniform in 0..1
        drawn = Score.of(votes, torch.ones_like(votes))
        return best_of_batch(votes, candidates, wanted_keep(self.pruning, stage)), drawn

    def score(
        self,
        stage: int,
        images: Tensor,
        patches: Tensor,
        candidates: Tensor,
        older: tuple[Tensor, Tensor],
        origin: Tensor | None = None,
    ) -> "Score":
        """Scores of the patches (B, n, C) by the configured method and rules.

        candidates  (B, n) of 0 and 1
        older       the packages so far (B, m, C), and which of them are alive (B, m)
        origin      (n) which of the original patches they are; None: these are all of them
        """
        if self.released:
            packages, packages_alive = older
            counted = torch.cat([candidates, packages_alive], dim=1)
            scores = self.selectors[stage].released(torch.cat([patches, packages], dim=1), counted)
            probability, package_weight = (score[:, : patches.shape[1]] for score in scores)
            return Score(probability, torch.ones_like(probability), probability, package_weight)
        if self.pruning.method == "selector":
            return Score.of(*self.selectors[stage](patches, candidates))
        if self.pruning.method == "class_attention":
            row, first = self.blocks[self.pruning.locations[stage] - 1].attn.class_row, self.config.num_prefix_tokens
            votes = row[:, first : first + patches.shape[1]]
        else:
            drawn_before = sum(self.num_candidates[:stage])
            votes = random_scores(images, self.num_candidates[stage], drawn_before)
            votes = votes if origin is None else votes[:, origin]
        return Score.of(votes, torch.ones_like(votes))

    def package(self, tokens: Tensor, weight: Tensor, dropped: Tensor) -> Tensor:
        return (package_sum if self.released else package_token)(tokens, weight, dropped)

    def _log_size(self, num_singles: int, package_sizes: Tensor) -> Tensor | None:
        """How many tokens each token stands for, its logarithm (B, num_singles + packages); None: nobody asks."""
        if not self.pruning.proportional_attention:
            return None
        singles = package_sizes.new_zeros(package_sizes.shape[0], num_singles)
        return torch.cat([singles, package_sizes.clamp(min=1).log()], dim=1)

    def _forward_masked_channels(self, images: Tensor, generator: torch.Generator | None) -> Output:
        """`forward_masked` where channels are dropped in place of tokens."""
        x = self.embed(images)
        channels, records = x.new_ones(len(x), x.shape[-1]), list[SelectorRecord]()
        mask: Tensor | None = None
        for index, block in enumerate(self.blocks):
            if index in self.pruning.locations:
                decision, probability = self._decide_channels(len(records), channels, generator)
                tokens = torch.full((len(x),), x.shape[1], device=x.device)
                candidates, channels = channels, channels * decision
                records.append(SelectorRecord(channels, probability * candidates, tokens, candidates, of_channels=True))
                mask = channels.unsqueeze(1)
                x = x * mask
            x = block(x, channels=mask)
        return self._whole_output(self.norm(x, mask), records)

    def _whole_output(self, features: Tensor, records: list[SelectorRecord]) -> Output:
        """Where every token is there: of the features (B, T, C) after the last norm."""
        patch_features = features[:, self.config.num_prefix_tokens :]
        everywhere = torch.ones_like(patch_features[..., 0])
        return Output(self.classify(features), patch_features, tuple(records), everywhere)

    def _decide_channels(
        self, stage: int, candidates: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `_decide`, of channels (B, C)."""
        votes, weight = self.selectors[stage](candidates)
        if self.training:
            decision = gumbel_decision(votes, generator)
        else:
            decision = keep_decision(votes, weight, self.thresholds[stage])
        return spare_the_best(decision, votes, candidates), votes

    def forward_gathered(self, images: Tensor) -> Output:
        """Only living tokens, each image with as many as it has left. Decides by threshold in either mode."""
        return Output.concatenate([self._forward_one(image) for image in images.split(1)])

    def _forward_one(self, image: Tensor) -> Output:
        """One image (1, in_chans, S, S)."""
        if self.pruning.method == "structured":
            return self._forward_narrow(image)
        tokens, records = (
            GatheredTokens.whole(self.embed(image)[0], self.config.num_prefix_tokens),
            list[SelectorRecord](),
        )
        for index, block in enumerate(self.blocks):
            if (pool := self.pool_before(index)) is not None:
                tokens = pool_gathered(pool, tokens, self.pruning)
            if index in self.pruning.locations:
                tokens, record = self._prune(len(records), image, tokens)
                records.append(record)
            num_singles = len(tokens.prefix) + len(tokens.patches)
            log_size = self._log_size(num_singles, tokens.package_sizes.unsqueeze(0))
            tokens = tokens.with_rows(block(tokens.x, None, log_size))
        features, first = self.norm(tokens.x), len(tokens.prefix)
        living = features[0, first : first + len(tokens.patches)]
        patch_features = features.new_zeros(1, len(tokens.holder), features.shape[-1])
        patch_features[0, tokens.origin] = living
        keep = features.new_zeros(1, len(tokens.holder)).index_fill(1, tokens.origin, 1)
        return Output(self.classify(features, None, tokens.living_patches), patch_features, tuple(records), keep)

    def _prune(self, stage: int, image: Tensor, tokens: GatheredTokens) -> tuple[GatheredTokens, SelectorRecord]:
        """Select and package the tokens of one image."""
        patches, packages, origin, policy = tokens.patches, tokens.packages, tokens.origin, self.pruning.package
        sizes, holder = tokens.package_sizes, tokens.holder
        keep, probability = patches.new_zeros(1, len(holder)), patches.new_zeros(1, len(holder))
        candidates = keep.index_fill(1, origin, 1)
        if len(origin):  # no candidates: nothing to select
            older = (packages.unsqueeze(0), patches.new_ones(1, len(packages)))
            score = self.score(stage, image, patches.unsqueeze(0), patches.new_ones(1, len(origin)), older, origin)
            kept = keep_decision(score.votes, score.weight, self.thresholds[stage])[0].bool()
            away, weight, places = patches[~kept], score.package_weight[0, ~kept], origin[~kept]
            probability[0, origin] = score.probability[0]
            patches, origin = patches[kept], origin[kept]
            keep[0, origin] = 1
        else:
            away, weight, places = patches, patches.new_zeros(0), origin
        if len(away) or self.released:
            package = self.package(away, weight, patches.new_ones(len(away)))
            packages = join_package(packages, package, policy)
            sizes = join_package(sizes, patches.new_tensor(len(away)), policy)
            holder = holder.index_fill(0, places, max(len(packages) - 1, 0))
        left = GatheredTokens(tokens.prefix, patches, packages, origin, sizes, holder)
        count = torch.tensor([left.x.shape[1]], device=patches.device)
        return left, SelectorRecord(keep, probability, count, candidates)

    def _forward_narrow(self, image: Tensor) -> Output:
        """One image (1, in_chans, S, S), the dropped channels really gone."""
        x = self.embed(image)
        width = x.shape[-1]
        living = torch.arange(width, device=x.device)
        records: list[SelectorRecord] = []
        for index, block in enumerate(self.blocks):
            if index in self.pruning.locations:
                stage, candidates = len(records), x.new_zeros(1, width)
                candidates[0, living] = 1
                votes, weight = self.selectors[stage](candidates)
                decision = spare_the_best(keep_decision(votes, weight, self.thresholds[stage]), votes, candidates)
                keep = candidates * decision
                tokens = torch.tensor([x.shape[1]], device=x.device)
                records.append(SelectorRecord(keep, votes * candidates, tokens, candidates, of_channels=True))
                x, living = x[..., keep[0, living].bool()], keep[0].nonzero()[:, 0]
            x = run_narrow(block, x, living)
        features = x.new_zeros(*x.shape[:2], width)
        features[..., living] = run_narrow_norm(self.norm, x, living)
        return self._whole_output(features, records)
