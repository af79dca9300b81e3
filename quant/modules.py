"""The Brevitas quantizers: 16-bit signed integers whose scales are powers of two, fixed by calibration; weights may
have 12 or 8 bits.

Enters and leaves: real values in float64, where `integer * 2**-frac_bits` and the products of such are exact.
The scales are Brevitas's own parameters (the logarithm of the range), so that a state dict carries them; training
leaves them alone, since the engine's shifts must stay within their ranges.
"""

from __future__ import annotations

import torch
from brevitas import nn as qnn
from brevitas.inject.enum import ScalingImplType
from brevitas.quant.base import IntQuant, NarrowIntQuant, PerChannelPoTScaling8bit, PerTensorPoTScaling8bit
from brevitas.quant.solver import ActQuantSolver, BiasQuantSolver, WeightQuantSolver
from torch import Tensor, nn

from quant.fold import FoldedLinear
from quant.formats import ACTIVATION_BITS


class _ActivationQuant(IntQuant, PerTensorPoTScaling8bit, ActQuantSolver):
    bit_width = ACTIVATION_BITS
    scaling_impl_type = ScalingImplType.PARAMETER


class _WeightQuant(NarrowIntQuant, PerChannelPoTScaling8bit, WeightQuantSolver):
    bit_width = ACTIVATION_BITS
    scaling_impl_type = ScalingImplType.PARAMETER


class _BiasQuant(IntQuant, PerTensorPoTScaling8bit, BiasQuantSolver):
    bit_width = ACTIVATION_BITS
    scaling_impl_type = ScalingImplType.PARAMETER
    requires_input_scale = False


WEIGHT_BITS = 16


def _range(frac_bits: Tensor) -> Tensor:
    """What Brevitas divides by 2^15 to get the scale, by 2^7 where the integers have 8 bits: the range is the same."""
    return torch.exp2(ACTIVATION_BITS - 1 - frac_bits.to(torch.float64))


def _freeze(quantizer: nn.Module) -> None:
    """Exclude the scales from training."""
    for name, parameter in quantizer.named_parameters():
        if name.endswith("scaling_impl.value"):
            parameter.requires_grad_(False)


def _frac_bits(tensor_quant: nn.Module) -> Tensor:
    """int64, from the quantizer's parameter, the logarithm of its range."""
    exponent = ACTIVATION_BITS - 1 - tensor_quant.scaling_impl.value.detach()
    assert torch.equal(exponent, exponent.round()), "a scale is no power of two"
    return exponent.to(torch.int64)


class Activation(nn.Module):
    """Rounds a tensor, half to even, to int16 with `frac_bits`, and saturates."""

    def __init__(self, frac_bits: int) -> None:
        super().__init__()
        quantizer = _ActivationQuant.let(scaling_init=_range(torch.tensor(frac_bits)))
        self.quantizer = qnn.QuantIdentity(act_quant=quantizer)
        _freeze(self.quantizer)

    @property
    def frac_bits(self) -> int:
        return int(_frac_bits(self.quantizer.act_quant.fused_activation_quant_proxy.tensor_quant))

    def forward(self, x: Tensor) -> Tensor:
        return self.quantizer(x)


class Linear(nn.Module):
    """A `QuantLinear`: weights with a format per output channel, int16 bias with one format per layer.

    weight_frac_bits  int64 [out], of the weights as int16: with fewer bits, the lowest are zero
    weight_bits       of the weights
    """

    def __init__(
        self, folded: FoldedLinear, weight_frac_bits: Tensor, bias_frac_bits: int, weight_bits: int = WEIGHT_BITS
    ) -> None:
        super().__init__()
        self.weight_bits = weight_bits
        out_features, in_features = folded.weight.shape
        self.layer = qnn.QuantLinear(
            in_features,
            out_features,
            weight_quant=_WeightQuant.let(bit_width=weight_bits, scaling_init=_range(weight_frac_bits)[:, None]),
            bias_quant=_BiasQuant.let(scaling_init=_range(torch.tensor(bias_frac_bits))),
            dtype=torch.float64,
        )
        with torch.no_grad():
            self.layer.weight.copy_(folded.weight)
            self.layer.bias.copy_(folded.bias)
        _freeze(self.layer)

    @property
    def weight_frac_bits(self) -> Tensor:
        """int64 [out]"""
        return _frac_bits(self.layer.weight_quant.tensor_quant).flatten()

    @property
    def bias_frac_bits(self) -> int:
        return int(_frac_bits(self.layer.bias_quant.tensor_quant))

    def quantized(self) -> tuple[Tensor, Tensor]:
        """Weight [out, in] and bias [out], on their grids, with straight-through gradients."""
        return self.layer.quant_weight().value, self.layer.quant_bias().value

    def integers(self) -> tuple[Tensor, Tensor]:
        """int32 weight [out, in] and bias [out], as Brevitas counts them; narrow weights in an int16's highest bits."""
        weight, bias = self.layer.quant_weight().int(), self.layer.quant_bias().int()
        return weight.to(torch.int32) << WEIGHT_BITS - self.weight_bits, bias  # 8 bits come as int8

    @torch.no_grad()
    def saturations(self) -> int:
        """Weights and biases that int16 cuts off."""
        cut = 0
        for quantized, real in (
            (self.layer.quant_weight(), self.layer.weight),
            (self.layer.quant_bias(), self.layer.bias),
        ):
            cut += int(((quantized.value - real).abs() > quantized.scale / 2).sum())  # rounding stays within half
        return cut

    def forward(self, x: Tensor) -> Tensor:
        """The exact accumulator with its bias."""
        return self.layer(x)
