"""Configurations: what they derive, and what they refuse with which sentence."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from spvit.config import ModelConfig, ModelSpec, PruningConfig, registry, resolve_model, to_table
from spvit.errors import ConfigError


def test_sizes_that_deit_s_derives():
    model = ModelConfig("deit_s")
    assert (model.head_dim, model.hidden_dim, model.grid_size) == (64, 1536, 14)
    assert (model.num_patches, model.num_prefix_tokens, model.num_tokens) == (196, 1, 197)
    assert ModelConfig("deit_s_distilled", distilled=True).num_tokens == 198


def test_stages_of_pit_s():
    model = resolve_model("pit_s").model
    assert [(one.embed_dim, one.num_heads, one.grid_size, one.blocks) for one in model.stages] == [
        (144, 3, 27, range(2)),
        (288, 6, 14, range(2, 8)),
        (576, 12, 7, range(8, 12)),
    ]
    assert [model.stage_of(block).index for block in (0, 1, 2, 7, 8, 11)] == [0, 0, 1, 1, 2, 2]
    assert (model.num_tokens, model.stages[2].hidden_dim, model.stages[2].head_dim) == (730, 2304, 48)


def test_what_is_said_twice_is_said_once():
    """So that equal models are equal, and have one digest."""
    plain = ModelConfig("own", embed_dim=192, num_heads=3)
    assert ModelConfig("own", embed_dim=192, num_heads=3, patch_stride=16) == plain
    pit = resolve_model("pit_s").model
    assert replace(pit, stage_dims=(144, 288, 576), stage_heads=(3, 6, 12)) == pit
    assert not {"stage_dims", "stage_heads", "patch_stride"} & to_table(plain).keys()


@pytest.mark.parametrize(
    ("public", "row"),
    [
        ("pit_s_224", "pit_s"),
        ("timm/pit_ti_distilled_224.in1k", "pit_t_distilled"),
        ("pit_xs_224.in1k", "pit_xs"),
        ("pit_b", "pit_b"),
    ],
)
def test_timms_names_of_pits(public, row):
    assert resolve_model(public).model.name == row


def test_mean_and_std_follow_the_channels():
    assert ModelConfig("rgb").mean == (0.485, 0.456, 0.406)
    assert ModelConfig("rgb").std == (0.229, 0.224, 0.225)
    assert ModelConfig("grey", in_chans=1).mean == ModelConfig("grey", in_chans=1).std == (0.5,)
    assert ModelConfig("own", in_chans=2, mean=(0, 1), std=(1, 2)).mean == (0.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_heads": 5}, "num_heads=5 must divide embed_dim=384; try 3, 4, 6"),
        ({"patch_size": 15}, "patch_size=15 must divide img_size=224; try 8, 14, 16"),
        ({"depth": 0}, "depth=0 must be a whole number from 1 to 256"),
        ({"img_size": 224.0}, "img_size=224.0 must be a whole number from 1 to 4,096"),
        ({"num_classes": True}, "num_classes=True must be a whole number from 1 to 1,000,000"),
        ({"embed_dim": "384"}, "embed_dim='384' must be a whole number from 1 to 8,192"),
        ({"mlp_ratio": 0.002}, "mlp_ratio=0.002 leaves no hidden unit at embed_dim=384; choose at least 0.0026"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio=nan must be a number above 0 and at most 64"),
        ({"layer_norm_eps": 0}, "layer_norm_eps=0 must be a number from 1e-12 to 1"),
        ({"crop": 1.1}, "crop=1.1 must be a number from 0.1 to 1"),
        ({"distilled": 1}, "distilled=1 must be true or false"),
        ({"mean": (0.5,)}, "mean=(0.5,) must have one number per channel, in_chans=3"),
        ({"std": (0.5, 0.5, 0)}, "std=0 must be a number from 0.0001 to 10,000"),
        ({"mean": (0.5, "a", 0)}, "mean='a' must be a number from -1,000 to 1,000"),
        ({"pooling": "max"}, "pooling='max' must be one of class, mean"),
        ({"patch_stride": 24}, "patch_stride=24 leaves pixels between patches unseen; choose at most patch_size=16"),
        ({"patch_stride": -1}, "patch_stride=-1 must be a whole number from 0 to 1,024"),
        (
            {"patch_stride": 10},
            "patch_stride=10 reaches 216 of img_size=224 pixels with patch_size=16; choose a stride that divides 208",
        ),
        ({"patch_size": 256}, "patch_size=256 is larger than img_size=224; choose smaller patches"),
        ({"stem_chans": 2000}, "stem_chans=2000 must be a whole number from 0 to 1,024"),
        (
            {"stem_chans": 64, "patch_size": 7},
            "patch_size=7 must be even behind a stem, which halves the image (stem_chans=64)",
        ),
        ({"stage_depths": 3}, "stage_depths=3 must be a list of at most 8 numbers of blocks"),
        ({"stage_depths": (0, 12)}, "stage_depths=0 must be a whole number from 1 to 256"),
        ({"stage_depths": (12,)}, "stage_depths=[12] is one stage alone; leave it out, depth says as much"),
        ({"stage_depths": (2, 6)}, "stage_depths=[2, 6] are 8 blocks, but depth=12; set depth = 8"),
        (
            {"stage_depths": (6, 6), "stage_dims": (384,)},
            "stage_dims=[384] must have one number per stage, stage_depths=[6, 6]",
        ),
        (
            {"stage_depths": (6, 6), "stage_dims": (192, 384)},
            "stage_dims=[192, 384] begins with 192, but embed_dim=384; set embed_dim = 192",
        ),
        (
            {"stage_depths": (6, 6), "stage_dims": (384, 480)},
            "stage_dims=[384, 480]: 480 is no multiple of 384, and each channel is pooled by itself; choose a multiple",
        ),
        (
            {"stage_depths": (6, 6), "stage_heads": (6, 7)},
            "stage_heads=[6, 7]: 7 must divide its stage's 768 channels; try 4, 6, 8",
        ),
        ({"stage_heads": (6, 6)}, "stage_heads=[6, 6] must have one number per stage, stage_depths=[]"),
        (
            {"stage_depths": (6, 6), "pooling": "mean"},
            'pooling="mean" has no prefix tokens to bring from stage to stage, stage_depths=[6, 6]; '
            'set pooling = "class"',
        ),
        ({"qkv_bias": 0}, "qkv_bias=0 must be true or false"),
        ({"skip_lam": 0}, "skip_lam=0 must be a number from 0.01 to 100"),
        ({"aux_head": "yes"}, "aux_head='yes' must be true or false"),
        (
            {"aux_head": True, "distilled": True},
            "aux_head=true adds to the logits of the class token alone, so it cannot be distilled = true",
        ),
        ({"pos_embed": "none"}, "pos_embed='none' must be one of all, patches"),
        (
            {"pooling": "mean", "distilled": True},
            'pooling="mean" leaves out the prefix tokens, so it cannot be distilled = true',
        ),
        (
            {"name": "../up"},
            "name='../up' must be a name for folders: letters, digits, _, - and ., a letter or digit first, of at most 64 characters",
        ),
    ],
)
def test_a_model_that_cannot_be(fields, sentence):
    with pytest.raises(ConfigError) as refused:
        ModelConfig(**{"name": "own", **fields})
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"locations": (3, 3)}, "locations=[3, 3] must increase from one selector to the next"),
        ({"locations": (6, 3)}, "locations=[6, 3] must increase from one selector to the next"),
        ({"locations": (-1,)}, "locations=-1 must be a whole number from 0 to 255"),
        ({"locations": 3}, "locations=3 must be a list of at most 256 block numbers"),
        ({"keep": (0.5, 0.4)}, "keep=[0.5, 0.4] must have one fraction per selector, locations=[3, 6, 9]"),
        (
            {"keep": (0.5, 0.6, 0.4)},
            "keep=[0.5, 0.6, 0.4] counts what is left of the original patches, so it must not increase",
        ),
        ({"keep": (1, 0.5, 0)}, "keep=0 must be a number from 0.0001 to 1"),
        ({"keep": 0.5}, "keep=0.5 must be a list of at most 256 fractions"),
        ({"package": "drop"}, "package='drop' must be one of append, add, none"),
        ({"features": "both"}, "features='both' must be one of split, single"),
        ({"share_heads": "no"}, "share_heads='no' must be true or false"),
        ({"method": "best"}, "method='best' must be one of selector, class_attention, random, structured"),
        ({"heads": "all"}, "heads='all' must be one of weighted, average, single"),
        ({"scorer": "conv5"}, "scorer='conv5' must be one of mlp, conv1, conv3"),
        ({"activation": "tanh"}, "activation='tanh' must be one of gelu, relu, hardswish"),
        ({"proportional_attention": 1}, "proportional_attention=1 must be true or false"),
        ({"rules": "theirs"}, "rules='theirs' must be one of paper, released"),
        ({"refill": "mean"}, "refill='mean' must be one of package, zero"),
        ({"after_pooling": "keep"}, "after_pooling='keep' must be one of carry, revive"),
        (
            {"rules": "released", "method": "random"},
            'rules="released" are those of the authors\' token selector, which has no method="random"',
        ),
        (
            {"rules": "released", "scorer": "conv1"},
            'rules="released" are those of the authors\' token selector, which has no scorer="conv1"',
        ),
        (
            {"proportional_attention": True, "package": "none"},
            'proportional_attention=true counts a package\'s tokens, but package="none" makes no package',
        ),
        (
            {"proportional_attention": True, "method": "structured"},
            'proportional_attention=true counts a package\'s tokens, but method="structured" makes no package',
        ),
        (
            {"locations": (0, 2), "method": "class_attention"},
            'locations=[0, 2]: method="class_attention" reads the attention of the block before, so the first selector '
            "sits before block 1 or later",
        ),
    ],
)
def test_pruning_that_cannot_be(fields, sentence):
    with pytest.raises(ConfigError) as refused:
        PruningConfig(**fields)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("model", "pruning", "engine", "sentence"),
    [
        ({"depth": 9}, {}, {}, "locations=[3, 6, 9]: there is no block 9; depth=9 numbers them 0 to 8"),
        (
            {"embed_dim": 36},
            {},
            {},
            "num_heads=6 gives heads of 6 channels at embed_dim=36; "
            "a selector halves a head twice, so choose heads with a multiple of 4",
        ),
        (
            {"pooling": "mean"},
            {"method": "class_attention"},
            {},
            'method="class_attention" needs the class token, which pooling="mean" leaves out',
        ),
        (
            {},
            {},
            {"tiles": 4},
            "[engine] has no tiles; it knows tile_in, tile_out, inner_product, weight_ports, port_bits, fill_lanes, fifo_words, uram",
        ),
    ],
)
def test_parts_that_do_not_fit_each_other(model, pruning, engine, sentence):
    with pytest.raises(ConfigError) as refused:
        ModelSpec(ModelConfig("own", **model), PruningConfig(**pruning), engine)
    assert str(refused.value) == sentence


def test_heads_that_no_selector_could_halve_are_fine_without_selectors():
    assert ModelSpec(ModelConfig("own", embed_dim=36), PruningConfig().without()).pruning.num_selectors == 0


def test_every_name_of_the_registry_resolves():
    for name in registry():
        spec = resolve_model(name)
        assert spec.model.name == name
        assert len(spec.pruning.keep) == spec.pruning.num_selectors >= 2


def test_the_registry_has_the_papers_models():
    assert resolve_model("deit_t").model == ModelConfig("deit_t", embed_dim=192, num_heads=3)
    assert resolve_model("deit_s").model == ModelConfig("deit_s")
    assert resolve_model("deit_b").model == ModelConfig("deit_b", embed_dim=768, num_heads=12)
    assert resolve_model("deit_s").pruning == PruningConfig((3, 6, 9), (0.629, 0.396, 0.249))
    for width in (160, 256, 288, 320):
        assert resolve_model(f"deit_{width}").model.embed_dim == width
    for size in "tsb":
        distilled, plain = resolve_model(f"deit_{size}_distilled"), resolve_model(f"deit_{size}")
        assert distilled.model.distilled and not plain.model.distilled
        assert distilled.pruning == plain.pruning


def test_timms_vits_see_images_from_minus_one_to_one():
    for size in "tsb":
        for suffix, pixels, crop in (("", 224, 0.9), ("_384", 384, 1.0)):
            deit, vit = resolve_model(f"deit_{size}").model, resolve_model(f"vit_{size}{suffix}").model
            assert (vit.mean, vit.std, vit.crop, vit.img_size) == ((0.5,) * 3, (0.5,) * 3, crop, pixels)
            assert (vit.embed_dim, vit.num_heads, vit.depth) == (deit.embed_dim, deit.num_heads, deit.depth)


@pytest.mark.parametrize(
    ("typed", "row"),
    [
        ("deit_small_patch16_224", "deit_s"),
        ("deit_small_patch16_224.fb_in1k", "deit_s"),
        ("deit_tiny_distilled_patch16_224", "deit_t_distilled"),
        ("deit_base_distilled_patch16_384", "deit_b_distilled_384"),
        ("deit_base_patch16_384", "deit_b_384"),
        ("facebook/deit-small-patch16-224", "deit_s"),
        ("DeiT-S", "deit_s"),
        ("vit_small_patch16_224.augreg_in1k", "vit_s"),
        ("timm/vit_tiny_patch16_384.augreg_in21k_ft_in1k", "vit_t_384"),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k", "vit_b"),
        ("hf_hub:timm/vit_base_patch16_224.orig_in21k_ft_in1k", "vit_b"),
        ("google/vit-base-patch16-224-in21k", "vit_b"),
        ("vit_base_patch16_224_in21k", "vit_b"),
        ("deit_digits", "deit_digits"),
    ],
)
def test_names_that_people_type_find_their_row(typed, row):
    assert resolve_model(typed) == resolve_model(row)
    assert resolve_model(typed).model.name == row


@pytest.mark.parametrize(
    "name", ["vit_base_patch16_224.dino", "vit_base_patch16_224.mae", "vit_base_patch16_clip_224.openai", "vit_b_512",
             "deit3_small_patch16_224", "vit_small_patch32_224", "vit_s_distilled"]
)  # fmt: skip
def test_a_name_that_stands_for_something_else_is_no_row(name):
    with pytest.raises(ConfigError, match=f"^MODEL={name} is neither the path of a .toml file nor one of "):
        resolve_model(name)


@pytest.mark.parametrize(
    ("width", "ratio", "hidden"),
    [(200, 1.1, 220), (1408, 48 / 11, 6144), (1152, 3.7362, 4304), (192, 2.6667, 512), (384, 2.001, 768)],
)
def test_hidden_units_round_down_as_timms(width, ratio, hidden):
    assert ModelConfig("own", embed_dim=width, num_heads=8, mlp_ratio=ratio).hidden_dim == hidden


def test_hidden_units_by_number(tmp_path):
    path = tmp_path / "own.toml"
    for width in (8, 40, 200, 392, 1032):
        for hidden in (1, 7, width - 1, width + 1, 3 * width + 2, 49 * width // 11):
            path.write_text(f"[model]\nembed_dim = {width}\nnum_heads = 8\nhidden_dim = {hidden}\n")
            model = resolve_model(str(path)).model
            assert model.hidden_dim == hidden
            assert ModelConfig(**to_table(model)) == model


def test_keep_overrides():
    assert resolve_model("deit_s", "none").pruning == PruningConfig().without()
    assert resolve_model("deit_s", " 0.9, 0.8,0.7").pruning.keep == (0.9, 0.8, 0.7)
    assert resolve_model("deit_s", None) == resolve_model("deit_s")


def test_a_users_own_transformer(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(
        """
        [model]
        img_size = 32
        patch_size = 8
        embed_dim = 64
        depth = 3
        num_heads = 4
        mlp_ratio = 2
        num_classes = 10
        mean = [0.5, 0.5, 0.5]
        [pruning]
        locations = [1]
        keep = [0.5]
        package = "add"
        [engine]
        tile_in = 16
        inner_product = "direct"
        """
    )
    spec = resolve_model(str(path))
    assert spec.model == ModelConfig(
        "small", 32, 8, 3, 64, 3, num_heads=4, mlp_ratio=2.0, num_classes=10, mean=(0.5, 0.5, 0.5)
    )
    assert spec.pruning == PruningConfig((1,), (0.5,), "add")
    assert spec.engine == {"tile_in": 16, "inner_product": "direct"}


def test_a_file_without_pruning_is_unpruned(tmp_path):
    path = tmp_path / "plain.toml"
    path.write_text("[model]\nname = 'vit'\ndepth = 2\n")
    spec = resolve_model(str(path))
    assert spec.pruning == PruningConfig().without()
    assert spec.model.name == "vit"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[model]\nembed_dims = 64\n",
            "own.toml: [model] has no embed_dims; did you mean embed_dim? it knows name, img_size, ",
        ),
        (
            "[model]\nhidden_dim = 512\nmlp_ratio = 4\n",
            "own.toml: [model] hidden_dim=512 and mlp_ratio=4 say the same; give one",
        ),
        ("[model]\nhidden_dim = 0\n", "own.toml: [model] hidden_dim=0 must be a whole number from 1 to 524,288"),
        (
            "[model]\nhidden_dim = 8\nembed_dim = 0\n",
            "own.toml: [model] embed_dim=0 must be a whole number from 1 to 8,192",
        ),
        ("[model]\n[pruning]\nratio = 1\n", "own.toml: [pruning] has no ratio; it knows locations, keep, package, "),
        ("[model]\nnum_heads = 7\n", "own.toml: [model] num_heads=7 must divide embed_dim=384; try 4, 6, 8"),
        (
            "[model]\n[pruning]\nlocations = [12]\n",
            "own.toml: locations=[12]: there is no block 12; depth=12 numbers them ",
        ),
        (
            "[model]\n[engine]\ntile = 1\n",
            "own.toml: [engine] has no tile; it knows tile_in, tile_out, inner_product, weight_ports, port_bits, fill_lanes, fifo_words, uram",
        ),
        ("[modle]\n", "own.toml: there is no [modle]; the tables are [model], [pruning], [engine] and [quantization]"),
        ("model = 3\n", "own.toml: model=3 must be a table, [model]"),
        ("", "own.toml: there is no [model] table; it holds img_size, embed_dim, depth and the other sizes"),
        ("[model\n", "own.toml: not valid TOML: "),
        (b"\xff\xfe", "own.toml: cannot be read as text (line 1 is UTF-16); save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as refused:
        resolve_model("own.toml")
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "keep", "sentence"),
    [
        ("deit_x", None, "MODEL=deit_x is neither the path of a .toml file nor one of deit_t, deit_s, deit_b, "),
        ("gone.toml", None, "gone.toml: there is no such file; MODEL= takes its path or one of the registry's names"),
        ("deit_s", "half", 'KEEP=half must be "none" or fractions with commas between, as 0.629,0.396,0.249'),
        ("deit_s", "", 'KEEP= must be "none" or fractions with commas between, as 0.629,0.396,0.249'),
        ("deit_s", "0.5", "KEEP=0.5: keep=[0.5] must have one fraction per selector, locations=[3, 6, 9]"),
        ("deit_s", "0.5,nan,0.1", "KEEP=0.5,nan,0.1: keep=nan must be a number from 0.0001 to 1"),
    ],
)
def test_a_request_that_cannot_be(tmp_path, monkeypatch, name, keep, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        resolve_model(name, keep)
    assert str(refused.value).startswith(sentence)


def test_an_unknown_name_is_told_its_neighbours():
    with pytest.raises(ConfigError, match="; did you mean deit_s_distilled or "):
        resolve_model("deit_s_distiled")


def test_no_torch_is_needed():
    program = "import sys, spvit.config, spvit.errors, spvit.cost; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_toml_chooses_the_variant(tmp_path):
    (tmp_path / "own.toml").write_text(
        '[model]\npooling = "mean"\n[pruning]\nmethod = "random"\nheads = "average"\nscorer = "conv3"\n'
        'activation = "relu"\nproportional_attention = true\n'
    )
    spec = resolve_model(str(tmp_path / "own.toml"))
    assert spec.model == ModelConfig("own", pooling="mean") and spec.model.num_tokens == 196
    assert spec.pruning == PruningConfig(
        method="random", heads="average", scorer="conv3", activation="relu", proportional_attention=True
    )


def test_what_is_written_of_a_configuration_grows_only_by_what_is_not_usual():
    """Files and digests from before there were variants stay as they are."""
    assert list(to_table(PruningConfig())) == ["locations", "keep", "package", "share_heads", "features"]
    assert to_table(ModelConfig("own"))["crop"] == 0.875 and "pooling" not in to_table(ModelConfig("own"))
    assert to_table(PruningConfig(method="random"))["method"] == "random"
    for config in (PruningConfig((1,), scorer="conv1"), ModelConfig("own", pooling="mean")):
        assert type(config)(**to_table(config)) == config


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"depth": 1_000_000}, "depth=1000000 must be a whole number from 1 to 256"),
        ({"depth": 10**5000}, "depth=a number of thousands of digits must be a whole number from 1 to 256"),
        ({"mlp_ratio": 1e308}, "mlp_ratio=1e+308 must be a number above 0 and at most 64"),
        ({"mlp_ratio": 10**400}, "mlp_ratio=1000000000000000000000000000000000000000… (401 characters) must be a number "),
        ({"crop": 1e-300}, "crop=1e-300 must be a number from 0.1 to 1"),
        ({"name": "a" * 300}, "name='aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa… (302 characters) must be a name for folders"),
        ({"name": "modèle"}, "name='modèle' must be a name for folders"),
        ({"name": "a\n"}, r"name='a\n' must be a name for folders"),
        (
            {"img_size": 4096, "patch_size": 1},
            "img_size=4096 and patch_size=1 give 16,777,216 patches; at most 16,384 can be, so choose larger patches",
        ),
        (
            {"embed_dim": 8192, "num_heads": 8, "depth": 256},
            "embed_dim=8192 and depth=256 give 206,174,519,296 weights; at most 4,000,000,000 can be, so choose a smaller",
        ),
    ],
)  # fmt: skip
def test_numbers_and_names_have_ends(fields, sentence):
    with pytest.raises(ConfigError) as refused:
        ModelConfig(**{"name": "own", **fields})
    assert str(refused.value).startswith(sentence)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xef\xbb\xbf[model]\nname = 'vit'\n")
    (tmp_path / "OWN.TOML").write_bytes(path.read_bytes())
    assert resolve_model(str(tmp_path / "OWN.TOML")) == resolve_model(str(path))
    assert resolve_model(str(path)).model == ModelConfig("vit")
