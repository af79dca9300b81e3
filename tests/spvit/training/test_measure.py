"""What is told of a trained model."""

from dataclasses import replace

import pytest
import torch

from spvit import distributed
from spvit.calibration import calibrate_thresholds
from spvit.cost import count_macs
from spvit.initialisation import seeded
from spvit.training.budget import macs_budget
from spvit.training.data import InMemory
from spvit.training.measure import Kept, accuracy, measure
from tests.spvit.training.tiny import SPEC, few_digits


def test_accuracy_is_inferences_and_shared_by_processes(monkeypatch):
    net, data = seeded(SPEC.model, SPEC.pruning), few_digits(101)
    with torch.no_grad():
        right = net.forward_gathered(data.test.images).logits.argmax(1) == data.test.labels
    assert accuracy(net.train(), data.test) == pytest.approx(right.double().mean().item())
    shares = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "sum_over_processes", lambda value: shares.append(value) or value)
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        accuracy(net, data.test)
    assert sum(shares).tolist() == [right.sum().item(), 101]


def test_kept_fractions_and_their_spread():
    kept = Kept.of(torch.tensor([[16, 4], [8, 0]]), (16, 16))
    assert kept == Kept(mean=(0.75, 0.125), deviation=(0.25, 0.125), least=(0.5, 0.0), most=(1.0, 0.25))


def test_costs_are_means_over_the_images():
    net, data = seeded(SPEC.model, SPEC.pruning), few_digits(80)
    calibration = InMemory(data.training.images[:50], data.training.labels[:50])
    kept = calibrate_thresholds(net, calibration.images, SPEC.pruning.keep)
    result = measure(net, seeded(SPEC.model, SPEC.pruning.without()), data, calibration, macs_budget(SPEC), 0.01)
    costs = [count_macs(SPEC.model, SPEC.pruning, counts).total for counts in kept.tolist()]
    assert result.parts["training"].macs == result.parts["training"].cost == pytest.approx(sum(costs) / 50)
    assert result.parts["test"].images == 80 and result.parts["training"].images == 50
    reached, kept = result.tables()
    assert [str(name) for name, _, _ in reached.rows] == ["training", "test"] and reached.headings[
        -1
    ] == "mean cost\nMACs"
    assert str(kept.rows[0][1][0]).startswith("70.0 ± ")
    assert result.lines()[0].startswith("mean cost of the training images +")
    far = replace(result, target=result.target * 2, unreadable=("a.png", "b.png"))
    assert far.lines()[1:] == [
        "that is beyond 1.00%: many tokens score alike, or next to nothing; more epochs may part them",
        "2 images could not be read and were skipped: a.png, b.png",
    ]
    assert result.as_json["parts"]["test"]["kept"]["mean"]
