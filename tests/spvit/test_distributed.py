"""Several processes compute what one would: draws, means, and a whole training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spvit import distributed
from spvit.errors import ConfigError

ROOT = Path(__file__).parents[2]
RECIPE = """
backbone_epochs = 1
pruning_epochs = 1
frozen_epochs = 0
batch = 128
augment = "jitter"
initialisation = "grown"
mixup = 0
cutmix = 0
calibration_images = 200
lambda_ratio = 20
selector_rate = 3e-3
finetune_rate = 1e-3
"""
MODEL = """
[model]
img_size = 8
patch_size = 2
in_chans = 1
embed_dim = 16
depth = 3
num_heads = 2
num_classes = 10
[pruning]
locations = [1, 2]
keep = [0.7, 0.4]
"""


def test_alone_each_function_is_that_of_one_process():
    value = torch.arange(6.0)
    assert (distributed.rank(), distributed.world_size(), distributed.is_first()) == (0, 1, True)
    for function in (
        distributed.own_rows,
        distributed.mean_over_processes,
        distributed.sum_over_processes,
        distributed.from_first,
    ):
        assert torch.equal(function(value), value)
    assert distributed.names_of_all(["b", "a", "b"]) == ("a", "b")
    distributed.wait_for_all()
    distributed.stop()
    assert distributed.start("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("gpu", "DEVICE=gpu is no device; give cpu, cuda, or cuda:1 for the second GPU"),
        ("cuda:99", f"DEVICE=cuda:99: torch finds {torch.cuda.device_count()} GPUs here; give cpu, or leave it out"),
    ],
)
def test_devices_that_are_not_there(device, sentence):
    with pytest.raises(ConfigError) as refused:
        distributed.start(device)
    assert str(refused.value) == sentence


def test_draws_are_parts_of_the_whole_batchs(monkeypatch):
    def draw():
        return distributed.draw_exponential(torch.empty(2, 3), torch.Generator().manual_seed(0))

    whole = torch.empty(4, 3).exponential_(generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        assert torch.equal(draw(), whole[2 * rank : 2 * rank + 2])


@pytest.mark.slow
def test_two_processes_train_the_model_that_one_does(tmp_path):
    (tmp_path / "tiny.toml").write_text(MODEL)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for processes in (1, 2):
        several = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
        )
        command = [sys.executable, *several, "-m", "spvit_fpga", "train", "--data", "digits", "--device", "cpu"]
        command += ["--model", str(tmp_path / "tiny.toml"), "--recipe", str(tmp_path / "recipe.toml")]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / f"{processes}.safetensors")], capture_output=True, text=True, cwd=ROOT
        )
        assert done.returncode == 0, done.stderr
        assert "FutureWarning" not in done.stderr
    one, two = (load_file(tmp_path / f"{processes}.safetensors") for processes in (1, 2))
    length = sum(value.square().sum() for value in one.values()).sqrt()
    apart = sum((one[name] - two[name]).square().sum() for name in one if name != "thresholds").sqrt()
    assert apart < 3e-5 * length  # 1e-5 by rounding; a part of the loss that is not averaged makes 1e-4
    assert one["thresholds"].tolist() == pytest.approx(two["thresholds"].tolist(), abs=1e-3)
    reports = [json.loads((tmp_path / f"{processes}.json").read_text()) for processes in (1, 2)]
    for part in ("training", "test"):
        accuracies = [report["parts"][part]["accuracy"] for report in reports]
        assert accuracies[0] == pytest.approx(accuracies[1], abs=0.01)
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix == ".state") == []
