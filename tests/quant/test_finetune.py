"""Fine-tuning trains the accelerator's own arithmetic, and leaves a float checkpoint."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from quant.calibrate import choose_formats, observe_ranges
from quant.finetune import Following, RoundedSPViT, accuracies, finetune, to_pixels
from quant.fold import fold
from quant.model import QuantizedSPViT
from quant.options import RECIPE_FIELDS
from spvit.calibration import kept_patches
from spvit.checkpoints import load_checkpoint, load_checkpoint_with_report, save_checkpoint
from spvit.config import resolve_model, shipped_weights
from spvit.errors import CheckpointError, ConfigError, TrainingError
from spvit.images.preprocess import Preprocessing
from spvit.initialisation import seeded
from spvit.training.data import Data, InMemory, load_data
from spvit.training.loop import Run
from spvit.training.recipe import Recipe
from spvit.training.state import Journal
from spvit_fpga.cli import parser_of
from spvit_fpga.cli import run as run_command
from spvit_fpga.commands import COMMANDS

main = partial(run_command, "finetune")
ROOT = Path(__file__).parents[2]
DIGITS = resolve_model("deit_digits")
SMALL = replace(
    DIGITS,
    model=replace(DIGITS.model, name="small", patch_size=2, embed_dim=16, num_heads=2, depth=3),
    pruning=replace(DIGITS.pruning, locations=(1,), keep=(0.6,)),
)
RECIPE = Recipe(batch=16, augment="none", mixup=0.0, cutmix=0.0, warm_up=0.0)


@pytest.fixture(scope="module")
def data():
    whole = load_data("digits", SMALL.model, RECIPE)
    return Data("digits", *(InMemory(part.images[:32], part.labels[:32]) for part in (whole.training, whole.test)))


@pytest.fixture
def net():
    return seeded(SMALL.model, SMALL.pruning)


def run(data, watch=lambda phase, step, loss: None, recipe=RECIPE):
    return Run(data, recipe, Journal(None, {}), torch.device("cpu"), watch)


def test_every_pixel_comes_back_from_its_normalised_value():
    model = resolve_model("micro").model
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3).contiguous()
    images = torch.from_numpy(Preprocessing.from_model(model).normalise(pixels.numpy())).float()
    assert torch.equal(to_pixels(images, model), pixels)


def test_logits_are_the_brevitas_models_also_after_weights_changed(net, data):
    rounded = RoundedSPViT(net, data.training.images)
    pixels = to_pixels(data.test.images[:3], SMALL.model)
    folded = fold(net)
    formats = choose_formats(folded, observe_ranges(folded, to_pixels(data.training.images, SMALL.model)))
    assert torch.equal(rounded.rounded_logits(pixels), QuantizedSPViT(folded, formats)(pixels))
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))
    after = QuantizedSPViT(fold(rounded), formats)(pixels)
    assert torch.equal(rounded.rounded_logits(pixels), after)
    assert torch.equal(rounded.train()(data.test.images[:3]).logits, after.float())


def test_gradients_reach_the_float_weights_and_not_the_selectors(net, data):
    rounded = RoundedSPViT(net, data.training.images).train()
    cross_entropy(rounded(data.training.images[:4]).logits, data.training.labels[:4]).backward()
    for name, parameter in rounded.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached == (not name.startswith("selectors.")), name


def test_the_loss_falls_and_only_the_copy_changes(net, data):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    losses = []
    tuned = finetune(net, run(data, lambda phase, step, loss: losses.append(loss)), epochs=3, rate=2e-3)
    assert len(losses) == 6 and sum(losses[-2:]) < 0.85 * sum(losses[:2])
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    changed = {name for name, tensor in tuned.state_dict().items() if not torch.equal(before[name], tensor)}
    assert "blocks.2.mlp.fc2.weight" in changed and "pos_embed" in changed
    assert not any(name.startswith("selectors.") for name in changed)
    assert kept_patches(tuned, data.training.images).double().mean() / 16 == pytest.approx(0.6, abs=0.01)


def test_the_float_models_logits_are_followed(net, data):
    """Without the labels' part, the loss is least where nothing changes."""
    objective = Following(net)
    rounded = RoundedSPViT(net, data.training.images).train()
    images, labels = data.training.images[:8], data.training.labels[:8]
    same = objective.loss(rounded, images, labels) - cross_entropy(rounded(images).logits, labels)
    other = objective.loss(seeded(SMALL.model, SMALL.pruning, 1), images, labels) - cross_entropy(
        seeded(SMALL.model, SMALL.pruning, 1).forward_gathered(images).logits, labels
    )
    assert 0 <= same < 1e-2 < other


# --- the command ---


@pytest.fixture
def small(tmp_path, net, monkeypatch, data):
    """Its arguments, for a model of a TOML with a checkpoint, and few digits."""
    toml = tmp_path / "small.toml"
    toml.write_text(
        '[model]\nname = "small"\nimg_size = 8\npatch_size = 2\nin_chans = 1\nembed_dim = 16\nnum_heads = 2\n'
        "depth = 3\nnum_classes = 10\n[pruning]\nlocations = [1]\nkeep = [0.6]\n"
    )
    weights = tmp_path / "trained.safetensors"
    save_checkpoint(weights, net)
    monkeypatch.setattr("quant.finetune.load_data", lambda name, model, recipe: data)
    return ["--model", str(toml), "--data", "digits", "--ckpt", str(weights), "--out", str(tmp_path / "tuned.safetensors"),
            "--augment", "none", "--batch", "16", "--device", "cpu"]  # fmt: skip


def test_the_command(small, tmp_path, capsys):
    main([*small, "--rate", "1e-4"])
    printed = capsys.readouterr().out
    assert "accuracy on 32 test images" in printed and "before" in printed and "after" in printed
    assert f"CKPT={tmp_path / 'tuned.safetensors'}" in printed
    spec = resolve_model(small[1])
    assert load_checkpoint(tmp_path / "tuned.safetensors", spec.model, spec.pruning).pruning.keep == (0.6,)
    assert not (tmp_path / "tuned.state").exists()


@pytest.mark.parametrize("made_for", [(), (0.8,)])
def test_thresholds_are_fitted_to_what_they_were_made_for_and_to_nothing_else(small, tmp_path, made_for):
    """Without KEEP=, the registry's fractions say nothing about selectors that were trained for others."""
    spec = resolve_model(small[1])
    net = seeded(spec.model, spec.pruning, 3)
    net.pruning = replace(net.pruning, keep=made_for)
    net.thresholds.fill_(0.45)
    save_checkpoint(tmp_path / "trained.safetensors", net)
    main([*small, "--ckpt", str(tmp_path / "trained.safetensors")])
    tuned, found = load_checkpoint_with_report(tmp_path / "tuned.safetensors", spec.model, spec.pruning)
    assert found.calibrated_keep == made_for
    assert (tuned.thresholds.tolist() == pytest.approx([0.45])) == (made_for == ())


def test_a_loss_that_is_no_number_ends_with_a_sentence_and_no_file(small, tmp_path, monkeypatch):
    monkeypatch.setattr(Following, "loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match=r"^quantized: the loss became nan in step 1; none of it was saved\. .*$"):
        main(small)
    assert {path.name for path in tmp_path.glob("tuned*")} <= {"tuned-log.csv", "tuned-events"}


def test_its_help_lists_what_it_uses():
    """Each field of the recipe that is read on the way, and no other."""
    files = ("quant/finetune.py", "spvit/training/loop.py", "spvit/training/data.py")
    read = {name for file in files for name in re.findall(r"\brecipe\.(\w+)", (ROOT / file).read_text())}
    used = read & {item.name for item in fields(Recipe)}
    assert set(RECIPE_FIELDS) == used and len(used) > 10
    text = parser_of(COMMANDS["finetune"]).format_help()
    listed = {flag.replace("-", "_") for flag in re.findall(r"^  --([a-z-]+)", text, flags=re.MULTILINE)}
    own = {"model", "data", "ckpt", "ema", "pos", "out", "keep", "epochs", "rate", "resume", "device", "recipe"}
    own |= {"weight_bits"}
    assert listed == used | own


def test_refused_before_any_work(small, tmp_path):
    for arguments, sentence, kind in (
        (["--epochs", "0"], r"^--epochs 0 must be a whole number from 1 to 100,000; .*$", ConfigError),
        (["--rate", "nan"], r"^--rate nan must be a number above 0 and at most 1; .*$", ConfigError),
        (["--rate", "2"], r"^--rate 2 must be a number above 0 and at most 1; .*$", ConfigError),
        (["--ckpt", "none.pth"], r"^none\.pth: there is no such file; .*$", CheckpointError),
        (["--out", "tuned.pth"], r"^tuned\.pth: checkpoints are written as \.safetensors; .*$", CheckpointError),
        (["--model", "deit_t"], r"^.*trained\.safetensors: .*$", CheckpointError),
    ):
        with pytest.raises(kind, match=sentence):
            main([*small, *arguments])
    with pytest.raises(CheckpointError, match=r"^deit_t: no weights come with it; give trained ones with CKPT=$"):
        main(["--model", "deit_t", "--data", "digits", "--out", str(tmp_path / "x.safetensors")])
    plain = tmp_path / "plain.safetensors"
    save_checkpoint(plain, seeded(SMALL.model, SMALL.pruning.without()))
    with pytest.raises(CheckpointError, match=r"^.*plain\.safetensors: its selectors are not trained; .*$"):
        main([*small, "--ckpt", str(plain)])


@pytest.mark.slow
def test_the_digits_lose_nothing(tmp_path):
    out = tmp_path / "tuned.safetensors"
    main(["--model", "deit_digits", "--data", "digits", "--out", str(out), "--device", "cpu"])
    data = load_data("digits", DIGITS.model, RECIPE)
    tuned = load_checkpoint(out, DIGITS.model, DIGITS.pruning)
    before = accuracies(load_checkpoint(shipped_weights("deit_digits"), DIGITS.model, DIGITS.pruning), data)
    after = accuracies(tuned, data)
    assert after[1] >= before[1] - 0.003 and abs(after[0] - after[1]) <= 0.003
