"""One small design, compiled once, and any transformer that fits it: the C-simulation is the golden, tap by tap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.architecture import Architecture
from hw.generate import make_design
from hw.hardware import Capacities
from spvit.config import ModelConfig, PruningConfig
from spvit.errors import ConfigError
from tests.sim.conftest import Simulators, simulate
from tests.sim.networks import random_images, random_network
from tests.sim.small_transformers import small_transformers

ROOM = Capacities(
    num_tokens=27, embed_dim=160, num_heads=4, head_dim=40, hidden_dim=640, patch_dim=64, line_dim=1, image_dim=1600,
    num_classes=70, num_selectors=4, num_blocks=3,
)  # fmt: skip
ENGINES = (Architecture(8, 16, "fast", 1), Architecture(32, 16, "direct", 2))


@dataclass(frozen=True)
class Case:
    model: ModelConfig
    pruning: PruningConfig
    extreme: bool
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    model, pruning = draw(small_transformers())
    return Case(model, pruning, draw(st.booleans()), draw(st.integers(0, 2**20)))


def check(simulators: Simulators, case: Case, architecture: Architecture, **options: bool) -> None:
    network = random_network(np.random.default_rng(case.seed), case.model, case.pruning, case.extreme)
    accelerator = simulators(make_design(network, architecture, ROOM), **options)
    simulate(accelerator, random_images(case.model, 2, case.seed))


@pytest.mark.parametrize("architecture", ENGINES, ids=str)
@settings(max_examples=12)
@given(case=cases())
def test_networks_that_fit(simulators, architecture, case):
    check(simulators, case, architecture)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ENGINES, ids=str)
@settings(max_examples=200)
@given(case=cases())
def test_two_hundred_networks_that_fit(simulators, architecture, case):
    check(simulators, case, architecture)


@pytest.mark.slow
@settings(max_examples=60)
@given(case=cases())
def test_networks_that_fit_with_exact_widths(simulators, case):
    check(simulators, case, ENGINES[0], exact=True)


def test_the_largest_that_fits(simulators):
    """Every capacity at its end, but for the blocks."""
    model = ModelConfig("largest", img_size=20, patch_size=4, in_chans=4, embed_dim=160, depth=3, num_heads=4,
                        mlp_ratio=4.0, num_classes=70, distilled=True)  # fmt: skip
    pruning = PruningConfig(locations=(0, 1, 2))
    assert Capacities.of(model, 4) == replace(ROOM, line_dim=16)
    for extreme in (False, True):
        check(simulators, Case(model, pruning, extreme, 1), ENGINES[0])


@pytest.mark.parametrize(
    ("change", "misfit"),
    [
        ({"num_heads": 5, "embed_dim": 160}, r"num_heads=5 \(room for 4\)"),
        ({"embed_dim": 164}, r"embed_dim=164 \(room for 160\), head_dim=41 \(room for 40\), hidden_dim=656 \(room for 640\)"),
        ({"num_classes": 71}, r"num_classes=71 \(room for 70\)"),
        ({"img_size": 24}, r"num_tokens=38 \(room for 27\), image_dim=2304 \(room for 1600\)"),
        ({"depth": 4}, r"num_blocks=4 \(room for 3\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_figures(change, misfit):
    model = ModelConfig("large", img_size=20, patch_size=4, in_chans=4, embed_dim=160, depth=3, num_heads=4,
                        mlp_ratio=4.0, num_classes=70, distilled=True)  # fmt: skip
    network = random_network(np.random.default_rng(0), replace(model, **change), PruningConfig().without())
    with pytest.raises(ConfigError, match=f"^large does not fit the design: {misfit}$"):
        make_design(network, ENGINES[0], ROOM)
