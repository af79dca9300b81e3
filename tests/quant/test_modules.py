import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from quant.fold import FoldedLinear
from quant.formats import requantize
from quant.modules import Activation, Linear

ACTIVATION = Activation(10)


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=20), st.integers(0, 30))
def test_brevitas_rounds_and_saturates_by_the_rule(acc, shift):
    acc = torch.tensor(acc, dtype=torch.float64)
    value = ACTIVATION(acc * 2.0 ** -(10 + shift))
    assert torch.equal(value * 2**10, requantize(acc, shift))


def test_an_activation_knows_its_format():
    for frac_bits in (-3, 0, 10, 14):
        activation = Activation(frac_bits)
        assert activation.frac_bits == frac_bits
        assert activation.quantizer.act_quant.scale() == 2.0**-frac_bits
        assert activation(torch.tensor([1e9, -1e9]).double()).tolist() == [
            32767 * 2.0**-frac_bits,
            -32768 * 2.0**-frac_bits,
        ]


def linear(out_features: int = 40) -> tuple[Linear, FoldedLinear, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    frac_bits = torch.randint(8, 31, (out_features,), generator=random)
    weight = torch.randn(out_features, 24, generator=random).double() * 2.0 ** (13 - frac_bits.double())[:, None]
    folded = FoldedLinear(weight, torch.randn(out_features, generator=random).double())
    return Linear(folded, frac_bits, 13), folded, frac_bits


def test_a_linear_layer_has_a_format_per_output_channel():
    layer, folded, frac_bits = linear()
    assert torch.equal(layer.weight_frac_bits, frac_bits) and layer.bias_frac_bits == 13
    assert torch.equal(layer.layer.weight_quant.scale().flatten(), 2.0 ** -frac_bits.double())
    weight, bias = layer.integers()
    lsb = 2.0 ** -frac_bits.double()[:, None]
    assert torch.equal(weight.double(), torch.round(folded.weight / lsb).clamp(-32767, 32767))
    assert torch.equal(bias.double(), torch.round(folded.bias * 2**13).clamp(-32768, 32767))
    on_grid, bias_on_grid = layer.quantized()
    assert torch.equal(on_grid, weight * lsb) and torch.equal(bias_on_grid * 2**13, bias.double())
    assert layer.saturations() == 0


def test_a_linear_layers_accumulator_is_exact():
    layer, _, frac_bits = linear()
    x = torch.randint(-32768, 32768, (9, 24), generator=torch.Generator().manual_seed(1))
    weight, bias = (tensor.numpy().astype(np.int64) for tensor in layer.integers())
    exact = x.numpy() @ weight.T + (bias << (11 + frac_bits.numpy() - 13))
    acc = layer(x.double() * 2.0**-11)
    assert np.array_equal((acc.detach() * 2.0 ** (11 + frac_bits)).numpy(), exact)
    by_hand = torch.nn.functional.linear(x.double() * 2.0**-11, *layer.quantized())
    assert torch.equal(acc, by_hand)


def test_weights_that_int16_cuts_off_are_counted():
    layer, _, frac_bits = linear()
    with torch.no_grad():
        layer.layer.weight[0, :3] = 40000 * 2.0 ** -frac_bits[0].double()
        layer.layer.bias[5] = -5.0
    assert layer.saturations() == 4
