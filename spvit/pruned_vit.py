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

from spvit.config import ModelConfig, PruningConfig, check_selectors_fit
from spvit.initialisation import initialise
from spvit.token_packager import join_package, join_package_masked, package_token
from spvit.token_selector import TokenSelector, gumbel_decision, keep_decision, keep_probability
from spvit.vit import VisionTransformer

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class SelectorRecord:
    """What one selector did."""

    keep: Tensor  # (B, N) 1 where the original patch lives on, else 0; in training it carries a gradient
    probability: Tensor  # (B, N) keep probability of Eq. 6; 0 where the patch was no candidate
    num_tokens: Tensor  # (B) int64: tokens that go on to the next block, prefix and packages included

    @staticmethod
    def concatenate(records: Sequence["SelectorRecord"]) -> "SelectorRecord":
        """One selector's records of several batches as one of them all."""
        return SelectorRecord(
            torch.cat([record.keep for record in records]),
            torch.cat([record.probability for record in records]),
            torch.cat([record.num_tokens for record in records]),
        )


@dataclass(frozen=True)
class Output:
    logits: Tensor  # (B, num_classes)
    patch_features: Tensor  # (B, N, C) after the last norm; 0 where the patch was dropped
    records: tuple[SelectorRecord, ...]  # one per selector

    @property
    def keep(self) -> Tensor:
        """(B, N) 1 where the original patch reached the end."""
        return self.records[-1].keep if self.records else self.patch_features.new_ones(self.patch_features.shape[:2])


class SPViT(VisionTransformer):
    """The pruned transformer; without locations in its pruning, the plain one.

    thresholds  (selectors) keep probability from which a token is kept at inference; 0.5 until calibrated
    """

    thresholds: Tensor

    def __init__(self, model: ModelConfig, pruning: PruningConfig) -> None:
        check_selectors_fit(model, pruning)
        super().__init__(model)
        self.pruning = pruning
        self.selectors = nn.ModuleList(TokenSelector(model, pruning) for _ in pruning.locations)
        self.register_buffer("thresholds", torch.full((pruning.num_selectors,), DEFAULT_THRESHOLD))

    def forward(self, images: Tensor) -> Output:
        return self.forward_masked(images) if self.training else self.forward_gathered(images)

    def forward_masked(self, images: Tensor, generator: torch.Generator | None = None) -> Output:
        """All tokens, the dead ones masked.

        In training mode, selectors draw from the Gumbel-softmax (with `generator`, or torch's own); in evaluation
        mode they compare with their thresholds, and the logits equal `forward_gathered`'s.
        """
        num_prefix, num_patches = self.config.num_prefix_tokens, self.config.num_patches
        x = self.embed(images)
        prefix_alive, patches_alive = x.new_ones(len(x), num_prefix), x.new_ones(len(x), num_patches)
        packages_alive = x.new_ones(len(x), 0)
        records: list[SelectorRecord] = []
        for index, block in enumerate(self.blocks):
            if index in self.pruning.locations:
                prefix, patches, packages = x.tensor_split([num_prefix, num_prefix + num_patches], dim=1)
                candidates = patches_alive
                decision, probability = self._decide(len(records), patches, candidates, generator)
                patches_alive = candidates * decision
                dropped = candidates - patches_alive
                package = package_token(patches, probability, dropped)
                any_dropped = (dropped.detach().sum(dim=1) > 0).to(x.dtype)
                packages, packages_alive = join_package_masked(
                    packages, packages_alive, package, any_dropped, self.pruning.package
                )
                x = torch.cat([prefix, patches, packages], dim=1)
                tokens = num_prefix + patches_alive.detach().sum(dim=1) + packages_alive.sum(dim=1)
                records.append(SelectorRecord(patches_alive, probability * candidates, tokens.long()))
            alive = torch.cat([prefix_alive, patches_alive, packages_alive], dim=1) if records else None
            x = block(x, alive)
        features = self.norm(x)
        patch_features = features[:, num_prefix : num_prefix + num_patches] * patches_alive.detach().unsqueeze(-1)
        return Output(self.classify(features), patch_features, tuple(records))

    def _decide(
        self, stage: int, patches: Tensor, candidates: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """The selector's decision and keep probability, both (B, N), on patches (B, N, C)."""
        votes, weight = self.selectors[stage](patches, candidates)
        probability = keep_probability(votes, weight)
        if self.training:
            return gumbel_decision(probability, generator), probability
        return keep_decision(votes, weight, self.thresholds[stage]), probability

    def forward_gathered(self, images: Tensor) -> Output:
        """Only living tokens, each image with as many as it has left. Decides by threshold in either mode."""
        return _stack([self._forward_one(image) for image in images.split(1)])

    def _forward_one(self, image: Tensor) -> Output:
        """One image (1, in_chans, S, S)."""
        num_prefix, num_patches = self.config.num_prefix_tokens, self.config.num_patches
        x = self.embed(image)
        origin = torch.arange(num_patches, device=x.device)  # which original patch each living one is
        records: list[SelectorRecord] = []
        for index, block in enumerate(self.blocks):
            if index in self.pruning.locations:
                x, origin, record = self._prune(len(records), x[0], origin)
                records.append(record)
            x = block(x)
        features = self.norm(x)
        patch_features = features.new_zeros(1, num_patches, features.shape[-1])
        patch_features[0, origin] = features[0, num_prefix : num_prefix + len(origin)]
        return Output(self.classify(features), patch_features, tuple(records))

    def _prune(self, stage: int, x: Tensor, origin: Tensor) -> tuple[Tensor, Tensor, SelectorRecord]:
        """Select and package the tokens (T, C) of one image; returns those left (1, T', C) and their origin."""
        num_prefix, num_patches = self.config.num_prefix_tokens, self.config.num_patches
        prefix, patches, packages = x.tensor_split([num_prefix, num_prefix + len(origin)])
        keep, probability = x.new_zeros(1, num_patches), x.new_zeros(1, num_patches)
        if len(origin):  # no candidates: nothing to select
            votes, weight = self.selectors[stage](patches.unsqueeze(0), x.new_ones(1, len(origin)))
            kept = keep_decision(votes, weight, self.thresholds[stage])[0].bool()
            scores = keep_probability(votes, weight)[0]
            if not kept.all():
                away = patches[~kept]
                package = package_token(away, scores[~kept], x.new_ones(len(away)))
                packages = join_package(packages, package, self.pruning.package)
            probability[0, origin] = scores
            patches, origin = patches[kept], origin[kept]
            keep[0, origin] = 1
        x = torch.cat([prefix, patches, packages]).unsqueeze(0)
        return x, origin, SelectorRecord(keep, probability, torch.tensor([x.shape[1]], device=x.device))


def _stack(outputs: Sequence[Output]) -> Output:
    """One output per image to one of the batch."""
    stages = zip(*(output.records for output in outputs), strict=True)
    records = tuple(SelectorRecord.concatenate(stage) for stage in stages)
    logits = torch.cat([output.logits for output in outputs])
    return Output(logits, torch.cat([output.patch_features for output in outputs]), records)


def seeded(model: ModelConfig, pruning: PruningConfig, seed: int = 0) -> SPViT:
    """An untrained SPViT whose activations and token counts look like a trained one's, the same for equal seeds.

    In evaluation mode. With a trained ViT's checkpoint at hand, load that; this is for tests and dry runs.
    """
    net = SPViT(model, pruning)
    initialise(net, seed)
    return net.eval()
