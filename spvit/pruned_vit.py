"""SPViT: the backbone with token selectors between its blocks (paper, Figure 2).

Enters: normalised images (B, in_chans, S, S). Leaves: `Output`. One function in two forms with the same logits:
`forward_masked` keeps every token and masks the dead ones, so that it can be trained in batches;
`forward_gathered` really removes tokens, image by image, as the hardware does.
Token order: prefix (P), patches (N, or those that live), packages (M).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spvit.channel_pruning import ChannelSelector, run_narrow, run_narrow_norm, spare_the_best
from spvit.config import ModelConfig, PruningConfig, check_selectors_fit
from spvit.distributed import draw_exponential
from spvit.rivals import best_of_batch, random_scores, wanted_keep
from spvit.token_packager import join_package, join_package_masked, package_sum, package_token
from spvit.token_selector import TokenSelector, gumbel_decision, keep_decision, keep_probability
from spvit.vit import VisionTransformer

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class SelectorRecord:
    """What one selector did."""

    keep: Tensor  # (B, N) 1 where the original patch lives on, else 0; in training it carries a gradient
    probability: Tensor  # (B, N) what the threshold is held against, Eq. 6; 0 where the patch was no candidate
    num_tokens: Tensor  # (B) int64: tokens that go on to the next block, prefix and packages included
    of_channels: bool = False  # method="structured": (B, C), the channels in place of the patches

    @staticmethod
    def concatenate(records: Sequence["SelectorRecord"]) -> "SelectorRecord":
        """One selector's records of several batches as one of them all."""
        return SelectorRecord(
            torch.cat([record.keep for record in records]),
            torch.cat([record.probability for record in records]),
            torch.cat([record.num_tokens for record in records]),
            records[0].of_channels,
        )


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


@dataclass(frozen=True)
class Output:
    logits: Tensor  # (B, num_classes)
    patch_features: Tensor  # (B, N, C) after the last norm; 0 where the patch was dropped
    records: tuple[SelectorRecord, ...]  # one per selector

    @property
    def keep(self) -> Tensor:
        """(B, N) 1 where the original patch reached the end."""
        if self.records and not self.records[-1].of_channels:
            return self.records[-1].keep
        return self.patch_features.new_ones(self.patch_features.shape[:2])


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
        kinds = {
            "selector": lambda: TokenSelector(model, pruning),
            "structured": lambda: ChannelSelector(model.embed_dim),
        }
        make = kinds.get(pruning.method, nn.Identity)  # the other methods have nothing to learn
        self.selectors = nn.ModuleList(make() for _ in pruning.locations)
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
        num_prefix, num_patches = self.config.num_prefix_tokens, self.config.num_patches
        x = self.embed(images)
        batch = x.shape[0]
        prefix_alive, patches_alive = x.new_ones(batch, num_prefix), x.new_ones(batch, num_patches)
        packages_alive, package_sizes = x.new_ones(batch, 0), x.new_ones(batch, 0)
        records: list[SelectorRecord] = []
        alive = log_size = None
        for index, block in enumerate(self.blocks):
            if index in self.pruning.locations:
                prefix, patches, packages = x.tensor_split([num_prefix, num_prefix + num_patches], dim=1)
                candidates = patches_alive
                older = (packages, packages_alive)
                decision, score = self._decide(len(records), images, patches, candidates, older, generator)
                patches_alive = candidates * decision
                dropped = candidates - patches_alive
                package = self.package(patches, score.package_weight, dropped)
                number = dropped.detach().sum(dim=1)
                exists = torch.ones_like(number) if self.released else (number > 0).to(x.dtype)
                package_sizes, _ = join_package_masked(
                    package_sizes.unsqueeze(-1), packages_alive, number.unsqueeze(-1), exists, self.pruning.package
                )
                package_sizes = package_sizes.squeeze(-1)
                packages, packages_alive = join_package_masked(
                    packages, packages_alive, package, exists, self.pruning.package
                )
                x = torch.cat([prefix, patches, packages], dim=1)
                tokens = num_prefix + patches_alive.detach().sum(dim=1) + packages_alive.sum(dim=1)
                records.append(SelectorRecord(patches_alive, score.probability * candidates, tokens.long()))
                alive = torch.cat([prefix_alive, patches_alive, packages_alive], dim=1)
                log_size = self._log_size(num_prefix + num_patches, package_sizes)
            x = block(x, alive, log_size)
        features = self.norm(x)
        patch_features = features[:, num_prefix : num_prefix + num_patches] * patches_alive.detach().unsqueeze(-1)
        return Output(self.classify(features, alive), patch_features, tuple(records))

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
            votes = random_scores(images, self.config.num_patches, stage)
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
                records.append(SelectorRecord(channels, probability * candidates, tokens, of_channels=True))
                mask = channels.unsqueeze(1)
                x = x * mask
            x = block(x, channels=mask)
        features = self.norm(x, mask)
        return Output(self.classify(features), features[:, self.config.num_prefix_tokens :], tuple(records))

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
        return _stack([self._forward_one(image) for image in images.split(1)])

    def _forward_one(self, image: Tensor) -> Output:
        """One image (1, in_chans, S, S)."""
        if self.pruning.method == "structured":
            return self._forward_narrow(image)
        num_prefix, num_patches = self.config.num_prefix_tokens, self.config.num_patches
        x = self.embed(image)
        origin = torch.arange(num_patches, device=x.device)  # which original patch each living one is
        package_sizes = x.new_ones(0)
        records: list[SelectorRecord] = []
        for index, block in enumerate(self.blocks):
            if index in self.pruning.locations:
                x, origin, package_sizes, record = self._prune(len(records), image, x[0], origin, package_sizes)
                records.append(record)
            x = block(x, None, self._log_size(num_prefix + len(origin), package_sizes.unsqueeze(0)))
        features = self.norm(x)
        patch_features = features.new_zeros(1, num_patches, features.shape[-1])
        patch_features[0, origin] = features[0, num_prefix : num_prefix + len(origin)]
        return Output(self.classify(features), patch_features, tuple(records))

    def _prune(
        self, stage: int, image: Tensor, x: Tensor, origin: Tensor, package_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, SelectorRecord]:
        """Select and package the tokens (T, C) of one image.

        Returns those left (1, T', C), the living patches' origin, how many tokens each package holds, the record.
        """
        num_prefix, num_patches = self.config.num_prefix_tokens, self.config.num_patches
        prefix, patches, packages = x.tensor_split([num_prefix, num_prefix + len(origin)])
        keep, probability = x.new_zeros(1, num_patches), x.new_zeros(1, num_patches)
        if len(origin):  # no candidates: nothing to select
            older = (packages.unsqueeze(0), x.new_ones(1, len(packages)))
            score = self.score(stage, image, patches.unsqueeze(0), x.new_ones(1, len(origin)), older, origin)
            kept = keep_decision(score.votes, score.weight, self.thresholds[stage])[0].bool()
            away, weight = patches[~kept], score.package_weight[0, ~kept]
            probability[0, origin] = score.probability[0]
            patches, origin = patches[kept], origin[kept]
            keep[0, origin] = 1
        else:
            away, weight = patches, x.new_zeros(0)
        if len(away) or self.released:
            package = self.package(away, weight, x.new_ones(len(away)))
            packages = join_package(packages, package, self.pruning.package)
            package_sizes = join_package(package_sizes, x.new_tensor(len(away)), self.pruning.package)
        x = torch.cat([prefix, patches, packages]).unsqueeze(0)
        record = SelectorRecord(keep, probability, torch.tensor([x.shape[1]], device=x.device))
        return x, origin, package_sizes, record

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
                records.append(SelectorRecord(keep, votes * candidates, tokens, of_channels=True))
                x, living = x[..., keep[0, living].bool()], keep[0].nonzero()[:, 0]
            x = run_narrow(block, x, living)
        features = x.new_zeros(*x.shape[:2], width)
        features[..., living] = run_narrow_norm(self.norm, x, living)
        return Output(self.classify(features), features[:, self.config.num_prefix_tokens :], tuple(records))


def _stack(outputs: Sequence[Output]) -> Output:
    """One output per image to one of the batch."""
    stages = zip(*(output.records for output in outputs), strict=True)
    records = tuple(SelectorRecord.concatenate(stage) for stage in stages)
    logits = torch.cat([output.logits for output in outputs])
    return Output(logits, torch.cat([output.patch_features for output in outputs]), records)
