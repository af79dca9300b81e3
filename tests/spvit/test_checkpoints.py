"""Checkpoints of every format, made here, and every wrong file with its sentence."""

import argparse
import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from spvit.checkpoints import LoadReport, load_checkpoint, load_checkpoint_with_report, save_checkpoint
from spvit.config import resolve_model
from spvit.errors import CheckpointError
from spvit.initialisation import seeded

SPEC = resolve_model("micro")
MODEL, PRUNING = SPEC.model, SPEC.pruning
PLAIN = PRUNING.without()


def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def same_function(one, other):
    with torch.no_grad():
        return torch.equal(one.forward_masked(images()).logits, other.forward_masked(images()).logits)


def backbone_state(seed=1, model=MODEL):
    state = seeded(model, PLAIN, seed).state_dict()
    del state["thresholds"]  # ours alone
    return state


def authors_state(net):
    """The names that the authors' code gives, each head's scorer listed even if it is one for all."""
    state = {}
    names = {"norm": "in_conv.{}.0", "embed": "in_conv.{}.1"} | {
        f"fc{i}": f"out_conv.{{}}.{2 * i - 2}" for i in (1, 2, 3)
    }
    for name, tensor in net.state_dict().items():
        parts = name.split(".")
        if name == "thresholds":
            continue
        if parts[0] != "selectors":
            state[name] = tensor
        elif parts[2] == "head_branch":
            state[f"score_predictor.{parts[1]}.senet.{2 * int(parts[3][2]) - 2}.{parts[4]}"] = tensor
        else:
            heads = range(net.config.num_heads) if net.pruning.share_heads else [int(parts[3])]
            for head in heads:
                state[f"score_predictor.{parts[1]}.{names[parts[4]].format(head)}.{parts[5]}"] = tensor.clone()
    return state


# ---- formats


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_timms_with_fresh_selectors(tmp_path, suffix):
    path, state = tmp_path / f"deit{suffix}", backbone_state()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    net, report = load_checkpoint_with_report(path, MODEL, PRUNING)
    assert report == LoadReport(str(path), "timm", False, (), ())
    assert str(report) == f"{path}: timm checkpoint; it has no selectors: they are fresh and need training"
    loaded = net.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert net.thresholds.tolist() == [0.5] * 3
    assert not net.training
    with torch.no_grad():
        keep = net.forward_masked(images()).records[0].keep
    assert 0 < keep.sum() < keep.numel()  # fresh, but of use
    assert same_function(net, load_checkpoint(path, MODEL, PRUNING))


def test_a_plain_transformer_lacks_no_selectors(tmp_path):
    torch.save(backbone_state(), tmp_path / "deit.pth")
    net, report = load_checkpoint_with_report(tmp_path / "deit.pth", MODEL, PLAIN)
    assert report.selectors_found
    assert str(report) == f"{tmp_path / 'deit.pth'}: timm checkpoint"
    assert same_function(net, seeded(MODEL, PLAIN, 1))


def test_facebooks_with_its_training_state(tmp_path):
    path = tmp_path / "deit.pth"
    options = argparse.Namespace(model="deit", lr=5e-4)
    torch.save({"model": backbone_state(), "optimizer": {"state": {}}, "epoch": 299, "args": options}, path)
    net, report = load_checkpoint_with_report(path, MODEL, PLAIN)
    assert report.source == "facebook"
    assert same_function(net, seeded(MODEL, PLAIN, 1))


def test_the_weights_come_before_their_moving_average(tmp_path):
    path = tmp_path / "deit.pth"
    torch.save({"model_ema": backbone_state(2), "model": backbone_state(1)}, path)
    assert same_function(load_checkpoint(path, MODEL, PLAIN), seeded(MODEL, PLAIN, 1))


def test_half_precision_becomes_float32(tmp_path):
    state = {name: tensor.half() for name, tensor in backbone_state().items()}
    torch.save(state, tmp_path / "half.pth")
    loaded = load_checkpoint(tmp_path / "half.pth", MODEL, PLAIN).state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
    assert all(torch.equal(loaded[name], state[name].float()) for name in state)


@pytest.mark.parametrize("distilled", [False, True])
def test_distilled(tmp_path, distilled):
    model = replace(MODEL, distilled=distilled)
    torch.save({"model": backbone_state(model=model)}, tmp_path / "deit.pth")
    assert same_function(load_checkpoint(tmp_path / "deit.pth", model, PLAIN), seeded(model, PLAIN, 1))


@pytest.mark.parametrize("share_heads", [True, False])
@pytest.mark.parametrize("features", ["split", "single"])
def test_the_authors(tmp_path, share_heads, features):
    path, pruning = tmp_path / "spvit.pth", replace(PRUNING, share_heads=share_heads, features=features)
    original = seeded(MODEL, pruning, 5)
    torch.save({"model": authors_state(original), "epoch": 59}, path)
    net, report = load_checkpoint_with_report(path, MODEL, pruning)
    assert (report.source, report.selectors_found, report.ignored) == ("spvit-authors", True, ())
    assert same_function(net, original)


def test_the_authors_without_pruning(tmp_path):
    original = seeded(MODEL, PRUNING, 5)
    torch.save({"model": authors_state(original)}, tmp_path / "spvit.pth")
    net, report = load_checkpoint_with_report(tmp_path / "spvit.pth", MODEL, PLAIN)
    assert len(report.ignored) == 3 * (5 * 2 + 2 * 2)
    assert str(report).endswith("; 42 tensors were not needed")
    assert torch.equal(net.head.weight, original.head.weight)


def test_our_own_comes_back_exactly(tmp_path):
    path, original = tmp_path / "new" / "own.safetensors", seeded(MODEL, PRUNING, 5)
    original.thresholds.copy_(torch.tensor([0.25, 0.5, 2**-16]))
    save_checkpoint(path, original)
    net, report = load_checkpoint_with_report(path, MODEL, PRUNING)
    assert report == LoadReport(str(path), "own", True, PRUNING.keep, ())
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in original.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o644
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["spvit"])
    assert config["model"]["name"] == "micro"
    assert config["pruning"]["locations"] == [1, 2, 3]
    plain, report = load_checkpoint_with_report(path, MODEL, PLAIN)
    assert "thresholds" in report.ignored
    assert torch.equal(plain.norm.weight, original.norm.weight)


def test_our_own_unpruned_gets_fresh_selectors(tmp_path):
    save_checkpoint(tmp_path / "own.safetensors", seeded(MODEL, PLAIN, 5))
    net, report = load_checkpoint_with_report(tmp_path / "own.safetensors", MODEL, PRUNING)
    assert not report.selectors_found
    assert net.thresholds.tolist() == [0.5] * 3


def test_our_own_as_a_torch_file(tmp_path):
    original = seeded(MODEL, PRUNING, 5)
    torch.save(original.state_dict(), tmp_path / "own.pth")
    net, report = load_checkpoint_with_report(tmp_path / "own.pth", MODEL, PRUNING)
    assert (report.source, report.selectors_found, report.calibrated_keep) == ("own", True, ())
    assert same_function(net, original)


def test_a_flipped_bit_of_our_own_is_found(tmp_path):
    path, net = tmp_path / "own.safetensors", seeded(MODEL, PRUNING, 5)
    save_checkpoint(path, net)
    whole = path.read_bytes()
    for name in ("blocks.2.mlp.fc1.weight", "thresholds"):
        place = whole.index(net.state_dict()[name].numpy().tobytes())
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert refused(path) == "its weights are not those that were saved; fetch or save it again"
    path.write_bytes(whole)
    load_checkpoint(path, MODEL, PRUNING)


def test_equal_networks_give_equal_files(tmp_path):
    for name in ("a", "b"):
        save_checkpoint(tmp_path / f"{name}.safetensors", seeded(MODEL, PRUNING, 5))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


# ---- wrong files


def refused(path, model=MODEL, pruning=PRUNING):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, model, pruning)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def saved(tmp_path, content, name="wrong.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def changed(state, **tensors):
    return {**state, **{name.replace("__", "."): tensor for name, tensor in tensors.items()}}


def test_missing(tmp_path):
    way_out = "give the path of a .pth, .pt or .safetensors checkpoint"
    assert refused(tmp_path / "gone.pth") == f"there is no such file; {way_out}"
    assert refused(tmp_path) == f"is a folder, and a file is wanted; {way_out}"


def test_another_suffix(tmp_path):
    for name, found in (("net.onnx", ".onnx"), ("net", "no suffix")):
        (tmp_path / name).write_bytes(b"")
        assert refused(tmp_path / name) == (
            f"checkpoints end with .pth, .pth.tar, .pt, .bin, .ckpt or .safetensors, not {found}"
        )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html></html>", b"PK\x03\x04", b"\x80\x02.", bytes(64), b"(I1\n."]
)
def test_not_a_checkpoint(tmp_path, suffix, content):
    path = tmp_path / f"wrong{suffix}"
    path.write_bytes(content)
    assert refused(path).startswith(("not a checkpoint, or cut short; fetch or save it again", "holds "))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".old.pth"])
def test_cut_short_anywhere(tmp_path, suffix):
    path = tmp_path / f"deit{suffix}"
    if suffix == ".safetensors":
        save_file(backbone_state(), path)
    else:
        torch.save(backbone_state(), path, _use_new_zipfile_serialization=suffix == ".pth")
    whole = path.read_bytes()
    for cut in range(0, len(whole) - 1, len(whole) // 37):
        path.write_bytes(whole[:cut])
        assert refused(path).startswith("not a checkpoint, or cut short; fetch or save it again")


class Payload:
    def __reduce__(self):
        return print, ("pickled code was run",)


@pytest.mark.parametrize("old", [False, True])
def test_pickled_code_is_refused_and_not_run(tmp_path, capsys, old):
    path = tmp_path / "wrong.pth"
    torch.save({"model": backbone_state(), "extra": Payload()}, path, _use_new_zipfile_serialization=not old)
    assert refused(path) == (
        "holds pickled code (print), which is never run; "
        "load it where you trust it and save the weights alone, with torch.save(net.state_dict(), ...)"
    )
    assert capsys.readouterr().out == ""


def test_a_plain_pickle_of_code(tmp_path, capsys):
    path = tmp_path / "wrong.pth"
    path.write_bytes(pickle.dumps(Payload()))
    refused(path)
    assert capsys.readouterr().out == ""


def test_a_whole_module(tmp_path):
    assert refused(saved(tmp_path, seeded(MODEL, PLAIN))).startswith("holds pickled code (spvit.pruned_vit.SPViT), ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (torch.ones(3), "holds a Tensor in place of a state dict; save net.state_dict()"),
        ([1, 2], "holds a list in place of a state dict; save net.state_dict()"),
        (
            {"what": {"a": torch.ones(3)}},
            "what is a dict in place of a tensor; save the state dict alone, or under one of model, ",
        ),
        (
            {"net": {"a": torch.ones(3)}},
            "holds no vision transformer that is known here: it begins with a, and timm's, ",
        ),
        ({"epoch": 3}, "epoch is a int in place of a tensor; "),
        ({3: torch.ones(3)}, "3 is a Tensor in place of a tensor; "),
        ({}, "cls_token (and 55 more) is missing, which micro needs; choose the MODEL= that it was trained as"),
    ],
)
def test_no_state_dict(tmp_path, content, sentence):
    assert refused(saved(tmp_path, content)).startswith(sentence)


def test_another_width(tmp_path):
    state = backbone_state(model=replace(MODEL, embed_dim=64))
    assert refused(saved(tmp_path, state)) == (
        "cls_token has the shape (1, 1, 64), but micro needs (1, 1, 32); choose the MODEL= that it was trained as"
    )


def test_another_image_size(tmp_path):
    state = backbone_state(model=replace(MODEL, img_size=32))
    assert refused(saved(tmp_path, state)) == (
        "pos_embed has the shape (1, 65, 32), but micro needs (1, 17, 32); it was trained at img_size=32, "
        "8 x 8 patches in place of 4 x 4: set that, or let POS=interpolate resize the positions, bicubic, as timm does"
    )


def test_other_classes(tmp_path):
    state = backbone_state(model=replace(MODEL, num_classes=1000))
    assert refused(saved(tmp_path, state)) == (
        "head.weight has the shape (1000, 32), but micro needs (7, 32); set num_classes as it was trained"
    )


def test_a_deeper_network(tmp_path):
    assert refused(saved(tmp_path, backbone_state(model=replace(MODEL, depth=5)))) == (
        "blocks.4.norm1.weight (and 11 more) is there, which micro does not have; "
        "choose the MODEL= that it was trained as"
    )


def test_a_shallower_network(tmp_path):
    assert refused(saved(tmp_path, backbone_state(model=replace(MODEL, depth=3))), pruning=PLAIN) == (
        "blocks.3.norm1.weight (and 11 more) is missing, which micro needs; choose the MODEL= that it was trained as"
    )


def test_a_distilled_network(tmp_path):
    """Its two prefix tokens show in the positions first; without that, in the token itself."""
    state = backbone_state(model=replace(MODEL, distilled=True))
    assert refused(saved(tmp_path, state)).startswith(
        "pos_embed has the shape (1, 18, 32), but micro needs (1, 17, 32); "
    )
    state["pos_embed"] = state["pos_embed"][:, 1:]
    assert refused(saved(tmp_path, state)) == (
        "dist_token (and 2 more) is there, which micro does not have; "
        "choose a MODEL= that is distilled, or is not, as it was trained"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none(tmp_path, bad):
    weight = backbone_state()["blocks.2.mlp.fc1.weight"].clone()
    weight[3, :2] = bad
    assert refused(saved(tmp_path, changed(backbone_state(), blocks__2__mlp__fc1__weight=weight))) == (
        "blocks.2.mlp.fc1.weight has 2 of 4096 numbers that are NaN or infinite; "
        "take a checkpoint from before the training diverged"
    )


def test_integers(tmp_path):
    wrong = changed(backbone_state(), norm__bias=torch.ones(32, dtype=torch.int8))
    assert refused(saved(tmp_path, wrong)) == ("norm.bias has the type torch.int8; save the weights as floating point")


def test_numbers_too_large_for_float32(tmp_path):
    wrong = changed(backbone_state(), norm__bias=torch.full((32,), 1e300, dtype=torch.float64))
    assert refused(saved(tmp_path, wrong)).startswith("norm.bias has 32 of 32 numbers that are NaN or infinite; ")


def test_the_authors_with_other_heads(tmp_path):
    other = authors_state(seeded(replace(MODEL, num_heads=4), PRUNING))
    assert refused(saved(tmp_path, {"model": other})) == (
        "score_predictor.0 scores 4 heads, but micro has num_heads=2; choose the MODEL= that it was trained as"
    )


def test_the_authors_with_heads_of_their_own(tmp_path):
    other = authors_state(seeded(MODEL, replace(PRUNING, share_heads=False)))
    assert refused(saved(tmp_path, {"model": other})) == (
        "the heads of score_predictor.0 have weights of their own; set share_heads = false in [pruning]"
    )


def test_the_authors_with_other_features(tmp_path):
    other = authors_state(seeded(MODEL, replace(PRUNING, features="single")))
    assert refused(saved(tmp_path, {"model": other})) == (
        "selectors.0.scorers.0.embed.weight has the shape (8, 16), but micro needs (16, 16); "
        "set features and share_heads of [pruning] as the selectors were trained"
    )


def test_fewer_selectors(tmp_path):
    two = authors_state(seeded(MODEL, replace(PRUNING, locations=(1, 2), keep=())))
    assert refused(saved(tmp_path, {"model": two})) == (
        "selectors.2.scorers.0.norm.weight (and 13 more) is missing, which micro needs; "
        "set locations, num_heads, features and share_heads as the selectors were trained"
    )


@pytest.mark.parametrize("threshold", [0.0, 2.0**-17, 1.5])
def test_thresholds_out_of_range(tmp_path, threshold):
    net = seeded(MODEL, PRUNING)
    net.thresholds[1] = threshold
    save_checkpoint(tmp_path / "own.safetensors", net)
    assert refused(tmp_path / "own.safetensors") == (
        f"thresholds has {threshold}, outside 2**-16 to 1; calibrate the thresholds again"
    )


@pytest.mark.parametrize(
    ("model", "pruning", "sentence"),
    [
        (
            {"num_heads": 4},
            {},
            "was trained with num_heads=2, but micro has num_heads=4; set num_heads = 2 in [model], or ",
        ),
        (
            {"mean": (0.5,) * 3},
            {},
            "was trained with mean=[0.485, 0.456, 0.406], but micro has mean=[0.5, 0.5, 0.5]; set ",
        ),
        ({}, {"locations": (0, 1, 2)}, "was trained with locations=[1, 2, 3], but micro has locations=[0, 1, 2]; set "),
        (
            {},
            {"features": "single"},
            'was trained with features=split, but micro has features=single; set features = "split" in ',
        ),
    ],
)
def test_our_own_with_another_configuration(tmp_path, model, pruning, sentence):
    save_checkpoint(tmp_path / "own.safetensors", seeded(MODEL, PRUNING))
    text = refused(tmp_path / "own.safetensors", replace(MODEL, **model), replace(PRUNING, **pruning))
    assert text.startswith(sentence)


@pytest.mark.parametrize("metadata", ["{", "[]", "{}", '{"model": 3, "pruning": {}}'])
def test_our_own_with_broken_metadata(tmp_path, metadata):
    save_file(backbone_state(), tmp_path / "own.safetensors", metadata={"spvit": metadata})
    assert refused(tmp_path / "own.safetensors") == "its metadata cannot be read; save it again with save_checkpoint"


def test_saving_under_another_suffix(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"\.pth: checkpoints are written as \.safetensors; choose a name that ends so$"
    ):
        save_checkpoint(tmp_path / "own.pth", seeded(MODEL, PLAIN))


def test_saving_where_it_cannot_be_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"own\.safetensors: cannot be written \(.*\); choose another place$"):
        save_checkpoint(tmp_path / "file" / "own.safetensors", seeded(MODEL, PLAIN))
    (tmp_path / "own.safetensors").mkdir()
    (tmp_path / "own.safetensors" / "full").mkdir()
    with pytest.raises(
        CheckpointError,
        match=r"own\.safetensors: is a folder in the place of a file; remove it, or choose another place",
    ):
        save_checkpoint(tmp_path / "own.safetensors", seeded(MODEL, PLAIN))
    assert {file.name for file in tmp_path.iterdir()} == {"file", "own.safetensors"}


# ---- variants


@pytest.mark.parametrize(
    "variant",
    [
        {"scorer": "conv3"},
        {"scorer": "conv1", "heads": "single", "activation": "relu"},
        {"heads": "average"},
        {"method": "structured"},
        {"method": "random"},
        {"method": "class_attention", "proportional_attention": True},
    ],
    ids=str,
)
def test_a_variant_comes_back_as_it_was_saved(tmp_path, variant):
    path, pruning = tmp_path / "variant.safetensors", replace(PRUNING, **variant)
    net = seeded(MODEL, pruning, 3).train()
    net.forward_masked(images(), torch.Generator().manual_seed(0))  # statistics move
    net.eval().thresholds.copy_(torch.tensor([0.07, 0.06, 0.05]))
    save_checkpoint(path, net)
    loaded, report = load_checkpoint_with_report(path, MODEL, pruning)
    assert report == LoadReport(str(path), "own", True, PRUNING.keep, ())
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in net.state_dict().items())
    assert same_function(net, loaded)


@pytest.mark.parametrize(
    ("trained", "asked", "sentence"),
    [
        (
            {},
            {"method": "random"},
            'method=selector, but micro has method=random; set method = "selector" in [pruning]',
        ),
        (
            {"activation": "relu"},
            {},
            'activation=relu, but micro has activation=gelu; set activation = "relu" in [pruning]',
        ),
        (
            {"heads": "average"},
            {"heads": "single"},
            'heads=average, but micro has heads=single; set heads = "average" in',
        ),
        ({"scorer": "conv1"}, {"scorer": "conv3"}, 'scorer=conv1, but micro has scorer=conv3; set scorer = "conv1" in'),
    ],
)
def test_a_variant_is_not_taken_for_another(tmp_path, trained, asked, sentence):
    path = tmp_path / "variant.safetensors"
    save_checkpoint(path, seeded(MODEL, replace(PRUNING, **trained)))
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(path, MODEL, replace(PRUNING, **asked))
    assert str(refused.value).startswith(f"{path}: was trained with {sentence}")


def test_a_plain_backbone_gets_thresholds_where_there_is_nothing_to_learn(tmp_path):
    torch.save(backbone_state(), tmp_path / "deit.pth")
    net, report = load_checkpoint_with_report(tmp_path / "deit.pth", MODEL, replace(PRUNING, method="class_attention"))
    assert not report.selectors_found
    with torch.no_grad():
        kept = net.forward_masked(images()).records[0].keep
    assert 0 < kept.sum() < kept.numel()


def test_a_class_token_is_not_pooled_away(tmp_path):
    torch.save(backbone_state(), tmp_path / "deit.pth")
    with pytest.raises(CheckpointError, match=r"pos_embed has the shape \(1, 17, 32\), but micro needs \(1, 16, 32\)"):
        load_checkpoint(tmp_path / "deit.pth", replace(MODEL, pooling="mean"), PRUNING)


def test_selectors_trained_by_the_other_rules(tmp_path):
    save_checkpoint(tmp_path / "own.safetensors", seeded(MODEL, replace(PRUNING, rules="released")))
    assert refused(tmp_path / "own.safetensors") == (
        "was trained with rules=released, but micro has rules=paper; "
        'set rules = "released" in [pruning], or choose another checkpoint'
    )
    torch.save({"model": authors_state(seeded(MODEL, PRUNING))}, tmp_path / "authors.pth")
    load_checkpoint(tmp_path / "authors.pth", MODEL, replace(PRUNING, rules="released"))


@pytest.mark.parametrize("keep", [[0.5], [0.5, 0.6, 0.7], [2, 1, 1]])
def test_our_own_with_kept_fractions_that_cannot_be(tmp_path, keep):
    net = seeded(MODEL, PRUNING)
    config = {"model": {}, "pruning": {"locations": [1, 2, 3], "keep": keep}}
    save_file(net.state_dict(), tmp_path / "own.safetensors", metadata={"spvit": json.dumps(config)})
    assert refused(tmp_path / "own.safetensors").startswith("its metadata cannot be: keep=")
