"""Eq. 11 and 12 by hand."""

from math import log

import pytest
import torch

from spvit.losses import features_loss, logits_loss, ratio_loss, spvit_loss
from spvit.records import Output, SelectorRecord


def record(keep):
    keep = torch.tensor(keep)
    return SelectorRecord(keep, keep, keep.sum(1).long() + 1, torch.ones_like(keep))


def test_the_ratio_is_the_batches():
    """One image keeps all, one nothing: together half, as was asked for."""
    assert ratio_loss([record([[1.0, 1.0], [0.0, 0.0]])], [0.5]).item() == 0
    stages = [record([[1.0, 1.0], [1.0, 0.0]]), record([[1.0, 0.0], [0.0, 0.0]])]
    assert ratio_loss(stages, [0.5, 0.5]).item() == pytest.approx((0.25**2 + 0.25**2) / 2)


def test_one_fraction_per_selector():
    with pytest.raises(AssertionError, match="2 fractions for 1 selectors"):
        ratio_loss([record([[1.0]])], [0.5, 0.5])


def test_divergence_from_the_teacher():
    student, teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[log(3.0), 0.0], [1.0, 0.0]])
    first = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    assert logits_loss(student, teacher).item() == pytest.approx(first / 2, rel=1e-6)


def test_only_tokens_kept_to_the_end_are_compared():
    student, teacher = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 3.0], [100.0, 100.0], [2.0, 0.0]]])
    assert features_loss(student, teacher, torch.tensor([[1.0, 0.0, 1.0]])).item() == pytest.approx((5 + 2) / 2)
    assert features_loss(student, teacher, torch.zeros(1, 3)).item() == 0


def test_features_do_not_teach_the_decision():
    keep = torch.ones(1, 3, requires_grad=True)
    student = torch.ones(1, 3, 2, requires_grad=True)
    features_loss(student, torch.zeros(1, 3, 2), keep).backward()
    assert keep.grad is None
    assert student.grad.any()


def test_equation_12_weighs_its_parts():
    labels = torch.tensor([1])
    taught = Output(torch.tensor([[log(3.0), 0.0]]), torch.zeros(1, 2, 4), (), torch.ones(1, 2))
    output = Output(torch.zeros(1, 2), torch.full((1, 2, 4), 2.0), (record([[1.0, 0.0]]),), torch.tensor([[1.0, 0.0]]))
    divergence = 0.75 * log(0.75 / 0.5) + 0.25 * log(0.25 / 0.5)
    expected = log(2) + 0.5 * divergence + 0.5 * 4.0 + 2 * (0.5 - 0.2) ** 2
    assert spvit_loss(output, labels, taught, [0.2]).item() == pytest.approx(expected, rel=1e-6)
