"""The command: what it leaves, what it refuses before any work, and the weights that come with the project."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import spvit
from hw.model.budget import latency_ms
from hw.target import resolve_target
from spvit.calibration import kept_patches, mean_macs
from spvit.checkpoints import load_checkpoint_with_report, save_checkpoint
from spvit.config import resolve_model
from spvit.cost import count_macs
from spvit.errors import CheckpointError, ConfigError
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT
from spvit.train import Request, train
from spvit.training.data import InMemory, load_digits
from spvit.training.loop import Fitting
from spvit.training.measure import accuracy
from spvit_fpga.cli import run as run_command
from tests.spvit.training.tiny import RECIPE, few_digits, make_run
from tests.spvit.training.tiny import SPEC as TINY

main = partial(run_command, "train")

simulate = partial(run_command, "csim")

ROOT = Path(__file__).parents[2]
SPEC = resolve_model("deit_digits")
MODEL = """
[model]
img_size = 8
patch_size = 2
in_chans = 1
embed_dim = 8
depth = 3
num_heads = 1
num_classes = 10
[pruning]
locations = [1, 2]
keep = [0.75, 0.5]
"""
SHORT = """
backbone_epochs = 2
pruning_epochs = 2
frozen_epochs = 0
batch = 256
augment = "jitter"
initialisation = "grown"
mixup = 0
cutmix = 0
progressive_epochs = 1
rate_step = 0.5
accuracy_drop = 0.2
calibration_images = 300
"""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`main` in a folder of its own, with a model and a recipe of seconds."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(MODEL)
    Path("short.toml").write_text(SHORT)
    return lambda *more: main(["--model", "tiny.toml", "--recipe", "short.toml", *more])


def test_a_short_training_learns_and_meets_the_fractions():
    data = few_digits(384)
    trained = train(Request(TINY), make_run(replace(RECIPE, backbone_epochs=12), data))
    net, teacher, training = trained.net, trained.teacher, trained.result.parts["training"]
    assert accuracy(teacher, data.training) > 0.25 and accuracy(net, data.training) > 0.25
    kept = kept_patches(net, data.training.images).double().mean(0) / 16
    assert kept.tolist() == pytest.approx(net.pruning.keep, abs=2e-3)
    unpruned = count_macs(TINY.model, TINY.pruning.without()).total
    assert count_macs(TINY.model, TINY.pruning).total == pytest.approx(training.cost, rel=0.01)
    assert trained.result.unpruned_macs == unpruned
    assert not net.training and not teacher.training


def test_an_unpruned_model_is_trained_too():
    spec = replace(TINY, pruning=TINY.pruning.without())
    trained = train(Request(spec), make_run(replace(RECIPE, backbone_epochs=1)))
    assert all(
        torch.equal(value, trained.net.state_dict()[name]) for name, value in trained.teacher.state_dict().items()
    )


def test_the_command_writes_a_checkpoint_and_tells(command, capsys):
    command("--out", "out/weights.safetensors")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["unpruned", "pruned", "MACs", "mean", "cost"]
    assert [line.split()[0] for line in lines[4:6]] == ["training", "test"]
    made = "out/weights.safetensors: make hls TARGET=zcu102 CKPT=out/weights.safetensors MODEL=tiny.toml KEEP="
    assert lines[-1].startswith(made)
    assert resolve_model("tiny.toml", lines[-1].removeprefix(made)).pruning.num_selectors == 2
    assert sorted(file.name for file in Path("out").iterdir()) == [
        "weights-curve.png", "weights-events", "weights-log.csv", "weights.json", "weights.safetensors",
    ]  # fmt: skip
    spec = resolve_model("tiny.toml")
    _, report = load_checkpoint_with_report("out/weights.safetensors", spec.model, spec.pruning)
    written = json.loads(Path("out/weights.json").read_text())
    assert report.selectors_found and list(report.calibrated_keep) == written["keep"]
    assert written["parts"]["training"]["cost"] == pytest.approx(written["target"], rel=0.01)


def test_a_second_training_does_not_take_the_firsts_place(command, tmp_path):
    command("--out", "a.safetensors", "--backbone-epochs", "0", "--pruning-epochs", "0")
    whole = Path("a.safetensors").read_bytes()
    with pytest.raises(
        ConfigError, match=r"^a\.safetensors: is there already and would be lost; choose another OUT=, or"
    ):
        command("--out", "a.safetensors")
    assert Path("a.safetensors").read_bytes() == whole


def test_a_checkpoint_and_a_budget_on_the_board(command, capsys):
    """Milliseconds from the accelerator's own estimate are the cost that is met."""
    sizes = MODEL.partition("[pruning]")[0]
    for small, larger in (("patch_size = 2", "patch_size = 1"), ("embed_dim = 8", "embed_dim = 16")):
        sizes = sizes.replace(small, larger)
    Path("tiny.toml").write_text(f"{sizes}[pruning]\nlocations = [1]\n[engine]\ntile_in = 16\ntile_out = 16\n")
    spec = resolve_model("tiny.toml", "0.5")
    save_checkpoint("backbone.safetensors", seeded(spec.model, spec.pruning.without()))
    limit = latency_ms(spec, resolve_target("zcu102"))((40,))
    budget = ["--budget", f"{limit:.6f}ms", "--target", "zcu102"]
    command("--ckpt", "backbone.safetensors", *budget, "--out", "pruned.safetensors")
    written = json.loads(Path("pruned.json").read_text())
    assert written["unit"] == "ms" and written["target"] == pytest.approx(limit, rel=1e-4)
    assert written["parts"]["training"]["cost"] == pytest.approx(limit, rel=0.01)
    assert 0.3 < written["keep"][0] < 0.9
    assert " ms" in capsys.readouterr().out.splitlines()[-2]


def test_a_budget_that_affords_everything_is_not_a_target(command):
    command("--budget", "1GMACs", "--backbone-epochs", "0", "--pruning-epochs", "1", "--out", "all.safetensors")
    written = json.loads(Path("all.json").read_text())
    spec = resolve_model("tiny.toml")
    assert written["keep"] == [1.0, 1.0]
    assert written["target"] == count_macs(spec.model, spec.pruning, (16, 16)).total
    assert written["parts"]["training"]["cost"] == pytest.approx(written["target"], rel=0.01)


def test_what_was_interrupted_goes_on(command, monkeypatch, capsys):
    command("--out", "whole.safetensors")
    expected = capsys.readouterr().out
    fit_step = Fitting.advance
    steps = []

    def interrupted(self, images, labels):
        steps.append(self.phase.name)
        if steps.count("selectors") == 7:  # in their second epoch
            raise KeyboardInterrupt
        return fit_step(self, images, labels)

    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command("--out", "parts.safetensors")
    assert capsys.readouterr().err.endswith("stopped; RESUME=parts.state goes on\n")
    assert steps[-1] == "selectors"
    with pytest.raises(ConfigError) as refused:
        command("--out", "parts.safetensors")
    assert str(refused.value) == (
        "parts.state: a training stands there unfinished; go on with RESUME=parts.state, choose another OUT=, or delete it"
    )
    with pytest.raises(ConfigError, match=r"^parts\.state: was begun with seed=0, but seed=3 is asked for now; "):
        command("--resume", "parts.state", "--seed", "3")
    command("--resume", "parts.state")
    assert capsys.readouterr().out == expected.replace("whole", "parts")
    whole, parts = (Path(f"{name}-log.csv").read_text().splitlines() for name in ("whole", "parts"))
    assert [line.rpartition(",")[0] for line in parts] == [line.rpartition(",")[0] for line in whole]  # but the seconds
    assert not Path("parts.state").exists()


def test_photographs_from_a_folder_one_of_them_corrupt(command, photographs, capsys):
    """DeiT's whole augmentation, two processes that read, brain floats and a running mean of the weights."""
    broken = photographs / "train" / "red" / "1.png"
    broken.write_bytes(broken.read_bytes()[:200])
    sizes = MODEL.replace("in_chans = 1", "in_chans = 3").replace("num_classes = 10", "num_classes = 2")
    Path("tiny.toml").write_text(sizes)
    deits = ["--augment", "deit", "--mixup", "0.8", "--cutmix", "1.0", "--workers", "2", "--batch", "4"]
    command(
        "--data", str(photographs), *deits, "--precision", "bfloat16", "--ema-decay", "0.9", "--out", "w.safetensors"
    )
    lines = capsys.readouterr().out.splitlines()
    assert f"1 images could not be read and were skipped: {broken}" in lines
    written = json.loads(Path("w.json").read_text())
    assert written["unreadable"] == [str(broken)] and written["parts"]["test"]["images"] == 6


def test_weights_that_cannot_be_written_are_not_lost(command, monkeypatch, capsys):
    """The disk is full at the very end: the state stays, and going on from it trains nothing again."""

    def full(path, net):
        raise CheckpointError(f"{path}: cannot be written (No space left on device); choose another place")

    with monkeypatch.context() as patch:
        patch.setattr(spvit.train, "save_checkpoint", full)
        with pytest.raises(CheckpointError, match="No space left"):
            command("--out", "w.safetensors")
    assert Path("w.state").exists() and not Path("w.safetensors").exists()
    with monkeypatch.context() as patch:
        patch.setattr(Fitting, "advance", None)
        command("--resume", "w.state")
    assert Path("w.safetensors").exists() and not Path("w.state").exists()


def test_what_has_no_hardware_is_evaluated_next(command, capsys):
    Path("tiny.toml").write_text(MODEL.replace("[pruning]", "aux_head = true\n[pruning]"))
    command("--out", "weights.safetensors")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("weights.safetensors: make eval CKPT=weights.safetensors MODEL=tiny.toml KEEP=")


@pytest.mark.parametrize(
    ("more", "kind", "sentence"),
    [
        (["--budget", "10MACs"], ConfigError, "tiny: a budget of 10 MACs cannot be met, with one patch left after each selector it still takes "),
        (["--budget", "10MACs", "--progressive"], ConfigError, "tiny: with selectors before the blocks 1 a budget of 10 MACs cannot be met, with one patch left after the first it still takes "),
        (["--budget", "1ms"], ConfigError, "BUDGET=1ms needs the board that it is counted on; add TARGET=zcu102"),
        (["--budget", "1MMACs", "--keep", "0.5,0.5"], ConfigError, "KEEP=0.5,0.5 and BUDGET=1MMACs: both say what is kept; give one of them"),
        (["--budget", "1MMACs", "--model", "none.toml"], ConfigError, "BUDGET=1MMACs: none has no selectors; set locations in [pruning]"),
        (["--model", "open.toml"], ConfigError, "open: keep is not set; give BUDGET=, or KEEP= with a fraction for each of 2 selectors"),
        (["--out", "weights.pth"], CheckpointError, "weights.pth: checkpoints are written as .safetensors; choose a name that ends so"),
        (["--ckpt", "none.pth"], CheckpointError, "none.pth: there is no such file; "),
        (["--ckpt", "other.pth"], CheckpointError, "other.pth: cls_token has the shape (1, 1, 16), but tiny needs (1, 1, 8); "),
        (["--data", "nowhere"], ConfigError, "--data nowhere: no such folder; "),
        (["--resume", "none.state"], CheckpointError, "none.state: there is no such file; RESUME= takes the .state file of a training"),
        (["--model", "deit_s"], ConfigError, "deit_s: there is nothing to train on; give DATA=, a folder with train/<class>/ and val/<class>/"),
        (["--batch", "0"], ConfigError, "--batch 0 must be a whole number from 1 to 1,000,000; "),
    ],
)  # fmt: skip
def test_what_is_refused_before_any_work(command, more, kind, sentence):
    Path("none.toml").write_text(MODEL.partition("[pruning]")[0])
    Path("open.toml").write_text(MODEL.partition("keep")[0])
    torch.save(SPViT(TINY.model, TINY.pruning.without()).state_dict(), "other.pth")
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(kind) as refused:
        command(*more)
    assert str(refused.value).startswith(sentence)
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_users_mistake_is_one_line_and_status_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "spvit_fpga", "train", "--model", "deit_digits", "--budget", "6"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == [
        "error: --budget 6 must be a number with a unit, as 2.64GMACs, 6ms or 1.2Mcycles; with --cost FILE.py:FUNCTION its "
        "unit is yours"
    ]


def shipped():
    path = Path(spvit.__file__).parent / "weights" / "deit_digits.safetensors"
    assert path.stat().st_size < 3_000_000
    return load_checkpoint_with_report(path, SPEC.model, SPEC.pruning)


def test_the_weights_that_come_along():
    """Their accuracy, cost and tokens, as the README may state them."""
    net, report = shipped()
    assert report.selectors_found and report.calibrated_keep == SPEC.pruning.keep
    training, test = (InMemory(*load_digits(part, SPEC.model)) for part in ("train", "test"))
    unpruned = count_macs(SPEC.model, SPEC.pruning.without()).total
    kept = kept_patches(net, training.images)
    fractions = kept.double().mean(0) / SPEC.model.num_patches
    assert fractions.tolist() == pytest.approx(SPEC.pruning.keep, abs=1e-3)
    assert mean_macs(net, kept) / unpruned - 1 == pytest.approx(-0.42, abs=0.01)
    assert mean_macs(net, kept) == pytest.approx(count_macs(SPEC.model, SPEC.pruning).total, rel=0.01)
    assert accuracy(net, test) >= 0.99
    assert len({tuple(counts) for counts in kept.tolist()}) > 100  # images keep what they need


def test_the_weights_that_come_along_are_one_model_masked_and_gathered():
    """In float64, over test images; float32 scores this close to a threshold may fall to either side."""
    net = shipped()[0].double()
    images = load_digits("test", SPEC.model)[0][:60].double()
    with torch.no_grad():
        masked, gathered = net.forward_masked(images), net.forward_gathered(images)
    assert (masked.logits - gathered.logits).abs().max() < 1e-10
    assert all(torch.equal(a.keep, b.keep) for a, b in zip(masked.records, gathered.records, strict=True))


@pytest.mark.slow
def test_the_digits_from_end_to_end(tmp_path):
    """As a person does it: trained, pruned by 42% within half a point, its cost within 1%, images as they need; then
    quantized without loss beyond 0.3 points, and C-simulated bit for bit over the whole test split."""
    weights = tmp_path / "weights.safetensors"
    main(["--model", "deit_digits", "--out", str(weights)])
    written = json.loads((tmp_path / "weights.json").read_text())
    training, test = written["parts"]["training"], written["parts"]["test"]
    assert training["cost"] == pytest.approx(written["target"], rel=0.01)
    assert training["macs"] / written["unpruned_macs"] - 1 == pytest.approx(-0.42, abs=0.01)
    assert test["unpruned_accuracy"] >= 0.98
    assert test["accuracy"] >= test["unpruned_accuracy"] - 0.005
    assert min(test["kept"]["deviation"]) > 0.02
    assert_runs_on_the_accelerator(weights, tmp_path / "build")


def assert_runs_on_the_accelerator(weights, build):
    simulate(["--model", "deit_digits", "--ckpt", str(weights), "--images", "digits:test", "--out", str(build)])
    simulated = json.loads((build / "csim.json").read_text())
    assert (simulated["images"], simulated["mismatches"]) == (450, 0)
    assert simulated["accuracy"] >= simulated["accuracy_float"] - 0.003
