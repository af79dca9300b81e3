"""Checkpoints with random damage, of bytes and of content: loaded, or one sentence, and never anything else."""

import io
import random
import warnings
import zipfile
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from spvit.checkpoint_options import CheckpointOptions
from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import CheckpointError
from spvit.initialisation import seeded

MODEL = ModelConfig("plain", img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, num_classes=2, mlp_ratio=1)
PRUNINGS = (PruningConfig(locations=()), PruningConfig((1,), (0.5,)))
STATE = dict(seeded(MODEL, PRUNINGS[1], 1).state_dict())
KEYS = ("model", "state_dict", "model_ema", "net", "teacher", "a\nb", "optimizer")
PREFIXES = ("module.", "model.", "backbone.", "ema.", "vit.", "a\nb.", "_orig_mod.")
NAMES = ("blocks.0.ls1.gamma", "blocks.1.gamma_2", "score_predictor.0.in_conv.0.0.weight", "vit.embeddings.cls_token",
         "vit.encoder.layer.0.attention.attention.query.weight", "vit.encoder.layer.0.attention.attention.key.weight",
         "vit.encoder.layer.0.attention.attention.value.weight", "class_token", "encoder.pos_embedding", "reg_token",
         "n_averaged", "epoch", "x" * 400, "a\nb", "")  # fmt: skip
ODD = (
    lambda: torch.tensor(1.0),
    lambda: torch.ones(3, dtype=torch.int64),
    lambda: torch.ones(8, 8, dtype=torch.complex64),
    lambda: torch.ones(8, 8).to_sparse(),
    lambda: torch.nested.nested_tensor([torch.ones(8), torch.ones(8)]),
    lambda: torch.empty(8, device="meta"),
    lambda: torch.empty(0),
    lambda: torch.full((8,), 1e30),
    lambda: torch.full((8,), float("nan")),
    lambda: torch.ones(8, 8).half(),
    lambda: torch.ones(1, 10, 8),
    lambda: torch.ones(1, 1).expand(1 << 20, 1 << 20),
    lambda: np.ones(3),
    lambda: np.float64(3),
    lambda: "text",
    lambda: None,
    lambda: {"cls_token": torch.ones(1, 1, 8)},
)


def damaged_content(rng):
    state = dict(STATE)
    for _ in range(rng.randrange(4)):
        name = rng.choice([*state, *NAMES])
        choice = rng.random()
        if choice < 0.2:
            state.pop(name, None)
        elif choice < 0.7 or not isinstance(state.get(name), torch.Tensor):
            state[name] = rng.choice(ODD)()
        elif state[name].ndim and state[name].layout == torch.strided and not state[name].is_nested:
            state[name] = state[name][: rng.randrange(len(state[name]) + 1)]
    if rng.random() < 0.3:
        state = {rng.choice(PREFIXES) + name: value for name, value in state.items()}
    content = state
    for _ in range(rng.randrange(3)):
        content = {rng.choice(KEYS): content, **({rng.choice(KEYS): dict(STATE)} if rng.random() < 0.3 else {})}
    if rng.random() < 0.2:
        content = {
            **content,
            "args": Namespace(model=rng.choice(["vit_small_patch16_224", 3, None])),
            "path": Path("x"),
        }
    return content


def damaged_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        place, choice = rng.randrange(len(data)), rng.random()
        noise = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        if choice < 0.6:
            data[place] = rng.randrange(256)
        elif choice < 0.8:
            del data[place : place + len(noise)]
        else:
            data[place:place] = noise
    return bytes(data)


def with_damaged_pickle(rng, data):
    """A zip whose checksums are right, around a pickle that is not."""
    damaged = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(damaged, "w") as after:
        for entry in before.infolist():
            content = before.read(entry)
            after.writestr(entry.filename, damaged_bytes(rng, content) if "data.pkl" in entry.filename else content)
    return damaged.getvalue()


def write(rng, folder):
    """A damaged checkpoint's path."""
    kind = rng.choice(["content", "content", "content", "zip", "pickle", "old", "safetensors"])
    path = folder / ("vit.safetensors" if kind == "safetensors" else "vit.pth")
    if kind == "safetensors":
        keep = rng.choice(["[0.5]", "3", "[5]", "[0.5, 0.4]", '["a"]', "[" * 5000, "1" * 5000])
        metadata = {"spvit": f'{{"model": {{}}, "pruning": {{"locations": [1], "keep": {keep}}}}}'}
        content = save(STATE, metadata=metadata)
        path.write_bytes(content if rng.random() < 0.5 else damaged_bytes(rng, content))
        return path
    memory = io.BytesIO()
    content = damaged_content(rng) if kind == "content" else {"model": STATE, "best": np.float64(1), "path": Path("x")}
    torch.save(content, memory, _use_new_zipfile_serialization=kind != "old")
    damage = {"zip": damaged_bytes, "old": damaged_bytes, "pickle": with_damaged_pickle}.get(kind)
    path.write_bytes(damage(rng, memory.getvalue()) if damage else memory.getvalue())
    return path


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # torch's while it makes odd tensors; the loader's own would be errors, below
def test_a_damaged_checkpoint_loads_or_ends_in_a_sentence(tmp_path, count):
    rng, outcomes = random.Random(count), Counter()
    for _ in range(count):
        path = write(rng, tmp_path)
        pruning, options = rng.choice(PRUNINGS), CheckpointOptions(rng.random() < 0.2, rng.random() < 0.2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                net, report = load_checkpoint_with_report(path, MODEL, pruning, options)
        except CheckpointError as error:
            text = str(error)
            outcomes["refused"] += 1
        else:
            text = str(report)
            outcomes["loaded"] += 1
            assert all(torch.isfinite(value).all() for value in net.state_dict().values())
        assert text.startswith(f"{path}: ") and text.isprintable(), text
    assert min(outcomes["loaded"], outcomes["refused"]) > count // 10, outcomes
