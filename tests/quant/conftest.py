"""A micro network in every stage of quantization, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from quant.calibrate import choose_formats, observe_ranges
from quant.export import to_network
from quant.fold import FoldedNetwork, fold
from quant.model import Formats, QuantizedSPViT
from quant.network import QuantizedNetwork
from spvit.config import resolve_model
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT


@dataclass(frozen=True)
class Stages:
    net: SPViT
    folded: FoldedNetwork
    pixels: Tensor  # uint8 [N, S, S, chans]
    ranges: dict[str, float]
    formats: Formats
    quantized: QuantizedSPViT
    network: QuantizedNetwork


@cache
def make_stages(distilled: bool = False, package: str = "append", depth: int | None = None, **pruning: Any) -> Stages:
    spec = resolve_model("micro")
    model = replace(spec.model, distilled=distilled, depth=depth or spec.model.depth)
    net = seeded(model, replace(spec.pruning, package=package, **pruning))
    folded = fold(net)
    random = torch.Generator().manual_seed(1)
    coarse = torch.randn(12, 3, 4, 4, generator=random) * 80 + 128
    smooth = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic")
    pixels = smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    ranges = observe_ranges(folded, pixels)
    formats = choose_formats(folded, ranges)
    quantized = QuantizedSPViT(folded, formats)
    return Stages(net, folded, pixels, ranges, formats, quantized, to_network(quantized))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only lose by more, and by far on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def micro() -> Stages:
    return make_stages()
