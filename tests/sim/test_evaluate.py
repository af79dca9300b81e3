"""The command on a small data set: each figure against models run by hand, broken images, several processes."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import array_api_compat.numpy as arrays
import numpy as np
import pytest
from PIL import Image

import sim.evaluate
from hw.model.estimate import make_estimate
from hw.program import build_program
from hw.target import resolve_target, with_clock
from quant.network import load_network
from sim.golden import Golden
from sim.samples import load_samples
from spvit.config import resolve_model
from spvit.errors import ConfigError, FileError, ImageError
from spvit_fpga.cli import run as run_command

main = partial(run_command, "eval")

MICRO = resolve_model("micro")
CLASSES = "abcdefg"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Seven classes of smooth images, three each, and a broken one."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for i in range(3):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize((20, 20), Image.Resampling.BICUBIC).save(folder / name / f"{i}.png")
    (folder / "c" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.fixture(scope="module")
def evaluated(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("build") / "micro"
    assert (
        main(["--model", "micro", "--data", str(photographs), "--device", "cpu", "--batch", "4", "--out", str(out)])
        == 0
    )
    return out, json.loads((out / "eval.json").read_text())


def test_each_figure_is_the_integer_models(photographs, evaluated):
    out, found = evaluated
    samples, network = load_samples(str(photographs), MICRO.model), load_network(out / "network")
    good = [i for i, name in enumerate(samples.names) if "broken" not in name]
    pixels, labels = np.stack([samples.read(i) for i in good]), np.array([samples.labels[i] for i in good])
    result = Golden(network, build_program(network), arrays).run(pixels)
    best = result.logits.argmax(axis=1)
    integer = found["models"]["integer"]
    assert integer["accuracy"] == pytest.approx((best == labels).mean())
    assert [stage["mean"] for stage in integer["tokens"][1:]] == pytest.approx(
        [np.mean(stage) for stage in result.tokens]
    )
    assert [stage["worst"] for stage in integer["tokens"][1:]] == [max(stage) for stage in result.tokens]
    assert integer["kept_fraction"] == pytest.approx([np.mean(stage) / 16 for stage in result.kept])
    for label, name in enumerate(CLASSES):
        own = labels == label
        assert integer["per_class"][label] == {
            "name": name,
            "images": 3,
            "accuracy": pytest.approx((best == labels)[own].mean()),
        }


def test_all_three_models_run_on_all_images_but_the_broken_one(photographs, evaluated):
    _, found = evaluated
    assert list(found["models"]) == ["float", "brevitas", "integer"]
    assert found["images"] == 21 and found["brevitas_integer_differences"] == 0
    assert list(found["skipped"]) == ["c/broken.png"]
    assert found["skipped"]["c/broken.png"].startswith(f"{photographs / 'c' / 'broken.png'}: ")
    brevitas, integer = found["models"]["brevitas"], found["models"]["integer"]
    for key in ("accuracy", "gmacs", "tokens", "kept_fraction", "per_class"):
        assert brevitas[key] == integer[key], key
    assert found["models"]["float"]["agreement_float"] is None and integer["agreement_float"] > 0.9
    assert integer["gmacs"]["mean"] < found["unpruned_gmacs"]
    assert integer["tokens"][3]["std"] > 0  # adaptive: not all images keep alike


def rounded(value):
    """Sums in another order differ in their last bits."""
    return json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 9))


def test_two_processes_find_what_one_does(photographs, evaluated):
    out, alone = evaluated
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spvit_fpga", "eval",
         "--model", "micro", "--data", str(photographs), "--device", "cpu", "--models", "float,integer", "--out", str(out)],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    together = json.loads((out / "eval.json").read_text())
    assert together["processes"] == 2 and together["images"] == 21 and together["skipped"] == alone["skipped"]
    for name in ("float", "integer"):
        one, two = alone["models"][name], together["models"][name]
        assert one["gmacs"]["mean"] == pytest.approx(two["gmacs"]["mean"], rel=1e-12)
        for key in ("accuracy", "tokens", "kept_fraction", "per_class"):
            assert rounded(two[key]) == rounded(one[key]), key
    assert done.stdout.count("micro on 21 images") == 1  # the first process alone talks


def test_a_variant_is_evaluated_in_float_alone(photographs, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[model]\nimg_size = 16\npatch_size = 4\nembed_dim = 32\ndepth = 4\nnum_heads = 2\nnum_classes = 7\n"
        '[pruning]\nlocations = [1, 2]\nkeep = [0.7, 0.4]\nmethod = "class_attention"\n'
    )
    arguments = ["--model", str(path), "--data", str(photographs), "--device", "cpu", "--out", str(tmp_path)]
    assert main(arguments) == 0
    found = json.loads((tmp_path / "eval.json").read_text())
    assert list(found["models"]) == ["float"] and found["brevitas_integer_differences"] is None
    assert found["models"]["float"]["kept_fraction"] == pytest.approx([0.7, 0.4], abs=0.1)
    assert "in float alone: " in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r'\[pruning\] method = "class_attention": the accelerator has units for'):
        main([*arguments, "--models", "integer"])


def arguments_for(photographs, out, *more):
    return ["--model", "micro", "--data", str(photographs), "--device", "cpu", "--batch", "4", "--out", str(out), *more]


def test_killed_and_started_again_it_gives_the_same_figures(photographs, evaluated, tmp_path, monkeypatch):
    """Stopped between batches, and in the middle of writing a line; the images that are done are not run again."""
    _, whole = evaluated
    ran = []

    def stop_after(batches):
        original, calls = sim.evaluate.FloatModel.run, []

        def run(self, pixels):
            calls.append(len(pixels))
            if len(calls) > batches:
                raise KeyboardInterrupt
            ran.append(len(pixels))
            return original(self, pixels)

        monkeypatch.setattr(sim.evaluate.FloatModel, "run", run)
        return original

    original = stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        main(arguments_for(photographs, tmp_path))
    assert not (tmp_path / "eval.json").exists()
    journal = tmp_path / "eval.journal"
    with journal.open("a") as file:
        file.write('{"done": [8, 9')  # killed while it wrote
    monkeypatch.setattr(sim.evaluate.FloatModel, "run", original)
    stop_after(99)
    assert main(arguments_for(photographs, tmp_path)) == 0
    assert sum(ran) == 21  # each image once
    assert not journal.exists()

    def figures(content):
        models = content["models"].items()
        own = {name: {key: one[key] for key in one if "second" not in key} for name, one in models}
        return content | {"models": own}

    assert figures(json.loads((tmp_path / "eval.json").read_text())) == figures(whole)


def test_another_evaluation_begins_anew(photographs, tmp_path):
    (tmp_path / "eval.journal").write_text('{"model": "another"}\n{"done": [0], "skipped": {}, "outcomes": {}}\n')
    assert main(arguments_for(photographs, tmp_path, "--models", "float")) == 0
    assert json.loads((tmp_path / "eval.json").read_text())["images"] == 21


def test_the_c_simulation_of_some_images_and_the_table_for_a_readme(photographs, tmp_path, capsys):
    assert main(arguments_for(photographs, tmp_path, "--models", "float,integer", "--csim", "3", "--clock", "150")) == 0
    found = json.loads((tmp_path / "eval.json").read_text())
    assert found["models"]["csim"]["images"] == 3 and found["csim_integer_differences"] == 0
    assert found["models"]["integer"]["top5_accuracy"] >= found["models"]["integer"]["accuracy"]
    estimate = found["estimate"]
    spec, target = MICRO, with_clock(resolve_target("zcu102"), 150)
    assert estimate["latency_ms"] == make_estimate(spec, target, estimate["kept_patches"]).latency_ms
    lines = (tmp_path / "eval.md").read_text().splitlines()
    assert lines[0] == "| model | arithmetic | images | top-1 | top-5 | MMACs | of unpruned |"
    assert [line.split(" | ")[1:3] for line in lines[2:5]] == [
        ["float32", "21"],
        ["16-bit integers", "21"],
        ["C-simulation", "3"],
    ]
    assert lines[-3].endswith(" ms at 150 MHz on zcu102 (estimate, not measured).")
    assert lines[-1] == "**Seeded random weights** (seed 0): says nothing of a trained model."
    assert "csim and integer: the same logits" in capsys.readouterr().out


def test_no_readable_image(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"")
    with pytest.raises(ImageError) as error:
        main(
            [
                "--model",
                "micro",
                "--data",
                str(tmp_path),
                "--models",
                "float",
                "--device",
                "cpu",
                "--out",
                str(tmp_path / "out"),
            ]
        )
    assert str(error.value) == (
        f"none of the 7 images can be read, first {tmp_path}/a/1.png: not an image; replace it or leave it out"
    )
    assert not (tmp_path / "out" / "eval.json").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--batch", "0"], "--batch 0 must be a whole number from 1 to 4,096; "),
        (["--models", "float,exact"], "--models float,exact: exact is none of float, brevitas, integer"),
        (["--device", "gpu"], "DEVICE=gpu is no device of torch's; give cpu, cuda, or cuda:1"),
        (
            ["--keep", "0.5,0.7,0.1"],
            "KEEP=0.5,0.7,0.1: keep=[0.5, 0.7, 0.1] counts what is left of the original patches",
        ),
    ],
)
def test_requests_that_cannot_be(photographs, tmp_path, options, sentence):
    with pytest.raises(ConfigError) as error:
        main(["--model", "micro", "--data", str(photographs), "--out", str(tmp_path / "out"), *options])
    assert str(error.value).startswith(sentence)
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_leaves_the_older_one(evaluated, photographs, monkeypatch):
    out, _ = evaluated
    before = (out / "eval.json").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileError) as error:
        main(
            ["--model", "micro", "--data", str(photographs), "--models", "float", "--device", "cpu", "--out", str(out)]
        )
    assert str(error.value) == (f"{out / 'eval.journal'}: cannot be written (No space left on device); make room")
    assert (out / "eval.json").read_text() == before


def test_a_gpu_that_is_not_there(photographs, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError) as error:
        main(["--model", "micro", "--data", str(photographs), "--device", "cuda"])
    assert str(error.value) == "DEVICE=cuda: torch finds no GPU here; leave DEVICE out, or give cpu"
