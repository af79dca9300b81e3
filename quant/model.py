"""The Brevitas model: SPViT as the accelerator computes it, in PyTorch, so that it can be trained further.

Enters: a `FoldedNetwork` and its `Formats`; then raw pixels uint8 [N, S, S, chans]. Leaves: logits [N, classes].
In float64 every value is the accelerator's integer times 2^-frac_bits, exactly.

`forward` puts these integers into `taps`, per image, by name (n tokens, C channels, H heads of d, q candidates):

    pixels                                          [patches, P * P * chans]
    patch_embed                                     [n, C]     the residual stream, prefix rows included
    blocks.N.norm1, .norm2                          [n, C]
    blocks.N.attn.q, .k, .v, .context               [n, C]     heads side by side
    blocks.N.attn.scores                            [H, n, n]
    blocks.N.attn.proj, blocks.N.mlp.fc2            [n, C]     the residual stream after the addition
    blocks.N.mlp.fc1, .fc1.gelu                     [n, hidden]
    selectors.N.norm, .embed, .embed.gelu           [q, H, d]
    selectors.N.pool                                [H, d]     format of embed.gelu; the accelerator uses the upper half
    selectors.N.fc1, .fc1.gelu                      [q, H, d/2]
    selectors.N.fc2, .fc2.gelu                      [q, H, d/4]
    selectors.N.fc3                                 [q, H, 1]  keep logit minus drop logit
    selectors.N.head_branch.fc1, .fc1.gelu          [q, max(H/2, 1)]
    selectors.N.head_branch.fc2                     [q, H]
    selectors.N.keep                                [q]        0 or 1
    selectors.N.probability                         [q]        22 fraction bits
    selectors.N.x                                   [n', C]    the residual stream after packing
    norm                                            [prefix, C]
    head                                            [1, classes]

A selector that has no candidates leaves no taps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quant.dataflow import Arithmetic, Observer, run_image
from quant.fold import FoldedNetwork
from quant.modules import WEIGHT_BITS, Activation, Linear
from quant.network import activation_names, linear_shapes

Taps = dict[str, Tensor]


@dataclass(frozen=True)
class Formats:
    """Fraction bits of everything.

    activations  by the names of `network.activation_names`
    weights      by linear layer, int64 [out]
    biases       by linear layer
    weight_bits  by linear layer, where there are less than 16; `weights` are those of int16 even so
    """

    activations: Mapping[str, int]
    weights: Mapping[str, Tensor]
    biases: Mapping[str, int]
    weight_bits: Mapping[str, int] = field(default_factory=dict)


class QuantizedSPViT(nn.Module):
    """SPViT in 16-bit fixed point. Parameters are the folded weights in float64; Brevitas rounds them on their way.

    Trainable, except for the formats. The patch embedding sees raw pixels, 0..255: give it a learning rate some 10^4
    times smaller than the others', or freeze it. Decisions have no gradient; selectors learn through the packages.
    """

    def __init__(self, folded: FoldedNetwork, formats: Formats) -> None:
        super().__init__()
        self.model, self.pruning, self.thresholds = folded.model, folded.pruning, folded.thresholds
        self.position = nn.Parameter(folded.position.clone())
        self.linears = nn.ModuleDict(
            {
                _key(name): Linear(
                    folded.linears[name],
                    formats.weights[name],
                    formats.biases[name],
                    formats.weight_bits.get(name, WEIGHT_BITS),
                )
                for name in linear_shapes(self.model, self.pruning)
            }
        )
        self.activations = nn.ModuleDict(
            {_key(name): Activation(formats.activations[name]) for name in activation_names(self.model, self.pruning)}
        )
        self.eval()

    def linear(self, name: str) -> Linear:
        return self.linears[_key(name)]

    def activation(self, name: str) -> Activation:
        return self.activations[_key(name)]

    def arithmetic(self, observer: Observer | None = None) -> Arithmetic:
        """The parameters, rounded once for however many images follow, and the roundings."""
        return Arithmetic(
            parameters={name: self.linear(name).quantized() for name in linear_shapes(self.model, self.pruning)},
            position=self.position,
            thresholds=self.thresholds,
            roundings={name: self.activation(name) for name in activation_names(self.model, self.pruning)},
            observer=observer,
        )

    def forward(self, pixels: Tensor, taps: list[Taps] | None = None) -> Tensor:
        """Logits [N, classes] of raw pixels uint8 [N, S, S, chans]; with `taps`, appends one dict per image."""
        arithmetic = self.arithmetic()
        logits = []
        for image in pixels:
            if taps is not None:
                taps.append({})
                arithmetic.observer = _collect_into(taps[-1])
            logits.append(run_image(self.model, self.pruning, arithmetic, image))
        return torch.stack(logits)


def _collect_into(taps: Taps) -> Observer:
    def observe(name: str, value: Tensor, before: Tensor, frac_bits: int | None) -> None:
        assert frac_bits is not None
        taps[name] = value.detach() * 2.0**frac_bits

    return observe


def _key(name: str) -> str:
    """PyTorch keeps dots for itself."""
    return name.replace(".", "/")
