"""The integer golden: walks the program and computes every tap. It knows nothing of tiles, padding or the fast product.

Enters: a `QuantizedNetwork`, its `Program`, images as uint8. Leaves: logits, tokens per stage, every step's output.
Integers ride in float64 arrays (see `quant.formats`) of NumPy or torch, on CPU or CUDA; several images are one batch:
their tokens lie behind each other in one array [R, features], so that pruned tokens cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.program import Buffer, Epilogue, Op, Program, Prologue, Rows, Step, Weights
from hw.weights import shifts
from quant import functions as f
from quant.formats import Array, power_of_two, requantize, saturate
from quant.network import QuantizedNetwork
from quant.selection import decide, package_token, pool

Tap = list[NDArray[np.int32]]
"""What a step leaves, one array per image: [rows, features]."""


@dataclass
class GoldenResult:
    """logits       int16 [images, classes]
    tokens       per selector, rows afterwards, per image
    kept         per selector, patches that live on, per image
    taps         by step: see `Tap`; keep taps are [candidates, 2]: keep, probability
    saturations  by step: values that did not fit int16
    """

    logits: NDArray[np.int16]
    tokens: list[list[int]] = field(default_factory=list)
    kept: list[list[int]] = field(default_factory=list)
    taps: dict[str, Tap] = field(default_factory=dict)
    saturations: dict[str, int] = field(default_factory=dict)


class Golden:
    """The network as integers, ready to run.

    arrays  a namespace of `array_api_compat`: NumPy's or torch's
    device  where torch computes: "cpu", "cuda"
    """

    def __init__(self, network: QuantizedNetwork, program: Program, arrays: Any, device: str | None = None) -> None:
        self.network, self.program, self.xp, self.device = network, program, arrays, device
        self._layers = {
            step.name: self._layer(step)
            for step in program.steps
            if step.op is Op.ENGINE and step.weights is Weights.STREAM
        }
        self._position = self._array(network.position)
        self._tables: dict[tuple[str, int], Array] = {}

    def run(
        self,
        pixels: NDArray[np.uint8],
        taps: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> GoldenResult:
        """Integer inference.

        pixels    [images, S, S, in_chans]
        taps      keep every step's output
        progress  called after each step with the number of steps done
        """
        batch = _Batch(self, pixels, taps)
        for done, step in enumerate(self.program.steps, 1):
            batch.run(step)
            if progress is not None:
                progress(done)
        logits = np.stack([_numpy(row, np.int16) for row in batch.buffers[Buffer.LOGITS]])
        return GoldenResult(logits, batch.tokens, batch.kept, batch.taps, batch.saturations)

    def _gelu(self, x: Array, frac_bits: int) -> Array:
        """GELU of int16, unrounded; tabulated over all its arguments, which is faster than interpolating each."""
        if ("gelu", frac_bits) not in self._tables:
            every = self._array(np.arange(-(2**15), 2**15))
            self._tables["gelu", frac_bits] = f.gelu(every, frac_bits)
        return self._tables["gelu", frac_bits][self.xp.astype(x + 2.0**15, self.xp.int64)]

    def _exp2_negative(self, t: Array, frac_bits: int) -> Array:
        """2^-t for t in 0 .. 2^16 - 1, tabulated likewise."""
        if ("exp2", frac_bits) not in self._tables:
            self._tables["exp2", frac_bits] = f.exp2_negative(self._array(np.arange(2**16)), frac_bits)
        return self._tables["exp2", frac_bits][self.xp.astype(t, self.xp.int64)]

    def _layer(self, step: Step) -> tuple[Array, Array, Array]:
        linear = self.network.linears[step.linear]
        return (
            self._array(np.ascontiguousarray(linear.weight.T)),
            self._array(linear.bias_at(step.input_bits)),
            self._array(shifts(step, linear)),
        )

    def _array(self, values: NDArray[Any]) -> Array:
        array = self.xp.asarray(values.astype(np.float64))
        return array if self.device is None else array.to(self.device)


class _Batch:
    """State while a batch runs: buffers as packed rows, and which rows belong to which image."""

    def __init__(self, golden: Golden, pixels: NDArray[np.uint8], taps: bool) -> None:
        model = golden.network.model
        self.golden, self.xp, self.with_taps = golden, golden.xp, taps
        images = len(pixels)
        self.prefix = model.num_prefix_tokens
        self.counts = [model.num_tokens] * images
        self.packages = [0] * images
        self.tokens: list[list[int]] = []
        self.kept: list[list[int]] = []
        self.taps: dict[str, Tap] = {}
        self.saturations: dict[str, int] = {}
        self.buffers: dict[Buffer, Any] = {
            Buffer.X: self.xp.concat([golden._position] * images),
            Buffer.PATCHES: golden._array(cut_patches(pixels, model.patch_size)),
        }
        self.normed: tuple[Array, int, int, Array] | None = None
        self.pooled: list[Array] = []
        self.keep: list[Array] = []
        self.probability: list[Array] = []

    def run(self, step: Step) -> None:
        match step.op:
            case Op.ENGINE if step.weights is Weights.STREAM:
                self._linear(step)
            case Op.ENGINE if step.epilogue is Epilogue.SCORES:
                self._scores(step)
            case Op.ENGINE:
                self._context(step)
            case Op.POOL:
                features = self._split(self.buffers[Buffer.FEATURES], Rows.CANDIDATES)
                self.pooled = [pool(rows) for rows in features]
                self._tap(step, [mean[None, :] for mean in self.pooled])
            case Op.DECIDE:
                self._decide(step)
            case Op.PACKAGE:
                self._package(step)

    def _linear(self, step: Step) -> None:
        weight, bias, shift = self.golden._layers[step.name]
        x = self._source(step)
        acc = x @ weight + bias
        if step.epilogue is Epilogue.RESIDUAL:
            rows = self._rows(step.rows)
            residual = self.buffers[Buffer.X][rows]
            acc = acc + residual * power_of_two(shift + (step.output_bits - step.residual_bits))
        y = self._round(step, acc, shift)
        if step.epilogue is Epilogue.GELU:
            y = self._round(step, self.golden._gelu(y, step.gelu_bits), f.GELU_FRAC_BITS - step.output_bits)
        self._store(step, y)

    def _source(self, step: Step) -> Array:
        """Rows of the source, through the prologue. [rows, in_features]"""
        xp, rows = self.xp, self._rows(step.rows)
        if step.source is Buffer.X and step.rows is Rows.FIRST:  # the prefix rows side by side
            norm = self._layer_norm(self.buffers[Buffer.X][self._prefix_rows()], step)
            return xp.reshape(norm, (len(self.counts), -1))
        if step.rows is Rows.ALL and step.prologue is Prologue.LAYER_NORM:
            return self._whole_row_norm(step)
        if step.source is not Buffer.X:
            x = self.buffers[step.source]
        elif step.head is not None:
            width = step.in_features or 0
            x = self.buffers[Buffer.X][:, step.head * width : (step.head + 1) * width][rows]
        else:
            x = self.buffers[Buffer.X] if step.rows is Rows.ALL else self.buffers[Buffer.X][rows]
        if step.prologue in (Prologue.LAYER_NORM, Prologue.HEAD_LAYER_NORM):
            return self._layer_norm(x, step)
        if step.prologue is Prologue.CONCAT:
            half = (step.in_features or 0) // 2
            features = self._split(x, Rows.CANDIDATES)
            parts = [
                xp.concat([rows[:, :half], xp.zeros_like(rows[:, half:]) + mean[half:]], axis=1)
                for rows, mean in zip(features, self.pooled, strict=True)
            ]
            return xp.concat(parts)
        return x

    def _layer_norm(self, x: Array, step: Step) -> Array:
        return requantize(f.layer_norm(x, step.epsilon), -step.input_bits)

    def _whole_row_norm(self, step: Step) -> Array:
        """LayerNorm of all of X, once for K, V and Q."""
        x = self.buffers[Buffer.X]
        if self.normed is None or self.normed[0] is not x or self.normed[1:3] != (step.epsilon, step.input_bits):
            self.normed = (x, step.epsilon, step.input_bits, self._layer_norm(x, step))
        return self.normed[3]

    def _scores(self, step: Step) -> None:
        queries = self._head(Buffer.Q, step)
        keys = self._head(Buffer.K, step)
        shift = step.input_bits + step.weight_bits - step.output_bits
        scores = [self._round(step, q @ k.T, shift) for q, k in zip(queries, keys, strict=True)]
        self.buffers[Buffer.SCORES] = scores
        self._tap(step, scores)

    def _context(self, step: Step) -> None:
        xp = self.xp
        contexts = []
        for scores, values in zip(self.buffers[Buffer.SCORES], self._head(Buffer.V, step), strict=True):
            p = self.golden._exp2_negative(xp.max(scores, axis=1, keepdims=True) - scores, step.source_bits)
            quotient = f.divide(p @ values, xp.sum(p, axis=1, keepdims=True))
            shift = f.divide_frac_bits() - (step.output_bits - step.weight_bits)
            contexts.append(self._round(step, quotient, shift))
        if step.head == 0:
            self.buffers[Buffer.CONTEXT] = xp.zeros_like(self.buffers[Buffer.Q])
        width, head = step.out_features or 0, step.head or 0
        self.buffers[Buffer.CONTEXT][:, head * width : (head + 1) * width] = xp.concat(contexts)
        self._tap(step, contexts)

    def _head(self, buffer: Buffer, step: Step) -> list[Array]:
        """One head's columns, image by image."""
        width, head = step.in_features or step.out_features or 0, step.head or 0
        return self._split(self.buffers[buffer][:, head * width : (head + 1) * width], Rows.ALL)

    def _store(self, step: Step, y: Array) -> None:
        if step.dest is Buffer.X and step.rows is not Rows.ALL:
            self.buffers[Buffer.X][self._rows(step.rows)] = y
            self.normed = None
        elif step.dest is Buffer.TOKEN_SCORES:
            if step.head == 0:
                self.buffers[Buffer.TOKEN_SCORES] = []
            self.buffers[Buffer.TOKEN_SCORES].append(y)
        else:
            self.buffers[step.dest] = y
        self._tap(step, self._split(y, step.rows))

    def _decide(self, step: Step) -> None:
        scores = self._split(self.xp.concat(self.buffers[Buffer.TOKEN_SCORES], axis=1), Rows.CANDIDATES)
        branches = self._split(self.buffers[Buffer.BRANCH], Rows.CANDIDATES)
        decisions = [
            decide(z, step.source_bits, y, step.branch_bits, step.threshold)
            for z, y in zip(scores, branches, strict=True)
        ]
        self.keep = [decision.keep for decision in decisions]
        self.probability = [decision.probability for decision in decisions]
        self._tap(step, [self.xp.stack([d.keep, d.probability], axis=1) for d in decisions])

    def _package(self, step: Step) -> None:
        policy = self.golden.network.pruning.package
        packed = []
        for image, x in enumerate(self._split(self.buffers[Buffer.X], Rows.ALL)):
            candidates = slice(self.prefix, self.counts[image] - self.packages[image])
            keep = self.keep[image] != 0
            patches, older = x[candidates], x[candidates.stop :]
            dropped = patches[~keep]
            rows = [x[: self.prefix], patches[keep], older]
            if len(dropped) and policy != "none":
                package = package_token(dropped, self.probability[image][~keep])
                if policy == "add" and len(older):
                    rows[2] = saturate(older + package)
                else:
                    rows.append(package[None, :])
                    self.packages[image] += 1
            packed.append(self.xp.concat(rows))
            self.counts[image] = len(packed[-1])
        self.buffers[Buffer.X] = self.xp.concat(packed)
        self.tokens.append(list(self.counts))
        alive = zip(self.counts, self.packages, strict=True)
        self.kept.append([count - self.prefix - packages for count, packages in alive])
        self._tap(step, packed)

    def _round(self, step: Step, acc: Array, shift: int | Array) -> Array:
        """`requantize`, with the saturations counted where taps are kept."""
        if not self.with_taps:
            return requantize(acc, shift)
        rounded = self.xp.round(acc * power_of_two(-shift))
        clipped = saturate(rounded)
        count = int(self.xp.sum(rounded != clipped))
        self.saturations[step.name] = self.saturations.get(step.name, 0) + count
        return clipped

    def _range(self, image: int, rows: Rows) -> tuple[int, int]:
        count = self.counts[image]
        first, last = {
            Rows.ALL: (0, count),
            Rows.PATCHES: (self.prefix, count),
            Rows.CANDIDATES: (self.prefix, count - self.packages[image]),
            Rows.FIRST: (0, 1),
        }[rows]
        return first, last

    def _rows(self, rows: Rows) -> Any:
        """Positions in the packed array of the rows that a step works on."""
        if rows is Rows.ALL:
            return slice(None)
        return self._positions([self._range(image, rows) for image in range(len(self.counts))])

    def _prefix_rows(self) -> Any:
        return self._positions([(0, self.prefix)] * len(self.counts))

    def _positions(self, ranges: list[tuple[int, int]]) -> Any:
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        parts = [np.arange(s + first, s + last) for s, (first, last) in zip(starts, ranges, strict=True)]
        positions = self.xp.asarray(np.concatenate(parts))
        return positions if self.golden.device is None else positions.to(self.golden.device)

    def _split(self, packed: Array, rows: Rows) -> list[Array]:
        """Image by image."""
        parts, start = [], 0
        for image in range(len(self.counts)):
            first, last = self._range(image, rows)
            parts.append(packed[start : start + last - first])
            start += last - first
        return parts

    def _tap(self, step: Step, values: list[Array]) -> None:
        if self.with_taps:
            self.taps[step.name] = [_numpy(value, np.int32) for value in values]


def cut_patches(pixels: NDArray[np.uint8], patch_size: int) -> NDArray[np.uint8]:
    """[N, S, S, c] -> [N * patches, patch * patch * c], a patch's pixels in (y, x, channel) order."""
    n, size, _, channels = pixels.shape
    grid = size // patch_size
    patches = pixels.reshape(n, grid, patch_size, grid, patch_size, channels).swapaxes(2, 3)
    return patches.reshape(n * grid * grid, patch_size * patch_size * channels)


def _numpy(array: Array, dtype: Any) -> NDArray[Any]:
    if hasattr(array, "cpu"):
        array = array.cpu().numpy()
    return np.ascontiguousarray(array).astype(dtype)
