"""Networks for the accelerator's tests: random integers with legal formats, and quantized float models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import cycle
from typing import Any

import array_api_compat.numpy as arrays
import numpy as np
import torch
from numpy.typing import NDArray

from hw.architecture import Architecture
from hw.generate import make_design
from hw.layout import Design
from hw.program import build_program
from quant.calibrate import choose_formats, observe_ranges
from quant.export import to_network
from quant.fold import fold
from quant.formats import MAX_RESIDUAL_UP, MAX_SHIFT, MIN_SHIFT, RESIDUAL_GUARD_BITS
from quant.functions import MAX_CONTEXT_UP
from quant.model import QuantizedSPViT
from quant.network import QuantizedLinear, QuantizedNetwork, linear_shapes
from quant.wiring import Wire, wiring
from sim.constructed import with_linear
from sim.golden import Golden
from spvit.calibration import calibrate_thresholds
from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.images.preprocess import Preprocessing
from spvit.initialisation import seeded

MICRO = resolve_model("micro")
ONE = 1 << 22  # a keep probability of 1


def random_network(
    rng: np.random.Generator, model: ModelConfig, pruning: PruningConfig, extreme: bool = False
) -> QuantizedNetwork:
    """A network whose tensors are random int16 and whose formats every shift of the engine can bring together.

    extreme  weights, biases and positions at the ends of int16, formats and shifts anywhere in their ranges: most
             tensors saturate. Otherwise formats are such that results spread over int16.
    """
    wires = wiring(model, pruning)
    bits = _activation_formats(rng, model, pruning, extreme)
    linears = {
        name: _random_linear(rng, shape, wires[name], bits, extreme)
        for name, shape in linear_shapes(model, pruning).items()
    }
    position = _integers(rng, (model.num_tokens, model.embed_dim), extreme)
    thresholds = (ONE // 2,) * pruning.num_selectors
    network = QuantizedNetwork(model, pruning, linears, bits, position, thresholds)
    for selector in range(pruning.num_selectors):
        network = _with_threshold(network, selector, float(rng.uniform(0.1, 0.9)))
    return network


def _with_threshold(network: QuantizedNetwork, selector: int, quantile: float) -> QuantizedNetwork:
    """The network with a threshold between the probabilities that a random image's tokens have there."""
    golden = Golden(network, build_program(network), arrays).run(random_images(network.model, 1), taps=True)
    probability = golden.taps[f"selectors.{selector}.keep"][0][:, 1]
    if not len(probability):
        return network
    thresholds = list(network.thresholds)
    thresholds[selector] = int(np.quantile(probability, quantile, method="nearest"))
    return replace(network, thresholds=tuple(thresholds))


@cache
def quantized(
    model: ModelConfig, pruning: PruningConfig, seed: int = 0, widths: tuple[int, ...] = ()
) -> tuple[QuantizedSPViT, QuantizedNetwork]:
    """A seeded float model, calibrated on random images: the Brevitas model and its integers.

    widths  of the weights, layer by layer in turn; none: 16 bits
    """
    net, pixels = seeded(model, pruning, seed), random_images(model, 4)
    if pruning.keep:
        images = torch.from_numpy(Preprocessing.from_model(model).normalise(pixels)).float()
        calibrate_thresholds(net, images, pruning.keep)
    folded = fold(net)
    weight_bits = dict(zip(linear_shapes(model, pruning), cycle(widths), strict=False)) if widths else {}
    formats = choose_formats(folded, observe_ranges(folded, torch.from_numpy(pixels)), weight_bits=weight_bits)
    quantized_net = QuantizedSPViT(folded, formats)
    return quantized_net, to_network(quantized_net)


def micro(seed: int = 0, **pruning: Any) -> QuantizedNetwork:
    """The registry's micro model with seeded weights: every mechanism, and results like a real network's."""
    return quantized(MICRO.model, replace(MICRO.pruning, **pruning), seed)[1]


def design_of(network: QuantizedNetwork, tile_in: int = 8, tile_out: int = 16, inner_product: str = "fast") -> Design:
    ports = 1 if tile_in < 16 or tile_out < 16 else 2
    return make_design(network, Architecture(tile_in, tile_out, inner_product, ports))


def random_images(model: ModelConfig, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """[count, S, S, chans]"""
    shape = (count, model.img_size, model.img_size, model.in_chans)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def narrowed(network: QuantizedNetwork, widths: Sequence[int] = (12, 8, 16)) -> QuantizedNetwork:
    """The network with weights of these widths, layer by layer in turn: their lowest bits are cut off."""
    for name, bits in zip(network.linears, cycle(widths), strict=False):
        weight = network.linears[name].weight & np.int16(-(1 << 16 - bits))
        network = with_linear(network, name, weight=weight, weight_bits=bits)
    return network


def with_extreme_tensors(network: QuantizedNetwork, rng: np.random.Generator) -> QuantizedNetwork:
    """The network with random ends of int16 for all weights, biases and positions; its formats stay."""
    for name, linear in network.linears.items():
        weight, bias = (_integers(rng, tensor.shape, extreme=True) for tensor in (linear.weight, linear.bias))
        network = with_linear(network, name, weight=weight, bias=bias)
    return replace(network, position=_integers(rng, network.position.shape, extreme=True))


def _activation_formats(
    rng: np.random.Generator, model: ModelConfig, pruning: PruningConfig, extreme: bool
) -> dict[str, int]:
    """Fraction bits by the rules of quant/calibrate.py; those of the residual streams stay close to each other."""

    def between(low: int, high: int, middle: tuple[int, int]) -> int:
        return int(rng.integers(low, high + 1) if extreme else rng.integers(middle[0], middle[1] + 1))

    def stream(before: int) -> int:
        up = int(rng.integers(-RESIDUAL_GUARD_BITS, MAX_RESIDUAL_UP + 1)) if extreme else int(rng.integers(-1, 2))
        return min(max(before + up, 0 if extreme else 8), 14 if extreme else 10)

    scores, gelu = between(0, 10, (8, 10)), between(0, 14, (12, 14))
    bits = {"pixels": 0, "patch_embed": between(0, 14, (8, 10))}
    last = "patch_embed"
    for block in range(model.depth):
        if block in pruning.locations:
            selector = f"selectors.{pruning.locations.index(block)}"
            bits[f"{selector}.norm"] = between(0, 14, (11, 13))
            for layer in ("embed", "fc1", "fc2", "head_branch.fc1"):
                bits[f"{selector}.{layer}"] = gelu
                bits[f"{selector}.{layer}.gelu"] = between(6, 13, (11, 13))
            bits[f"{selector}.fc3"] = between(0, 12, (11, 12))
            bits[f"{selector}.head_branch.fc2"] = between(0, 12, (11, 12))
        attn, mlp = f"blocks.{block}.attn", f"blocks.{block}.mlp"
        bits |= {f"blocks.{block}.{norm}": between(0, 14, (11, 13)) for norm in ("norm1", "norm2")}
        bits |= {f"{attn}.{tensor}": between(0, 14, (12, 13)) for tensor in ("q", "v")}
        lowest, highest = scores + MIN_SHIFT - bits[f"{attn}.q"], scores + MAX_SHIFT - bits[f"{attn}.q"]
        bits[f"{attn}.k"] = min(max(between(0, 14, (12, 13)), lowest), highest)
        bits[f"{attn}.scores"] = scores
        bits[f"{attn}.context"] = between(bits[f"{attn}.v"], min(14, bits[f"{attn}.v"] + MAX_CONTEXT_UP), (13, 14))
        for name in (f"{attn}.proj", f"{mlp}.fc2"):
            bits[name] = stream(bits[last])
            last = name
        bits[f"{mlp}.fc1"] = gelu
        bits[f"{mlp}.fc1.gelu"] = between(6, 13, (11, 13))
    bits |= {"norm": between(0, 14, (11, 13)), "head": between(0, 14, (10, 12))}
    return bits


def _random_linear(
    rng: np.random.Generator, shape: tuple[int, int], wire: Wire, bits: dict[str, int], extreme: bool
) -> QuantizedLinear:
    """Weights, and the formats in which their sums spread over int16, or (extreme) any that the engine can shift."""
    source, result = bits[wire.source], bits[wire.result]
    lowest, highest = result + MIN_SHIFT, result + MAX_SHIFT  # of source + weight
    if extreme:
        product = rng.integers(lowest, highest + 1, shape[0])
    else:
        spread = 2.0**14 * 2.0 ** (6 if wire.source == "pixels" else 12) * shape[1] ** 0.5  # of the accumulator
        product = result + round(np.log2(spread / 2**13)) + rng.integers(-1, 2, shape[0])
        product = np.clip(product, lowest, highest)
    weight_frac_bits = (product - source).astype(np.int16)
    bias_bits = int(rng.integers(product.max() - 30, product.min() + 1)) if extreme else result
    bias = _integers(rng, shape[:1], extreme)
    return QuantizedLinear(_integers(rng, shape, extreme), weight_frac_bits, bias if extreme else bias // 4, bias_bits)


def _integers(rng: np.random.Generator, shape: tuple[int, ...], extreme: bool) -> NDArray[np.int16]:
    if extreme:
        return rng.choice(np.array([-32768, -32767, 32767, 32767, -1, 0, 1], np.int16), shape)
    return rng.normal(0, 2**13, shape).clip(-(2**15), 2**15 - 1).astype(np.int16)


def golden_taps(design: Design, taps: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[np.int64] | None]]:
    """The taps of the Brevitas model (one image, see `quant.model`) as the golden names and shapes them.

    None where a selector had no candidates.
    """
    model = design.network.model
    prefix, d = model.num_prefix_tokens, model.head_dim

    def array(name: str) -> NDArray[np.int64]:
        return np.asarray(taps[name]).astype(np.int64)

    for step in design.program.steps:
        base, _, last = step.name.rpartition(".")
        if step.unit in ("token_selector", "token_packager") and f"selectors.{step.index}.keep" not in taps:
            yield step.name, None
        elif step.name == "patch_embed":
            yield step.name, array("patch_embed")[prefix:]
        elif base.endswith(".scores"):
            yield step.name, array(base)[int(last)]
        elif base.endswith(".context"):
            yield step.name, array(base)[:, int(last) * d : (int(last) + 1) * d]
        elif base.endswith((".embed", ".fc1", ".fc2")) and last.isdigit():
            yield step.name, array(f"{base}.gelu")[:, int(last)]
        elif base.endswith(".fc3"):
            yield step.name, array(base)[:, int(last)].reshape(-1, 1)
        elif base.endswith(".pool"):
            yield step.name, array(base)[None, int(last)]
        elif step.name.endswith((".mlp.fc1", ".head_branch.fc1")):
            yield step.name, array(f"{step.name}.gelu")
        elif last == "keep":
            yield step.name, np.stack([array(step.name), array(f"{base}.probability")], axis=1)
        elif last == "package":
            yield step.name, array(f"{base}.x")
        else:
            yield step.name, array(step.name)
