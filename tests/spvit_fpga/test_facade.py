"""The facade: what it makes is what the commands make; what cannot be ends in a sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import spvit_fpga
from spvit.errors import CheckpointError, ConfigError, ImageError
from spvit.initialisation import seeded
from spvit_fpga import PruningConfig, build, draw_kept, load_images, load_model, quantize, resolve_model, train
from spvit_fpga.cli import run
from tests.spvit_fpga.test_design import ROOM

MICRO = resolve_model("micro")


@pytest.fixture(scope="module")
def micro():
    return load_model("micro")


@pytest.fixture(scope="module")
def quantized(micro):
    return quantize(micro)


@pytest.fixture
def accelerator(quantized, tmp_path):
    return build(quantized, folder=tmp_path / "build")


def test_what_it_offers_is_there():
    assert {name for names in spvit_fpga.PLACES.values() for name in names} == set(spvit_fpga.__all__)
    for name in dir(spvit_fpga):
        assert getattr(spvit_fpga, name).__doc__, name
    with pytest.raises(AttributeError, match="has no attribute 'loadmodel'"):
        spvit_fpga.loadmodel  # noqa: B018


def test_a_build_folder_is_the_commands(accelerator, capsys):
    """`spvit hls` and `spvit estimate` find nothing to change in it."""
    out = ["--model", "micro", "--out", str(accelerator.folder)]
    run("hls", out)
    said = capsys.readouterr().out
    assert f"{accelerator.folder}/network: up to date\n" in said and "\nup to date in " in said
    own = accelerator.estimate(kept=(9, 5, 2), clock_mhz=150).document()
    assert json.loads((accelerator.folder / "estimate.json").read_text()) == json.loads(json.dumps(own))
    run("estimate", [*out, "--kept", "9,5,2", "--clock", "150"])
    assert json.loads((accelerator.folder / "estimate.json").read_text()) == json.loads(json.dumps(own))
    assert accelerator.report() == accelerator.folder / "report.html"
    page = (accelerator.folder / "report.html").read_bytes()
    run("report", out)
    assert (accelerator.folder / "report.html").read_bytes() == page
    assert accelerator.deploy().stat().st_size > 10_000


def test_building_again_writes_nothing_new(accelerator, quantized):
    before = {path: path.stat().st_mtime_ns for path in (accelerator.folder / "src").iterdir()}
    again = build(quantized, "zcu102", folder=accelerator.folder)
    assert {path: path.stat().st_mtime_ns for path in (again.folder / "src").iterdir()} == before
    assert again.sources["engine.hpp"] == (again.folder / "src" / "engine.hpp").read_text()


def test_a_design_is_not_the_models_affair(quantized, tmp_path):
    other = build(quantized, "kv260", {"tile_in": 16, "tile_out": 16}, folder=tmp_path / "other")
    assert (other.architecture.tile_in, other.target.name) == (16, "kv260")
    assert other.estimate().layout.architecture == other.architecture
    assert quantized.model.spec == MICRO


def test_a_design_of_a_family(quantized, tmp_path):
    """By its TOML, and by the folder that it was made in."""
    path = tmp_path / "small.toml"
    path.write_text(ROOM)
    made = build(quantized, design=path, folder=tmp_path / "made")
    assert made.project.design.layout.capacities.num_tokens == 30 and made.architecture.tile_out == 16
    assert made.estimate().layout.rows == 30
    again = build(quantized, design=made.folder, folder=tmp_path / "again")
    assert again.project.files == made.project.files
    assert made.csim().mismatches == 0


def test_quantizing_leaves_the_model_as_it_is(micro):
    before = {name: tensor.clone() for name, tensor in micro.net.state_dict().items()}
    thresholds = quantize(micro, threshold=0.25).made.net.thresholds
    assert thresholds.tolist() == [0.25] * 3 and micro.net.pruning == MICRO.pruning
    assert all(torch.equal(before[name], tensor) for name, tensor in micro.net.state_dict().items())


def test_narrower_weights_make_a_shorter_stream(micro, quantized, tmp_path):
    narrow = build(quantize(micro, weight_bits="8,head=16"), folder=tmp_path / "narrow")
    assert narrow.spec.weight_bits == {"default": 8, "head": 16}
    assert narrow.project.stripes.nbytes < build(quantized, folder=tmp_path / "whole").project.stripes.nbytes


def test_a_module_keeps_its_weights_and_thresholds(quantized):
    net = seeded(MICRO.model, MICRO.pruning, 5)
    net.thresholds.fill_(0.375)
    own = quantize(net)
    assert own.made.net.thresholds.tolist() == [0.375] * 3
    assert "the checkpoint's own" in own.made.thresholds and own.inputs.weights != quantized.inputs.weights


def test_weights_go_out_and_come_back(micro, tmp_path):
    path = micro.save(tmp_path / "mine.safetensors")
    again = load_model("micro", path)
    assert again.found.selectors_found and again.source.startswith(str(path))
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), micro.net.parameters(), strict=True))


def test_sizes_of_ones_own():
    sizes = replace(MICRO.model, name="mine")
    assert not load_model(sizes).spec.pruning.num_selectors
    pruned = load_model(sizes, pruning=PruningConfig(locations=(2,), keep=(0.5,)))
    assert pruned.spec.pruning.locations == (2,) and pruned.gmacs < load_model(sizes).gmacs
    assert load_model("micro", keep=(0.9, 0.5, 0.5)).spec.pruning.keep == (0.9, 0.5, 0.5)
    assert load_model("micro", keep="none").spec.pruning.num_selectors == 0


def test_images(micro):
    digits = load_model("deit_digits")
    some = load_images(digits, "digits:test", 7)
    assert len(some) == 7 and some.labels.shape == (7,) and len(set(some.names)) == 7
    assert len(load_images(micro)) == 2 and load_images(micro).labels is None
    figure = draw_kept(digits, some, count=1)
    assert len(figure.axes) == 2 * (1 + digits.spec.pruning.num_selectors)


@pytest.mark.parametrize(
    ("wrong", "kind", "sentence"),
    [
        (lambda: load_model("micrp"), ConfigError, "MODEL=micrp is neither the path of a .toml file nor one of "),
        (lambda: load_model("micro", "gone.pth"), CheckpointError, "gone.pth: there is no such file; "),
        (lambda: load_model("micro", keep=(0.5,)), ConfigError, "KEEP=0.5: keep=[0.5] must have one fraction per selector"),
        (lambda: load_model(MICRO.model, keep=(0.5,)), ConfigError, "keep=0.5: is for models by name; sizes of your own"),
        (lambda: load_model(seeded(MICRO.model, MICRO.pruning), keep="none"), ConfigError, "a module has its weights and"),
        (lambda: quantize(load_model("micro"), threshold="half"), ConfigError, "THRESHOLD=half must be a keep probability"),
        (lambda: quantize(load_model("micro"), "gone"), ImageError, "gone: no such file or folder; "),
        (
            lambda: quantize(load_model("micro"), np.zeros((2, 8, 8, 3), np.uint8)),
            ImageError,
            "images are uint8 [2, 8, 8, 3]; micro takes uint8 [N, 16, 16, 3], with an image at least",
        ),
        (
            lambda: quantize(load_model(MICRO.model, pruning=replace(MICRO.pruning, method="random"))),
            ConfigError,
            'micro: [pruning] method = "random": the accelerator has units for method = "selector" alone',
        ),
        (lambda: train(MICRO.model, pruning=PruningConfig(locations=(1,))), ConfigError, "micro: keep is not set; give "),
        (lambda: train("micro", keep="none", epochs=3), ConfigError, "the recipe: has no epochs; "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(wrong, kind, sentence):
    with pytest.raises(kind) as refused:
        wrong()
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"target": "zcu999"}, "TARGET=zcu999 is unknown; choose one of "),
        ({"design": "diet"}, "DESIGN=diet is unknown; choose one of deit"),
        ({"design": "deit"}, "micro: its [engine] is another than that of DESIGN=deit; leave one of the two away"),
        ({"design": {"tile_inn": 8}}, "[engine] has no tile_inn; it knows "),
        ({"design": {"tile_in": 24}}, "[engine] tile_in=24 must be one of 8, 16, 32, 64, 128"),
    ],
)
def test_a_design_that_cannot_be_leaves_nothing(quantized, tmp_path, arguments, sentence):
    with pytest.raises(ConfigError) as refused:
        build(quantized, folder=tmp_path / "build", **arguments)
    assert str(refused.value).startswith(sentence) and list(tmp_path.iterdir()) == []
