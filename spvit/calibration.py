"""Thresholds: how probable a token must be to be kept. Those of training, or such that as many stay as was asked for.

Enters: a trained SPViT and images. Leaves: its thresholds, set; and what the images then keep.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from spvit.budget import Cost
from spvit.checkpoint_options import CALIBRATE, MIN_THRESHOLD, ThresholdRequest
from spvit.checkpoints import LoadReport
from spvit.cost import count_macs, num_units
from spvit.errors import ConfigError
from spvit.pruned_vit import SPViT
from spvit.records import SelectorRecord

BATCH = 64
ATTEMPTS = 8
COSTED_IMAGES = 512  # over as many the mean cost is taken


def settle_thresholds(net: SPViT, images: Tensor, request: ThresholdRequest, found: LoadReport | None) -> str:
    """Set the net's thresholds as is asked for; else trained selectors keep theirs, and fresh ones are calibrated.

    images  (B, in_chans, S, S), normalised, to calibrate with
    found   what the weights' file was; None: there was none
    Returns which they are, why, and what the images keep, in words; "" without selectors. `net.pruning.keep` is then
    what the thresholds were made for, () where nobody knows. Raises ConfigError.
    """
    keep, trained = net.pruning.keep, found is not None and found.selectors_found
    if not net.pruning.num_selectors:
        return ""
    made_for = found.calibrated_keep if found is not None and trained else ()
    if request.value is not None:
        net.thresholds.fill_(request.value)
        why, made_for = "as THRESHOLD= asks", ()
    elif keep and (request.calibrate or not trained or (request.keep_asked and made_for != keep)):
        calibrate_thresholds(net, images, keep)
        why, made_for = f"calibrated for KEEP={_listed(keep)}", keep
    elif trained:
        why = f"the checkpoint's own (THRESHOLD={CALIBRATE} fits them to KEEP=)"
    else:
        why = "as they are before any training"
    net.pruning = replace(net.pruning, keep=made_for)
    units = torch.tensor(num_units(net.config, net.pruning))
    kept = kept_patches(net, images).double().mean(dim=0) / units
    thresholds = ", ".join(f"{threshold:.4g}" for threshold in net.thresholds.tolist())
    what = "channels" if net.pruning.method == "structured" else "patches"
    return f"{thresholds}, {why}, which keep {', '.join(f'{part:.1%}' for part in kept.tolist())} of the {what}"


def _listed(fractions: Sequence[float]) -> str:
    return ",".join(f"{fraction:g}" for fraction in fractions)


@torch.no_grad()
def calibrate_thresholds(net: SPViT, images: Tensor, target_keep: Sequence[float], nearest: bool = False) -> Tensor:
    """Set `net.thresholds` so that, over the images, the mean kept fractions are the wanted ones.

    images       (B, in_chans, S, S), normalised
    target_keep  cumulative fractions of the original patches, one per selector
    nearest      take 2**-16 where a lower threshold would be needed, so that a few patches fewer are kept
    Returns the patches that each image keeps, (B, selectors). Else raises ConfigError for a threshold below 2**-16,
    which fixed point could not tell from zero; the thresholds are then as they were.
    """
    if len(target_keep) != net.pruning.num_selectors:
        raise ConfigError(
            f"keep={list(target_keep)} must have one fraction per selector, locations={list(net.pruning.locations)}"
        )
    before = net.thresholds.clone()
    for stage, fraction in enumerate(target_keep):
        # later selectors don't matter yet; earlier ones are set, and leave the candidates for this one
        records = _records(net, images, stage)
        candidates = records[stage].candidates.bool()
        scores = records[stage].probability[candidates].double()
        threshold = threshold_for(scores, round(fraction * candidates.numel()))
        if nearest:
            threshold = max(threshold, MIN_THRESHOLD)
        if threshold < MIN_THRESHOLD:
            net.thresholds.copy_(before)
            raise ConfigError(
                f"keep={fraction}: for so many, selector {stage} needs the threshold {threshold:.2g}, below 2**-16; "
                f"ask for at most {scores.ge(MIN_THRESHOLD).sum() / candidates.numel():.3f}"
            )
        net.thresholds[stage] = threshold
    return kept_patches(net, images)


def threshold_for(scores: Tensor, count: int) -> float:
    """A threshold that `count` of the scores (n) reach, half way to the next; fewer scores are all kept."""
    ordered = [1.0, *scores.sort(descending=True).values.tolist(), 0.0]
    reached = min(count, len(scores))
    lowest_kept, highest_dropped = ordered[reached], ordered[reached + 1]
    return max((lowest_kept + highest_dropped) / 2, min(lowest_kept, MIN_THRESHOLD))


def calibrate_cost(
    net: SPViT, images: Tensor, target_keep: Sequence[float], cost: Cost, target: float, tolerance: float
) -> tuple[tuple[float, ...], Tensor]:
    """Set `net.thresholds` so that the images' mean cost is within `tolerance` of `target`.

    With the mean kept fractions as wanted, the mean cost is a little more than that of an image that keeps just these,
    since attention costs the square of its tokens: then all fractions are raised to one power until the cost is met.

    cost       of the patches kept after each selector
    target     in the cost's unit
    tolerance  as a fraction of it
    Returns the fractions, the wanted ones if they do, and the patches that each image keeps. Where many tokens score
    the same, a threshold parts them all or none, and the nearest that there is remains: `mean_cost` tells.
    """
    low, high, power = 0.5, 2.0, 1.0
    best_miss, best = math.inf, tuple(target_keep)
    for _ in range(ATTEMPTS):
        keep = tuple(round(fraction**power, 6) for fraction in target_keep) if power != 1 else tuple(target_keep)
        miss = mean_cost(calibrate_thresholds(net, images, keep, nearest=True), cost) / target - 1
        if abs(miss) < best_miss:
            best_miss, best = abs(miss), keep
        if best_miss <= tolerance:
            break
        low, high = (power, high) if miss > 0 else (low, power)
        power = (low + high) / 2
    return best, calibrate_thresholds(net, images, best, nearest=True)


def mean_cost(kept: Tensor, cost: Cost) -> float:
    """Mean cost of images that keep so many patches (B, selectors); of evenly spaced ones where there are many."""
    chosen = torch.linspace(0, len(kept) - 1, min(len(kept), COSTED_IMAGES)).round().long()
    counts = Counter(map(tuple, kept[chosen].tolist()))
    return sum(cost(patches) * images for patches, images in counts.items()) / len(chosen)


@torch.no_grad()
def kept_patches(net: SPViT, images: Tensor) -> Tensor:
    """Patches that live after each selector at inference, (B, selectors) int64."""
    records = _records(net, images, net.pruning.num_selectors - 1)
    counts = [record.keep.sum(dim=1).long().cpu() for record in records]
    return torch.stack(counts, dim=1) if counts else torch.zeros(len(images), 0, dtype=torch.long)


def mean_macs(net: SPViT, kept: Tensor) -> float:
    """Mean cost of images that keep so many patches (B, selectors)."""
    costs = [count_macs(net.config, net.pruning, counts).total for counts in kept.tolist()]
    return sum(costs) / len(costs)


def _records(net: SPViT, images: Tensor, last: int) -> list[SelectorRecord]:
    """The records of the selectors up to `last`, over all the images, as inference makes them."""
    was_training = net.training
    net.eval()
    batches = [net.forward_masked(batch.to(net.pos_embed.device)).records for batch in images.split(BATCH)]
    net.train(was_training)
    return [SelectorRecord.concatenate(stage) for stage in zip(*batches, strict=True)][: last + 1]
