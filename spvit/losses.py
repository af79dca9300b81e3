"""What training minimises (paper, Eq. 11 and 12).

Enters: a masked forward's `Output`, the labels, and what the unpruned teacher made of the same images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from spvit.pruned_vit import Output, SelectorRecord

WEIGHT_KL = 0.5
WEIGHT_DISTILL = 0.5
WEIGHT_RATIO = 2.0


def spvit_loss(output: Output, labels: Tensor, teacher: Output, keep: Sequence[float]) -> Tensor:
    """Eq. 12: classification, agreement with the teacher in logits and in kept tokens, and the kept fractions."""
    return (
        cross_entropy(output.logits, labels)
        + WEIGHT_KL * logits_loss(output.logits, teacher.logits)
        + WEIGHT_DISTILL * features_loss(output.patch_features, teacher.patch_features, output.keep)
        + WEIGHT_RATIO * ratio_loss(output.records, keep)
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
    return (squares * kept).sum() / kept.sum().clamp(min=1)


def ratio_loss(records: Sequence[SelectorRecord], keep: Sequence[float]) -> Tensor:
    """Eq. 11: squared distance between kept and wanted fraction of the original patches, averaged over selectors.

    The mean runs over the batch before it is squared, so that an image may keep more than another.
    """
    distances = [record.keep.mean() - fraction for record, fraction in zip(records, keep, strict=True)]
    return torch.stack(distances).square().mean()
