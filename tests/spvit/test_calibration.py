"""Thresholds meet the wanted fractions to the token, or say why they cannot."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spvit.calibration import (
    calibrate_cost,
    calibrate_thresholds,
    kept_patches,
    mean_cost,
    mean_macs,
    threshold_for,
)
from spvit.config import resolve_model
from spvit.cost import count_macs
from spvit.errors import ConfigError
from spvit.initialisation import seeded

SPEC = resolve_model("micro")


def images(count=70):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("keep", [(0.75, 0.5, 0.25), (0.9, 0.2, 0.2), (1.0, 0.6, 0.01), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("package", ["append", "none"])
def test_the_mean_kept_fractions_are_the_wanted_ones(keep, package):
    net = seeded(SPEC.model, replace(SPEC.pruning, package=package))
    kept = calibrate_thresholds(net, images(), keep)
    assert kept.sum(0).tolist() == [round(70 * 16 * fraction) for fraction in keep]
    with torch.no_grad():  # as inference does it, image by image
        records = net.forward_gathered(images(9)).records
    assert torch.equal(torch.stack([record.keep.sum(1).long() for record in records], 1), kept[:9])
    if keep[0] < 1:
        assert len(set(kept[:, 0].tolist())) > 3  # images differ


def test_a_later_selector_cannot_keep_more_than_is_left():
    kept = calibrate_thresholds(seeded(SPEC.model, SPEC.pruning), images(), (0.5, 0.9, 0.25))
    assert kept.sum(0).tolist() == [70 * 8, 70 * 8, 70 * 4]


def test_training_mode_stays_and_does_not_matter():
    nets = [seeded(SPEC.model, SPEC.pruning) for _ in range(2)]
    nets[1].train()
    results = [calibrate_thresholds(net, images(8), SPEC.pruning.keep) for net in nets]
    assert torch.equal(*results)
    assert [net.training for net in nets] == [False, True]


@given(st.lists(st.floats(0, 1), max_size=20, unique=True), st.integers(0, 25))
def test_as_many_reach_the_threshold(scores, count):
    scores = torch.tensor(scores, dtype=torch.float64)
    threshold = threshold_for(scores, count)
    reached = (scores >= threshold).sum().item()
    close = scores.sort().values.diff().min().item() < 1e-12 if len(scores) > 1 else False
    if threshold >= 2**-16 and not close and not (scores == 1).any():
        assert reached == min(count, len(scores))
    assert threshold <= 1


def test_a_threshold_stands_half_way():
    scores = torch.tensor([0.9, 0.1, 0.5])
    assert threshold_for(scores, 2) == pytest.approx(0.3)
    assert threshold_for(scores, 0) == pytest.approx(0.95)
    assert threshold_for(scores, 3) == pytest.approx(0.05)
    assert threshold_for(torch.tensor([0.5, 2.0**-16]), 2) == 2.0**-16


def test_a_threshold_that_fixed_point_cannot_hold_is_refused():
    net = seeded(SPEC.model, SPEC.pruning)
    with torch.no_grad():
        net.selectors[1].scorers[0].fc3.bias[0] -= 30
    with pytest.raises(ConfigError) as refused:
        calibrate_thresholds(net, images(), (0.75, 0.5, 0.25))
    assert str(refused.value).startswith("keep=0.5: for so many, selector 1 needs the threshold ")
    assert str(refused.value).endswith(", below 2**-16; ask for at most 0.000")
    assert net.thresholds.tolist() == [0.5] * 3
    kept = calibrate_thresholds(net, images(), (0.75, 0.5, 0.25), nearest=True)
    assert net.thresholds[1] == 2**-16 and kept[:, 1].max() == 0 < kept[:, 0].min()


def test_a_fraction_for_each_selector():
    with pytest.raises(
        ConfigError, match=r"^keep=\[0\.5\] must have one fraction per selector, locations=\[1, 2, 3\]$"
    ):
        calibrate_thresholds(seeded(SPEC.model, SPEC.pruning), images(2), (0.5,))


def test_no_selectors_need_no_thresholds():
    net = seeded(SPEC.model, SPEC.pruning.without())
    assert calibrate_thresholds(net, images(2), ()).shape == kept_patches(net, images(2)).shape == (2, 0)


def test_mean_cost_is_the_mean_of_the_images_costs():
    net = seeded(SPEC.model, SPEC.pruning)
    costs = [count_macs(SPEC.model, SPEC.pruning, kept).total for kept in ([16, 8, 4], [4, 0, 0])]
    assert mean_macs(net, torch.tensor([[16, 8, 4], [4, 0, 0]])) == sum(costs) / 2


def macs(kept):
    return count_macs(SPEC.model, SPEC.pruning, kept).total


def test_the_mean_cost_is_met_where_the_mean_fractions_cost_more():
    """A cost that punishes unequal images: with the wanted fractions met, their mean cost is still too high."""
    net, keep = seeded(SPEC.model, SPEC.pruning), (0.75, 0.5, 0.25)
    cost = lambda kept: float(sum(kept)) ** 2  # noqa: E731
    target = cost((12, 8, 4))
    kept = calibrate_thresholds(net, images(), keep)
    assert mean_cost(kept, cost) > 1.02 * target
    found, kept = calibrate_cost(net, images(), keep, cost, target, 0.01)
    assert mean_cost(kept, cost) == pytest.approx(target, rel=0.01)
    assert all(a < b for a, b in zip(found, keep, strict=True))
    assert torch.equal(kept, kept_patches(net, images()))


def test_fractions_that_do_are_left_as_they_are():
    net, keep = seeded(SPEC.model, SPEC.pruning), (0.75, 0.5, 0.25)
    found, kept = calibrate_cost(net, images(), keep, macs, macs((12, 8, 4)), 0.05)
    assert found == keep and kept.sum(0).tolist() == [70 * 12, 70 * 8, 70 * 4]


def test_tokens_that_score_alike_leave_the_nearest_cost():
    net, same = seeded(SPEC.model, SPEC.pruning), torch.zeros(1, 3, 16, 16).expand(6, -1, -1, -1)
    cost = lambda kept: float(kept[0])  # noqa: E731
    reachable = {float(calibrate_thresholds(net, same, (count / 16, 0.1, 0.1))[0, 0]) for count in range(17)}
    _, kept = calibrate_cost(net, same, (0.5, 0.1, 0.1), cost, 8.1, 0.001)
    assert mean_cost(kept, cost) in reachable
    assert torch.equal(kept, kept_patches(net, same))


def test_mean_cost_of_many_images_is_that_of_evenly_spaced_ones():
    kept = torch.arange(2000)[:, None]
    assert mean_cost(kept, lambda counts: float(counts[0])) == pytest.approx(999.5, abs=1)
    assert mean_cost(torch.tensor([[1], [1], [4]]), lambda counts: float(counts[0])) == 2
