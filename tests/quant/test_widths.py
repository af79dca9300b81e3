"""Which widths a person can ask for, and what is said of the others."""

from dataclasses import replace

import pytest

from quant.build import build_folder, model_spec
from quant.options import BuildOptions
from quant.widths import layer_widths, narrow, with_weight_bits
from spvit.config import resolve_model
from spvit.errors import ConfigError, NetworkError
from tests.sim.networks import micro, narrowed

MICRO = resolve_model("micro")
TOML = "[model]\nembed_dim = 32\ndepth = 2\nnum_heads = 2\nimg_size = 16\npatch_size = 4\n"


def test_all_have_16_bits_unless_somebody_asks():
    assert set(layer_widths(MICRO).values()) == {16} and narrow(layer_widths(MICRO)) == {}
    assert with_weight_bits(MICRO, None) is MICRO


def test_the_name_with_the_most_parts_says_it():
    widths = layer_widths(replace(MICRO, weight_bits={"default": 12, "head": 16, "mlp": 8, "blocks.1.mlp.fc2": 12}))
    assert widths["head"] == 16 and widths["blocks.0.attn.q"] == widths["patch_embed.proj"] == 12
    assert widths["blocks.0.mlp.fc1"] == widths["blocks.1.mlp.fc1"] == 8 and widths["blocks.1.mlp.fc2"] == 12
    assert widths["selectors.0.head_branch.fc1"] == 12  # `head` is a part of no other name


def test_from_a_toml_and_from_the_command(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(TOML + "[quantization]\nweight_bits = { default = 12, head = 16 }\n")
    assert resolve_model(str(path)).weight_bits == {"default": 12, "head": 16}
    path.write_text(TOML + "[quantization]\nweight_bits = 8\n")
    spec = resolve_model(str(path))
    assert set(layer_widths(spec).values()) == {8}
    assert with_weight_bits(spec, "16").weight_bits == {"default": 16}
    assert with_weight_bits(spec, "12,head=16").weight_bits == {"default": 12, "head": 16}
    asked = BuildOptions(model="micro", weight_bits="12,head=16")
    assert build_folder(asked).name == "micro-zcu102-weights-12_head_16"
    assert model_spec(asked).weight_bits == {"default": 12, "head": 16}


@pytest.mark.parametrize(
    ("quantization", "sentence"),
    [
        ("weight_bits = 10", "[quantization] weight_bits=10 must be one of 8, 12, 16"),
        ("weight_bits = { head = 4 }", "[quantization] weight_bits of head=4 must be one of 8, 12, 16"),
        ("weight_bits = '12'", "[quantization] weight_bits='12' must be one of 8, 12, 16"),
        ("bits = 12", "[quantization] has no bits; it knows weight_bits"),
    ],
)
def test_widths_that_are_none(tmp_path, quantization, sentence):
    path = tmp_path / "own.toml"
    path.write_text(f"{TOML}[quantization]\n{quantization}\n")
    with pytest.raises(ConfigError) as error:
        resolve_model(str(path))
    assert str(error.value) == f"{path}: {sentence}"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("10", "WEIGHT_BITS=10: width=10 must be one of 8, 12, 16"),
        ("twelve", "WEIGHT_BITS=twelve must be 16, 12 or 8, with layers that differ behind it: 12,head=16"),
        ("12,=16", "WEIGHT_BITS=12,=16 must be 16, 12 or 8, with layers that differ behind it: 12,head=16"),
        ("12,16", "WEIGHT_BITS=12,16 says twice what all layers have; say it once"),
        (
            "12,haed=16",
            "[quantization] weight_bits: no layer is called haed; there are patch_embed, attn.q, mlp.fc1, blocks.0, "
            "selectors, head and the like, and default",
        ),
    ],
)
def test_requests_that_are_none(asked, sentence):
    with pytest.raises(ConfigError) as error:
        model_spec(BuildOptions(model="micro", weight_bits=asked))
    assert str(error.value) == sentence


def test_a_network_whose_weights_are_wider_than_it_says():
    network = narrowed(micro())
    linear = network.linears["head"]
    other = network.linears | {"head": replace(linear, weight=linear.weight | 1, weight_bits=8)}
    with pytest.raises(
        NetworkError, match=r"^layer head of the quantized network says that its weights have 8 bits, and"
    ):
        replace(network, linears=other)
