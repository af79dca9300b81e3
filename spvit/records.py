"""What a forward pass of an SPViT leaves: logits, the patches' features, and what each selector did.

Shapes: B images, N patches of the grid that a stage sees, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SelectorRecord:
    """What one selector did."""

    keep: Tensor  # (B, N) 1 where the patch lives on, else 0; in training it carries a gradient
    probability: Tensor  # (B, N) what the threshold is held against, Eq. 6; 0 where the patch was no candidate
    num_tokens: Tensor  # (B) int64: tokens that go on to the next block, prefix and packages included
    candidates: Tensor  # (B, N) 1 where the patch was alive before, else 0
    of_channels: bool = False  # method="structured": (B, C), the channels in place of the patches

    @staticmethod
    def concatenate(records: Sequence["SelectorRecord"]) -> "SelectorRecord":
        """One selector's records of several batches as one of them all."""
        return SelectorRecord(
            torch.cat([record.keep for record in records]),
            torch.cat([record.probability for record in records]),
            torch.cat([record.num_tokens for record in records]),
            torch.cat([record.candidates for record in records]),
            records[0].of_channels,
        )


@dataclass(frozen=True)
class Output:
    logits: Tensor  # (B, num_classes)
    patch_features: Tensor  # (B, N, C) of the last stage after the last norm; 0 where no patch lives
    records: tuple[SelectorRecord, ...]  # one per selector
    keep: Tensor  # (B, N) 1 where a patch of the last stage reached the end

    @staticmethod
    def concatenate(outputs: Sequence["Output"]) -> "Output":
        """One output per batch to one of them all."""
        stages = zip(*(output.records for output in outputs), strict=True)
        return Output(
            torch.cat([output.logits for output in outputs]),
            torch.cat([output.patch_features for output in outputs]),
            tuple(SelectorRecord.concatenate(stage) for stage in stages),
            torch.cat([output.keep for output in outputs]),
        )
