"""The accelerator's arithmetic a second time, in int64 with shifts and masks in place of float64: a witness.

It takes the tables and the network from `quant` and nothing else, and is written from the prose in `quant/functions.py`
and the design, for the tests to compare with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.functions import Table, exp2_table, gelu_table, reciprocal_table, rsqrt_table, sigmoid_table
from quant.network import QuantizedNetwork

Ints = NDArray[np.int64]
Taps = dict[str, Ints]


def round_shift(acc: Ints, shift: int | Ints) -> Ints:
    """acc / 2^shift, half to even; a negative shift multiplies."""
    acc, shift = np.broadcast_arrays(np.asarray(acc, np.int64), np.asarray(shift, np.int64))
    right = np.maximum(shift, 0)
    whole = acc >> right
    rest, half = acc - (whole << right), (np.int64(1) << right) >> 1
    up = (rest > half) | ((rest == half) & (whole % 2 == 1))
    return np.where(shift > 0, whole + up, acc << np.maximum(-shift, 0))


def requantize(acc: Ints, shift: int | Ints, width: int = 16) -> Ints:
    return np.clip(round_shift(acc, shift), -(1 << (width - 1)), (1 << (width - 1)) - 1)


def exp2_negative(t: Ints, frac_bits: int) -> Ints:
    t = t << (10 - frac_bits)
    return round_shift(exp2_table()[t & 1023], np.minimum((t >> 10) + 3, 60))


def gelu(x: Ints, frac_bits: int) -> Ints:
    """With 29 fraction bits."""
    magnitude = np.abs(x) << (14 - frac_bits)
    inside = magnitude < 5 << 14
    h = _interpolate(gelu_table(), np.where(inside, magnitude, 0), 9)
    return (np.maximum(x, 0) << (29 - frac_bits)) + np.where(inside, h, 0)


def divide(dividend: Ints, divisor: Ints, ratio_bits: int = 15) -> Ints:
    """The dividend cut to 23 bits for 15-bit ratios, to 27 for 22; with 23 or 20 more fraction bits than the ratio."""
    exponent = _floor_log2(divisor)
    mantissa = _move(divisor, exponent - 22) - (1 << 22)
    reciprocal = np.minimum((_interpolate(reciprocal_table(), mantissa, 14) + (1 << 23)) >> 24, (1 << 17) - 1)
    bits = {15: 23, 22: 27}[ratio_bits]
    return requantize(dividend, exponent + ratio_bits + 2 - bits, bits) * reciprocal


def layer_norm(x: Ints, epsilon: int, frac_bits: int) -> Ints:
    """Rounded to `frac_bits`, int16."""
    channels = x.shape[-1]
    total, squares = x.sum(-1, keepdims=True), (x * x).sum(-1, keepdims=True)
    variance = np.maximum(channels * squares - total * total + epsilon, 1)
    half = _floor_log2(variance) >> 1
    mantissa = _move(variance, 2 * half - 20)  # [2^20, 2^22)
    upper = mantissa >= 1 << 21
    position = np.where(upper, mantissa, (mantissa - (1 << 20)) << 1)  # 2 x 2^21 steps, upper half above 2^21
    rstd = np.minimum((_interpolate(rsqrt_table(), position, 14) + (1 << 23)) >> 24, (1 << 17) - 1)
    return requantize((channels * x - total) * rstd, half + 17 - frac_bits)


def sigmoid(x: Ints, frac_bits: int) -> Ints:
    """With 22 fraction bits."""
    magnitude = np.abs(x) << (12 - frac_bits)
    inside = magnitude < 16 << 12
    tail = np.where(inside, (_interpolate(sigmoid_table(), np.where(inside, magnitude, 0), 7) + 64) >> 7, 0)
    return np.where(x >= 0, (1 << 22) - tail, tail)


def _interpolate(table: Table, position: Ints, remainder_bits: int) -> Ints:
    segment = position >> remainder_bits
    return (table.base[segment] << remainder_bits) + table.slope[segment] * (position & ((1 << remainder_bits) - 1))


def _floor_log2(x: Ints) -> Ints:
    return np.vectorize(lambda value: int(value).bit_length() - 1, otypes=[np.int64])(x)


def _move(x: Ints, down: Ints) -> Ints:
    return np.where(down >= 0, x >> np.maximum(down, 0), x << np.maximum(-down, 0))


class Golden:
    """One image through a `QuantizedNetwork`, integers only. `taps` holds what every step left."""

    def __init__(self, network: QuantizedNetwork, pixels: NDArray[np.uint8]) -> None:
        self.net, self.model, self.taps = network, network.model, Taps()
        self.bits, prefix = network.frac_bits, network.model.num_prefix_tokens
        self.stream, self.patches_alive = "patch_embed", self.model.num_patches
        position = network.position.astype(np.int64)
        self.taps["pixels"] = self._patches(pixels.astype(np.int64))
        patches = self._linear("patch_embed.proj", "pixels", "patch_embed", residual=position[prefix:])
        x = self._keep("patch_embed", np.concatenate([position[:prefix], patches]))
        for block in range(self.model.depth):
            if block in network.pruning.locations and self.patches_alive:
                x = self._prune(network.pruning.locations.index(block), x)
            x = self._block(block, x)
        features = self._layer_norm("norm", x[:prefix], self.model.layer_norm_eps)
        self.taps["norm.flat"] = features.reshape(1, -1)
        self.bits = {**self.bits, "norm.flat": self.bits["norm"]}
        self._keep("head", self._linear("head", "norm.flat", "head"))
        del self.taps["norm.flat"]

    def _keep(self, name: str, value: Ints) -> Ints:
        self.taps[name] = value
        return value

    def _patches(self, pixels: Ints) -> Ints:
        size = self.model.patch_size
        cells = [
            pixels[y : y + size, x : x + size].ravel()
            for y in range(0, self.model.img_size, size)
            for x in range(0, self.model.img_size, size)
        ]
        return np.stack(cells)

    def _linear(self, layer: str, source: str, result: str, x: Any = None, residual: Ints | None = None) -> Ints:
        linear, x = self.net.linears[layer], self.taps[source] if x is None else x
        product_bits = self.bits[source] + linear.weight_frac_bits.astype(np.int64)
        acc = x @ linear.weight.astype(np.int64).T
        acc = acc + (linear.bias.astype(np.int64) << (product_bits - linear.bias_frac_bits))
        if residual is not None:
            acc = acc + (residual << (product_bits - self.bits[self.stream]))
        return requantize(acc, product_bits - self.bits[result])

    def _gelu(self, name: str) -> Ints:
        shift = 29 - self.bits[f"{name}.gelu"]
        return self._keep(f"{name}.gelu", requantize(gelu(self.taps[name], self.bits[name]), shift))

    def _layer_norm(self, name: str, x: Ints, eps: float) -> Ints:
        epsilon = round(eps * x.shape[-1] ** 2 * 4.0 ** self.bits[self.stream])
        return self._keep(name, layer_norm(x, epsilon, self.bits[name]))

    def _block(self, block: int, x: Ints) -> Ints:
        attn, mlp = f"blocks.{block}.attn", f"blocks.{block}.mlp"
        self._layer_norm(f"blocks.{block}.norm1", x, self.model.layer_norm_eps)
        for name in ("q", "k", "v"):
            self._keep(f"{attn}.{name}", self._linear(f"{attn}.{name}", f"blocks.{block}.norm1", f"{attn}.{name}"))
        d, f = self.model.head_dim, self.bits
        scores, contexts = [], []
        for head in range(self.model.num_heads):
            q, k, v = (self.taps[f"{attn}.{name}"][:, head * d : (head + 1) * d] for name in ("q", "k", "v"))
            score = requantize(q @ k.T, f[f"{attn}.q"] + f[f"{attn}.k"] - f[f"{attn}.scores"])
            weights = exp2_negative(score.max(1, keepdims=True) - score, f[f"{attn}.scores"])
            ratio = divide(weights @ v, weights.sum(1, keepdims=True))
            contexts.append(requantize(ratio, 23 - (f[f"{attn}.context"] - f[f"{attn}.v"])))
            scores.append(score)
        self._keep(f"{attn}.scores", np.stack(scores))
        self._keep(f"{attn}.context", np.concatenate(contexts, axis=1))
        x = self._keep(f"{attn}.proj", self._linear(f"{attn}.proj", f"{attn}.context", f"{attn}.proj", residual=x))
        self.stream = f"{attn}.proj"
        self._layer_norm(f"blocks.{block}.norm2", x, self.model.layer_norm_eps)
        self._keep(f"{mlp}.fc1", self._linear(f"{mlp}.fc1", f"blocks.{block}.norm2", f"{mlp}.fc1"))
        self._gelu(f"{mlp}.fc1")
        x = self._keep(f"{mlp}.fc2", self._linear(f"{mlp}.fc2", f"{mlp}.fc1.gelu", f"{mlp}.fc2", residual=x))
        self.stream = f"{mlp}.fc2"
        return x

    def _prune(self, index: int, x: Ints) -> Ints:
        name, heads, d = f"selectors.{index}", self.model.num_heads, self.model.head_dim
        first = self.model.num_prefix_tokens
        last = first + self.patches_alive
        patches, packages = x[first:last], x[last:]
        self._layer_norm(f"{name}.norm", patches.reshape(-1, heads, d), 1e-5)

        def scorer(layer: str, source: str, value: Ints) -> None:
            per_head = [
                self._linear(
                    f"{name}.scorers.{0 if self.net.pruning.share_heads else head}.{layer}",
                    f"{name}.{source}",
                    f"{name}.{layer}",
                    x=value[:, head],
                )
                for head in range(heads)
            ]
            self._keep(f"{name}.{layer}", np.stack(per_head, axis=1))

        scorer("embed", "norm", self.taps[f"{name}.norm"])
        features = self._gelu(f"{name}.embed")
        pooled = requantize(divide(features.sum(0), np.full((heads, d), len(features))), 23)
        self._keep(f"{name}.pool", pooled)
        both = features.copy()
        both[:, :, d // 2 :] = pooled[:, d // 2 :]
        scorer("fc1", "embed.gelu", both)
        scorer("fc2", "fc1.gelu", self._gelu(f"{name}.fc1"))
        scorer("fc3", "fc2.gelu", self._gelu(f"{name}.fc2"))
        branch = f"{name}.head_branch"
        self._keep(f"{branch}.fc1", self._linear(f"{branch}.fc1", self.stream, f"{branch}.fc1", x=patches))
        self._gelu(f"{branch}.fc1")
        self._keep(f"{branch}.fc2", self._linear(f"{branch}.fc2", f"{branch}.fc1.gelu", f"{branch}.fc2"))
        keep, probability = self._decide(name, self.net.thresholds[index])
        dropped, weight = patches[~keep], probability[~keep]
        if len(dropped) and self.net.pruning.package != "none":
            ratio = divide((dropped * weight[:, None]).sum(0), np.full(x.shape[1], weight.sum()))
            package = requantize(ratio, 23)[None]
            if self.net.pruning.package == "add" and len(packages):
                packages = np.clip(packages + package, -32768, 32767)
            else:
                packages = np.concatenate([packages, package])
        self.patches_alive = int(keep.sum())
        return self._keep(f"{name}.x", np.concatenate([x[:first], patches[keep], packages]))

    def _decide(self, name: str, threshold: int) -> tuple[NDArray[np.bool_], Ints]:
        score = sigmoid(self.taps[f"{name}.fc3"][..., 0], self.bits[f"{name}.fc3"])
        weight = requantize(sigmoid(self.taps[f"{name}.head_branch.fc2"], self.bits[f"{name}.head_branch.fc2"]), 7)
        votes, weights = (score * weight).sum(1), weight.sum(1)
        keep = votes >= threshold * weights
        probability = np.maximum(requantize(divide(votes, np.maximum(weights, 1), 22), 20, 24), 1)
        self._keep(f"{name}.keep", keep.astype(np.int64))
        return keep, self._keep(f"{name}.probability", probability)
