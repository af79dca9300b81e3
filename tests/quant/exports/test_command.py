"""The command: what it writes, and what it refuses."""

import json
from functools import partial

import numpy as np
import pytest

from quant.exports import command
from quant.exports.integers import to_arrays, to_npz
from quant.network import QuantizedLinear, QuantizedNetwork
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import BuildError, ConfigError
from spvit_fpga.cli import run
from tests.quant.conftest import make_stages

export = partial(run, "export")


def tuples(table):
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


@pytest.mark.parametrize("variant", [{}, {"distilled": True}, {"share_heads": False, "features": "single"}], ids=str)
def test_the_arrays_are_the_whole_network(variant, tmp_path):
    network = make_stages(**variant).network
    (tmp_path / "network.npz").write_bytes(to_npz(network))
    with np.load(tmp_path / "network.npz") as arrays:  # allow_pickle is off
        config = json.loads(str(arrays["config"]))
        layers = [name.removesuffix(".weight") for name in arrays.files if name.endswith(".weight")]
        again = QuantizedNetwork(
            ModelConfig(**tuples(config["model"])),
            PruningConfig(**tuples(config["pruning"])),
            {
                layer: QuantizedLinear(
                    arrays[f"{layer}.weight"],
                    arrays[f"{layer}.weight_frac_bits"],
                    arrays[f"{layer}.bias"],
                    int(arrays[f"{layer}.bias_frac_bits"]),
                )
                for layer in layers
            },
            {name[10:]: int(arrays[name]) for name in arrays.files if name.startswith("frac_bits/")},
            arrays["position"],
            tuple(arrays["thresholds"].tolist()),
        )
    assert again.digest == network.digest == config["digest"]


def test_every_array_is_of_16_bits_but_the_thresholds():
    arrays = to_arrays(make_stages().network)
    assert {array.dtype.name for name, array in arrays.items() if name not in ("config", "thresholds")} == {"int16"}
    assert arrays["thresholds"].dtype == np.int32


def test_equal_networks_give_equal_bytes():
    assert to_npz(make_stages().network) == to_npz(make_stages().network)


def test_the_integers_of_a_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert export(["--model", "micro", "--format", "npz"]) == 0
    assert (tmp_path / "build/export/micro/network.npz").exists()
    assert "build/export/micro/network.npz: " in capsys.readouterr().out
    assert export(["--model", "micro", "--format", "npz", "--keep", "none", "--out", "elsewhere"]) == 0
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["network.npz"]


def test_onnx_leaves_two_files(tmp_path, monkeypatch):
    made = []

    class Graph:
        def ByteSize(self):  # noqa: N802
            return 3

        def SerializeToString(self, deterministic):  # noqa: N802
            return b"onn"

    def graph(net, form):
        made.append((net.pruning.num_selectors, form))
        return Graph()

    monkeypatch.setattr("spvit.exports.onnx_graph.onnx_graph", graph)
    assert export(["--model", "micro", "--format", "onnx", "--out", str(tmp_path)]) == 0
    assert made == [(3, "gathered"), (3, "masked")]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "gathered.onnx": b"onn",
        "masked.onnx": b"onn",
    }
    monkeypatch.setattr(Graph, "ByteSize", lambda self: 2**31)
    with pytest.raises(ConfigError, match="would have 2,147,483,648 bytes, and ONNX files end at 2 GB"):
        export(["--model", "micro", "--format", "onnx", "--out", str(tmp_path)])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "tflite"], "--format tflite is unknown; choose from onnx, qonnx, npz"),
        ([], "--format must be given; spvit export --help lists what can be given"),
        (
            ["--format", "onnx", "--out", "a.onnx"],
            "OUT=a.onnx: is the folder that the files are put into; give a folder's name",
        ),
    ],
)
def test_requests_that_cannot_be(options, sentence):
    with pytest.raises(ConfigError) as error:
        export(["--model", "micro", *options])
    assert str(error.value) == sentence


def test_a_package_that_is_missing_is_named():
    command.require(("onnx",), "FORMAT=onnx")
    with pytest.raises(BuildError) as error:
        command.require(("onnx", "no_such_package"), "FORMAT=onnx")
    assert str(error.value) == (
        "FORMAT=onnx needs no_such_package, which is not installed here; install requirements.txt, or delete .venv "
        "and let make install it"
    )
