"""LV-ViT and PiT in training: learnt, pruned, calibrated, written and read again, with no part left out."""

from dataclasses import replace

import pytest
import torch

from spvit.budget import solve_keep
from spvit.calibration import kept_patches, mean_macs
from spvit.checkpoints import load_checkpoint_with_report, save_checkpoint
from spvit.config import resolve_model, shipped_weights
from spvit.cost import count_macs, num_units, tokens_per_stage
from spvit.errors import CheckpointError
from spvit.initialisation import seeded
from spvit.train import Request, train
from spvit.training.data import InMemory, load_digits
from spvit.training.measure import accuracy
from spvit.training.progressive import meet_budget
from spvit.training.similarity import centred_kernel_alignment, similarity_to_class_token
from tests.spvit.training.tiny import RECIPE, few_digits, make_run

LVVIT, PIT = resolve_model("lvvit_digits"), resolve_model("pit_digits")
SMALL_LVVIT = replace(
    LVVIT,
    model=replace(LVVIT.model, stem_chans=8, embed_dim=16, num_heads=2, depth=3),
    pruning=replace(LVVIT.pruning, locations=(1, 2), keep=(0.7, 0.4)),
)
SMALL_PIT = replace(PIT, model=replace(PIT.model, embed_dim=8, num_heads=1, depth=4, stage_depths=(2, 2)))
SMALL_PIT = replace(SMALL_PIT, pruning=replace(PIT.pruning, locations=(1, 3), keep=(0.7, 0.4)))
SPECS = pytest.mark.parametrize("spec", [SMALL_LVVIT, SMALL_PIT], ids=["lvvit", "pit"])


@SPECS
def test_from_nothing_to_a_file(spec, tmp_path):
    data = few_digits(384)
    trained = train(Request(spec), make_run(replace(RECIPE, backbone_epochs=12), data))
    net, training = trained.net, trained.result.parts["training"]
    assert accuracy(trained.teacher, data.training) > 0.25 and accuracy(net, data.training) > 0.25
    units = torch.tensor(num_units(net.config, net.pruning))
    kept = kept_patches(net, data.training.images).double().mean(0) / units
    assert kept.tolist() == pytest.approx(net.pruning.keep, abs=2e-3) == list(training.kept.mean)
    assert count_macs(spec.model, spec.pruning).total == pytest.approx(training.cost, rel=0.02)
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, net)
    loaded, report = load_checkpoint_with_report(path, spec.model, spec.pruning)
    assert (report.source, report.selectors_found, report.calibrated_keep) == ("own", True, net.pruning.keep)
    batch = data.test.images[:8]
    with torch.no_grad():
        assert torch.equal(loaded.forward_masked(batch).logits, net.forward_masked(batch).logits)


@SPECS
@pytest.mark.parametrize("form", ["forward_masked", "forward_gathered"])
def test_costs_are_of_the_tokens_that_blocks_really_see(spec, form):
    """Where nothing is carried through a pooling, to the token; else to the nearest of the same fraction."""
    net, seen = seeded(spec.model, spec.pruning), []
    for location in spec.pruning.locations:
        net.blocks[location].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    with torch.no_grad():
        output = getattr(net, form)(few_digits(1).test.images[:1])
    counts = [int(record.keep.sum()) for record in output.records]
    tokens = tokens_per_stage(spec.model, spec.pruning, counts)
    if form == "forward_gathered":
        assert [inputs[0].shape[1] for inputs in seen] == list(tokens[1:])
    else:
        assert [int(inputs[1].sum()) for inputs in seen] == list(tokens[1:])


def test_another_divisor_of_the_residuals_is_another_function(tmp_path):
    """No shape shows it, so a file of our own says it."""
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, seeded(SMALL_LVVIT.model, SMALL_LVVIT.pruning))
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint_with_report(path, replace(SMALL_LVVIT.model, skip_lam=1.0), SMALL_LVVIT.pruning)
    assert str(refused.value) == (
        f"{path}: was trained with skip_lam=2.0, but lvvit_digits has skip_lam=1.0; set skip_lam = 2.0 in [model], or "
        "choose another checkpoint"
    )


def test_what_becomes_of_dropped_patches_is_part_of_what_was_trained(tmp_path):
    path = tmp_path / "own.safetensors"
    save_checkpoint(path, seeded(SMALL_PIT.model, SMALL_PIT.pruning))
    with pytest.raises(CheckpointError, match=r'set after_pooling = "carry" in \[pruning\]'):
        load_checkpoint_with_report(path, SMALL_PIT.model, replace(SMALL_PIT.pruning, after_pooling="revive"))


@pytest.mark.parametrize("after", ["carry", "revive"])
def test_budgets_of_a_pit(after):
    spec = resolve_model("pit_s")
    pruning = replace(spec.pruning, after_pooling=after, keep=())

    def gmacs(kept):
        return count_macs(spec.model, pruning, kept).total / 1e9

    limit = 1.42 if after == "carry" else 2.6
    keep = solve_keep(spec.model, pruning, gmacs, limit, "GMACs")
    reached = count_macs(spec.model, replace(pruning, keep=keep)).total / 1e9
    assert 0.98 * limit < reached <= limit
    if after == "carry":
        assert keep[0] > keep[1] > keep[2] and keep[1] == pytest.approx(keep[0] ** 2, abs=0.01)
    else:
        assert keep == pytest.approx((keep[0],) * 3, abs=0.02)  # each stage begins whole, so each keeps as much


def test_the_first_phases_rate_meets_the_budget_of_a_pit():
    spec = resolve_model("pit_s")

    def cost_of(one):
        return lambda kept: count_macs(one.model, one.pruning, kept).total

    met = meet_budget(replace(spec, pruning=replace(spec.pruning, keep=(0.9, 0.5, 0.3))), cost_of, 1.8e9, "MACs")
    assert met.locations == spec.pruning.locations and list(met.keep) == sorted(met.keep, reverse=True)
    assert 0.97 * 1.8e9 < count_macs(spec.model, met).total <= 1.8e9


def test_blocks_of_all_stages_against_the_last_class_token():
    net = seeded(SMALL_PIT.model, SMALL_PIT.pruning.without())
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = []
    for block in net.blocks:
        block.register_forward_hook(lambda _, inputs, result: seen.append(result))
    found = similarity_to_class_token(net, images)
    assert len(found) == 4 and [tokens.shape[1] for tokens in seen] == [50, 50, 17, 17]
    for tokens, value in zip(seen, found, strict=True):
        each = [centred_kernel_alignment(tokens[:, at], seen[-1][:, 0]).item() for at in range(1, tokens.shape[1])]
        assert value == pytest.approx(sum(each) / len(each), rel=1e-5)


@pytest.mark.parametrize(("spec", "saved"), [(LVVIT, 0.21), (PIT, 0.14)], ids=["lvvit", "pit"])
def test_the_weights_that_come_along(spec, saved):
    """Their accuracy and cost on all test images, and in float64 one function in both forms."""
    net, report = load_checkpoint_with_report(shipped_weights(spec.model.name), spec.model, spec.pruning)
    assert (
        report.source == "own" and report.selectors_found and len(report.calibrated_keep) == net.pruning.num_selectors
    )
    test = InMemory(*load_digits("test", spec.model))
    assert accuracy(net, test) >= 0.98
    kept = kept_patches(net, test.images)
    unpruned = count_macs(spec.model, spec.pruning.without()).total
    assert 1 - mean_macs(net, kept) / unpruned == pytest.approx(saved, abs=0.02)
    assert len({tuple(counts) for counts in kept.tolist()}) > 50  # images keep what they need
    images = test.images[:40].double()
    with torch.no_grad():
        masked, gathered = net.double().forward_masked(images), net.forward_gathered(images)
    assert (masked.logits - gathered.logits).abs().max() < 1e-10
    assert torch.equal(masked.keep, gathered.keep)
