"""The selector against the paper's equations, written out token by token and head by head."""

from dataclasses import replace
from math import erf, exp, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spvit.config import resolve_model
from spvit.initialisation import seeded
from spvit.token_selector import TokenSelector, gumbel_decision, keep_decision, keep_probability, masked_mean

MICRO = resolve_model("micro")
F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def gelu(values):
    return [0.5 * value * (1 + erf(value / sqrt(2))) for value in values]


def linear(layer, values):
    return [
        sum(w * value for w, value in zip(row, values, strict=True)) + bias
        for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def layer_norm(layer, values):
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [
        (value - mean) / sqrt(variance + 1e-5) * weight + bias
        for value, weight, bias in zip(values, layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def sigmoid(value):
    return 1 / (1 + exp(-value))


def probabilities(selector, patches, candidates, split):
    """Eq. 1 to 6 for one image: patches (N, C), candidates a list of positions."""
    heads, dim = selector.num_heads, patches.shape[1] // selector.num_heads
    votes = []
    for head in range(heads):
        scorer = selector.scorers[head % len(selector.scorers)]
        features = [
            gelu(linear(scorer.embed, layer_norm(scorer.norm, row[head * dim : (head + 1) * dim])))
            for row in patches.tolist()
        ]
        pooled = [row[dim // 2 :] if split else row for row in features]
        count = max(len(candidates), 1)
        whole = [sum(pooled[token][channel] for token in candidates) / count for channel in range(dim // 2)]
        votes.append([])
        for row in features:
            hidden = gelu(linear(scorer.fc1, row[: dim // 2] + whole))
            keep, drop = linear(scorer.fc3, gelu(linear(scorer.fc2, hidden)))
            votes[-1].append(exp(keep) / (exp(keep) + exp(drop)))
    result = []
    for token, row in enumerate(patches.tolist()):
        means = [sum(row[head * dim : (head + 1) * dim]) / dim for head in range(heads)]
        branch = selector.head_branch
        weights = [sigmoid(value) for value in linear(branch.fc2, gelu(linear(branch.fc1, means)))]
        result.append(sum(votes[head][token] * weights[head] for head in range(heads)) / sum(weights))
    return result


@pytest.mark.parametrize("features", ["split", "single"])
@pytest.mark.parametrize("share_heads", [True, False])
@pytest.mark.parametrize("candidates", [[0, 1, 2, 3, 4], [1, 3], [2], []])
def test_the_keep_probability_is_equation_6(features, share_heads, candidates):
    pruning = replace(MICRO.pruning, features=features, share_heads=share_heads)
    selector = seeded(MICRO.model, pruning).selectors[1].double()
    patches = random(2, 5, 32)
    mask = torch.zeros(2, 5, dtype=F64)
    mask[:, candidates] = 1
    with torch.no_grad():
        found = keep_probability(*selector(patches, mask))
    for image in range(2):
        expected = probabilities(selector, patches[image], candidates, features == "split")
        torch.testing.assert_close(found[image], torch.tensor(expected, dtype=F64), rtol=0, atol=1e-12)


def test_head_widths_are_the_papers():
    model = replace(MICRO.model, embed_dim=96, num_heads=3)
    single = TokenSelector(model, replace(MICRO.pruning, share_heads=False, features="single"))
    shapes = {name: tuple(value.shape) for name, value in single.state_dict().items() if name.endswith("weight")}
    assert shapes == {
        **{f"scorers.{head}.{layer}.weight": shape for head in range(3)
           for layer, shape in [("norm", (32,)), ("embed", (16, 32)), ("fc1", (16, 32)), ("fc2", (8, 16)), ("fc3", (2, 8))]},
        "head_branch.fc1.weight": (1, 3),
        "head_branch.fc2.weight": (3, 1),
    }  # fmt: skip
    split = TokenSelector(model, replace(MICRO.pruning, share_heads=True))
    assert len(split.scorers) == 1
    assert split.scorers[0].embed.weight.shape == (32, 32)
    assert split.scorers[0].norm.eps == 1e-5


def test_what_is_no_candidate_does_not_count():
    selector = seeded(MICRO.model, MICRO.pruning).selectors[0].double()
    patches, mask = random(1, 6, 32), torch.tensor([[1.0, 1, 0, 1, 0, 1]], dtype=F64)
    changed = patches.clone()
    changed[:, [2, 4]] = 1e3
    with torch.no_grad():
        before, after = (keep_probability(*selector(x, mask))[mask.bool()] for x in (patches, changed))
    assert torch.equal(before, after)


def test_the_mean_over_no_candidate_is_zero():
    assert masked_mean(torch.ones(1, 2, 3, 4), torch.zeros(1, 3)).tolist() == [[[[0.0] * 4]] * 2]


@pytest.mark.parametrize(
    ("votes", "weight", "threshold", "kept"),
    [(1.0, 2.0, 0.5, 1), (0.999, 2.0, 0.5, 0), (0.0, 0.0, 0.5, 1), (0.0, 0.0, 1.0, 1), (0.1, 2.0, 0.05, 1)],
)
def test_kept_from_the_threshold_on_and_when_no_head_weighs(votes, weight, threshold, kept):
    decision = keep_decision(torch.tensor(votes), torch.tensor(weight), torch.tensor(threshold))
    assert decision.item() == kept


def test_no_weight_gives_a_finite_probability():
    assert keep_probability(torch.tensor(0.0), torch.tensor(0.0)).item() == 0


@given(st.floats(0, 1), st.integers(0, 1000))
def test_a_draw_is_exactly_0_or_1_and_its_gradient_finite(probability, seed):
    p = torch.full((50,), probability, requires_grad=True)
    draw = gumbel_decision(p, torch.Generator().manual_seed(seed))
    assert set(draw.tolist()) <= {0.0, 1.0}
    draw.sum().backward()
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("probability", [0.0, 0.03, 0.5, 0.9, 1.0])
def test_draws_are_as_frequent_as_probable(probability):
    n = 40_000
    draws = gumbel_decision(torch.full((n,), probability), torch.Generator().manual_seed(0))
    deviation = (probability * (1 - probability) / n) ** 0.5
    assert abs(draws.mean().item() - probability) <= 4 * deviation


def test_a_draws_gradient_is_the_soft_samples():
    """d soft / d p at the same noise, by finite differences."""
    p = torch.tensor([0.3, 0.6, 0.9], dtype=F64, requires_grad=True)

    def soft(values):
        scores = torch.stack([values, 1 - values], -1).log()
        noise = torch.empty_like(scores).exponential_(generator=torch.Generator().manual_seed(3)).log()
        return (scores - noise).softmax(-1)[..., 0]

    gumbel_decision(p, torch.Generator().manual_seed(3)).sum().backward()
    step = 1e-6
    slope = (soft(p.detach() + step) - soft(p.detach() - step)) / (2 * step)
    torch.testing.assert_close(p.grad, slope, rtol=1e-6, atol=0)
    assert (p.grad > 0).all()
