"""Untrained weights that behave like trained ones: a residual stream that grows, with some strong channels, logits
that differ between classes, and selectors that really part the tokens.

Enters: an SPViT and a seed. Its parameters are overwritten in place. For tests and dry runs, and where small models
start their training (timm's small weights leave attention over single pixels on a plateau for long).
"""

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from spvit.pruned_vit import SPViT
    from spvit.token_selector import TokenSelector

GAINS = {"qkv": 1.2, "fc1": 1.3, "embed": 1.4, "head": 2.0, "head_dist": 2.0}  # of 1/√inputs; others 1
SCORE_SPREAD = 1.5  # standard deviation of the log odds to be kept
DEFAULT_STAGE_KEEP = 0.7  # fraction of its candidates that a selector keeps, where none is configured
NUM_IMAGES = 4


@torch.no_grad()
def initialise(net: "SPViT", seed: int) -> None:
    """Overwrite every parameter of `net`; each selector then keeps its configured fraction of made-up images.

    Leaves `net` in evaluation mode.
    """
    random = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        parameter.copy_(_draw(name, parameter.shape, random))
    for block in net.blocks:  # as in trained ViTs, a few channels of the residual stream carry far more than others
        for writer in (block.attn.proj, block.mlp.fc2):
            writer.weight.mul_(torch.exp(0.5 * torch.randn(writer.out_features, 1, generator=random)))
    _set_selectors(net, random)


@torch.no_grad()
def initialise_selectors(net: "SPViT", seed: int) -> None:
    """As `initialise`, for the selectors alone, on the backbone that is there."""
    random = torch.Generator().manual_seed(seed)
    for name, parameter in net.selectors.named_parameters():
        parameter.copy_(_draw(name, parameter.shape, random))
    _set_selectors(net, random)


def _set_selectors(net: "SPViT", random: torch.Generator) -> None:
    """Set each selector right before its first use, on what its predecessors leave over of made-up images."""
    with ExitStack() as hooks:
        alive_before = 1.0
        for stage, selector in enumerate(net.selectors):
            keep = net.pruning.keep[stage] if net.pruning.keep else DEFAULT_STAGE_KEEP ** (stage + 1)
            spread = partial(_spread_scores, keep=keep / alive_before)
            hooks.callback(selector.register_forward_pre_hook(spread).remove)
            alive_before = keep
        net.eval().forward_masked(_smooth_images(net, random))


def _draw(name: str, shape: torch.Size, random: torch.Generator) -> Tensor:
    values = torch.randn(shape, generator=random)
    *_, layer, kind = f".{name}".split(".")
    if "norm" in layer:
        return 1 + 0.2 * values if kind == "weight" else 0.1 * values
    if kind == "weight":
        return values * GAINS.get(layer, 1.0) / shape[1:].numel() ** 0.5
    return 0.1 * values if kind == "bias" else 0.5 * values  # the others are tokens and positions


def _smooth_images(net: "SPViT", random: torch.Generator) -> Tensor:
    """Images whose regions differ, as photographs' do: blurred noise under a little fine noise."""
    size, channels = net.config.img_size, net.config.in_chans
    coarse = torch.randn(NUM_IMAGES, channels, 4, 4, generator=random)
    fine = torch.randn(NUM_IMAGES, channels, size, size, generator=random)
    return 1.2 * interpolate(coarse, size=(size, size), mode="bicubic") + 0.3 * fine


def _spread_scores(selector: "TokenSelector", inputs: tuple[Tensor, Tensor], keep: float) -> None:
    """Scale and shift the scorers' last layer: log odds spread by SCORE_SPREAD, and a fraction `keep` above even.

    Both numbers are rounded, so that the last bits of a machine's arithmetic do not reach the weights.
    """
    patches, candidates = inputs
    alive = candidates.bool()
    if not alive.any():
        return

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
