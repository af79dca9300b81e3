"""The unpruned transformer, from nothing or from a checkpoint."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from spvit.checkpoints import save_checkpoint
from spvit.initialisation import seeded
from spvit.training.backbone import fresh_backbone, load_backbone, train_backbone, without_selectors
from spvit.training.state import Journal
from tests.spvit.training.tiny import DIGITS, SPEC, few_digits, make_run


def test_grown_weights_start_with_neighbours_that_resemble_each_other():
    positions = fresh_backbone(DIGITS, "grown", 0).pos_embed[0, 1:].detach()
    rows, columns = torch.arange(64) // 8, torch.arange(64) % 8
    apart = (rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()
    likeness = cosine_similarity(positions[:, None], positions, dim=-1)
    assert likeness[apart == 1].mean() > 0.6
    assert likeness[apart > 4].mean() < 0.3


def test_deits_weights_are_small_and_seeded():
    nets = [fresh_backbone(DIGITS, "deit", seed) for seed in (0, 0, 1)]
    weights = [net.blocks[0].attn.qkv.weight for net in nets]
    assert weights[0].std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_without_selectors_it_is_the_transformer_alone():
    net = seeded(SPEC.model, SPEC.pruning)
    plain = without_selectors(net)
    images = torch.randn(2, 1, 8, 8)
    net.thresholds.fill_(2**-16)  # keeps all
    with torch.no_grad():
        torch.testing.assert_close(plain.forward_masked(images).logits, net.forward_masked(images).logits)
    assert plain.pruning.locations == ()


@pytest.mark.parametrize("has_selectors", [True, False])
def test_a_checkpoint_brings_the_teacher_and_perhaps_selectors(tmp_path, has_selectors):
    net = seeded(SPEC.model, SPEC.pruning if has_selectors else SPEC.pruning.without())
    save_checkpoint(tmp_path / "net.safetensors", net)
    teacher, pruned = load_backbone(SPEC, tmp_path / "net.safetensors")
    assert torch.equal(teacher.blocks[1].mlp.fc1.weight, net.blocks[1].mlp.fc1.weight)
    assert (pruned is not None) == has_selectors
    if pruned is not None:
        assert torch.equal(pruned.selectors[0].scorers[0].fc1.weight, net.selectors[0].scorers[0].fc1.weight)


def test_a_finished_backbone_is_not_trained_again(tmp_path):
    journal = Journal(tmp_path / "weights.state", {})
    steps, data = [], few_digits(64)
    net = train_backbone(SPEC, make_run(data=data, journal=journal, watch=lambda *step: steps.append(step)))
    assert len(steps) == 2
    again = train_backbone(
        SPEC, make_run(journal=Journal.resume(journal.path, {}), watch=lambda *step: steps.append(step))
    )
    assert len(steps) == 2
    assert torch.equal(again.head.weight, net.head.weight)
