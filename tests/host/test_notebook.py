"""The notebook, executed on the emulated device: `make notebook` from nothing, and its sentences when it cannot."""

from __future__ import annotations

import json
import re
from pathlib import Path

import array_api_compat.numpy as arrays
import nbformat
import numpy as np
import pytest

from host import benchmark
from host.accelerator import Accelerator
from host.measure import LABELS, RANDOM
from hw.program import build_program
from quant.network import load_network
from sim import notebook
from sim.device.emulated import EmulatedDevice
from sim.golden import Golden, GoldenResult
from spvit.errors import BuildError, ImageError
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images
from spvit_fpga.cli import run

ROOT = Path(__file__).parents[2]


def golden(folder: Path, images: Path) -> GoldenResult:
    """The same images as the golden, and so `make csim`, has them."""
    network = load_network(folder / "network")
    pixels = load_images(images, Preprocessing.from_model(network.model)).pixels
    return Golden(network, build_program(network), arrays).run(pixels)


def check_executed(folder: Path, model: str) -> None:
    executed = nbformat.read(folder / "latency.ipynb", as_version=4)
    nbformat.validate(executed)
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    printed = "".join(out.text for cell in cells for out in cell.outputs if out.output_type == "stream")
    pictures = [out for cell in cells for out in cell.outputs if "image/png" in out.get("data", {})]
    expected = golden(folder, folder / "images")
    tokens, classes = np.array(expected.tokens).T.tolist(), expected.logits.argmax(axis=1).tolist()
    report = json.loads((folder / "latency.json").read_text())
    own, baseline = report["measurement"], report["baseline"]
    assert "on the emulated device" in printed
    assert len(pictures) == len(tokens) + 1 == 3
    assert (own["model"], own["tokens"], own["classes"]) == (model, tokens, classes)
    assert baseline["tokens"] == [[], []]
    assert own["kind"] == baseline["kind"] == "estimate"
    assert min(one["latency_ms"]["min"] for one in (own, baseline)) > 0
    assert report["label"] == f"{LABELS[own['kind']]}; {RANDOM}"
    assert LABELS[own["kind"]] in printed
    assert not own["trained"] and not baseline["trained"]
    assert [line for line in printed.splitlines() if line == RANDOM] == [RANDOM]  # above the pictures
    for image, name in enumerate(("china.jpg", "flower.jpg")):
        chain = " → ".join(map(str, (own["tokens_before"], *tokens[image])))
        assert f"{name}: class {classes[image]}, " in printed
        assert f"tokens {chain}\n" in printed
    assert re.search(rf"^ +{model} +unpruned$", printed, re.M)
    assert baseline["digest"] == own["digest"] and baseline["network"] != own["network"]
    assert report["switch"]["is_emulated"] and report["switch"]["label"] in printed


def test_the_notebook_from_nothing(tmp_path, capsys):
    folder = tmp_path / "micro-zcu102"
    run("notebook", ["--model", "micro", "--target", "zcu102", "--out", str(folder)])
    assert "executed on the emulated device" in " ".join(capsys.readouterr().out.split())
    check_executed(folder, "micro")


@pytest.mark.slow
def test_deit_t_by_notebook_and_by_command_line(tmp_path):
    folder = tmp_path / "deit_t-zcu102"
    run("notebook", ["--model", "deit_t", "--target", "zcu102", "--out", str(folder)])
    check_executed(folder, "deit_t")
    by_command = tmp_path / "by_command.json"
    arguments = [
        folder,
        folder / "images",
        "--baseline",
        f"{folder}-keep-none/weights",
        "--emulated",
        "--out",
        by_command,
    ]
    benchmark.main([str(argument) for argument in arguments])
    by_notebook = json.loads((folder / "latency.json").read_text())
    for who in ("measurement", "baseline"):
        own, other = (report[who] for report in (json.loads(by_command.read_text()), by_notebook))
        assert [own[key] for key in ("tokens", "classes", "latency_ms")] == [
            other[key] for key in ("tokens", "classes", "latency_ms")
        ]
    with Accelerator(folder, EmulatedDevice(folder), timeout_s=600) as accelerator:
        logits = accelerator.infer(folder / "images").logits
    assert np.array_equal(logits, golden(folder, folder / "images").logits)
    assert by_notebook["measurement"]["latency_ms"]["max"] < by_notebook["baseline"]["latency_ms"]["min"]  # it pays


def test_a_users_error_in_the_notebook_is_one_sentence(build, tmp_path):
    with pytest.raises(BuildError, match=rf"^latency.ipynb: {tmp_path}: no design.json in there; .*$"):
        notebook.execute(tmp_path, None, tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_broken_images_are_refused_before_the_work(tmp_path):
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"^.*/x.png: not an image; replace it or leave it out$"):
        run("notebook", ["--model", "micro", "--out", str(tmp_path / "out"), "--images", str(tmp_path)])
    assert not (tmp_path / "out").exists()


def test_the_committed_notebook_is_bare():
    """Outputs belong to the build folder."""
    text = (ROOT / "host" / "latency.ipynb").read_text()
    committed = nbformat.reads(text, as_version=4)
    assert text == nbformat.writes(committed, indent=1) + "\n"
    assert all(
        not cell.outputs and cell.execution_count is None for cell in committed.cells if cell.cell_type == "code"
    )
