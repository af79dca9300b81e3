import io
import json
import math
from dataclasses import replace

import pytest
import torch

from quant.calibrate import float_arithmetic
from quant.dataflow import run_image
from quant.model import QuantizedSPViT
from quant.network import activation_names
from quant.report import Report, compare, count_saturations
from spvit.console import Console


@pytest.fixture(scope="module")
def report(micro) -> Report:
    return compare(micro.quantized, micro.folded, micro.ranges, micro.pixels[:6])


@torch.no_grad()
def test_the_errors_are_those_of_the_logits(micro, report):
    arithmetic = float_arithmetic(micro.folded)
    expected = torch.stack(
        [run_image(micro.folded.model, micro.folded.pruning, arithmetic, p) for p in micro.pixels[:6]]
    )
    logits = micro.quantized(micro.pixels[:6])
    assert report.images == 6
    assert math.isclose(report.logits_rms_error, (logits - expected).square().mean().sqrt().item())
    assert math.isclose(report.logits_std, expected.std(correction=0).item())
    assert report.top1_agreement == (logits.argmax(1) == expected.argmax(1)).double().mean().item()


def test_the_micro_network_is_close_to_float(report):
    assert report.logits_rms_error_same_tokens < 0.003 < 0.5 < report.logits_std
    assert report.top1_agreement == 1
    assert report.saturations == report.weight_saturations == 0
    assert report.decision_flips <= 0.01 * report.decisions
    assert all(tensor.sqnr_db is None or tensor.sqnr_db > 55 for tensor in report.tensors)


def test_every_activation_has_its_row(micro, report):
    assert [t.name for t in report.tensors] == list(activation_names(micro.folded.model, micro.folded.pruning))
    for tensor in report.tensors:
        assert tensor.max_abs == micro.ranges[tensor.name]
        assert tensor.frac_bits == micro.network.frac_bits[tensor.name]
        assert tensor.values > 0
    assert report.tensors[0].name == "pixels" and report.tensors[0].sqnr_db is None  # no difference at all


def test_kept_fractions_count_the_original_patches(micro, report):
    taps: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        micro.quantized(micro.pixels[:6], taps)
    for index, kept in enumerate(report.kept):
        total = sum(
            image[f"selectors.{index}.keep"].sum().item() for image in taps if f"selectors.{index}.keep" in image
        )
        assert math.isclose(kept, total / 16 / 6)


def test_saturations_are_counted_never_silent(micro):
    finer = {**micro.formats.activations, "blocks.1.norm2": micro.formats.activations["blocks.1.norm2"] + 2}
    net = QuantizedSPViT(micro.folded, replace(micro.formats, activations=finer))
    taps: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        net(micro.pixels[:3], taps)
    at_the_ends = sum(int(((x := image["blocks.1.norm2"]) == 32767).sum() + (x == -32768).sum()) for image in taps)
    report = compare(net, micro.folded, micro.ranges, micro.pixels[:3])
    counted = {tensor.name: tensor.saturations for tensor in report.tensors if tensor.saturations}
    assert counted == {"blocks.1.norm2": at_the_ends} and at_the_ends > 0
    assert report.saturations == at_the_ends


@pytest.mark.parametrize(
    ("before", "cut"),
    [
        ([32767.5, -32768.5], 1),
        ([32767.4, -32768.4], 0),
        ([40000.0, -40000.0, 1.0], 2),
        ([32768.0], 1),
        ([-32769.0], 1),
    ],
)
def test_a_value_saturates_when_its_rounding_does_not_fit(before, cut):
    assert count_saturations(torch.tensor(before, dtype=torch.float64) / 2**7, 7) == cut


def test_flipped_decisions_are_counted_and_end_the_comparison(micro):
    """A threshold moved just past a token's probability flips that token."""
    taps: list[dict[str, torch.Tensor]] = []
    with torch.no_grad():
        micro.quantized(micro.pixels[:1], taps)
    probability = taps[0]["selectors.0.probability"].sort().values
    dropped = probability[probability < 2**21][-1].item() / 2**22
    lower = (dropped - 1e-3, *micro.folded.thresholds[1:])
    net = QuantizedSPViT(replace(micro.folded, thresholds=lower), micro.formats)
    report = compare(net, micro.folded, micro.ranges, micro.pixels[:1])
    assert report.decision_flips == 1
    assert report.decisions == 16  # the first selector's; later ones saw other tokens
    assert math.isclose(report.largest_flip, 0.5 - dropped, abs_tol=1e-4)
    assert report.logits_rms_error_same_tokens is None
    rows = {tensor.name: tensor for tensor in report.tensors}
    assert rows["blocks.0.mlp.fc2"].sqnr_db is not None and rows["blocks.1.attn.q"].sqnr_db is None
    assert rows["blocks.1.attn.q"].values > 0


def test_json_and_table_tell_the_same(report):
    told = json.loads(report.to_json())
    assert told["logits_rms_error"] == report.logits_rms_error
    assert [tensor["name"] for tensor in told["tensors"]] == [tensor.name for tensor in report.tensors]
    text = io.StringIO()
    Console(file=text, width=100).print(report.table(worst=3))
    rows = [line for line in text.getvalue().splitlines() if "." in line or "head" in line]
    worst = sorted((t for t in report.tensors if t.sqnr_db is not None), key=lambda t: t.sqnr_db)[:3]
    assert [row.split()[0] for row in rows if row.split()[0] in {t.name for t in report.tensors}] == [
        t.name for t in worst
    ]
    assert len(report.table().rows) == len(report.tensors)
