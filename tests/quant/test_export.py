import numpy as np
import pytest
import torch

from quant.export import from_network, to_network
from quant.network import activation_names
from tests.quant.conftest import make_stages


@pytest.mark.parametrize("variant", [{}, {"distilled": True}, {"share_heads": False, "features": "single"}], ids=str)
def test_the_export_is_brevitas_integers_and_scales(variant):
    stages = make_stages(**variant)
    net, network = stages.quantized, stages.network
    for name, exported in network.linears.items():
        layer = net.linear(name).layer
        weight, bias = layer.quant_weight(), layer.quant_bias()
        assert exported.weight.dtype == exported.bias.dtype == exported.weight_frac_bits.dtype == np.int16
        assert np.array_equal(exported.weight, weight.int().numpy()), name
        assert np.array_equal(exported.bias, bias.int().numpy()), name
        scales = 2.0 ** -exported.weight_frac_bits.astype(float)
        assert np.array_equal(exported.weight * scales[:, None], weight.value.detach().numpy()), name
        assert np.array_equal(scales, weight.scale.detach().numpy().ravel()), name
        assert np.array_equal(exported.bias * 2.0**-exported.bias_frac_bits, bias.value.detach().numpy()), name
    for name in activation_names(network.model, network.pruning):
        scale = net.activation(name).quantizer.act_quant.scale().item()
        assert 2.0 ** -network.frac_bits[name] == scale, name


def test_weights_stay_within_half_a_step_of_the_folded_ones(micro):
    for name, exported in micro.network.linears.items():
        lsb = 2.0 ** -exported.weight_frac_bits.astype(float)[:, None]
        assert np.abs(exported.weight * lsb - micro.folded.linears[name].weight.numpy()).max() <= lsb.max() / 2
        error = exported.bias * 2.0**-exported.bias_frac_bits - micro.folded.linears[name].bias.numpy()
        assert np.abs(error).max() <= 2.0**-exported.bias_frac_bits / 2


def test_position_and_thresholds(micro):
    lsb = 2.0 ** -micro.network.frac_bits["patch_embed"]
    assert micro.network.position.shape == (17, 32)
    assert np.abs(micro.network.position * lsb - micro.folded.position.numpy()).max() <= lsb / 2
    assert micro.network.thresholds == tuple(round(t * 2**22) for t in micro.folded.thresholds)


def test_exporting_twice_gives_the_same_network(micro):
    assert to_network(micro.quantized).digest == micro.network.digest


@pytest.mark.parametrize("variant", [{}, {"distilled": True, "package": "add"}], ids=str)
def test_the_model_of_a_networks_integers_is_the_one_that_was_exported(variant):
    stages = make_stages(**variant)
    again = from_network(stages.network)
    assert to_network(again).digest == stages.network.digest
    with torch.no_grad():
        assert torch.equal(again(stages.pixels[:4]), stages.quantized(stages.pixels[:4]))
