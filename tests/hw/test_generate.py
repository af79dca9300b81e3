"""The command: a project whole or not at all, the same bytes each time, refusals before any work."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import hw.generate
from hw.generate import check_request, make_project, write_project
from hw.manifest import DESIGN, NETWORK, WEIGHTS_FOLDER
from hw.options import HlsOptions
from hw.target import resolve_target
from hw.weights import stream_checksum, weight_stream
from quant.build import NETWORK_FOLDER
from quant.inputs import INPUTS_FILE
from quant.network import save_network
from spvit.errors import exit_on_user_error
from tests.options import read
from tests.sim.networks import design_of, micro


def main(arguments):
    """`spvit hls` without its quantization: the network lies there, or does not."""
    options = read(HlsOptions, *arguments)
    check_request(options)
    if not options.check:
        hw.generate.run(options)


ZCU102 = resolve_target("zcu102")


def run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        exit_on_user_error(lambda: main([str(argument) for argument in arguments]))
    return stopped.value.code


def refused(capsys, *arguments):
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1 and "Traceback" not in captured.err
    return captured.err.removeprefix("error: ").rstrip("\n")


def contents(folder: Path):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """A build folder with a quantized network."""
    save(micro(), tmp_path / "build")
    return tmp_path / "build"


def save(network, folder, weights="seed 0"):
    """As `quant.quantize` does, and from which weights it was made."""
    save_network(network, folder / NETWORK_FOLDER)
    (folder / NETWORK_FOLDER / INPUTS_FILE).write_text(json.dumps({"weights": weights}))


@pytest.fixture
def generated(folder):
    assert run("--model", "micro", "--out", folder) is None
    return folder


def test_what_it_leaves_and_says(folder, capsys):
    run("--model", "micro", "--out", folder)
    printed = capsys.readouterr().out
    design = design_of(micro())
    assert f"{folder}: micro on zcu102, 8x16 fast engine, 64 multipliers in the array\n" in printed
    passes = sum(step.op is hw.generate.Op.ENGINE for step in design.program.steps)
    assert f"  program    {len(design.program.steps)} steps, {passes} passes of the engine\n" in printed
    assert "over 1 ports, once per image" in printed and printed.splitlines()[-1].startswith("written in ")
    left = contents(folder)
    assert {
        "src/top.cpp",
        "src/engine.hpp",
        "src/msa_block.cpp",
        "tcl/hls.tcl",
        DESIGN,
        "weights/network.json",
        "weights/weights_0.bin",
    } <= set(left)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_second_time_nothing_is_written(generated, capsys):
    before = {path: path.stat().st_mtime_ns for path in generated.rglob("*")}
    capsys.readouterr()
    run("--model", "micro", "--out", generated)
    assert capsys.readouterr().out.splitlines()[-1].startswith("up to date in ")
    assert {path: path.stat().st_mtime_ns for path in generated.rglob("*")} == before


def test_equal_inputs_leave_equal_bytes(generated, tmp_path):
    other = tmp_path / "other"
    save(micro(), other)
    run("--model", "micro", "--out", other)
    assert contents(other) == contents(generated)


def test_the_manifests_say_what_was_made_from_what(generated):
    design = json.loads((generated / DESIGN).read_text())
    left = contents(generated)
    made = {path for path in left if path.partition("/")[0] in ("src", "tcl", "tb")}
    assert design["sha256"] == {path: hashlib.sha256(left[path]).hexdigest() for path in sorted(made)}
    assert design["name"] == "micro" and design["capacities"]["num_tokens"] == 17
    assert design["architecture"] == {
        "tile_in": 8, "tile_out": 16, "inner_product": "fast", "weight_ports": 1, "fifo_words": 4096, "uram": [],
        "port_bits": 128, "fill_lanes": 8,
    }  # fmt: skip
    assert design["target"]["part"] == ZCU102.part
    own = json.loads((generated / WEIGHTS_FOLDER / NETWORK).read_text())
    stripes = {name: left[f"{WEIGHTS_FOLDER}/{name}"] for name in ("weights_0.bin",)}
    assert own["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in stripes.items()}
    network = micro()
    words, offsets = weight_stream(design_of(network))
    assert own["digest"] == network.digest and own["design"] == design["digest"]
    assert own["shapes"]["num_words"] == len(words) and own["weights_checksum"] == stream_checksum(words)
    assert own["first_word_of_step"] == offsets[:-1].tolist()
    assert own["model"]["name"] == "micro" and own["pruning"]["locations"] == [1, 2, 3]
    assert own["logits_frac_bits"] == network.frac_bits["head"] and own["trained"] is False
    assert np.frombuffer(stripes["weights_0.bin"], "<i2").tolist() == words.ravel().tolist()
    made |= {f"{WEIGHTS_FOLDER}/{name}" for name in (NETWORK, *stripes)} | {DESIGN}
    assert made == {path for path in left if not path.startswith(NETWORK_FOLDER)}


def test_a_network_of_a_checkpoint_is_a_trained_one(folder):
    save(micro(), folder, "ab" * 32 + " ema")
    run("--model", "micro", "--out", folder)
    assert json.loads((folder / WEIGHTS_FOLDER / NETWORK).read_text())["trained"] is True


@pytest.mark.parametrize(
    "change",
    ["edit", "remove", "cut weights", "flip weights", "folder", "file", "remove weights", "edit manifest", "not text"],
)
def test_what_was_changed_is_written_again(generated, change):
    before = contents(generated)
    source, weights, manifest = (
        generated / "src" / "engine.hpp",
        generated / "weights" / "weights_0.bin",
        generated / DESIGN,
    )
    if change == "edit":
        source.write_text(source.read_text().replace("kRmwCycles = 8", "kRmwCycles = 9"))
    elif change == "remove":
        source.unlink()
    elif change == "cut weights":
        weights.write_bytes(weights.read_bytes()[:-2])
    elif change == "flip weights":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    elif change == "folder":
        manifest.unlink()
        (manifest / "within").mkdir(parents=True)
    elif change == "file":
        shutil.rmtree(source.parent)
        source.parent.write_text("")
    elif change == "remove weights":
        shutil.rmtree(weights.parent)
    elif change == "edit manifest":
        manifest.write_text(manifest.read_text()[:-20])
    else:
        source.write_bytes(b"\xff\xfe\x00")
    run("--model", "micro", "--out", generated)
    assert contents(generated) == before


class Interrupted(BaseException):
    pass


def paths_written(monkeypatch, stop_at):
    """Interrupts at the n-th file or folder that is written, moved or removed."""
    count = [0]

    def counted(function):
        def wrapper(*arguments, **keywords):
            if count[0] == stop_at:
                raise Interrupted
            count[0] += 1
            return function(*arguments, **keywords)

        return wrapper

    for owner, name in [(Path, "write_text"), (Path, "rename"), (Path, "unlink"), (shutil, "rmtree")]:
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return count


def test_wherever_it_is_interrupted_each_part_is_old_or_new(generated, monkeypatch, capsys):
    """And without a manifest unless all is there: the next run writes it all."""
    old, new = (
        make_project(design_of(micro()), ZCU102),
        make_project(design_of(micro(), inner_product="direct"), ZCU102),
    )
    folder = generated
    with monkeypatch.context() as patch:
        steps = paths_written(patch, stop_at=-1)
        write_project(new, folder)
    for stop_at in range(0, steps[0], 3):
        write_project(old, folder)
        with monkeypatch.context() as patch:
            paths_written(patch, stop_at)
            with pytest.raises(Interrupted):
                write_project(new, folder)
        left = contents(folder)
        for part in ("src", "tcl", "tb"):
            found = {path: text.decode() for path, text in left.items() if path.startswith(f"{part}/")}
            of = [{p: t for p, t in project.files.items() if p.startswith(f"{part}/")} for project in (old, new)]
            assert found in (*of, {}), f"{part} after {stop_at}"
        if DESIGN in left:
            assert {path: text.decode() for path, text in left.items() if path in old.files} in (old.files, new.files)
    assert run("--model", "micro", "--out", folder) is None
    for path, text in old.files.items():
        assert (folder / path).read_text() == text


# --- refusals ---


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "deit_x"], "MODEL=deit_x is neither the path of a .toml file nor one of "),
        (["--model", "micro", "--target", "zcu999"], "TARGET=zcu999 is unknown; choose one of "),
        (["--model", "micro", "--keep", "2,1,1"], "KEEP=2,1,1: keep=2.0 must be a number from 0.0001 to 1"),
        (["--model", "/no/model.toml"], "/no/model.toml: there is no such file; "),
    ],
)
@pytest.mark.parametrize("check", [[], ["--check"]], ids=["whole", "check"])
def test_bad_arguments(tmp_path, capsys, arguments, sentence, check):
    assert refused(capsys, *arguments, *check, "--out", tmp_path / "build").startswith(sentence)
    assert not (tmp_path / "build").exists()


def test_before_there_is_a_network(tmp_path, capsys):
    out = tmp_path / "build"
    text = refused(capsys, "--model", "micro", "--out", out)
    assert text == f"{out / NETWORK_FOLDER / 'network.json'}: there is no such file; run `make hls`"
    assert not out.exists()


def test_a_torn_network(folder, capsys):
    path = folder / NETWORK_FOLDER / "network.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    text = refused(capsys, "--model", "micro", "--out", folder)
    assert text == f"{path}: its SHA-256 is not the one in network.json; run `make hls` again"
    assert sorted(p.name for p in folder.iterdir()) == [NETWORK_FOLDER]


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("tile_in = 24", "[engine] tile_in=24 must be one of 8, 16, 32, 64, 128"),
        ('inner_product = "slow"', "[engine] inner_product='slow' must be one of fast, direct"),
        ('tile_out = "64"', "[engine] tile_out='64' must be one of 8, 16, 32, 64, 128"),
    ],
)
def test_a_toml_s_engine(tmp_path, capsys, engine, sentence):
    toml = tmp_path / "mine.toml"
    toml.write_text(f"[model]\nimg_size = 32\nembed_dim = 64\nnum_heads = 2\ndepth = 2\n[engine]\n{engine}\n")
    assert refused(capsys, "--model", toml, "--out", tmp_path / "build") == sentence


def test_check_writes_nothing(tmp_path, capsys):
    assert run("--model", "deit_s", "--check", "--out", tmp_path / "build") is None
    assert capsys.readouterr().out == "" and not (tmp_path / "build").exists()


def test_a_model_that_does_not_fit_the_board(tmp_path, capsys):
    toml = tmp_path / "big.toml"
    toml.write_text("[model]\nimg_size = 384\nembed_dim = 768\nnum_heads = 12\n")
    text = refused(capsys, "--model", toml, "--check", "--out", tmp_path / "build")
    assert text.startswith("big with a 64x64 fast engine needs an estimated ")
    assert " zcu102 has 912: " in text and " too many; it would fit with img_size=" in text
    toml.write_text("[model]\nembed_dim = 4096\nnum_heads = 64\nimg_size = 32\n")
    text = refused(capsys, "--model", toml, "--check", "--out", tmp_path / "build")
    assert text == "big: embed_dim=4096 overflows the engine's sums; it has room for 2047"
