"""Costs against the published figures, and against PyTorch's own parameters and counted products."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.console import Console
from spvit.cost import (
    count_macs,
    count_parameters,
    num_units,
    selector_macs_per_token,
    selector_parameters,
    show,
    tokens_of_blocks,
    tokens_per_stage,
)
from spvit.errors import ConfigError
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT
from spvit.schema import kinds
from spvit_fpga.cli import run

CHOICES = kinds(PruningConfig)


@pytest.mark.parametrize(("name", "millions"), [("deit_t", 5_717_416), ("deit_s", 22_050_664), ("deit_b", 86_567_656)])
def test_parameters_of_the_plain_backbones(name, millions):
    spec = resolve_model(name, "none")
    assert count_parameters(spec.model, spec.pruning).total == millions


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("lvvit_t", 8_534_720, 2.868),
        ("lvvit_s", 26_151_824, 6.5515),
        ("lvvit_m", 55_830_544, 12.678),
        ("pit_t", 4_847_272, 0.699),
        ("pit_xs", 10_618_888, 1.395),
        ("pit_s", 23_461_912, 2.871),
        ("pit_b", 73_764_840, 12.402),
    ],
)
def test_lv_vits_and_pits_as_their_authors_have_them(name, parameters, gmacs):
    spec = resolve_model(name, "none")
    assert count_parameters(spec.model, spec.pruning).total == parameters
    assert count_macs(spec.model, spec.pruning).total / 1e9 == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize(("name", "millions"), [("lvvit_s", "26.17"), ("lvvit_m", "55.85")])
def test_parameters_of_pruned_lv_vits(name, millions):  # Table 14
    spec = resolve_model(name)
    assert f"{count_parameters(spec.model, spec.pruning).total / 1e6:.2f}" == millions


def test_the_stem_of_lv_vit_s():
    model = resolve_model("lvvit_s").model
    assert count_macs(model, PruningConfig(locations=())).patch_embed == 118_013_952 + 2 * 462_422_016 + 308_281_344


@pytest.mark.parametrize(
    ("name", "keep", "gmacs"),
    [
        ("lvvit_s", None, "4.28"),
        ("lvvit_m", None, "7.32"),
        ("pit_s", None, "2.58"),  # Table 2, with those below
        ("pit_s", "0.578,0.334,0.193", "1.42"),
        ("pit_xs", None, "0.72"),
        ("deit_t", "none", "1.254"),
        ("deit_s", "none", "4.599"),
        ("deit_t", None, "0.90"),  # Table 14, as the rows below
        ("deit_t", "0.850,0.722,0.613", "1.00"),
        ("deit_s", None, "2.64"),
        ("deit_s", "0.880,0.774,0.681", "3.86"),
        ("deit_256", None, "1.29"),
        ("deit_320", None, "2.00"),
        ("deit_160", "none", "0.90"),
        ("deit_320", "none", "3.25"),
    ],
)
def test_published_costs(name, keep, gmacs):
    spec = resolve_model(name, keep)
    digits = len(gmacs.split(".")[1])
    assert f"{count_macs(spec.model, spec.pruning).total / 1e9:.{digits}f}" == gmacs


@pytest.mark.parametrize(
    ("heads", "share", "features", "parameters"),
    [(6, True, "split", 6_975), (3, True, "split", 6_940), (8, True, "split", 7_006), (6, False, "single", 29_145)],
)
def test_parameters_of_a_selector_with_heads_of_64(heads, share, features, parameters):
    model = ModelConfig("wide", embed_dim=64 * heads, num_heads=heads)
    pruning = PruningConfig(share_heads=share, features=features)
    assert selector_parameters(model, pruning) == parameters


def test_parameters_of_a_scorer_alone():
    model = ModelConfig("deit_s")
    head_branch = (6 * 3 + 3) + (3 * 6 + 6)
    assert selector_parameters(model, PruningConfig()) - head_branch == 6_930


def test_parameters_of_the_pruned_deit_s():
    spec = resolve_model("deit_s")
    per_head = replace(spec.pruning, share_heads=False, features="single")
    assert f"{count_parameters(spec.model, spec.pruning).total / 1e6:.2f}" == "22.07"
    assert f"{count_parameters(spec.model, per_head).total / 1e6:.3f}" == "22.138"  # Table 6


def test_tokens_of_deit_s():
    spec = resolve_model("deit_s")
    assert tokens_per_stage(spec.model, spec.pruning) == (197, 1 + 123 + 1, 1 + 78 + 2, 1 + 49 + 3)


@pytest.mark.parametrize(
    ("package", "kept", "stages"),
    [
        ("append", [16, 9, 9], (18, 18, 12, 12)),  # a selector that drops nothing leaves no package
        ("append", [9, 4, 0], (18, 12, 8, 5)),
        ("add", [9, 4, 0], (18, 12, 7, 3)),
        ("none", [9, 4, 0], (18, 11, 6, 2)),
    ],
)
def test_tokens_of_an_image_as_it_was(package, kept, stages):
    model = replace(resolve_model("micro").model, distilled=True)
    assert tokens_per_stage(model, PruningConfig((1, 2, 3), package=package), kept) == stages


PIT = ModelConfig(
    "pit", img_size=20, patch_size=4, patch_stride=2, embed_dim=16, depth=5, num_heads=2, stage_depths=(1, 2, 2),
    pos_embed="patches",
)  # fmt: skip


@pytest.mark.parametrize(
    ("after", "package", "kept", "blocks"),
    [  # patches and packages of each block; grids of 81, 25 and 9
        ("carry", "append", [40, 8, 2], [(40, 1), (12, 1), (8, 2), (3, 2), (2, 3)]),
        ("carry", "add", [40, 8, 2], [(40, 1), (12, 1), (8, 1), (3, 1), (2, 1)]),
        ("revive", "append", [40, 20, 2], [(40, 1), (25, 1), (20, 2), (9, 2), (2, 3)]),
        ("carry", "append", [81, 25, 9], [(81, 0), (25, 0), (25, 0), (9, 0), (9, 0)]),
    ],
)
def test_tokens_across_poolings(after, package, kept, blocks):
    pruning = PruningConfig((0, 2, 4), package=package, after_pooling=after)
    assert [(one.patches, one.packages) for one in tokens_of_blocks(PIT, pruning, kept)] == blocks
    behind = tuple(1 + sum(blocks[place]) for place in (0, 2, 4))
    assert tokens_per_stage(PIT, pruning, kept) == (82, *behind)


def test_products_of_a_pruned_pit():
    """Each block's, the poolings' and the selectors', by hand."""
    pruning = PruningConfig((0, 2, 4), keep=(40 / 81, 8 / 25, 2 / 9))
    macs = count_macs(PIT, pruning)
    widths, rows = [16, 32, 32, 64, 64], [42, 14, 11, 6, 6]
    assert macs.qkv == sum(3 * width**2 * count for width, count in zip(widths, rows, strict=True))
    assert macs.scores == macs.context == sum(width * count**2 for width, count in zip(widths, rows, strict=True))
    assert macs.fc1 == macs.fc2 == 4 * macs.proj == 4 * macs.qkv / 3
    assert macs.pool == 12 * 32 * 9 + (1 + 1) * 16 * 32 + 3 * 64 * 9 + (1 + 2) * 32 * 64
    scored = {0: (81, 2), 1: (12, 4), 2: (3, 8)}  # candidates and heads of 8 of each stage's selector
    per_head = 8 * 8 + 8 * 4 + 4 * 2 + 2 * 2
    assert macs.selector == sum(n * (h * per_head + 2 * h * (h // 2)) for n, h in scored.values())
    assert macs.head == 64 * 1000


def test_without_fractions_there_is_no_cost_to_tell():
    with pytest.raises(ConfigError) as refused:
        count_macs(ModelConfig("own"), PruningConfig())
    assert str(refused.value) == (
        "own: keep is not set, so the cost is unknown; give 3 fractions, as [pruning] keep or as KEEP="
    )


def test_a_count_for_each_selector():
    with pytest.raises(ConfigError, match=r"^own: 2 token counts for 3 selectors; give one each$"):
        tokens_per_stage(ModelConfig("own"), PruningConfig(), [3, 2])


@given(
    heads=st.integers(1, 5),
    quarter=st.integers(1, 3),
    depth=st.integers(1, 3),
    distilled=st.booleans(),
    share_heads=st.booleans(),
    features=st.sampled_from(["split", "single"]),
    mlp_ratio=st.sampled_from([0.5, 1.0, 4.0]),
    pooling=st.sampled_from(["class", "mean"]),
    variant=st.fixed_dictionaries(
        {
            "method": st.sampled_from(["selector", "random", "structured"]),
            "heads": st.sampled_from(CHOICES["heads"].choices),
            "scorer": st.sampled_from(CHOICES["scorer"].choices),
            "activation": st.sampled_from(CHOICES["activation"].choices),
        }
    ),
)
def test_parameters_are_those_that_torch_has(
    heads, quarter, depth, distilled, share_heads, features, mlp_ratio, pooling, variant
):
    model = ModelConfig(
        "drawn", 8, 4, 2, heads * quarter * 4, depth, heads, mlp_ratio, num_classes=3, pooling=pooling,
        distilled=distilled and pooling == "class",
    )  # fmt: skip
    pruning = PruningConfig(tuple(range(depth)), share_heads=share_heads, features=features, **variant)
    net, counted = SPViT(model, pruning), count_parameters(model, pruning)
    assert counted.total == sum(parameter.numel() for parameter in net.parameters())
    assert counted.selector == sum(parameter.numel() for parameter in net.selectors.parameters())


@pytest.mark.parametrize(
    ("model", "pruning"),
    [
        *(
            ({"distilled": distilled}, {"share_heads": share_heads, "features": features})
            for distilled in (True, False)
            for share_heads in (True, False)
            for features in ("split", "single")
        ),
        ({"pooling": "mean"}, {}),
        ({}, {"method": "class_attention"}),
        ({}, {"method": "random", "package": "none"}),
        ({}, {"method": "structured"}),
        ({"pooling": "mean"}, {"method": "structured"}),
        ({}, {"heads": "average"}),
        ({}, {"heads": "single", "share_heads": False, "scorer": "conv1"}),
        ({}, {"scorer": "conv1", "share_heads": False}),
        ({}, {"scorer": "conv3"}),
        ({}, {"proportional_attention": True, "activation": "hardswish"}),
    ],
    ids=str,
)
def test_macs_are_those_that_torch_multiplies(model, pruning):
    """A gathered image's products, as PyTorch's counter sees them (two operations each)."""
    from torch.utils.flop_counter import FlopCounterMode

    spec = resolve_model("micro")
    model, pruning = replace(spec.model, **model), replace(spec.pruning, **pruning)
    net = seeded(model, pruning)
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = net.forward_gathered(image)
    kept = [int(record.keep.sum()) for record in output.records]
    assert num_units(model, pruning)[0] > kept[0] > kept[-1] > 0  # else this would test little
    assert count_macs(model, pruning, kept).total * 2 == counter.get_total_flops()
    assert (selector_macs_per_token(model, pruning) > 0) == (pruning.method == "selector")


def test_structured_pruning_is_told_in_channels(capsys):
    model = resolve_model("micro").model
    pruning = PruningConfig((1, 2, 3), (0.75, 0.5, 0.25), method="structured")
    show(model, pruning, Console())
    assert capsys.readouterr().out.startswith("micro: 32 → 24 → 16 → 8 channels before blocks 1, 2, 3\n")
    assert tokens_per_stage(model, pruning) == (17,) * 4


def test_the_first_selectors_of_table_6_cost_what_it_says():
    """Table 6's parameters, and its costs at keep ratios that fit: the places alone decide little."""
    model = resolve_model("deit_s").model
    for locations, millions in [((3, 6, 9), "22.138"), ((6, 9), "22.109"), ((3, 5, 7, 9), "22.167")]:
        pruning = PruningConfig(locations, share_heads=False, features="single")
        assert f"{count_parameters(model, pruning).total / 1e6:.3f}" == millions


def test_the_table_for_people(capsys):
    run("cost", ["--model", "deit_t"])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == TABLE.splitlines()


TABLE = """\
deit_t: 197 → 155 → 123 → 98 tokens before blocks 3, 6, 9
                    cost  share
part                MACs      %  parameters
───────────────────────────────────────────
patch_embed   28,901,376    3.2     147,648
qkv          190,107,648   21.1   1,334,016
scores        50,438,592    5.6
context       50,438,592    5.6
proj          63,369,216    7.0     444,672
fc1          253,476,864   28.2   1,778,688
fc2          253,476,864   28.2   1,771,776
selector       9,412,830    1.0      20,820
head             192,000    0.0     193,000
tokens                               38,016
norms                                 9,600
total        899,813,982  100.0   5,738,236
0.900 GMACs, -28.2% against 1.254 unpruned; 5.738 M parameters
"""
