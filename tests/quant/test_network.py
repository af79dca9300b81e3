import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from quant.network import (
    QuantizedLinear,
    QuantizedNetwork,
    activation_names,
    linear_shapes,
    load_network,
    save_network,
)
from spvit.errors import NetworkError
from tests.quant.conftest import Stages, make_stages


@pytest.fixture
def saved(micro: Stages, tmp_path: Path) -> Path:
    save_network(micro.network, tmp_path)
    return tmp_path


def without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


@pytest.mark.parametrize("variant", [{}, {"distilled": True}, {"share_heads": False, "features": "single"}], ids=str)
def test_a_network_comes_back_from_disk_as_it_was(variant, tmp_path):
    network = make_stages(**variant).network
    save_network(network, tmp_path)
    again = load_network(tmp_path)
    assert again.digest == network.digest
    assert (again.model, again.pruning, again.thresholds) == (network.model, network.pruning, network.thresholds)
    assert dict(again.frac_bits) == dict(network.frac_bits)
    assert np.array_equal(again.position, network.position) and again.position.dtype == np.int16
    for name, linear in network.linears.items():
        other = again.linears[name]
        assert np.array_equal(other.weight, linear.weight) and other.weight.dtype == np.int16
        assert np.array_equal(other.weight_frac_bits, linear.weight_frac_bits)
        assert np.array_equal(other.bias, linear.bias) and other.bias_frac_bits == linear.bias_frac_bits


def test_equal_networks_give_equal_bytes_and_leave_nothing_else(saved, micro, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    save_network(micro.network, other)
    files = sorted(path.name for path in saved.iterdir())
    assert files == ["network.json", "network.safetensors"]
    assert all((saved / name).read_bytes() == (other / name).read_bytes() for name in files)


def changed(network: QuantizedNetwork, field: str) -> QuantizedNetwork:
    head = network.linears["head"]
    if field == "weight":
        head = replace(head, weight=head.weight ^ np.eye(*head.weight.shape, dtype=np.int16))
    elif field == "bias":
        head = replace(head, bias=head.bias + np.int16(1))
    elif field == "weight_frac_bits":
        head = replace(head, weight_frac_bits=head.weight_frac_bits - np.int16(1))
    elif field == "bias_frac_bits":
        head = replace(head, bias_frac_bits=head.bias_frac_bits - 1)
    elif field == "position":
        return replace(network, position=network.position + np.int16(1))
    elif field == "thresholds":
        return replace(network, thresholds=(*network.thresholds[:-1], network.thresholds[-1] + 1))
    elif field == "frac_bits":
        return replace(network, frac_bits={**network.frac_bits, "head": 3})
    elif field == "package":
        return replace(network, pruning=replace(network.pruning, package="add"))
    return replace(network, linears={**network.linears, "head": head})


@pytest.mark.parametrize(
    "field",
    ["weight", "bias", "weight_frac_bits", "bias_frac_bits", "position", "thresholds", "frac_bits", "package"],
)
def test_the_digest_sees_every_field(micro, field):
    assert changed(micro.network, field).digest != micro.network.digest


@pytest.mark.parametrize("name", ["network.json", "network.safetensors"])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(NetworkError) as error:
        load_network(saved)
    assert str(error.value) == f"{saved / name}: there is no such file; run `make hls`"


@pytest.mark.parametrize("tamper", [lambda data: data[:-1], lambda data: data[:-1] + bytes([data[-1] ^ 1])])
def test_tensors_that_were_cut_or_changed_are_refused(saved, tamper):
    path = saved / "network.safetensors"
    path.write_bytes(tamper(path.read_bytes()))
    with pytest.raises(NetworkError) as error:
        load_network(saved)
    assert str(error.value) == f"{path}: its SHA-256 is not the one in network.json; run `make hls` again"


def test_a_header_cut_short_is_refused(saved):
    path = saved / "network.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(NetworkError) as error:
        load_network(saved)
    assert re.fullmatch(rf"{path}: not valid JSON: .*; run `make hls`", str(error.value))


@pytest.mark.parametrize(("header", "found"), [({"schema": 0}, "0"), ({}, "None")])
def test_another_schema_is_refused(saved, header, found):
    (saved / "network.json").write_text(json.dumps(header))
    with pytest.raises(NetworkError) as error:
        load_network(saved)
    assert str(error.value) == f"{saved / 'network.json'}: schema {found}, this version reads 1; run `make hls` again"


@pytest.mark.parametrize("field", ["model", "pruning", "bias_frac_bits", "frac_bits", "thresholds"])
def test_a_missing_field_is_named(saved, field):
    path = saved / "network.json"
    path.write_text(json.dumps(without(json.loads(path.read_text()), field)))
    with pytest.raises(NetworkError) as error:
        load_network(saved)
    assert str(error.value) == f"{path}: field {field} is missing; run `make hls` again"


def test_a_missing_layer_a_wrong_shape_and_a_missing_format_are_named(micro):
    network = micro.network
    with pytest.raises(NetworkError, match=r"lacks the layer blocks\.1\.mlp\.fc2; quantize it again"):
        replace(network, linears=without(network.linears, "blocks.1.mlp.fc2"))
    with pytest.raises(NetworkError, match=r"layer head of the quantized network has shape \(32, 32\)"):
        replace(network, linears={**network.linears, "head": network.linears["blocks.0.attn.q"]})
    with pytest.raises(NetworkError, match=r"lacks the format of blocks\.3\.attn\.scores; quantize it again"):
        replace(network, frac_bits=without(network.frac_bits, "blocks.3.attn.scores"))


def test_layers_and_activations_come_in_order_of_use(micro):
    layers = list(linear_shapes(micro.network.model, micro.network.pruning))
    assert layers[0] == "patch_embed.proj" and layers[-1] == "head"
    assert layers.index("selectors.0.head_branch.fc2") < layers.index("blocks.1.attn.q")
    assert layers.index("blocks.0.mlp.fc2") < layers.index("selectors.0.scorers.0.embed")
    names = list(activation_names(micro.network.model, micro.network.pruning))
    assert len(names) == len(set(names))


def test_bias_is_aligned_to_the_accumulator_of_each_channel():
    linear = QuantizedLinear(
        np.zeros((2, 1), np.int16), np.array([10, 12], np.int16), np.array([3, -32768], np.int16), bias_frac_bits=14
    )
    assert linear.bias_at(input_frac_bits=6).tolist() == [3 * 4, -32768 * 16]
    assert (linear.out_features, linear.in_features) == (2, 1)
