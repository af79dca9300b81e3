"""Files that are no checkpoint, or not whole: each with its sentence; what is beside the weights runs no code."""

import json
import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spvit.checkpoints import load_checkpoint, load_checkpoint_with_report
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import CheckpointError
from spvit.initialisation import seeded

MODEL = ModelConfig("plain", img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=1, num_classes=2, mlp_ratio=1)
UNPRUNED = PruningConfig(locations=())
STATE = {name: value for name, value in seeded(MODEL, UNPRUNED, 1).state_dict().items() if name != "thresholds"}
BROKEN = "not a checkpoint, or cut short; fetch or save it again"


def refused(path):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, MODEL, UNPRUNED)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_any_flipped_bit_of_a_torch_file_is_found_or_harmless(tmp_path):
    """torch looks at no checksum; what lies in no checksum either (padding, dates) holds no weight."""
    path = tmp_path / "vit.pth"
    torch.save({"model": STATE, "epoch": 3}, path)
    whole, sentences = path.read_bytes(), []
    generator = np.random.default_rng(0)
    places = generator.integers(0, len(whole), 300)
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(generator.integers(0, 8))
        path.write_bytes(changed)
        try:
            loaded = load_checkpoint(path, MODEL, UNPRUNED).state_dict()
        except CheckpointError as error:
            sentences.append(str(error))
        else:
            assert all(torch.equal(loaded[name], value) for name, value in STATE.items())
    assert all(sentence.startswith(f"{path}: {BROKEN}") for sentence in sentences)
    assert len(sentences) > 0.4 * len(places)


def test_a_flipped_bit_of_a_weight_names_the_checksum(tmp_path):
    path = tmp_path / "vit.pth"
    torch.save(STATE, path)
    whole = path.read_bytes()
    place = whole.index(STATE["patch_embed.proj.weight"].numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    text = refused(path)
    assert text.startswith(f"{BROKEN} (the checksum of vit/data/") and text.endswith(" in it is wrong)")


def test_a_file_that_was_written_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "vit.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(tmp_path / "vit.pth") as archive:
        assert archive.testzip() is not None
    load_checkpoint(tmp_path / "vit.pth", MODEL, UNPRUNED)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 88283025\n"
HTML = b"\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LFS, "it is a Git LFS pointer; git lfs pull fetches the file itself"),
        (HTML, "it is a web page, such as a download's error or question"),
        (b'{"error": "Repository not found"}', "it is JSON, such as a server's error or an index of parts"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "it is packed by gzip; unpack it"),
    ],
)
def test_what_lies_in_a_checkpoints_place_is_named(tmp_path, suffix, content, what):
    (tmp_path / f"vit{suffix}").write_bytes(content)
    assert refused(tmp_path / f"vit{suffix}") == f"{BROKEN} ({what})"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_script(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "vit.pt")
    assert (
        refused(tmp_path / "vit.pt") == f"{BROKEN} (it is TorchScript, a program; save the weights, net.state_dict())"
    )


def test_a_packed_zip_is_none_of_torchs(tmp_path):
    with zipfile.ZipFile(tmp_path / "vit.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vit/data.pkl", bytes(10**6))
    assert refused(tmp_path / "vit.pth") == BROKEN


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "vit.pth")
    assert refused(tmp_path / "vit.pth") == (
        "is a named pipe, and a file is wanted; give the path of a .pth, .pt or .safetensors checkpoint"
    )


class Command:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("where", ["beside", "within an array", "within a path"])
def test_code_beside_numpys_data_is_refused_and_not_run(tmp_path, where):
    command = Command(f"touch {tmp_path / 'was_run'}")
    extra = {"beside": command, "within an array": np.array([command], object), "within a path": {"path": [command]}}
    torch.save({"model": STATE, "extra": extra[where]}, tmp_path / "vit.pth")
    assert refused(tmp_path / "vit.pth").startswith("holds pickled code (") or where == "within an array"
    assert not (tmp_path / "was_run").exists()


# ---- tensors that are none


@pytest.mark.parametrize(
    ("name", "make", "sentence"),
    [
        (
            "head.weight",
            lambda: torch.ones(2, 8).to_sparse(),
            "is a sparse coo tensor; save it as an ordinary, dense one",
        ),
        (
            "head.weight",
            lambda: torch.ones(2, 8).to_sparse_csr(),
            "is a sparse csr tensor; save it as an ordinary, dense one",
        ),
        (
            "head.weight",
            lambda: torch.nested.nested_tensor([torch.ones(8), torch.ones(8)]),
            "is a nested tensor; save it as an ordinary, dense one",
        ),
        (
            "head.weight",
            lambda: torch.empty(2, 8, device="meta"),
            "is on the meta device, a shape without numbers; save it after its weights were loaded",
        ),
        (
            "head.weight",
            lambda: torch.quantize_per_tensor(torch.ones(2, 8), 0.1, 0, torch.qint8),
            "has the type torch.qint8; save the weights as floating point",
        ),
        (
            "head.bias",
            lambda: torch.ones(2, dtype=torch.complex64),
            "has the type torch.complex64; save the weights as floating point",
        ),
        (
            "head.bias",
            lambda: torch.ones(2).to(torch.float8_e4m3fn),
            "has the type torch.float8_e4m3fn; save the weights as floating point",
        ),
        (
            "head.bias",
            lambda: torch.ones(1).expand(2**40),
            "has the shape (1099511627776,), but plain needs (2,); set num_classes ",
        ),
        (
            "head.bias",
            lambda: torch.tensor([1.0, torch.nan]),
            "has 1 of 2 numbers that are NaN or infinite; take a checkpoint from before the training diverged",
        ),
        (
            "head.bias",
            lambda: torch.tensor([1.0, -torch.inf]),
            "has 1 of 2 numbers that are NaN or infinite; take a checkpoint from before the training diverged",
        ),
        (
            "head.bias",
            lambda: torch.tensor([1.0, -1e30]),
            "has a number of size 1e+30, and no trained weight is beyond 65504; "
            "take a checkpoint from before the training diverged",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's, about its own kinds of tensors
def test_a_tensor_that_holds_no_weights(tmp_path, name, make, sentence):
    torch.save({**STATE, name: make()}, tmp_path / "vit.pth")
    assert refused(tmp_path / "vit.pth").startswith(f"{name} {sentence}")


def test_the_largest_of_float16_is_a_weight(tmp_path):
    torch.save({**STATE, "head.bias": torch.tensor([65504.0, -65504.0])}, tmp_path / "vit.pth")
    load_checkpoint(tmp_path / "vit.pth", MODEL, UNPRUNED)


# ---- where it comes from


def warned(path, model=MODEL):
    warnings = [note for note in load_checkpoint_with_report(path, model, UNPRUNED)[1].notes if "warning" in note]
    assert len(warnings) <= 1
    return warnings[0] if warnings else None


HALF = ModelConfig(**{**vars(MODEL), "mean": (0.5,) * 3, "std": (0.5,) * 3})


@pytest.mark.parametrize(
    ("name", "sees_half"),
    [
        ("vit_small_patch16_224.augreg_in1k.pth", True),
        ("vit-base-patch16-224.pth", True),
        ("deit_small_patch16_224-cd65a155.pth", False),
        ("vit_base_patch16_224.dino.pth", False),
        ("mae_pretrain_vit_base.pth", False),
        ("best.pth", None),
        ("invite.pth", None),
    ],
)
def test_a_name_that_says_what_the_images_looked_like(tmp_path, name, sees_half):
    torch.save(STATE, tmp_path / name)
    for model, has_half in ((MODEL, False), (HALF, True)):
        text = warned(tmp_path / name, model)
        assert (text is None) == (sees_half in (None, has_half))
        if text is not None:
            theirs, ours = ("0.5, 0.5, 0.5", "0.485, 0.456, 0.406")[:: 1 if sees_half else -1]
            assert text.startswith(f"warning: its name says that its images had mean {theirs} and std ")
            assert f"but plain has mean {ours} and std" in text
            assert text.endswith("; set mean and std in [model]")


def test_the_row_that_has_them_is_named(tmp_path):
    from spvit.checkpoint_origin import warning
    from spvit.config import resolve_model

    deit, vit = resolve_model("deit_s").model, resolve_model("vit_s").model
    text = warning(tmp_path / "vit_small_patch16_224.augreg_in1k.safetensors", {}, deit)
    assert text is not None and text.endswith("; choose MODEL=vit_s, or set mean and std in [model]")
    assert warning(tmp_path / "vit_small_patch16_224.augreg_in1k.safetensors", {}, vit) is None
    text = warning(tmp_path / "deit_small.pth", {}, vit)
    assert text is not None and text.endswith("; choose MODEL=deit_s, or set mean and std in [model]")


def test_a_training_scripts_architecture(tmp_path):
    torch.save({"arch": "vit_small_patch16_224", "state_dict": STATE}, tmp_path / "deit.pth")
    assert warned(tmp_path / "deit.pth").startswith(
        "warning: the architecture vit_small_patch16_224 in it says that its "
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"architecture": "x", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}),
    ],
)
def test_a_configuration_beside_it(tmp_path, name, content):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / name).write_text(json.dumps(content))
    assert warned(tmp_path / "model.safetensors").startswith(
        f"warning: {tmp_path / name} says that its images had mean "
    )
    assert warned(tmp_path / "model.safetensors", HALF) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "3", '{"mean": 3, "std": []}', '{"mean": ["a"], "std": [1]}', "[" * 10**5]
)
def test_another_configuration_beside_it_says_nothing(tmp_path, content):
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(content)
    assert warned(tmp_path / "model.safetensors") is None
