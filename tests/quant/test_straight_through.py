"""Forwards the integer functions, whose values `test_functions` checks; backwards the real functions' gradients."""

import pytest
import torch
from torch.nn import functional

from quant import functions
from quant import straight_through as ste
from quant.functions import GELU_FRAC_BITS, divide_frac_bits


def grid(*shape: int, frac_bits: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.round(values * 2**frac_bits) / 2**frac_bits


def value_and_gradient(function, *inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    value = function(*inputs)
    weights = torch.linspace(-1, 2, value.numel(), dtype=torch.float64).view_as(value)
    (value * weights).sum().backward()
    return value.detach(), [x.grad for x in inputs]


CASES = {
    "gelu": (lambda bits: lambda x: ste.gelu(x, bits), functional.gelu, [(5, 7)]),
    "layer_norm": (
        lambda bits: lambda x: ste.layer_norm(x, bits, 1e-6),
        lambda x: functional.layer_norm(x, x.shape[-1:], eps=1e-6),
        [(5, 16)],
    ),
    "softmax_numerator": (
        lambda bits: lambda x: ste.softmax_numerator(x, bits),
        lambda x: 32767 * torch.exp2(x - x.detach().amax(-1, keepdim=True)),
        [(2, 4, 4)],
    ),
    "pool": (lambda bits: lambda x: ste.pool(x, bits), lambda x: x.mean(dim=0), [(5, 2, 4)]),
    "add_packages": (lambda bits: lambda x, y: ste.add_packages(x, y, bits), lambda x, y: x + y, [(1, 6), (1, 6)]),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_real_functions(name):
    exact, real, shapes = CASES[name]
    inputs = [grid(*shape, frac_bits=10, seed=seed) for seed, shape in enumerate(shapes)]
    value, gradients = value_and_gradient(exact(10), *inputs)
    expected, expected_gradients = value_and_gradient(real, *inputs)
    for got, want in zip(gradients, expected_gradients, strict=True):
        assert torch.allclose(got, want, rtol=1e-12, atol=1e-12)
    scale = 32767 if name == "softmax_numerator" else 1
    assert (value - expected).abs().max() / scale < 2**-10
    assert torch.allclose(value_and_gradient(exact(None), *inputs)[0], expected, rtol=1e-12, atol=1e-12)


def test_weighted_mean_divides_exactly_and_differentiates_both_sides():
    weights = torch.tensor([[3.0, 5.0, 9.0]], dtype=torch.float64)
    values = grid(3, 4, frac_bits=11)
    value, gradients = value_and_gradient(
        lambda w, v: ste.weighted_mean(w @ v, w.sum(dim=-1, keepdim=True), 11), weights, values
    )
    _, expected = value_and_gradient(lambda w, v: w @ v / w.sum(dim=-1, keepdim=True), weights, values)
    exact = functions.divide(weights @ values * 2**11, weights.sum(dim=-1, keepdim=True))
    assert torch.equal(value, exact * 2.0 ** -(divide_frac_bits() + 11))
    for got, want in zip(gradients, expected, strict=True):
        assert torch.allclose(got, want)


def test_the_value_is_the_integer_functions_unrounded():
    x = grid(64, frac_bits=12)
    assert torch.equal(ste.gelu(x, 12), functions.gelu(x * 2**12, 12) * 2.0**-GELU_FRAC_BITS)


def test_package_token_passes_gradients_to_tokens_and_probabilities():
    tokens, probability = grid(4, 6, frac_bits=10), torch.tensor([0.1, 0.3, 0.02, 0.25], dtype=torch.float64)
    probability = torch.round(probability * 2**22) / 2**22
    value, gradients = value_and_gradient(lambda x, p: ste.package_token(x, p, 10), tokens, probability)
    mean, expected = value_and_gradient(lambda x, p: (x * p[:, None]).sum(0) / p.sum(), tokens, probability)
    assert (value - mean).abs().max() <= 0.75 * 2**-10
    for got, want in zip(gradients, expected, strict=True):
        assert torch.allclose(got, want)


def test_decide_passes_the_gradient_of_eq_6():
    scores, branch = grid(6, 3, frac_bits=12), grid(6, 3, frac_bits=12, seed=1)
    threshold = 0.5
    value, gradients = value_and_gradient(lambda s, b: ste.decide(s, 12, b, 12, threshold)[1], scores, branch)

    def eq_6(s, b):
        return (torch.sigmoid(s) * torch.sigmoid(b)).sum(1) / torch.sigmoid(b).sum(1)

    exact, expected = value_and_gradient(eq_6, scores, branch)
    assert (value - exact).abs().max() < 1e-4
    for got, want in zip(gradients, expected, strict=True):
        assert torch.allclose(got, want)
    assert torch.equal(ste.decide(scores, 12, branch, 12, threshold)[0], exact >= threshold)
    assert torch.equal(ste.decide(scores, None, branch, None, threshold)[0], exact >= threshold)


def test_the_gradient_is_only_computed_where_it_is_wanted():
    def real():
        raise AssertionError("evaluated for nothing")

    with torch.no_grad():
        assert ste.straight_through(lambda: torch.ones(1), real) == 1


@pytest.mark.parametrize(("threshold", "integer"), [(0.5, 2**21), (2**-16, 64), (1.0, 2**22)])
def test_thresholds_have_22_fraction_bits(threshold, integer):
    assert ste.threshold_integer(threshold) == integer


def test_added_packages_saturate():
    older, new = torch.tensor([[30.0, -30.0, 3.0]]).double(), torch.tensor([[3.0, -3.0, 2.5]]).double()
    assert (ste.add_packages(older, new, 10) * 2**10).tolist() == [[32767, -32768, 5.5 * 2**10]]
    assert ste.add_packages(older, new, None).tolist() == [[33, -33, 5.5]]
