"""Selectors in training: what is kept converges to what was asked for, and weights find their places."""

from dataclasses import replace

import pytest
import torch

from spvit.initialisation import seeded
from spvit.training.pruning import FARTHEST, Pruning, prune, selectors_of, with_selectors
from tests.spvit.training.tiny import RECIPE, SPEC, few_digits, make_run


@pytest.mark.parametrize("bias", [0.3, -0.3])
def test_the_controller_takes_away_what_another_force_would_leave(bias):
    """A plant that settles between its aim and a force of its own, as Eq. 12's other terms make it."""
    objective = Pruning(seeded(SPEC.model, SPEC.pruning), (0.7, 0.4), RECIPE)
    kept = torch.tensor([0.5, 0.5], dtype=torch.float64)
    for _ in range(600):
        kept = kept + 0.2 * ((objective.aims - kept) + 0.3 * (torch.tensor([0.7, 0.4]) + bias - kept))
        objective.steer(kept)
    assert kept.tolist() == pytest.approx([0.7, 0.4], abs=0.005)
    assert objective.kept.tolist() == pytest.approx([0.7, 0.4], abs=0.005)
    assert (objective.aims - objective.keep).sign().tolist() == [-1 if bias > 0 else 1] * 2


def test_the_controller_does_not_wind_up():
    objective = Pruning(seeded(SPEC.model, SPEC.pruning), (0.95, 0.4), RECIPE)
    for _ in range(1000):
        objective.steer(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert objective.aims.tolist() == pytest.approx([1.0, 0.4 - FARTHEST])


def test_drawn_decisions_keep_what_was_asked_for():
    """From selectors that keep nearly all, without calibration: the mean over the last epoch's draws."""
    net, teacher = seeded(SPEC.model, SPEC.pruning), seeded(SPEC.model, SPEC.pruning.without())
    for selector in net.selectors:
        selector.scorers[0].fc3.bias.data[0] += 3
    kept = []
    hook = net.register_forward_hook(
        lambda _, __, output: kept.append([record.keep.mean().item() for record in output.records])
    )
    prune(net, teacher, make_run(replace(RECIPE, pruning_epochs=40, selector_rate=5e-3), few_digits(64)))
    hook.remove()
    assert kept[0][0] > 0.8
    mean = torch.tensor(kept[-20:]).mean(0).tolist()
    assert mean == pytest.approx([0.7, 0.4], abs=0.03)


def test_the_backbone_stands_still_while_it_is_frozen():
    net, teacher = seeded(SPEC.model, SPEC.pruning), seeded(SPEC.model, SPEC.pruning.without())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    prune(net, teacher, make_run(replace(RECIPE, pruning_epochs=1, frozen_epochs=1)))
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("selectors.") for name in changed)


def test_the_state_brings_the_aims_back():
    objective, other = (Pruning(seeded(SPEC.model, SPEC.pruning), (0.7, 0.4), RECIPE) for _ in range(2))
    objective.steer(torch.tensor([0.1, 0.9], dtype=torch.float64))
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other.aims, objective.aims) and torch.equal(other.kept, objective.kept)
    objective.steer(torch.tensor([0.1, 0.9], dtype=torch.float64))
    assert not torch.equal(other.aims, objective.aims)


def test_selectors_keep_their_weights_where_their_block_stays():
    net = seeded(SPEC.model, SPEC.pruning, seed=1)
    other = with_selectors(net, replace(SPEC.pruning, locations=(2, 3), keep=(0.5, 0.25)), seed=0)
    weight = "scorers.0.fc1.weight"
    assert torch.equal(selectors_of(other)[2][weight], selectors_of(net)[2][weight])
    assert not torch.equal(selectors_of(other)[3][weight], selectors_of(net)[1][weight])
    assert torch.equal(other.blocks[0].attn.qkv.weight, net.blocks[0].attn.qkv.weight)
    assert other.pruning.locations == (2, 3) and other.thresholds.tolist() == [0.5, 0.5]
    assert not with_selectors(net, SPEC.pruning.without(), seed=0).selectors
