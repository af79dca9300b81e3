"""Training: its pieces, one short run from end to end, and the weights that come with the project."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import spvit
from spvit.calibration import kept_patches, mean_macs
from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import resolve_model
from spvit.cost import count_macs
from spvit.errors import ConfigError
from spvit.train import Recipe, accuracy, jitter, load_split, main, train, train_backbone

SPEC = resolve_model("deit_digits")
TINY = replace(
    SPEC,
    model=replace(SPEC.model, patch_size=2, embed_dim=16, num_heads=2, depth=3),
    pruning=replace(SPEC.pruning, locations=(1, 2), keep=(0.7, 0.4)),
)


def test_the_splits_are_normalised_and_apart():
    training, test = (load_split("digits", part, SPEC.model) for part in ("train", "test"))
    assert training.images.shape == (1347, 1, 8, 8)
    assert test.images.shape == (450, 1, 8, 8)
    assert training.images.min() == -1 and training.images.max() == 1
    assert training.images.dtype == torch.float32
    known = {image.numpy().tobytes() for image in training.images}
    assert not any(image.numpy().tobytes() in known for image in test.images)


@pytest.mark.parametrize(
    ("data", "model", "sentence"),
    [
        ("imagenet", {}, "--data imagenet must be one of digits"),
        ("digits", {"num_classes": 7}, "deit_digits: digits are 8x8 grey images of 10 classes, but the model has img_size=8, in_chans=1, num_classes=7; "),
    ],
)  # fmt: skip
def test_data_that_does_not_fit(data, model, sentence):
    with pytest.raises(ConfigError) as refused:
        load_split(data, "test", replace(SPEC.model, **model))
    assert str(refused.value).startswith(sentence)


def test_jitter_moves_two_in_three_a_little_and_pads_with_background():
    torch.manual_seed(0)
    blank = torch.full((300, 1, 8, 8), -1.0)
    dots = blank.clone()
    dots[:, :, 3:5, 3:5] = 1
    moved = jitter(dots)
    assert moved.shape == dots.shape
    assert moved.min() == -1 and moved.max() == 1
    same = (moved == dots).all(dim=(1, 2, 3))
    assert 75 < same.sum() < 125
    assert len({image.numpy().tobytes() for image in moved[~same]}) == (~same).sum()
    rows = torch.arange(8.0)
    mass = (moved[~same] + 1).sum(1)
    for axis in (1, 2):
        centre = (mass.sum(3 - axis) * rows).sum(1) / mass.sum((1, 2))
        assert ((centre - 3.5).abs() < 1.2).all() and centre.std() > 0.2
    assert torch.equal(jitter(blank), blank)


def test_training_starts_with_neighbours_that_resemble_each_other():
    data = load_split("digits", "test", SPEC.model)
    positions = train_backbone(SPEC, data, Recipe(backbone_epochs=0)).pos_embed[0, 1:].detach()
    rows, columns = torch.arange(64) // 8, torch.arange(64) % 8
    apart = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    likeness = torch.nn.functional.cosine_similarity(positions[:, None], positions, dim=-1)
    assert likeness[apart == 1].mean() > 0.6
    assert likeness[apart > 4].mean() < 0.3


def test_a_short_run_learns_and_meets_the_fractions():
    data = load_split("digits", "train", TINY.model)
    net, teacher = train(TINY, data, Recipe(backbone_epochs=4, pruning_epochs=2))
    assert accuracy(teacher, data) > 0.25
    assert accuracy(net, data) > 0.25
    kept = kept_patches(net, data.images).double().mean(0) / 16
    assert kept.tolist() == pytest.approx([0.7, 0.4], abs=1e-3)
    assert not net.training and not teacher.training
    again, _ = train(TINY, data, Recipe(backbone_epochs=1, pruning_epochs=1))
    same, _ = train(TINY, data, Recipe(backbone_epochs=1, pruning_epochs=1))
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in again.state_dict().items())


def test_an_unpruned_model_is_trained_too():
    spec = replace(TINY, pruning=TINY.pruning.without())
    net, teacher = train(spec, load_split("digits", "test", spec.model), Recipe(backbone_epochs=1))
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in teacher.state_dict().items())


def test_the_command_writes_a_checkpoint_and_tells(tmp_path, capsys):
    config = tmp_path / "tiny.toml"
    config.write_text(
        "[model]\nimg_size = 8\npatch_size = 4\nin_chans = 1\nembed_dim = 8\ndepth = 2\nnum_heads = 1\nnum_classes = 10\n"
        "[pruning]\nlocations = [1]\nkeep = [0.5]\n"
    )
    out = tmp_path / "tiny.safetensors"
    main(["--model", str(config), "--out", str(out), "--backbone-epochs", "1", "--pruning-epochs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["unpruned", "pruned", "MACs", "kept", "fractions"]
    assert [line.split()[0] for line in lines[1:]] == ["training", "test"]
    assert lines[1].endswith(" 0.500")
    spec = resolve_model(str(config))
    _, report = load_checkpoint_with_report(out, spec.model, spec.pruning)
    assert report.selectors_found and report.calibrated_keep == (0.5,)


def test_the_weights_that_come_along():
    """Their accuracy, cost and tokens, as the README may state them."""
    path = Path(spvit.__file__).parent / "weights" / "deit_digits.safetensors"
    assert path.stat().st_size < 3_000_000
    net, report = load_checkpoint_with_report(path, SPEC.model, SPEC.pruning)
    assert report.selectors_found and report.calibrated_keep == SPEC.pruning.keep
    training, test = (load_split("digits", part, SPEC.model) for part in ("train", "test"))
    unpruned = count_macs(SPEC.model, SPEC.pruning.without()).total
    kept = kept_patches(net, training.images)
    fractions = kept.double().mean(0) / SPEC.model.num_patches
    assert fractions.tolist() == pytest.approx(SPEC.pruning.keep, abs=1e-3)
    assert mean_macs(net, kept) / unpruned - 1 == pytest.approx(-0.42, abs=0.01)
    assert accuracy(net, test) >= 0.98
    assert len({tuple(counts) for counts in kept.tolist()}) > 100  # images keep what they need
