import subprocess
import sys
from pathlib import Path

import pytest

from quant.build import build_folder, model_spec, network_folder
from quant.options import BuildOptions
from spvit.errors import ConfigError
from tests.options import read


def arguments(*texts: str) -> BuildOptions:
    return read(BuildOptions, *texts)


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ("--model deit_s", "build/deit_s-zcu102"),
        ("--model deit_s --target zcu102", "build/deit_s-zcu102"),
        ("--model deit_s --target boards/my_board.toml", "build/deit_s-my_board"),
        ("--model deit_s --keep none", "build/deit_s-zcu102-keep-none"),
        ("--model deit_s --keep 0.88,0.774,0.681", "build/deit_s-zcu102-keep-0.88-0.774-0.681"),
        ("--model deit_s --keep 0.629,0.396,0.249", "build/deit_s-zcu102"),  # as configured: nothing was changed
        ("--model deit_s --ckpt runs/best.pth", "build/deit_s-zcu102-ckpt-best"),
        ("--model deit_s --calib my/photos", "build/deit_s-zcu102-calib-photos"),
        ("--model deit_s --calib digits:train --seed 3", "build/deit_s-zcu102-calib-digits_train-seed-3"),
        (
            "--model deit_s --keep none --ckpt best.pth --calib photos",
            "build/deit_s-zcu102-keep-none-ckpt-best-calib-photos",
        ),
        ("--model deit_s --keep none --out there", "there"),
        # to a checkpoint's own selectors, the registry's fractions say something
        (
            "--model deit_s --ckpt best.pth --keep 0.629,0.396,0.249",
            "build/deit_s-zcu102-keep-0.629-0.396-0.249-ckpt-best",
        ),
        ("--model deit_s --ckpt best.pth --threshold 0.5", "build/deit_s-zcu102-threshold-0.5-ckpt-best"),
        ("--model deit_s --threshold calibrate", "build/deit_s-zcu102-threshold-calibrate"),
        ("--model deit_s --ckpt best.pth --ema --pos interpolate", "build/deit_s-zcu102-ckpt-best-ema-pos-interpolate"),
        ("--model deit_small_patch16_224", "build/deit_s-zcu102"),
    ],
)
def test_the_folder_names_what_was_changed(options, folder):
    assert build_folder(arguments(*options.split())) == Path(folder)
    assert network_folder(arguments(*options.split())) == Path(folder) / "network"


def test_names_are_shell_friendly():
    args = arguments("--model", "deit_s", "--ckpt", "my best (1)$.pth", "--calib", "a/b c/")
    assert build_folder(args) == Path("build/deit_s-zcu102-ckpt-my_best_1_-calib-b_c")


def test_a_models_own_file_names_its_folder(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nembed_dim = 192\nnum_heads = 3\n")
    args = arguments("--model", str(path))
    assert build_folder(args, root=tmp_path) == tmp_path / "mine-zcu102"
    assert model_spec(args).model.embed_dim == 192


def test_an_unknown_model_is_a_users_error():
    with pytest.raises(ConfigError, match="did you mean deit_s"):
        build_folder(arguments("--model", "deits"))


@pytest.mark.parametrize(
    ("lines", "field", "found", "has"),
    [
        ('pooling = "mean"\n[pruning]', "[model] pooling", '"mean"', '"class"'),
        ('[pruning]\nmethod = "class_attention"', "[pruning] method", '"class_attention"', '"selector"'),
        ('[pruning]\nheads = "single"', "[pruning] heads", '"single"', '"weighted"'),
        ('[pruning]\nscorer = "conv3"', "[pruning] scorer", '"conv3"', '"mlp"'),
        ('[pruning]\nactivation = "relu"', "[pruning] activation", '"relu"', '"gelu"'),
        ("[pruning]\nproportional_attention = true", "[pruning] proportional_attention", "true", "false"),
    ],
)
def test_what_the_accelerator_has_no_unit_for_is_refused(tmp_path, lines, field, found, has):
    path = tmp_path / "mine.toml"
    path.write_text(f"[model]\nembed_dim = 192\nnum_heads = 3\n{lines}\n")
    with pytest.raises(ConfigError) as refused:
        model_spec(arguments("--model", str(path)))
    assert str(refused.value) == (
        f"{path}: {field} = {found}: the accelerator has units for {field.split()[1]} = {has} alone; "
        "set that for the hardware, or only train, evaluate and count the model"
    )
    assert build_folder(arguments("--model", str(path))) == Path("build/mine-zcu102")


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("pit_s", "pools its grid between stages"),
        ("lvvit_s", "has a stem of convolutions"),
        ("patch_stride = 8", "has patches that overlap"),
        ("aux_head = true", "has an auxiliary head"),
    ],
)
def test_a_part_without_hardware_is_named(tmp_path, model, what):
    name = model
    if "=" in model:
        path = tmp_path / "mine.toml"
        path.write_text(f"[model]\nname = 'own'\nembed_dim = 192\nnum_heads = 3\n{model}\n")
        model, name = str(path), f"{path}: own"
    with pytest.raises(ConfigError) as refused:
        model_spec(arguments("--model", model))
    assert str(refused.value) == (
        f"{name} {what}; hardware for that is not built yet, so only train, evaluate, count and export the model"
    )


def test_the_flow_ends_there_with_status_2(tmp_path):
    """The first command of `make hls`."""
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nembed_dim = 192\nnum_heads = 3\n[pruning]\nmethod = "random"\n')
    command = [
        sys.executable,
        "-m",
        "spvit_fpga",
        "hls",
        "--model",
        str(path),
        "--check",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'error: {path}: [pruning] method = "random": the accelerator has units for method = "selector" alone; '
        "set that for the hardware, or only train, evaluate and count the model\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["mine.toml"]


def test_without_selectors_it_does_not_matter_what_they_would_be(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\nembed_dim = 192\nnum_heads = 3\n[pruning]\nmethod = "random"\n')
    assert model_spec(arguments("--model", str(path), "--keep", "none")).pruning.num_selectors == 0
