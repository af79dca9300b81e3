"""The command: what it prints, what it leaves, and how it ends."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sim.csim
from hw.interface import STATUS_CHECKSUM, STATUS_ERROR, STATUS_HEADER, STATUS_STAGES, Error
from hw.program import Sizes, build_program
from sim.bridge import Accelerator, CsimError
from sim.build import build_library
from sim.compiler import Compiler
from sim.csim import CONSTRUCTED
from spvit.errors import exit_on_user_error
from spvit_fpga.cli import run as run_command
from tests.sim.networks import MICRO

main = partial(run_command, "csim")

CONTRACT = {"images", "taps_compared", "mismatches", "tokens", "top1_agreement_float", "max_abs_logit_error",
            "saturations", "seconds"}  # fmt: skip


def run(*arguments: object) -> int:
    """The command's exit status."""
    with pytest.raises(SystemExit) as stopped:
        exit_on_user_error(lambda: main([str(argument) for argument in arguments]))
    code = stopped.value.code
    return code if isinstance(code, int) else 1  # Python prints a text and exits with 1


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A build folder after one run, which quantized, generated and compiled what was missing."""
    folder = tmp_path_factory.mktemp("command") / "micro"
    assert run("--model", "micro", "--out", folder) == 0
    return folder


@pytest.fixture
def folder(built, tmp_path) -> Path:
    shutil.copytree(built, tmp_path / "build")
    return tmp_path / "build"


@pytest.fixture
def photos(tmp_path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for i, name in enumerate(("a.png", "[b]b.png", "c.png")):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path / name)
    return path


STAGES = [
    "generating the C++ and the weight stream",
    f"compiling with {Compiler.find()}",
    "computing the float model's logits",
    "C-simulating 3 images and comparing with the golden",
    "C-simulating 10 constructed inputs and comparing with the golden",
]
"""Of a run whose network is there: a line each, where the output is redirected."""


def report_of(folder: Path, name: str = "csim.json") -> dict:
    return json.loads((folder / name).read_text())


def test_a_run_leaves_its_report(built):
    report = report_of(built)
    assert report.keys() >= CONTRACT
    assert (report["model"], report["target"], report["kernel"]) == ("micro", "zcu102", "spvit")
    assert report["images"] == 2 and report["mismatches"] == 0
    steps = len(build_program(Sizes(MICRO.model, MICRO.pruning)).steps)
    assert report["taps_compared"] == 2 * (steps + 2)
    assert len(report["tokens"]) == 2 and all(17 >= a >= b >= c >= 2 for a, b, c in report["tokens"])
    assert report["top1_agreement_float"] == 1.0 and 0 < report["max_abs_logit_error"] < 0.1
    assert not list(built.rglob("*.partial"))


def test_what_it_prints(folder, photos, capsys):
    assert run("--model", "micro", "--out", folder, "--images", photos) == 0
    said = capsys.readouterr()
    printed, report = said.out, report_of(folder)
    assert "network: up to date" in printed
    assert said.err.splitlines() == STAGES
    for i, name in enumerate(("[b]b.png", "a.png", "c.png")):
        line = next(line for line in printed.splitlines() if name in line)
        assert " → ".join(["17", *map(str, report["tokens"][i])]) in line
    assert "against float: best class the same on " in printed and "keep decisions: " in printed
    assert f"bit-exact: {report['taps_compared']:,} taps of 3 images" in printed.splitlines()[-1]
    assert report["keep_decisions"] >= report["keep_flips"] >= 0


def test_one_kernel_alone(folder, capsys):
    before = (folder / "csim.json").read_bytes()
    assert run("--model", "micro", "--out", folder, "--top", "token_packager") == 0
    report = report_of(folder, "csim-token_packager.json")
    assert report["kernel"] == "token_packager" and report["mismatches"] == 0 and report["images"] == 2
    assert report["taps_compared"] == 2 * 3 * 2  # each of three packages, and what it hands on
    assert (folder / "csim.json").read_bytes() == before
    said = capsys.readouterr()
    assert "bit-exact: 12 taps of 2 images" in said.out
    assert said.err.splitlines()[1:] == [
        f"compiling with {Compiler.find()}", "C-simulating token_packager on 2 images and comparing with the golden",
    ]  # fmt: skip


def test_a_mismatch_ends_with_1_and_names_tap_index_and_values(folder, monkeypatch, capsys):
    header = folder / "src" / "epilogue.hpp"
    text = header.read_text()
    line = "if (is_residual) sum.value += shift_left<kCutBits>(residual[i], step.residual_shift);"
    assert line in text
    broken = folder.parent / "broken"
    shutil.copytree(folder / "src", broken / "src")
    (broken / "src" / "epilogue.hpp").write_text(text.replace(line, ""))
    monkeypatch.setattr(sim.csim, "build_library", lambda source, *options: build_library(broken / "src"))
    assert run("--model", "micro", "--out", folder) == 1
    printed = capsys.readouterr().out.splitlines()
    shown = [line for line in printed if line.startswith("MISMATCH ")]
    assert len(shown) == 10
    assert shown[0].startswith("MISMATCH patch_embed[0, 0]: C-simulation ") and ", golden " in shown[0]
    assert printed[-1].startswith("NOT bit-exact: ")
    report = report_of(folder)
    assert report["mismatches"] > 100 and f"{report['mismatches']:,} mismatches" in printed[-1]


def test_wrong_logits_and_token_counts_are_mismatches(folder, monkeypatch, capsys):
    """Beside the taps: what the host would read."""
    whole = Accelerator.run

    def wrong(self, pixels):
        result = whole(self, pixels)
        result.logits[2] += 1
        result.tokens[1] += 1
        return result

    monkeypatch.setattr(Accelerator, "run", wrong)
    assert run("--model", "micro", "--out", folder) == 1
    printed = capsys.readouterr().out
    assert "MISMATCH logits[0, 2]: C-simulation " in printed and "MISMATCH tokens[0, 1]: C-simulation " in printed
    assert report_of(folder)["mismatches"] == 2 * (2 + CONSTRUCTED)


@pytest.mark.parametrize(
    "word", [STATUS_ERROR, STATUS_STAGES, STATUS_CHECKSUM, STATUS_HEADER, STATUS_HEADER + 1, STATUS_HEADER + 5]
)
def test_every_word_of_the_status_buffer_counts(folder, monkeypatch, capsys, word):
    whole = Accelerator._call

    def wrong(self, *arguments):
        logits, status = whole(self, *arguments)
        if (
            word != STATUS_ERROR or status[STATUS_ERROR] != Error.NONE
        ):  # what a good run answers there is looked at first
            status[word] ^= 1 << 9
        return logits, status

    monkeypatch.setattr(Accelerator, "_call", wrong)
    assert run("--model", "micro", "--out", folder) == 1
    printed = capsys.readouterr().out
    assert f"[0, {word}]: C-simulation " in printed
    named = "status to another host (DIGEST)" if word == STATUS_ERROR else "status"
    assert f"MISMATCH {named}[0, {word}]" in printed.replace("ends of int16: ", "")


def test_constructed_inputs_are_run_and_told(folder, capsys):
    assert run("--model", "micro", "--out", folder) == 0
    report = report_of(folder)
    assert len(report["constructed"]) == CONSTRUCTED and report["constructed"]["all dropped"] == [17, 2, 2, 2]
    assert report["images"] == 2  # photographs
    assert (
        "constructed inputs: ends of int16, all dropped, all equal, just kept, just dropped, "
        in capsys.readouterr().out
    )


def test_a_stopped_simulation_ends_with_1_and_leaves_the_old_report(folder, monkeypatch, capsys):
    def stop(self, pixels):
        raise CsimError("a stream was read while it was empty")

    monkeypatch.setattr(Accelerator, "run", stop)
    before = (folder / "csim.json").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        exit_on_user_error(lambda: main(["--model", "micro", "--out", str(folder)]))
    assert stopped.value.code == "C-simulation of china.jpg stopped: a stream was read while it was empty"
    assert (folder / "csim.json").read_bytes() == before


# --- what a user can cause ---


def refused(capsys, *arguments: object) -> str:
    """The one sentence on stderr."""
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "deit_x"], "MODEL=deit_x is neither the path of a .toml file nor one of deit_t, deit_s, "),
        (["--model", "no.toml"], "no.toml: there is no such file; "),
        (["--model", "micro", "--target", "zcu999"], "TARGET=zcu999 is unknown; choose one of "),
        (["--model", "micro", "--keep", "0.5"], "KEEP=0.5: keep=[0.5] must have one fraction per selector"),
        (["--model", "micro", "--keep", "lots"], 'KEEP=lots must be "none" or fractions with commas between'),
        (["--model", "micro", "--images", "/no/where"], "/no/where: no such file or folder; "),
        (["--model", "micro", "--images", "digits:all"], "digits:all: the digits come as digits:train and digits:test"),
        (["--model", "micro", "--ckpt", "/no/best.pth"], "/no/best.pth: there is no such file; "),
        (["--model", "micro", "--calib", "/no/where"], "/no/where: no such file or folder; "),
    ],
)  # fmt: skip
def test_bad_arguments(tmp_path, capsys, arguments, sentence):
    out = tmp_path / "build"
    assert refused(capsys, *arguments, "--out", out).startswith(sentence)
    assert not out.exists()


def test_an_empty_folder_and_a_broken_image(tmp_path, photos, capsys):
    out, empty = tmp_path / "build", tmp_path / "empty"
    empty.mkdir()
    assert refused(capsys, "--model", "micro", "--out", out, "--images", empty).startswith(f"{empty}: no images in ")
    (photos / "z.png").write_bytes(b"not an image")
    text = refused(capsys, "--model", "micro", "--out", out, "--images", photos)
    assert text == f"{photos / 'z.png'}: not an image; replace it or leave it out"
    (photos / "z.png").write_bytes((photos / "a.png").read_bytes()[:500])
    text = refused(capsys, "--model", "micro", "--out", out, "--images", photos)
    assert text.startswith(f"{photos / 'z.png'}: cannot be decoded (")
    assert not out.exists()


def test_an_unknown_top_names_the_choices(tmp_path, capsys):
    assert run("--model", "micro", "--out", tmp_path / "build", "--top", "attention") == 2
    assert "choose from" in capsys.readouterr().err and not (tmp_path / "build").exists()


def test_a_missing_compiler(folder, capsys):
    text = refused(capsys, "--model", "micro", "--out", folder, "--cxx", "g++-99")
    assert text.startswith("g++-99 not found: install it")


def test_a_model_too_large_for_the_board(tmp_path, capsys):
    big = tmp_path / "big.toml"
    big.write_text("[model]\nimg_size = 384\nembed_dim = 768\nnum_heads = 12\n")
    text = refused(capsys, "--model", big, "--out", tmp_path / "build")
    assert text.startswith("big with a 64x64 fast engine needs an estimated ") and "zcu102 has 912" in text
    assert not (tmp_path / "build").exists()


@pytest.mark.slow
def test_the_digits_are_as_accurate_as_in_float(tmp_path):
    """Over the whole test split: bit-exact, and within 0.3 points of the float model."""
    assert run("--model", "deit_digits", "--images", "digits:test", "--out", tmp_path / "build") == 0
    report = report_of(tmp_path / "build")
    assert report["images"] == 450 and report["mismatches"] == 0
    assert abs(report["accuracy"] - report["accuracy_float"]) <= 0.003
    assert report["accuracy"] > 0.97
