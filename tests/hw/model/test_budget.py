"""The accelerator's costs are the estimate's, and budgets in milliseconds are met by the estimate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw.architecture import Architecture
from hw.model.budget import cycles, latency_ms
from hw.model.estimate import make_estimate
from hw.target import resolve_target
from spvit.budget import solve_keep
from spvit.config import resolve_model
from spvit.errors import ConfigError

ZCU102 = resolve_target("zcu102")
DEIT_S = resolve_model("deit_s")


@pytest.mark.parametrize("kept", [(123, 78, 49), (196, 196, 196), (1, 1, 1)])
def test_they_are_the_estimates(kept):
    estimate = make_estimate(DEIT_S, ZCU102, kept)
    assert cycles(DEIT_S, ZCU102)(kept) == estimate.cycles.cycles
    assert latency_ms(DEIT_S, ZCU102)(kept) == estimate.latency_ms


def test_another_engine():
    direct = Architecture(32, 64, "direct", 4)
    spec = replace(DEIT_S, engine={"tile_in": 32, "tile_out": 64, "inner_product": "direct"})
    assert latency_ms(DEIT_S, ZCU102, direct)((123, 78, 49)) == make_estimate(spec, ZCU102).latency_ms


@pytest.mark.parametrize("budget_ms", [4.7, 5.0, 5.5])
def test_a_budget_is_met(budget_ms):
    cost = latency_ms(DEIT_S, ZCU102)
    keep = solve_keep(DEIT_S.model, DEIT_S.pruning, cost, budget_ms, "ms")
    met = make_estimate(replace(DEIT_S, pruning=replace(DEIT_S.pruning, keep=keep)), ZCU102)
    assert 0.98 * budget_ms < met.latency_ms <= budget_ms


def test_what_the_weight_stream_forbids_is_refused_with_the_least():
    least = latency_ms(DEIT_S, ZCU102)((1, 1, 1))
    with pytest.raises(ConfigError, match=rf"a budget of 3 ms cannot be met, .* still takes {least:.5g} ms;"):
        solve_keep(DEIT_S.model, DEIT_S.pruning, latency_ms(DEIT_S, ZCU102), 3, "ms")


def test_what_the_accelerator_does_not_do_is_not_timed():
    for spec in (
        replace(DEIT_S, pruning=replace(DEIT_S.pruning, method="class_attention")),
        replace(DEIT_S, model=replace(DEIT_S.model, pooling="mean")),
    ):
        with pytest.raises(ConfigError, match=r"^deit_s: \[(model|pruning)\] \w+ = .*: the accelerator has units for"):
            latency_ms(spec, ZCU102)
