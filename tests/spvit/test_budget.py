"""Keep ratios for a budget: largest, within it, geometric, and a refusal that names the least."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spvit.budget import geometric_counts, keep_ratios, solve_keep
from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.cost import count_macs, kept_patches
from spvit.errors import ConfigError

DEIT_S = resolve_model("deit_s")


def gmacs(spec):
    return lambda kept: count_macs(spec.model, spec.pruning, kept).total / 1e9


@pytest.mark.parametrize("name", ["deit_t", "deit_s", "deit_256", "deit_320"])
def test_the_registrys_ratios_are_found_again_from_their_cost(name):
    spec = resolve_model(name)
    kept = kept_patches(spec.model, spec.pruning)
    keep = solve_keep(spec.model, spec.pruning, gmacs(spec), gmacs(spec)(kept))
    assert kept_patches(spec.model, replace(spec.pruning, keep=keep)) == kept


@pytest.mark.parametrize("limit", [1.3, 2.0, 2.64, 3.86, 4.5])
def test_the_cost_is_within_and_the_next_larger_counts_are_beyond(limit):
    cost = gmacs(DEIT_S)
    keep = solve_keep(DEIT_S.model, DEIT_S.pruning, cost, limit)
    kept = kept_patches(DEIT_S.model, replace(DEIT_S.pruning, keep=keep))
    chain = geometric_counts((196,) * 3, (1, 2, 3))
    assert cost(kept) <= limit < cost(chain[chain.index(kept) + 1])


def test_a_budget_for_everything_prunes_nothing():
    assert solve_keep(DEIT_S.model, DEIT_S.pruning, gmacs(DEIT_S), 100) == (1, 1, 1)


def test_without_selectors_there_is_nothing_to_choose():
    unpruned = DEIT_S.pruning.without()
    assert solve_keep(DEIT_S.model, unpruned, lambda kept: 5 + len(kept), 5) == ()
    with pytest.raises(ConfigError) as caught:
        solve_keep(DEIT_S.model, unpruned, lambda kept: 5 + len(kept), 4.9, "ms")
    assert str(caught.value) == (
        "deit_s: a budget of 4.9 ms cannot be met, without selectors it still takes 5 ms; allow at least that, or "
        "choose a smaller model"
    )


@pytest.mark.parametrize("limit", [0.5, 0, -1, float("nan")])
def test_what_cannot_be_met_is_refused_with_the_least(limit):
    least = gmacs(DEIT_S)((1, 1, 1))
    with pytest.raises(ConfigError) as caught:
        solve_keep(DEIT_S.model, DEIT_S.pruning, gmacs(DEIT_S), limit, "GMACs")
    assert str(caught.value) == (
        f"deit_s: a budget of {limit:.5g} GMACs cannot be met, with one patch left after each selector it still takes "
        f"{least:.5g} GMACs; allow at least that, or choose a smaller model"
    )
    assert solve_keep(DEIT_S.model, DEIT_S.pruning, gmacs(DEIT_S), least) == keep_ratios((1, 1, 1), (196,) * 3)


def test_few_costs_are_asked_for():
    asked = []
    solve_keep(DEIT_S.model, DEIT_S.pruning, lambda kept: asked.append(kept) or sum(kept), 200)
    assert len(asked) <= 12


@given(st.integers(1, 1023), st.integers(1, 4))
def test_the_chain_is_geometric_complete_and_ordered(num_patches, selectors):
    chain = geometric_counts((num_patches,) * selectors, range(1, selectors + 1))
    assert chain == sorted(set(chain))
    assert {counts[0] for counts in chain} == set(range(1, num_patches + 1))
    for counts, following in pairwise(chain):
        assert all(a <= b for a, b in zip(counts, following, strict=True))
        assert list(counts) == sorted(counts, reverse=True)


@given(st.integers(1, 5000), st.data())
def test_ratios_round_to_the_counts_they_come_from(num_patches, data):
    counts = sorted(data.draw(st.lists(st.integers(1, num_patches), min_size=1, max_size=4)), reverse=True)
    keep = PruningConfig(locations=tuple(range(len(counts))), keep=keep_ratios(counts, (num_patches,) * len(counts)))
    assert [round(fraction * num_patches) for fraction in keep.keep] == counts


def test_a_model_of_ones_own():
    model, pruning = ModelConfig("mine", img_size=96, patch_size=8), PruningConfig(locations=(2, 4), package="add")
    keep = solve_keep(model, pruning, lambda kept: count_macs(model, pruning, kept).total, 2.5e9)
    assert len(keep) == 2 and keep[1] == pytest.approx(keep[0] ** 2, abs=0.01)
