"""No traceback, no hang, exit 0 or 2 alone: 2,000 hostile inputs, over each file kind and each option."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import host.bundle
from host.bundle import load_bundle
from hw.generate import make_project, write_project
from hw.target import TARGETS, resolve_target
from hw.vendor.reports import read_cosim, read_csynth, read_implementation
from quant.network import load_network, save_network
from sim.report.evidence import read_evidence
from spvit.checkpoints import load_checkpoint_with_report, save_checkpoint
from spvit.config import resolve_model
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images
from spvit.initialisation import seeded
from spvit.training.recipe import resolve_recipe
from spvit.training.state import Journal
from spvit_fpga.cli import parser_of, run
from spvit_fpga.commands import COMMANDS as ALL_COMMANDS
from tests.fuzz import HOSTILE_TEXTS, PLACES, _problem_of, attempt, fuzz, in_the_place_of, mutated_bytes, mutated_table
from tests.hw.vendor import samples
from tests.sim.networks import design_of, micro

SEED = 20261125
FULL, SMALL = 2000, 60
MODEL = """[model]
name = "fuzzed"
img_size = 16
patch_size = 4
in_chans = 3
embed_dim = 32
depth = 4
num_heads = 2
mlp_ratio = 4.0
num_classes = 7
distilled = false
layer_norm_eps = 1e-6
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
crop = 0.875
pooling = "class"

[pruning]
locations = [1, 2, 3]
keep = [0.75, 0.5, 0.25]
package = "append"
share_heads = true
features = "split"
method = "selector"
heads = "weighted"
scorer = "mlp"
activation = "gelu"
proportional_attention = false
rules = "paper"

[engine]
tile_in = 8
tile_out = 16
inner_product = "fast"
weight_ports = 1
fifo_words = 512
uram = ""
"""
RECIPE = """batch = 16
backbone_epochs = 1
backbone_rate = 1e-3
warm_up = 0.1
augment = "jitter"
compile = false
precision = "float32"
seed = 3
mixup = 0.0
rate_step = 0.1
"""
Made = Callable[[], object]
# command -> what it needs, ending before its long work: data or images that are not there
COMMANDS = {
    "estimate": ["--model", "micro"],
    "hls": ["--model", "micro", "--check"],
    "weights": ["--model", "micro", "--design", "gone"],
    "deploy": ["--model", "micro", "--target", "u50"],
    "synth": ["--model", "micro", "--check"],
    "cosim": ["--model", "micro", "--check"],
    "bitstream": ["--model", "micro", "--check"],
    "cost": ["--model", "micro"],
    "train": ["--model", "deit_digits", "--data", "gone"],
    "ablation": ["--model", "deit_digits", "--data", "gone"],
    "visualize": ["--model", "micro", "--images", "gone"],
    "finetune": ["--model", "deit_digits", "--data", "gone"],
    "eval": ["--model", "micro", "--data", "gone"],
    "csim": ["--model", "micro", "--images", "gone"],
    "timed": ["--model", "micro", "--images", "gone"],
    "notebook": ["--model", "micro", "--images", "gone"],
    "report": ["--model", "micro"],
    "flow-plot": ["--out", "/dev/null/x.svg"],
    "token-plot": ["--target", "gone.toml"],
    "latency": ["--model", "micro", "--images", "gone"],
    "export": ["--model", "micro", "--format", "npz", "--ckpt", "gone.pth"],
}
NEVER = {"--help", "-h", "--images", "--data"}  # the last two stop the command before its work


def counts(total: int, share: float) -> int:
    return max(3, round(total * share))


@pytest.fixture(params=[SMALL, pytest.param(FULL, marks=pytest.mark.slow)], ids=["small", "full"])
def total(request: pytest.FixtureRequest) -> int:
    """Inputs of all kinds together; each test takes its share."""
    return int(request.param)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def command(name: str, arguments: list[str]) -> Made:
    return lambda: run(name, arguments)


def written(path: Path, content: bytes, chance: random.Random) -> Path:
    """The file; now and then something else in its place."""
    if path.is_symlink() or path.is_fifo() or path.is_file():
        path.unlink()
    elif path.is_dir():
        path.rmdir()
    if chance.random() < 0.03:
        in_the_place_of(path, chance.choice(PLACES))
    else:
        path.write_bytes(content)
    return path


def test_models(total, tmp_path):
    def make(chance, number):
        path = written(tmp_path / "m.toml", mutated_table(MODEL, chance), chance)
        which = chance.choice(["estimate", "hls", "hls", "cost"])
        given = ["--model", str(path), *([] if which == "cost" else ["--out", str(tmp_path / "out")])]
        return command(which, [*given, *(["--check"] if which == "hls" else [])])

    assert fuzz(counts(total, 0.2), SEED, make) == ""


def test_targets(total, tmp_path):
    board = (TARGETS / "zcu102.toml").read_text()

    def make(chance, number):
        path = written(tmp_path / "t.toml", mutated_table(board, chance), chance)
        which = chance.choice(["estimate", "hls", "hls"])
        check = ["--check"] if which == "hls" else []
        return command(which, ["--model", "micro", "--target", str(path), "--out", str(tmp_path / "out"), *check])

    assert fuzz(counts(total, 0.1), SEED, make) == ""


def test_recipes(total, tmp_path):
    def make(chance, number):
        path = written(tmp_path / "r.toml", mutated_table(RECIPE, chance), chance)
        return lambda: resolve_recipe("deit_digits", path)

    assert fuzz(counts(total, 0.1), SEED, make) == ""


def options_of(name: str) -> list[str]:
    """The options of a command, from its own parser."""
    actions = parser_of(ALL_COMMANDS[name])._actions
    return [action.option_strings[-1] for action in actions if action.option_strings[-1] not in NEVER]


def test_every_command_is_here():
    without = {"schedule", "explore", "means", "measure", "bench", "pictures"}
    assert set(ALL_COMMANDS) - without == set(COMMANDS), (
        "a new command belongs into COMMANDS, or is too long and shares its options"
    )


def test_options(total, tmp_path):
    known = {name: options_of(name) for name in COMMANDS}

    def make(chance, number):
        name = chance.choice(list(COMMANDS))
        option, text = chance.choice(known[name]), chance.choice(HOSTILE_TEXTS)
        given = [*COMMANDS[name], option] + ([text] if chance.random() < 0.97 else [])
        out = ["--out", "o.safetensors" if name in ("train", "finetune") else str(tmp_path / "o")]
        if "--out" in known[name] and option != "--out":
            given += out
        return command(name, given)

    assert fuzz(counts(total, 0.2), SEED, make) == ""


def test_bundles_and_networks(total, tmp_path):
    build = tmp_path / "build"
    network = micro()
    save_network(network, build / "network")
    write_project(make_project(design_of(network), resolve_target("zcu102")), build)
    design, packed, description = (
        (build / path).read_text() for path in ("design.json", "weights/network.json", "network/network.json")
    )
    bundle = load_bundle(build)
    tensors = (build / "network" / "network.safetensors").read_bytes()

    def make(chance, number):
        if number % 3 == 0:
            written(build / "design.json", mutated_table(design, chance), chance)
            return lambda: load_bundle(build)
        if number % 3 == 1:
            written(build / "weights" / "network.json", mutated_table(packed, chance), chance)
            return lambda: host.bundle.load_network(build, bundle)
        written(build / "network" / "network.json", mutated_table(description, chance), chance)
        content = mutated_bytes(tensors, chance) if chance.random() < 0.2 else tensors
        written(build / "network" / "network.safetensors", content, chance)
        return lambda: load_network(build / "network")

    assert fuzz(counts(total, 0.15), SEED, make) == ""


def test_reports(total, tmp_path):
    csim = json.dumps(
        {"model": "micro", "target": "zcu102", "images": 2, "tokens": [[1, 2]], "mismatches": 0}, indent=1
    )
    kinds = {
        "csynth.xml": (
            samples.csynth_xml().encode(),
            lambda path: read_csynth(path, "spvit_top", "xczu9eg-ffvb1156-2-e"),
        ),
        "cosim.rpt": (samples.cosim_rpt().encode(), read_cosim),
        "utilization.rpt": (samples.utilization_rpt().encode(), lambda path: read_implementation(path.parent, 200)),
        "timing.rpt": (samples.timing_rpt().encode(), lambda path: read_implementation(path.parent, 200)),
        "csim.json": (csim.encode(), lambda path: read_evidence(path.parent, "micro", "zcu102", "8x16 fast")),
    }

    def make(chance, number):
        name = chance.choice(list(kinds))
        content, read = kinds[name]
        folder = tmp_path / str(number)
        folder.mkdir()
        for other in ("utilization.rpt", "timing.rpt"):
            (folder / other).write_bytes(kinds[other][0])
        changed = mutated_bytes(content, chance) if name != "csim.json" else mutated_table(csim, chance)
        path = written(folder / name, changed, chance)
        return lambda: read(path)

    assert fuzz(counts(total, 0.05), SEED, make) == ""


def test_checkpoints_and_states(total, tmp_path):
    spec = resolve_model("micro")
    net = seeded(spec.model, spec.pruning)
    save_checkpoint(tmp_path / "right.safetensors", net)
    torch.save({"model": net.state_dict()}, tmp_path / "right.pth")
    Journal(tmp_path / "right.state", {"recipe": {"seed": 0}}).save("selectors", {"net": net.state_dict(), "step": 1})
    right = {suffix: (tmp_path / f"right{suffix}").read_bytes() for suffix in (".safetensors", ".pth", ".state")}

    def make(chance, number):
        suffix = chance.choice(list(right))
        content = right[suffix]
        if chance.random() < 0.5:  # where the description is, not the numbers
            content = mutated_bytes(content[:4000], chance) + content[4000:]
        else:
            content = mutated_bytes(content, chance)
        path = written(tmp_path / f"x{suffix}", content, chance)
        if suffix == ".state":
            return lambda: Journal.resume(path, {"recipe": {"seed": 0}})
        return lambda: load_checkpoint_with_report(path, spec.model, spec.pruning)

    assert fuzz(counts(total, 0.1), SEED, make) == ""


def test_images(total, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    right = {}
    for suffix, form in ((".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".gif", "GIF"), (".bmp", "BMP"), (".tiff", "TIFF"), (".ppm", "PPM")):  # fmt: skip
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form)
        right[suffix] = file.getvalue()
    preprocessing = Preprocessing.from_model(resolve_model("micro").model)

    def make(chance, number):
        suffix = chance.choice(list(right))
        folder = tmp_path / str(number)
        folder.mkdir()
        path = written(folder / f"x{suffix}", mutated_bytes(right[suffix], chance), chance)
        return lambda: load_images(chance.choice([path, folder]), preprocessing)

    assert fuzz(counts(total, 0.1), SEED, make) == ""


def test_the_shares_are_the_whole():
    assert sum((0.2, 0.1, 0.1, 0.2, 0.15, 0.05, 0.1, 0.1)) == pytest.approx(1)


def test_what_is_wrong_is_seen():
    """The judge itself: each way to end badly, and the ways to end well."""

    def raising(error: BaseException) -> Made:
        def run() -> None:
            raise error

        return run

    from spvit.errors import ConfigError

    assert attempt(raising(ZeroDivisionError("x"))).startswith("ZeroDivisionError at test_fuzz.py:")
    assert attempt(raising(SystemExit(1))) == "exit status 1"
    assert _problem_of("a\nb").startswith("a sentence of several lines")
    assert _problem_of("x" * 5000).startswith("a sentence of 5000 letters")
    assert attempt(raising(ConfigError("<object at 0x7f>"))).startswith("a sentence of Python's")
    assert attempt(lambda: 1) == "status 1"
    assert attempt(raising(OSError(28, "full"))) is attempt(raising(SystemExit(2))) is attempt(lambda: 0) is None
    assert attempt(raising(ConfigError("depth=0 must be at least 1"))) is None
    assert shutil.which("sh") is not None
