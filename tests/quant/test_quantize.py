import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from quant import quantize as command
from quant.inputs import calibration_images
from quant.network import load_network
from quant.options import BuildOptions
from quant.quantize import ensure_network
from spvit.calibration import kept_patches
from spvit.checkpoints import load_checkpoint_with_report, save_checkpoint
from spvit.config import resolve_model
from spvit.console import Console
from spvit.errors import CheckpointError, ConfigError
from spvit.images.preprocess import Preprocessing
from spvit.initialisation import seeded
from tests.options import read
from tests.spvit.test_checkpoints import authors_state

FILES = ["float.safetensors", "inputs.json", "network.json", "network.safetensors", "report.json", "sha256.json"]
MICRO = resolve_model("micro")


def arguments(*texts: str) -> BuildOptions:
    return read(BuildOptions, "--model", "micro", *texts)


def run(*texts: str) -> tuple[Path, str]:
    text = io.StringIO()
    folder = ensure_network(arguments(*texts), Console(file=text, width=100))
    return folder, text.getvalue()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str]:
    return run("--out", str(tmp_path_factory.mktemp("build") / "micro"))


def test_the_folder_holds_the_network_the_float_model_and_the_report(made):
    folder, text = made
    assert folder.name == "network" and sorted(digests(folder)) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["network"]  # nothing half-written beside it
    network = load_network(folder)
    assert network.model == MICRO.model and network.pruning == MICRO.pruning
    report = json.loads((folder / "report.json").read_text())
    assert report["logits_rms_error_same_tokens"] < 0.005 and report["saturations_total"] == 0
    assert "weights: seeded random (seed 0), since no checkpoint was given" in text
    assert network.digest[:12] in text


def test_what_lasts_is_said_as_it_begins(tmp_path, capsys):
    run("--out", str(tmp_path / "micro"))
    assert capsys.readouterr().err.splitlines() == [
        "calibrating with 24 views of the two bundled photographs (give your own images with CALIB=)",
        "choosing formats",
        "comparing with float",
    ]


def test_thresholds_meet_the_kept_fractions(made):
    folder, text = made
    net, found = load_checkpoint_with_report(folder / "float.safetensors", MICRO.model, MICRO.pruning)
    assert found.source == "own" and found.selectors_found
    network = load_network(folder)
    assert network.thresholds == tuple(round(t * 2**22) for t in net.thresholds.tolist())
    assert json.loads((folder / "report.json").read_text())["thresholds"] == net.thresholds.tolist()
    images = Preprocessing.from_model(MICRO.model).normalise(calibration_images(MICRO, None)[0])
    kept = kept_patches(net, torch.from_numpy(images).float()).double().mean(dim=0) / MICRO.model.num_patches
    assert kept.tolist() == pytest.approx(MICRO.pruning.keep, abs=0.01)
    assert f"which keep {', '.join(f'{fraction:.1%}' for fraction in kept.tolist())} of the patches" in text


def test_equal_inputs_give_equal_bytes(made, tmp_path):
    again, _ = run("--out", str(tmp_path / "other"))
    assert digests(again) == digests(made[0])


def test_nothing_is_done_twice_but_torn_files_are_mended(made):
    folder, _ = made
    before = digests(folder)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    _, text = run("--out", str(folder.parent))
    assert text.strip() == f"{folder}: up to date"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    for name in FILES:
        path = folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        _, text = run("--out", str(folder.parent))
        assert "up to date" not in text and digests(folder) == before
    (folder / "float.safetensors").unlink()
    (folder / "float.safetensors").mkdir()
    _, text = run("--out", str(folder.parent))
    assert "up to date" not in text and digests(folder) == before


def test_a_checkpoint_with_its_own_thresholds_keeps_them(tmp_path):
    net = seeded(MICRO.model, MICRO.pruning, seed=7)
    net.thresholds.copy_(torch.tensor([0.4, 0.45, 0.55]))
    save_checkpoint(tmp_path / "mine.safetensors", net)
    checkpoint = ["--ckpt", str(tmp_path / "mine.safetensors")]
    folder, text = run(*checkpoint, "--out", str(tmp_path / "a"))
    assert "thresholds: 0.4, 0.45, 0.55, the checkpoint's own (" in text and "mine.safetensors: own checkpoint" in text
    assert load_network(folder).thresholds == tuple(round(t * 2**22) for t in net.thresholds.tolist())
    folder, text = run(*checkpoint, "--keep", "0.8,0.6,0.4", "--out", str(tmp_path / "b"))
    assert "checkpoint's own" not in text  # they were for other fractions
    assert load_network(folder).thresholds != tuple(round(t * 2**22) for t in net.thresholds.tolist())


@pytest.fixture(scope="module")
def authors(tmp_path_factory) -> Path:
    """Selectors as trained with 0.5, under the authors' names; no file of theirs says thresholds."""
    path = tmp_path_factory.mktemp("authors") / "spvit.pth"
    torch.save({"model": authors_state(seeded(MICRO.model, MICRO.pruning, seed=7))}, path)
    return path


def kept_by(folder: Path, text: str) -> str:
    """What the output says is kept is what the float model keeps, measured again."""
    net, _ = load_checkpoint_with_report(folder / "float.safetensors", MICRO.model, MICRO.pruning)
    images = Preprocessing.from_model(MICRO.model).normalise(calibration_images(MICRO, None)[0])
    kept = kept_patches(net, torch.from_numpy(images).float()).double().mean(dim=0) / MICRO.model.num_patches
    (line,) = [line for line in text.splitlines() if "thresholds: " in line]
    assert line.endswith(f"which keep {', '.join(f'{part:.1%}' for part in kept.tolist())} of the patches")
    return line.partition("thresholds: ")[2].rpartition(", which")[0]


OWN = "the checkpoint's own (THRESHOLD=calibrate fits them to KEEP=)"


@pytest.mark.parametrize(
    ("options", "thresholds", "why"),
    [
        ((), [0.5] * 3, OWN),
        (("--threshold", "0.45"), [0.45] * 3, "as THRESHOLD= asks"),
        (("--threshold", "calibrate"), None, "calibrated for KEEP=0.75,0.5,0.25"),
        (("--keep", "0.75,0.5,0.25"), None, "calibrated for KEEP=0.75,0.5,0.25"),
        (("--keep", "0.8,0.6,0.4", "--threshold", "calibrate"), None, "calibrated for KEEP=0.8,0.6,0.4"),
    ],
)
def test_trained_selectors_decide_as_they_were_trained_unless_asked_otherwise(
    authors, tmp_path, options, thresholds, why
):
    folder, text = run("--ckpt", str(authors), *options, "--out", str(tmp_path))
    net, found = load_checkpoint_with_report(folder / "float.safetensors", MICRO.model, MICRO.pruning)
    assert kept_by(folder, text).endswith(f", {why}")
    if thresholds is not None:
        assert net.thresholds.tolist() == pytest.approx(thresholds) and found.calibrated_keep == ()
        assert load_network(folder).thresholds == tuple(round(t * 2**22) for t in net.thresholds.tolist())
    else:
        assert net.thresholds.tolist() != [0.5] * 3
        assert "KEEP=" + ",".join(f"{part:g}" for part in found.calibrated_keep) == why.split()[-1]


def test_thresholds_that_were_made_for_a_cost_stay_whatever_the_registry_says(tmp_path):
    """As training leaves them, for a budget that leads to other fractions than the registry's."""
    net = seeded(MICRO.model, replace(MICRO.pruning, keep=(0.9, 0.7, 0.6)), seed=7)
    net.thresholds.copy_(torch.tensor([0.4, 0.45, 0.55]))
    save_checkpoint(tmp_path / "mine.safetensors", net)
    options = ["--ckpt", str(tmp_path / "mine.safetensors"), "--out", str(tmp_path / "out")]
    for keep in ([], ["--keep", "0.9,0.7,0.6"]):
        folder, text = run(*options, *keep)
        assert kept_by(folder, text) == f"0.4, 0.45, 0.55, {OWN}"
        again, found = load_checkpoint_with_report(folder / "float.safetensors", MICRO.model, MICRO.pruning)
        assert torch.equal(again.thresholds, net.thresholds) and found.calibrated_keep == (0.9, 0.7, 0.6)


def test_fresh_selectors_are_calibrated(tmp_path):
    plain = {name: value for name, value in seeded(MICRO.model, MICRO.pruning.without(), 3).state_dict().items()
             if name != "thresholds"}  # fmt: skip
    torch.save(plain, tmp_path / "deit.pth")
    folder, text = run("--ckpt", str(tmp_path / "deit.pth"), "--out", str(tmp_path / "out"))
    assert kept_by(folder, text).endswith(", calibrated for KEEP=0.75,0.5,0.25")


def test_what_is_asked_for_is_part_of_what_the_network_is_made_from(authors, tmp_path):
    options = ["--ckpt", str(authors), "--out", str(tmp_path)]
    run(*options)
    assert "up to date" in run(*options)[1]
    assert "up to date" not in run(*options, "--threshold", "0.4")[1]
    assert "up to date" in run(*options, "--threshold", "0.4")[1]
    assert "up to date" not in run(*options, "--keep", "0.75,0.5,0.25")[1]


def test_a_running_mean_and_another_image_size(tmp_path):
    wide = replace(MICRO.model, img_size=32)
    states = [{name: value for name, value in seeded(wide, MICRO.pruning.without(), seed).state_dict().items()
               if name != "thresholds"} for seed in (1, 2)]  # fmt: skip
    torch.save({"model": states[0], "model_ema": states[1]}, tmp_path / "deit.pth")
    options = ["--ckpt", str(tmp_path / "deit.pth"), "--keep", "none", "--out", str(tmp_path / "out")]
    with pytest.raises(CheckpointError, match="POS=interpolate resize the positions"):
        run(*options)
    _, text = run(*options, "--pos", "interpolate")
    assert "model is taken" in text and "positions are resized from 8 x 8 patches to 4 x 4, bicubic" in text
    folder, text = run(*options, "--pos", "interpolate", "--ema")
    assert "model_ema is taken" in text
    net, _ = load_checkpoint_with_report(folder / "float.safetensors", MICRO.model, MICRO.pruning.without())
    assert torch.equal(net.norm.weight, states[1]["norm.weight"])


def test_one_white_image_is_warned_of_each_time(tmp_path):
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    options = ("--calib", str(tmp_path / "white.png"), "--out", str(tmp_path / "white"))
    for _ in range(2):
        assert run(*options)[1].startswith("warning: calibration: the one image is of a single colour")


def test_an_unpruned_model_has_no_selectors(tmp_path):
    folder, text = run("--keep", "none", "--out", str(tmp_path))
    network = load_network(folder)
    assert network.thresholds == () and not any(name.startswith("selectors") for name in network.linears)
    assert "thresholds" not in text


def test_an_interrupted_run_leaves_the_older_network(made, tmp_path, monkeypatch):
    folder, _ = run("--out", str(tmp_path / "b"))
    before = digests(folder)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "save_checkpoint", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run("--seed", "5", "--out", str(tmp_path / "b"))
    assert digests(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["network"]


def test_an_impossible_fraction_is_a_users_error(tmp_path):
    with pytest.raises(ConfigError):
        run("--keep", "0.5,0.6,0.7", "--out", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_a_users_error_with_one_sentence_and_status_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "spvit_fpga", "hls", "--model", "micro", "--ckpt", "gone.pth", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "error: gone.pth: there is no such file; give the path of a .pth, .pt or .safetensors file\n"
    )


def test_threads_are_given_back(made):
    before = torch.get_num_threads()
    with command._one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
