"""How well the quantized network follows the float one, tensor by tensor.

Enters: both networks and images. Leaves: a `Report`, as JSON or as a table. All figures are of these images.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from quant.calibrate import float_arithmetic
from quant.dataflow import run_image
from quant.fold import FoldedNetwork
from quant.formats import ACTIVATION_BITS
from quant.model import QuantizedSPViT
from quant.network import activation_names
from spvit.console import Table


@dataclass(frozen=True)
class TensorReport:
    """One activation.

    max_abs      largest magnitude in float, over the calibration images
    saturations  values cut off at int16's ends, of `values`
    sqnr_db      power of the float tensor over power of the difference; None: never compared, or no difference
    """

    name: str
    max_abs: float
    frac_bits: int
    saturations: int
    values: int
    sqnr_db: float | None


@dataclass(frozen=True)
class Report:
    """The quantized network against the float one.

    images             compared
    logits_rms_error   over all logits
    logits_rms_error_same_tokens  over the images on which all decisions agree; None: there is no such image
    logits_std         of the float logits, to judge the errors by
    top1_agreement     fraction of images with the same best class
    decisions          of all selectors on all images, as far as both networks saw the same tokens
    decision_flips     of those, how many differ
    largest_flip       largest distance of a flipped token's probability, in float, from the threshold
    thresholds, kept   per selector: keep probability needed, and mean kept fraction of the original patches
    weight_saturations weights and biases cut off at int16's ends
    """

    images: int
    logits_rms_error: float
    logits_rms_error_same_tokens: float | None
    logits_std: float
    top1_agreement: float
    decisions: int
    decision_flips: int
    largest_flip: float
    thresholds: tuple[float, ...]
    kept: tuple[float, ...]
    weight_saturations: int
    tensors: tuple[TensorReport, ...]

    @property
    def saturations(self) -> int:
        return sum(tensor.saturations for tensor in self.tensors)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "saturations_total": self.saturations}, indent=1) + "\n"

    def table(self, worst: int | None = None) -> Table:
        """All tensors in order of use, or the `worst` ones by SQNR."""
        tensors = list(self.tensors)
        if worst is not None:
            tensors = sorted(tensors, key=lambda tensor: math.inf if tensor.sqnr_db is None else tensor.sqnr_db)[:worst]
        title = "" if worst is None else f"the {len(tensors)} least exact of {len(self.tensors)} tensors"
        columns = ("largest", ("fraction", "bits"), ("cut off", "values"), ("SQNR", "dB"))
        table = Table(title, "tensor", columns)
        for tensor in tensors:
            sqnr = "exact" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f}"
            table.add_row(tensor.name, f"{tensor.max_abs:.3g}", str(tensor.frac_bits), str(tensor.saturations), sqnr)
        return table


@torch.no_grad()
def compare(net: QuantizedSPViT, folded: FoldedNetwork, ranges: Mapping[str, float], pixels: Tensor) -> Report:
    """Run the float and the quantized network on each image, uint8 [N, S, S, chans].

    ranges  largest magnitude of each activation, to be reported beside the rest
    """
    comparison = _Comparison(folded)
    floating, quantized = float_arithmetic(folded, comparison.see_float), net.arithmetic(comparison.see_quantized)
    expected, actual, same_tokens = [], [], []
    for image in pixels:
        comparison.begin_image()
        expected.append(run_image(folded.model, folded.pruning, floating, image))
        actual.append(run_image(folded.model, folded.pruning, quantized, image))
        same_tokens.append(comparison.comparable)
    reference, logits = torch.stack(expected), torch.stack(actual)
    squares = (logits - reference).square().mean(dim=1)
    return Report(
        images=len(pixels),
        logits_rms_error=squares.mean().sqrt().item(),
        logits_rms_error_same_tokens=squares[same_tokens].mean().sqrt().item() if any(same_tokens) else None,
        logits_std=reference.std(correction=0).item(),
        top1_agreement=(logits.argmax(dim=1) == reference.argmax(dim=1)).double().mean().item(),
        decisions=comparison.decisions,
        decision_flips=comparison.flips,
        largest_flip=comparison.largest_flip,
        thresholds=folded.thresholds,
        kept=tuple(kept / folded.model.num_patches / len(pixels) for kept in comparison.kept),
        weight_saturations=sum(net.linear(name).saturations() for name in folded.linears),
        tensors=tuple(
            TensorReport(
                name,
                ranges.get(name, 0.0),
                net.activation(name).frac_bits,
                comparison.saturations[name],
                comparison.values[name],
                comparison.sqnr_db(name),
            )
            for name in activation_names(folded.model, folded.pruning)
        ),
    )


class _Comparison:
    """Watches both networks; an image's tensors are compared up to the first decision on which the two differ."""

    def __init__(self, folded: FoldedNetwork) -> None:
        self.thresholds = folded.thresholds
        self.signal, self.noise = defaultdict[str, float](float), defaultdict[str, float](float)
        self.saturations, self.values = defaultdict[str, int](int), defaultdict[str, int](int)
        self.kept = [0.0] * len(self.thresholds)
        self.decisions = self.flips = 0
        self.largest_flip = 0.0
        self.begin_image()

    def begin_image(self) -> None:
        self.expected: dict[str, Tensor] = {}
        self.comparable = True

    def see_float(self, name: str, value: Tensor, before: Tensor, frac_bits: int | None) -> None:
        self.expected[name] = value

    def see_quantized(self, name: str, value: Tensor, before: Tensor, frac_bits: int | None) -> None:
        assert frac_bits is not None
        self.values[name] += value.numel()
        if name.endswith(".keep"):
            self._see_decisions(name.removesuffix(".keep"), value)
            return
        if not name.endswith(".probability"):
            self.saturations[name] += count_saturations(before, frac_bits)
        if self.comparable:
            expected = self.expected[name]
            self.signal[name] += expected.square().sum().item()
            self.noise[name] += (value - expected).square().sum().item()

    def _see_decisions(self, selector: str, keep: Tensor) -> None:
        index = int(selector.removeprefix("selectors."))
        self.kept[index] += keep.sum().item()
        if not self.comparable:
            return
        self.decisions += keep.numel()
        flipped = keep != self.expected[f"{selector}.keep"]
        if flipped.any():
            probability = self.expected[f"{selector}.probability"][flipped]
            distance = (probability - self.thresholds[index]).abs().max().item()
            self.largest_flip = max(self.largest_flip, distance)
            self.flips += int(flipped.sum())
            self.comparable = False

    def sqnr_db(self, name: str) -> float | None:
        noise, signal = self.noise[name], self.signal[name]
        return None if noise == 0 or signal == 0 else 10 * math.log10(signal / noise)


def count_saturations(before: Tensor, frac_bits: int) -> int:
    """How many values rounding to int16 with `frac_bits` would cut off."""
    limit = 2.0 ** (ACTIVATION_BITS - 1)
    low, high = (torch.round(edge * 2.0**frac_bits).item() for edge in before.aminmax())
    if -limit <= low and high <= limit - 1:
        return 0
    integers = torch.round(before * 2.0**frac_bits)
    return int(((integers < -limit) | (integers > limit - 1)).sum())
