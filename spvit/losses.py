"""What training minimises (paper, Eq. 11 and 12).

Enters: a masked forward's `Output`, the targets, and what the unpruned teacher made of the same images. Means over the
batch are over that of all processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from spvit.distributed import mean_over_processes, sum_over_processes, world_size
from spvit.records import Output, SelectorRecord


@dataclass(frozen=True)
class LossWeights:
    """Eq. 12's λ."""

    kl: float = 0.5
    distill: float = 0.5
    ratio: float = 2.0


def spvit_loss(
    output: Output, targets: Tensor, teacher: Output, keep: Sequence[float], weights: LossWeights | None = None
) -> Tensor:
    """Eq. 12: classification, agreement with the teacher in logits and in kept tokens, and the kept fractions.

    targets  classes (B), or probabilities (B, classes)
    keep     wanted fractions of the original patches, one per selector
    weights  None: the paper's
    """
    weights = weights or LossWeights()
    return (
        cross_entropy(output.logits, targets)
        + weights.kl * logits_loss(output.logits, teacher.logits)
        + weights.distill * features_loss(output.patch_features, teacher.patch_features, output.keep)
        + weights.ratio * ratio_loss(output.records, keep)
    )


def logits_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence from the teacher's classes, temperature 1. Both (B, classes)."""
    return kl_div(student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean")


def features_loss(student: Tensor, teacher: Tensor, keep: Tensor) -> Tensor:
    """Mean squared difference of the patches that are kept to the end; none kept, none lost.

    student, teacher (B, N, C) after the last norm; keep (B, N)
    """
    kept = keep.detach()
    squares = (student - teacher).square().mean(dim=-1)  # (B, N)
    per_process = sum_over_processes(kept.sum()) / world_size()  # gradients are averaged over the processes
    return (squares * kept).sum() / per_process.clamp(min=1 / world_size())


def ratio_loss(records: Sequence[SelectorRecord], keep: Sequence[float]) -> Tensor:
    """Eq. 11: squared distance between kept and wanted fraction of the original patches, averaged over selectors.

    The mean runs over the batch before it is squared, so that an image may keep more than another.
    """
    assert len(keep) == len(records), f"{len(keep)} fractions for {len(records)} selectors"
    kept = mean_over_processes(torch.stack([record.keep.mean() for record in records]))
    return (kept - kept.new_tensor(list(keep))).square().mean()
