"""Draws that depend on their place alone."""

import torch

from spvit.training.draws import drawing, seed_of


def test_the_same_place_draws_the_same():
    def draw(*place):
        with drawing(*place):
            return torch.rand(3)

    assert torch.equal(draw(0, "backbone", 7), draw(0, "backbone", 7))
    places = [(0, "backbone", 7), (1, "backbone", 7), (0, "backbone", 8), (0, "selectors", 7), (0, "backbone", 7, 0)]
    assert len({tuple(draw(*place).tolist()) for place in places}) == len(places)


def test_others_draws_are_not_touched():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with drawing(5):
        torch.rand(9)
    assert torch.equal(torch.rand(2), expected)


def test_seeds_fit_torch():
    assert all(0 <= seed_of(0, step) < 2**63 for step in range(100))
