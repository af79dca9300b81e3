"""What the pictures show is what the model did; a wrong request ends in its sentence."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from spvit import visualize
from spvit.config import ModelSpec, PruningConfig, resolve_model
from spvit.cost import count_macs
from spvit.errors import ConfigError, UserError
from spvit.initialisation import seeded
from spvit.visualize import class_attention, draw_heads, draw_tokens, head_scores, load, mark_random, with_policy
from spvit_fpga.cli import run as run_command
from tests.spvit.test_backbones import PIT

main = partial(run_command, "visualize")

MICRO = resolve_model("micro")
TINY = """[model]
name = "tiny"
img_size = 8
patch_size = 2
in_chans = 1
embed_dim = 16
depth = 4
num_heads = 2
num_classes = 10
crop = 1.0
[pruning]
locations = [1, 2]
keep = [0.7, 0.4]
"""


def images(count=2):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def pixels(count=2):
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


@pytest.mark.parametrize("package", ["append", "add", "none"])
def test_each_panel_tells_what_its_selector_kept(package):
    net = seeded(MICRO.model, replace(MICRO.pruning, package=package))
    figure = draw_tokens(net, pixels(), images(), ["one", "two"])
    rows = 2 if package == "none" else 4
    assert len(figure.axes) == rows * 4
    with torch.no_grad():
        for row, policy in enumerate(["none", package][: rows // 2] * 2):
            output = with_policy(net, policy).forward_gathered(images()[row // (rows // 2)][None])
            shares = [f"{record.keep.mean().item():.0%} kept" for record in output.records]
            found = titles(figure)[4 * row + 1 : 4 * row + 4]
            assert found == [f"block {block}: {share}" for block, share in zip((1, 2, 3), shares, strict=True)]
    shown = np.array(figure.axes[1].images[0].get_array())
    kept = with_policy(net, "none").forward_gathered(images()[:1]).records[0].keep[0].reshape(4, 4)
    unchanged = (shown == pixels()[0]).all(axis=2).reshape(4, 4, 4, 4).all(axis=(1, 3))
    assert np.array_equal(unchanged, kept.bool().numpy())


def test_another_policy_has_the_same_weights():
    net = seeded(MICRO.model, MICRO.pruning)
    other = with_policy(net, "none")
    assert other.pruning.package == "none" and net.pruning.package == "append"
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


@torch.no_grad()
def test_heat_maps_are_the_class_tokens_attention():
    net, found = seeded(MICRO.model, MICRO.pruning), None
    x = net.embed(images())
    for block in net.blocks[:-1]:
        x = block(x)
    attention, normed = net.blocks[-1].attn, net.blocks[-1].norm1(x)
    q, k = (part.reshape(2, 17, 2, 16).transpose(1, 2) for part in attention.qkv(normed).split(32, dim=-1)[:2])
    expected = (q[:, :, :1] @ k.transpose(2, 3) / 4).softmax(dim=-1)[:, :, 0, 1:]
    found = class_attention(net, images())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("share_heads", [True, False])
@torch.no_grad()
def test_heat_maps_are_the_scores_of_equation_3(share_heads):
    net = seeded(MICRO.model, replace(MICRO.pruning, heads="average", share_heads=share_heads))
    found = head_scores(net, images())
    assert found.shape == (2, 2, 16)
    torch.testing.assert_close(found.mean(dim=1), net.forward_masked(images()).records[0].probability)
    assert not net.selectors[0].scorers[0]._forward_hooks


@pytest.mark.parametrize(
    ("model", "pruning", "rows"),
    [({}, {}, 2), ({"pooling": "mean"}, {}, 1), ({}, {"method": "random"}, 1), ({}, {"heads": "single"}, 1)],
)
def test_heads_has_the_rows_that_there_are(model, pruning, rows):
    net = seeded(replace(MICRO.model, **model), replace(MICRO.pruning, **pruning))
    figure = draw_heads(net, pixels(), images(), ["one", "two"])
    assert len(figure.axes) == 2 * rows * (3 + 1)  # image, two heads, and what the colours mean
    assert [title for title in titles(figure) if title] == ["one", "head 0", "head 1", "two", "head 0", "head 1"]


def test_nothing_to_draw_of_the_heads():
    net = seeded(replace(MICRO.model, pooling="mean"), replace(MICRO.pruning, method="random"))
    with pytest.raises(ConfigError) as error:
        draw_heads(net, pixels(), images(), ["one", "two"])
    assert str(error.value) == "micro: it has neither a class token nor a selector's heads; nothing to draw"


def test_weights_are_calibrated_for_what_is_asked():
    net, source = load(ModelSpec(MICRO.model, replace(MICRO.pruning, keep=(0.9, 0.6, 0.3))), None, images(16))
    assert source.startswith("seeded random weights; thresholds: ")
    assert source.endswith(", calibrated for KEEP=0.9,0.6,0.3, which keep 89.8%, 60.2%, 30.1% of the patches")
    kept = [record.keep.mean().item() for record in net.forward_masked(images(16)).records]
    assert kept == pytest.approx([0.9, 0.6, 0.3], abs=0.01)


def test_the_command_leaves_three_pictures_and_the_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(visualize, "POWERS", (0.5, 1.0))
    (tmp_path / "tiny.toml").write_text(TINY)
    main(["--model", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "out"), "--count", "2"])
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["heads.png", "tokens.png", "tradeoff.json", "tradeoff.png"]
    for name in ("heads.png", "tokens.png", "tradeoff.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 24)) > 50
    points = json.loads((out / "tradeoff.json").read_text())
    spec = resolve_model(str(tmp_path / "tiny.toml"))
    assert {policy: len(found) for policy, found in points.items()} == {"append": 2, "none": 2, "unpruned": 1}
    assert points["unpruned"][0]["gmacs"] * 1e9 == pytest.approx(count_macs(spec.model, spec.pruning.without()).total)
    assert points["append"][1]["gmacs"] * 1e9 == pytest.approx(count_macs(spec.model, spec.pruning).total, rel=0.1)
    assert points["append"][0]["gmacs"] > points["append"][1]["gmacs"] > points["none"][1]["gmacs"]
    assert "weights: seeded random weights" in capsys.readouterr().out


def test_random_weights_are_marked_on_every_picture(tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(visualize, "write_figure", lambda path, figure: written.update({path.name: figure}))
    main(["--model", "micro", "--out", str(tmp_path / "out"), "--count", "1"])
    sentence = "micro with seeded random weights: says nothing of a trained model"
    assert {name: figure.get_suptitle() for name, figure in written.items()} == {
        "tokens.png": sentence, "heads.png": sentence,
    }  # fmt: skip


def test_trained_weights_are_not():
    figure = draw_tokens(seeded(MICRO.model, MICRO.pruning), pixels(), images(), ["one", "two"])
    mark_random(figure, "micro", "weights.safetensors: own checkpoint; thresholds: the checkpoint's own")
    assert figure.get_suptitle() == ""


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--count", "0"], "--count 0 must be a whole number from 1 to 1,000; "),
        (
            ["--keep", "none"],
            "micro: it has no selectors, so there are no kept tokens to draw; set locations, not KEEP=none",
        ),
        (["--data", "gone"], "--data gone: no such folder; "),
        (["--images", "gone"], "gone: no such file or folder; "),
        (["--ckpt", "gone.pth"], "gone.pth: there is no such file; "),
    ],
)
def test_requests_that_cannot_be(tmp_path, options, sentence):
    with pytest.raises(UserError) as error:
        main(["--model", "micro", "--out", str(tmp_path / "out"), *options])
    assert str(error.value).startswith(sentence)
    assert not (tmp_path / "out").exists()


def test_channels_are_no_tokens(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY + 'method = "structured"\n')
    with pytest.raises(ConfigError) as error:
        main(["--model", str(tmp_path / "tiny.toml")])
    assert str(error.value) == 'tiny: method="structured" prunes channels, so there are no kept tokens to draw'


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError) as error:
        main(["--model", "micro", "--out", str(tmp_path / "out")])
    assert str(error.value).startswith(f"{tmp_path / 'out'}: is a file where a folder is wanted; ")


@torch.no_grad()
def test_grids_and_heads_of_several_stages():
    """Of a PiT: 5 x 5 places of the second stage over the image, and rows with as many heads as there are."""
    net = seeded(PIT, PruningConfig((1, 4), keep=(0.6, 0.4)))
    random = np.random.default_rng(0)
    shown, batch = random.integers(0, 256, (1, 20, 20, 3), dtype=np.uint8), torch.randn(1, 3, 20, 20)
    figure = draw_tokens(net, shown, batch, ["one"])
    records = net.forward_gathered(batch).records
    assert [record.keep.shape[1] for record in records] == [25, 9]
    assert titles(figure)[4:] == [
        *(f"block {at}: {one.keep.mean().item():.0%} kept" for at, one in zip((1, 4), records, strict=True)),
    ]
    places = (np.array(figure.axes[4].images[0].get_array()) == shown[0]).all(axis=2)
    kept = records[0].keep[0].bool().reshape(5, 5).numpy()
    assert np.array_equal(places, kept.repeat(4, axis=0).repeat(4, axis=1))
    heads = draw_heads(net, shown, batch, ["one"])
    assert [title for title in titles(heads) if title] == ["one", *(f"head {head}" for head in range(8))]
    assert [axis.axison for axis in heads.axes[9:18]] == [True] * 5 + [False] * 4
