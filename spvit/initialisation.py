"""Untrained weights that behave like trained ones: a residual stream that grows, with some strong channels, logits
that differ between classes, and selectors that really part the tokens.

Enters: an SPViT and a seed. Its parameters are overwritten in place. For tests and dry runs, and where small models
start their training (timm's small weights leave attention over single pixels on a plateau for long).
"""

from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from spvit.config import ModelConfig, PruningConfig
from spvit.pruned_vit import SPViT
from spvit.rivals import wanted_keep
from spvit.token_selector import TokenSelector

GAINS = {"qkv": 1.2, "fc1": 1.3, "embed": 1.4, "head": 2.0, "head_dist": 2.0, "aux_head": 2.0}  # of 1/√inputs; others 1
SCORE_SPREAD = 1.5  # standard deviation of the log odds to be kept
NUM_IMAGES = 4


def seeded(model: ModelConfig, pruning: PruningConfig, seed: int = 0) -> SPViT:
    """An untrained SPViT whose activations and token counts look like a trained one's, the same for equal seeds.

    In evaluation mode. With a trained ViT's checkpoint at hand, load that; this is for tests and dry runs.
    """
    net = SPViT(model, pruning)
    initialise(net, seed)
    return net.eval()


@torch.no_grad()
def initialise(net: SPViT, seed: int) -> None:
    """Overwrite every parameter of `net`; each selector then keeps its configured fraction of made-up images.

    Leaves `net` in evaluation mode.
    """
    random = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        parameter.copy_(_draw(name, parameter.shape, random))
    for block in net.blocks:  # as in trained ViTs, a few channels of the residual stream carry far more than others
        for writer in (block.attn.proj, block.mlp.fc2):
            writer.weight.mul_(torch.exp(0.5 * torch.randn(writer.out_features, 1, generator=random)))
    if net.patch_embed.has_stem:
        _set_stem_statistics(net, torch.Generator().manual_seed(seed))
    _set_selectors(net, random)


@torch.no_grad()
def initialise_selectors(net: SPViT, seed: int) -> None:
    """As `initialise`, for the selectors alone, on the backbone that is there."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in net.selectors.named_parameters():
        parameter.copy_(_draw(name, parameter.shape, random))
    _set_selectors(net, random)


def _set_selectors(net: SPViT, random: torch.Generator) -> None:
    """Set each selector right before its first use, on what its predecessors leave over of made-up images."""
    net.eval()
    if net.pruning.method == "structured":
        _set_channel_selectors(net)
        return
    images = _smooth_images(net, random)
    if net.pruning.method != "selector":
        _set_thresholds(net, images)
        return
    with ExitStack() as hooks:
        alive_before, seen = 1.0, net.config.stages[0]
        for stage, (selector, location) in enumerate(zip(net.selectors, net.pruning.locations, strict=True)):
            keep, before, seen = wanted_keep(net.pruning, stage), seen, net.config.stage_of(location)
            if net.pruning.after_pooling == "revive" and seen != before:
                alive_before = 1.0
            spread = partial(_spread_scores, keep=keep / alive_before)
            hooks.callback(selector.register_forward_pre_hook(spread).remove)
            alive_before = keep
        net.forward_masked(images)


def _set_thresholds(net: SPViT, images: Tensor) -> None:
    """Where scores can't be moved, the thresholds are."""
    for stage in range(net.pruning.num_selectors):
        records = net.forward_masked(images).records
        candidates = records[stage].candidates.bool()
        ranked = records[stage].probability[candidates].sort(descending=True).values
        count = min(round(wanted_keep(net.pruning, stage) * candidates.numel()), len(ranked))
        net.thresholds[stage] = ranked[max(count, 1) - 1].clamp(min=2.0**-16)


def _set_channel_selectors(net: SPViT) -> None:
    """Each keeps its fraction of the channels, the largest of those that are left, from a threshold of 0.5 on."""
    living = torch.ones(net.config.embed_dim, dtype=torch.bool)
    for stage, (selector, location) in enumerate(zip(net.selectors, net.pruning.locations, strict=True)):
        selector.rank_by_magnitude(net.blocks[location:])
        ranked = selector.log_odds[living].sort(descending=True).values
        count = max(1, min(round(wanted_keep(net.pruning, stage) * len(living)), len(ranked)))
        border = ranked[count - 1 : count + 1].mean() if count < len(ranked) else ranked[-1]
        selector.log_odds.sub_(border)
        living &= selector.log_odds >= 0


def _draw(name: str, shape: torch.Size, random: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=random)
    *_, layer, kind = f".{name}".split(".")
    if "norm" in layer or layer.startswith("bn"):
        return 1 + 0.2 * values if kind == "weight" else 0.1 * values
    if kind == "weight":
        return values * GAINS.get(layer, 1.0) / shape[1:].numel() ** 0.5
    return 0.1 * values if kind == "bias" else 0.5 * values  # the others are tokens and positions


def _smooth_images(net: SPViT, random: torch.Generator) -> Tensor:
    """Images whose regions differ, as photographs' do: blurred noise under a little fine noise."""
    size, channels = net.config.img_size, net.config.in_chans
    coarse = torch.randn(NUM_IMAGES, channels, 4, 4, generator=random)
    fine = torch.randn(NUM_IMAGES, channels, size, size, generator=random)
    return 1.2 * interpolate(coarse, size=(size, size), mode="bicubic") + 0.3 * fine


def _spread_scores(selector: TokenSelector, inputs: tuple[Tensor, Tensor], keep: float) -> None:
    """Scale and shift the scorers' last layer: log odds spread by SCORE_SPREAD, and a fraction `keep` above even.

    Both numbers are rounded, so that the last bits of a machine's arithmetic do not reach the weights.
    """
    patches, candidates = inputs
    alive = candidates.bool()
    if not alive.any():
        return
    _set_running_statistics(selector, patches, candidates)

    def log_odds() -> Tensor:
        votes, weight = selector.forward(patches, candidates)  # not by call, which would come back here
        return torch.logit((votes / weight)[alive], eps=1e-6)

    last_layers = [scorer.fc3 for scorer in selector.scorers]
    spread = log_odds().std(correction=0).item()
    scale = max(round(8 * SCORE_SPREAD / max(spread, 0.01)) / 8, 1 / 8)
    for layer in last_layers:
        layer.weight.mul_(scale)
    biases = [layer.bias[0].clone() for layer in last_layers]
    low, high = -64.0, 64.0
    while high - low > 2**-7:
        shift = (low + high) / 2
        for layer, bias in zip(last_layers, biases, strict=True):
            layer.bias[0] = bias + shift
        low, high = (shift, high) if (log_odds() >= 0).float().mean() < keep else (low, shift)


def _set_stem_statistics(net: SPViT, random: torch.Generator) -> None:
    """Of the stem's BatchNorms: those of made-up images, rounded as in `_spread_scores`."""
    norms = [module for module in net.patch_embed.modules() if isinstance(module, nn.BatchNorm2d)]
    images = _smooth_images(net, random).to(net.pos_embed.dtype)
    for norm in norms:  # each behind those that are settled
        norm.momentum, momentum = 1.0, norm.momentum
        norm.train()
        net.patch_embed(images)
        norm.eval()
        norm.momentum = momentum
        norm.running_mean.mul_(2**10).round_().div_(2**10)
        norm.running_var.mul_(2**10).round_().clamp_(min=1).div_(2**10)
        norm.num_batches_tracked.zero_()


def _set_running_statistics(selector: TokenSelector, patches: Tensor, candidates: Tensor) -> None:
    """Of a convolution's BatchNorm: those of these patches, as if it had seen such all along."""
    norms = [scorer.norm for scorer in selector.scorers if isinstance(scorer.norm, nn.BatchNorm1d)]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        selector.train().forward(patches, candidates)
        selector.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
