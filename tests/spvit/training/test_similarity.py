"""Centred kernel alignment, against its definition and its invariances."""

import pytest
import torch

from spvit.initialisation import seeded
from spvit.training.similarity import centred_kernel_alignment, similarity_to_class_token
from tests.spvit.training.tiny import SPEC


def features(seed, width):
    return torch.randn(50, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_by_the_definition():
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the centring matrix written out."""
    x, y = features(0, 5), features(1, 7)
    centring = torch.eye(50, dtype=torch.float64) - 1 / 50
    hsic = lambda a, b: torch.trace(a @ a.T @ centring @ b @ b.T @ centring)  # noqa: E731
    expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()
    assert centred_kernel_alignment(x, y).item() == pytest.approx(expected.item(), rel=1e-12)


def test_what_it_does_not_see():
    x = features(0, 5)
    turned = torch.linalg.qr(features(2, 5)[:5])[0]
    assert centred_kernel_alignment(x, 3 * x @ turned + 7).item() == pytest.approx(1, rel=1e-12)
    assert centred_kernel_alignment(x, torch.ones(50, 3)).item() == 0
    assert 0 < centred_kernel_alignment(x, features(1, 5)).item() < 0.3


def test_blocks_against_the_last_class_token():
    net = seeded(SPEC.model, SPEC.pruning.without())
    images = torch.randn(70, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = similarity_to_class_token(net, images)
    with torch.no_grad():
        x, tokens = net.embed(images), []
        for block in net.blocks:
            x = block(x)
            tokens.append(x[:, 1:])
    for seen, value in zip(tokens, found, strict=True):
        each = [centred_kernel_alignment(seen[:, patch], x[:, 0]).item() for patch in range(16)]
        assert value == pytest.approx(sum(each) / 16, rel=1e-5)
