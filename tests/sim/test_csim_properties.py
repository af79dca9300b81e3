"""Any small transformer on any engine, as a design of its own: the C-simulation is the golden, tap by tap. Each is compiled,
so they are slow; many networks on one design are in test_one_design.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from hw.architecture import FILL_LANES, INNER_PRODUCTS, PORT_BITS, TILE_SIZES, Architecture, most_ports, serves
from hw.generate import make_design
from spvit.config import ModelConfig, PruningConfig
from tests.sim.conftest import Simulators, simulate
from tests.sim.networks import random_images, random_network
from tests.sim.small_transformers import small_transformers

COMPILING = settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each smaller example would be compiled as well
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Case:
    model: ModelConfig
    pruning: PruningConfig
    architecture: Architecture
    extreme: bool
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    model, pruning = draw(small_transformers())
    tile_in, tile_out = draw(st.sampled_from(TILE_SIZES)), draw(st.sampled_from(TILE_SIZES))
    lanes = draw(st.sampled_from([lanes for lanes in FILL_LANES if serves(lanes, tile_in, tile_out)]))
    bits = draw(st.sampled_from([bits for bits in PORT_BITS if most_ports(lanes, 4, bits)]))
    ports = draw(st.sampled_from([p for p in (1, 2, 4) if p * bits // 16 <= lanes]))
    architecture = Architecture(
        tile_in, tile_out, draw(st.sampled_from(INNER_PRODUCTS)), ports, port_bits=bits, fill_lanes=lanes
    )
    return Case(model, pruning, architecture, draw(st.booleans()), draw(st.integers(0, 2**20)))


def check(simulators: Simulators, case: Case, **options: bool) -> None:
    network = random_network(np.random.default_rng(case.seed), case.model, case.pruning, case.extreme)
    accelerator = simulators(make_design(network, case.architecture), **options)
    golden = simulate(accelerator, random_images(case.model, 2, case.seed))
    note(f"tokens: {golden.tokens}")


@pytest.mark.slow
@settings(COMPILING, max_examples=100)
@given(case=cases())
def test_a_hundred_small_transformers(simulators, case):
    check(simulators, case)


@pytest.mark.slow
@settings(COMPILING, max_examples=15)
@given(case=cases())
def test_small_transformers_with_exact_widths(simulators, case):
    check(simulators, case, exact=True)
