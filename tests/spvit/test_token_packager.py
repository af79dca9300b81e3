"""Packages against Eq. 8 by hand, and the masked form against the gathered one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spvit.token_packager import join_package, join_package_masked, package_token

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_equation_8_by_hand():
    tokens = torch.tensor([[1.0, 10.0], [2.0, 20.0], [5.0, 50.0]])
    package = package_token(tokens, torch.tensor([0.1, 0.3, 0.9]), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(package, torch.tensor([1.75, 17.5]))


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 99))
def test_a_mask_is_as_good_as_leaving_out(dropped, seed):
    n = len(dropped)
    tokens, scores, mask = random(1, n, 3, seed=seed), random(1, n, seed=seed + 1).sigmoid(), torch.tensor([dropped])
    package = package_token(tokens, scores, mask.to(F64))[0]
    away = tokens[mask], scores[mask]
    expected = (away[0] * away[1][:, None]).sum(0) / away[1].sum() if any(dropped) else torch.zeros(3, dtype=F64)
    torch.testing.assert_close(package, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("weight", [1.0, 1e-6, 1e-17])
def test_small_weights_still_weigh(weight):
    tokens = torch.tensor([[1.0], [3.0], [100.0]])
    package = package_token(tokens, torch.tensor([weight, 3 * weight, 1.0]), torch.tensor([1.0, 1.0, 0.0]))
    torch.testing.assert_close(package, torch.tensor([2.5]))


@pytest.mark.parametrize("weight", [0.0, 1e-40, 1e-20])
def test_negligible_weights_are_all_the_same(weight):
    tokens = torch.tensor([[1.0], [3.0], [100.0]])
    package = package_token(tokens, torch.tensor([weight, 3 * weight, 1.0]), torch.tensor([1.0, 1.0, 0.0]))
    assert package.tolist() == [2.0]


@pytest.mark.parametrize("dropped", [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
@pytest.mark.parametrize("score", [0.0, 1e-40, 1e-17, 0.5])
def test_gradients_are_finite(dropped, score):
    inputs = [torch.ones(2, 3), torch.full((2,), score), torch.tensor(dropped)]
    for tensor in inputs:
        tensor.requires_grad_()
    package_token(*inputs).sum().backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in inputs)


def test_policies():
    old, new = torch.tensor([[1.0, 2.0]]), torch.tensor([10.0, 20.0])
    none_yet = old[:0]
    assert join_package(old, new, "append").tolist() == [[1, 2], [10, 20]]
    assert join_package(old, new, "add").tolist() == [[11, 22]]
    assert join_package(old, new, "none").tolist() == [[1, 2]]
    assert join_package(none_yet, new, "append").tolist() == join_package(none_yet, new, "add").tolist() == [[10, 20]]
    assert join_package(none_yet, new, "none").tolist() == []


@given(
    policy=st.sampled_from(["append", "add", "none"]),
    happenings=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_slots_hold_what_gathering_would(policy, happenings, seed):
    """Two images, each with or without a new package at each of some selectors."""
    slots, alive = torch.zeros(2, 0, 3, dtype=F64), torch.zeros(2, 0, dtype=F64)
    gathered = [torch.zeros(0, 3, dtype=F64), torch.zeros(0, 3, dtype=F64)]
    for step, exists in enumerate(happenings):
        package = random(2, 3, seed=seed + step)
        slots, alive = join_package_masked(slots, alive, package, torch.tensor(exists, dtype=F64), policy)
        for image in range(2):
            if exists[image]:
                gathered[image] = join_package(gathered[image], package[image], policy)
        for image in range(2):
            torch.testing.assert_close(slots[image][alive[image] == 1], gathered[image], rtol=0, atol=1e-14)
        assert slots.shape[1] == {"append": step + 1, "add": 1, "none": 0}[policy]
        slots = torch.where(alive[..., None] == 1, slots, 7.0)  # blocks leave anything in a dead slot
