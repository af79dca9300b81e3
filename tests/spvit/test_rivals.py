"""Scores that nothing learns, and what the batch makes of them."""

import pytest
import torch

from spvit.config import PruningConfig
from spvit.distributed import rows_of_all
from spvit.rivals import _mix, best_of_batch, random_scores, wanted_keep

MASK = (1 << 64) - 1


def mixed(z):
    """SplitMix64's finaliser on Python's integers (Steele, Lea and Flood, 2014)."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**63 - 1, -1, -(2**63), 123456789123456789])
def test_numbers_are_mixed_as_splitmix64_does(value):
    found = _mix(torch.tensor([value])).item()
    assert found & MASK == mixed(value & MASK)


def test_random_scores_are_uniform_and_each_stages_own():
    images = torch.randn(200, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, second = (random_scores(images, 16, drawn) for drawn in (0, 16))
    assert first.min() >= 0 and first.max() < 1
    shares = torch.histc(first, 10, 0, 1) / first.numel()
    assert (shares - 0.1).abs().max() < 5 * (0.1 * 0.9 / first.numel()) ** 0.5
    both = torch.stack([first.flatten(), second.flatten()])
    assert abs(torch.corrcoef(both)[0, 1].item()) < 0.06
    assert len(first.unique()) == first.numel()


def test_one_pixel_changes_all_scores():
    image = torch.zeros(1, 1, 4, 4)
    other = image.clone()
    other[0, 0, 3, 3] = 1e-6
    assert not (random_scores(image, 16, 0) == random_scores(other, 16, 0)).any()
    assert torch.equal(random_scores(image, 16, 0), random_scores(image.clone(), 16, 0))


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        (0, []),
        (1, [(0, 0)]),
        (2, [(0, 0), (1, 2)]),
        (3, [(0, 0), (1, 1), (1, 2), (0, 2)]),
        (9, [(0, 0), (0, 2), (1, 1), (1, 2)]),
    ],
)
def test_the_best_candidates_of_the_whole_batch_are_kept(count, kept):
    scores = torch.tensor([[0.9, 0.8, 0.2], [0.7, 0.2, 0.6]])
    candidates = torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    assert best_of_batch(scores, candidates, count / 6).nonzero().tolist() == sorted(
        map(list, kept)
    )  # equals stay together


def test_none_is_kept_where_there_is_no_candidate():
    assert not best_of_batch(torch.ones(2, 3), torch.zeros(2, 3), 0.7).any()


def test_fractions_that_are_not_configured_are_usual_ones():
    assert wanted_keep(PruningConfig((1, 2), (0.6, 0.3)), 1) == 0.3
    assert wanted_keep(PruningConfig((1, 2)), 1) == pytest.approx(0.49)


def test_processes_decide_by_the_whole_batch(monkeypatch):
    scores, candidates = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)), torch.ones(4, 6)
    whole = best_of_batch(scores, candidates, 0.4)
    monkeypatch.setattr("spvit.rivals.rows_of_all", lambda rows: scores)
    for own in (slice(0, 2), slice(2, 4)):
        assert torch.equal(best_of_batch(scores[own], candidates[own], 0.4), whole[own])


def test_alone_the_rows_of_all_are_ones_own():
    rows = torch.rand(2, 3)
    assert torch.equal(rows_of_all(rows), rows)
