"""The same weights in the clothes of public checkpoints: loaded where that is exact, else the cause is named."""

from argparse import Namespace
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spvit.checkpoint_options import CheckpointOptions
from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import CheckpointError
from spvit.initialisation import seeded

MODEL = ModelConfig("plain", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)
UNPRUNED = PruningConfig(locations=())


def backbone(seed=1, model=MODEL):
    return {name: value for name, value in seeded(model, UNPRUNED, seed).state_dict().items() if name != "thresholds"}


STATE, MEAN = backbone(1), backbone(2)


def under(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


def load(path, content, model=MODEL, pruning=UNPRUNED, **options):
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return load_checkpoint_with_report(path, model, pruning, CheckpointOptions(**options))


def holds(net, state):
    loaded = net.state_dict()
    return all(torch.equal(loaded[name], value.float()) for name, value in state.items())


def refused(path, content, model=MODEL, pruning=UNPRUNED, **options):
    with pytest.raises(CheckpointError) as error:
        load(path, content, model, pruning, **options)
    text = str(error.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


WRAPPED = {
    "DDP": {"state_dict": under("module.")},
    "torch.compile": under("_orig_mod."),
    "DDP of torch.compile": under("module._orig_mod."),
    "torch.compile of DDP": {"model": under("_orig_mod.module.")},
    "Lightning": {"state_dict": under("model."), "pytorch-lightning_version": "2.0", "global_step": 1},
    "Lightning of torch.compile": {"state_dict": under("model._orig_mod.")},
    "a backbone": under("backbone."),
    "four at once": under("module.model._orig_mod.backbone."),
    "a name of one's own": under("my_vit."),
    "net": {"net": STATE},
    "wrappers in wrappers": {"checkpoint": {"state_dict": {"model": under("module.")}}},
    "a training's state": {"model": STATE, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "scaler": {}},
    "metrics beside": {"model": STATE, "best_acc1": 81.2, "args": None, "epoch": 3},
    "numbers among the weights": {**STATE, "epoch": 3, "arch": "deit_small"},
    "numpy's number": {"model": STATE, "max_accuracy": np.float64(81.2)},
    "numpy's array": {"model": STATE, "history": np.array([1.0, 2.0])},
    "a path": {"model": STATE, "args": {"out": Path("somewhere")}},
    "a path in a command line": {"model": STATE, "args": Namespace(out=Path("somewhere"), lr=1e-3)},
    "arrays": {name: value.numpy() for name, value in STATE.items()},
    "parameters": OrderedDict((name, torch.nn.Parameter(value)) for name, value in STATE.items()),
}


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_what_wraps_the_weights(tmp_path, content):
    net, report = load(tmp_path / "vit.pth", content)
    assert holds(net, STATE)
    assert report.notes == () and report.ignored == ()


@pytest.mark.parametrize(
    "name", ["model_best.pth.tar", "last.ckpt", "pytorch_model.bin", "vit.pt", "vit.PTH", "a b & $H.pth"]
)
@pytest.mark.parametrize("new", [True, False])
def test_what_the_file_is_called(tmp_path, name, new):
    torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=new)
    assert holds(load_checkpoint_with_report(tmp_path / name, MODEL, UNPRUNED)[0], STATE)


def test_safetensors_under_another_name(tmp_path):
    save_file(STATE, tmp_path / "pytorch_model.bin")
    assert holds(load_checkpoint_with_report(tmp_path / "pytorch_model.bin", MODEL, UNPRUNED)[0], STATE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_precisions(tmp_path, dtype, suffix):
    state = {name: value.to(dtype) for name, value in STATE.items()}
    net, _ = load(tmp_path / f"vit{suffix}", state)
    assert holds(net, state)


# ---- more than the weights


MEANS = {
    "facebook": ({"model": STATE, "model_ema": MEAN}, "model", "model_ema"),
    "timm": ({"state_dict": STATE, "state_dict_ema": MEAN, "version": 2}, "state_dict", "state_dict_ema"),
    "in one dict": (under("model.") | under("ema_model.module.", MEAN), "model", "ema_model.module"),
    "within it": ({"state_dict": STATE | under("model_ema.", MEAN)}, "state_dict", "state_dict.model_ema"),
    "DINO": (
        {"student": under("module.backbone."), "teacher": under("backbone.", MEAN)},
        "student.module.backbone",
        "teacher.backbone",
    ),
}


@pytest.mark.parametrize(("content", "plain", "mean"), MEANS.values(), ids=MEANS)
def test_a_running_mean_beside_the_weights(tmp_path, content, plain, mean):
    net, report = load(tmp_path / "vit.pth", content)
    assert holds(net, STATE)
    assert report.notes == (f"{plain} is taken, a running mean of the weights is there too, {mean}; EMA=1 takes it",)
    assert report.notes[0] in str(report)
    net, report = load(tmp_path / "vit.pth", content, ema=True)
    assert holds(net, MEAN)
    assert report.notes == (f"{mean} is taken, the weights themselves are there too, {plain}",)


def test_a_running_mean_alone(tmp_path):
    for ema in (False, True):
        net, report = load(tmp_path / "vit.pth", {"state_dict_ema": MEAN, "epoch": 1}, ema=ema)
        assert holds(net, MEAN)
        assert report.notes == (
            "state_dict_ema is taken, a running mean of the weights, since they are not there themselves",
        )


def test_no_running_mean(tmp_path):
    assert refused(tmp_path / "vit.pth", {"model": STATE}, ema=True) == (
        "EMA=1 asks for a running mean of the weights, but it holds model alone; leave EMA= out"
    )


def test_two_networks(tmp_path):
    assert refused(tmp_path / "vit.pth", under("generator.") | under("critic.")) == (
        "holds more than one network (critic and generator); save the one that is meant alone, "
        "with torch.save(net.state_dict(), ...)"
    )


def test_counters_and_losses_are_not_needed(tmp_path):
    counted = {**STATE, "total_ops": torch.zeros(1), "blocks.0.attn.total_params": torch.zeros(1)}
    net, report = load(tmp_path / "vit.pth", counted)
    assert holds(net, STATE) and report.ignored == ("total_ops", "blocks.0.attn.total_params")
    averaged = under("module.") | {"n_averaged": torch.tensor(3)}
    net, report = load(tmp_path / "vit.pth", averaged)
    assert holds(net, STATE) and report.ignored == ("n_averaged",)
    net, report = load(tmp_path / "vit.ckpt", {"state_dict": under("model.") | {"loss.weight": torch.ones(5)}})
    assert holds(net, STATE) and report.ignored == ("loss.weight",)
    assert str(report).endswith(": timm checkpoint; 1 tensors were not needed")


def test_a_classifier_around_a_backbone(tmp_path):
    body = {name: value for name, value in STATE.items() if not name.startswith("head.")}
    content = under("backbone.", body) | {name: STATE[name] for name in ("head.weight", "head.bias")}
    net, report = load(tmp_path / "vit.pth", content)
    assert holds(net, STATE) and report.ignored == ()


# ---- other libraries' names


def hugging_face(model, state):
    names = {"cls_token": "vit.embeddings.cls_token", "dist_token": "vit.embeddings.distillation_token",
             "pos_embed": "vit.embeddings.position_embeddings"}  # fmt: skip
    parts = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.output.dense",
             "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}  # fmt: skip
    theirs = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if name in names:
            theirs[names[name]] = value
        elif layer == "patch_embed.proj":
            theirs[f"vit.embeddings.patch_embeddings.projection.{kind}"] = value
        elif layer == "norm":
            theirs[f"vit.layernorm.{kind}"] = value
        elif layer == "head":
            theirs[f"{'cls_' if model.distilled else ''}classifier.{kind}"] = value
        elif layer == "head_dist":
            theirs[f"distillation_classifier.{kind}"] = value
        else:
            _, block, part = layer.split(".", 2)
            if part == "attn.qkv":
                for query, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    theirs[f"vit.encoder.layer.{block}.attention.attention.{query}.{kind}"] = third.contiguous()
            else:
                theirs[f"vit.encoder.layer.{block}.{parts[part]}.{kind}"] = value
    return theirs


def torchvision(state):
    parts = {"norm1": "ln_1", "norm2": "ln_2", "attn.proj": "self_attention.out_proj", "mlp.fc1": "mlp.0",
             "mlp.fc2": "mlp.3"}  # fmt: skip
    theirs = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if name in ("cls_token", "pos_embed"):
            theirs[{"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}[name]] = value
        elif layer in ("patch_embed.proj", "norm", "head"):
            theirs[
                {"patch_embed.proj": "conv_proj", "norm": "encoder.ln", "head": "heads.head"}[layer] + f".{kind}"
            ] = value
        else:
            _, block, part = layer.split(".", 2)
            in_ours = f"self_attention.in_proj_{kind}" if part == "attn.qkv" else f"{parts[part]}.{kind}"
            theirs[f"encoder.layers.encoder_layer_{block}.{in_ours}"] = value
    return theirs


@pytest.mark.parametrize("distilled", [False, True])
def test_hugging_faces(tmp_path, distilled):
    model = replace(MODEL, distilled=distilled)
    state = backbone(3, model)
    net, report = load(tmp_path / "model.safetensors", hugging_face(model, state), model)
    assert holds(net, state) and report.source == "huggingface"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_torchvisions(tmp_path, prefix):
    net, report = load(tmp_path / "vit.pth", under(prefix, torchvision(STATE)))
    assert holds(net, STATE) and report.source == "torchvision"


def test_a_part_of_hugging_faces(tmp_path):
    some = dict(list(hugging_face(MODEL, STATE).items())[:2])
    assert refused(tmp_path / "vit.pth", some) == (
        "patch_embed.proj.weight (and 29 more) is missing, which plain needs; choose the MODEL= that it was trained as "
        "(Hugging Face's names are given as timm's)"
    )


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("fc_norm.weight", "a norm after the mean of the tokens (timm's global_pool='avg')"),
        ("norm_pre.weight", "a norm before the first block, as CLIP has"),
        ("reg_token", "register tokens"),
        ("blocks.0.attn.q_norm.weight", "norms of queries and keys"),
        ("blocks.0.attn.relative_position_bias_table", "relative positions"),
        ("blocks.1.mlp.w12.weight", "a gated MLP"),
        ("patch_embed.stem.0.weight", "a stem of other layers"),
        ("stages.0.blocks.0.norm1.weight", "stages of another kind than PiT's"),
    ],
)
def test_another_transformers_part_is_named(tmp_path, name, part):
    assert refused(tmp_path / "vit.pth", {**STATE, name: torch.ones(32)}) == (
        f"{name} belongs to {part}, which plain does not have and no MODEL= could; "
        "choose a checkpoint of a ViT, DeiT, LV-ViT or PiT"
    )


@pytest.mark.parametrize(
    ("name", "part", "field"),
    [
        ("patch_embed.conv1.weight", "a stem of convolutions, as LV-ViT has", "stem_chans"),
        ("patch_embed.bn3.running_mean", "a stem of convolutions, as LV-ViT has", "stem_chans"),
        ("transformers.0.blocks.0.norm1.weight", "stages between which the grid is pooled, as PiT has", "stage_depths"),
        ("pools.0.conv.weight", "stages between which the grid is pooled, as PiT has", "stage_depths"),
        ("aux_head.bias", "an auxiliary head, as LV-ViT has", "aux_head"),
    ],
)
def test_a_part_that_another_of_our_models_has_is_named(tmp_path, name, part, field):
    assert refused(tmp_path / "vit.pth", {**STATE, name: torch.ones(32)}) == (
        f"{name} belongs to {part}, which plain does not have; choose the MODEL= that it was trained as, or set "
        f"{field} in [model]"
    )


def test_dynamic_vits_selectors(tmp_path):
    theirs = {"model": {**STATE, "score_predictor.0.in_conv.0.weight": torch.ones(32)}}
    net, report = load(tmp_path / "vit.pth", theirs)
    assert holds(net, STATE)
    assert (report.source, report.ignored) == ("dynamicvit", ("score_predictor.0.in_conv.0.weight",))
    assert refused(tmp_path / "vit.pth", theirs, pruning=PruningConfig((1,))) == (
        "score_predictor.0.in_conv.0.weight is of DynamicViT's selectors, which score whole tokens and not their "
        "heads; KEEP=none loads the backbone without them"
    )
