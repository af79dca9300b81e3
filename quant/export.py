"""The Brevitas model as plain integers: what the hardware flow reads.

Enters: a `QuantizedSPViT`, calibrated or trained further. Leaves: a `QuantizedNetwork`. And back.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quant.fold import FoldedLinear, FoldedNetwork
from quant.functions import PROBABILITY_BITS
from quant.model import Formats, QuantizedSPViT
from quant.modules import Linear
from quant.network import QuantizedLinear, QuantizedNetwork, activation_names, linear_shapes
from quant.straight_through import threshold_integer


@torch.no_grad()
def to_network(net: QuantizedSPViT) -> QuantizedNetwork:
    """The integers and formats that Brevitas computes with, unchanged."""
    position = net.activation("patch_embed")
    return QuantizedNetwork(
        model=net.model,
        pruning=net.pruning,
        linears={name: _linear(net.linear(name)) for name in linear_shapes(net.model, net.pruning)},
        frac_bits={name: net.activation(name).frac_bits for name in activation_names(net.model, net.pruning)},
        position=_int16(position(net.position) * 2.0**position.frac_bits),
        thresholds=tuple(threshold_integer(threshold) for threshold in net.thresholds),
    )


def _linear(linear: Linear) -> QuantizedLinear:
    weight, bias = linear.integers()
    return QuantizedLinear(
        _int16(weight), _int16(linear.weight_frac_bits), _int16(bias), linear.bias_frac_bits, linear.weight_bits
    )


def _int16(values: Tensor) -> NDArray[np.int16]:
    array = values.detach().cpu().numpy()
    integers = array.astype(np.int16)
    assert np.array_equal(integers, array), "a value is no int16"
    return integers


def from_network(network: QuantizedNetwork) -> QuantizedSPViT:
    """The Brevitas model of a network's integers: `to_network`'s inverse."""
    activations, positions = network.frac_bits, torch.from_numpy(network.position.astype(np.float64))
    linears = {
        name: FoldedLinear(
            torch.from_numpy(linear.weight * 2.0 ** -linear.weight_frac_bits[:, None].astype(np.float64)),
            torch.from_numpy(linear.bias * 2.0**-linear.bias_frac_bits),
        )
        for name, linear in network.linears.items()
    }
    formats = Formats(
        activations,
        {name: torch.from_numpy(linear.weight_frac_bits.astype(np.int64)) for name, linear in network.linears.items()},
        {name: linear.bias_frac_bits for name, linear in network.linears.items()},
        network.weight_bits,
    )
    folded = FoldedNetwork(
        network.model,
        network.pruning,
        linears,
        positions * 2.0 ** -activations["patch_embed"],
        tuple(threshold * 2.0**-PROBABILITY_BITS for threshold in network.thresholds),
    )
    return QuantizedSPViT(folded, formats)
