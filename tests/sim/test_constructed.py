"""Inputs that no photograph brings: they reach what they are named after, and they see what photographs do not."""

from __future__ import annotations

from dataclasses import replace

import array_api_compat.numpy as arrays
import numpy as np
import pytest

from hw.generate import make_design
from hw.program import build_program
from quant.functions import sigmoid
from quant.network import QuantizedNetwork
from sim.bridge import Accelerator
from sim.compare import compare_run
from sim.constructed import Case, cases
from sim.csim import CONSTRUCTED, CONSTRUCTED_OF_LARGE
from sim.golden import Golden, GoldenResult
from spvit.config import resolve_model
from tests.sim.conftest import Simulators
from tests.sim.networks import MICRO, design_of, micro, quantized, random_images
from tests.sim.test_mutations import Mutation, mutated_library


def all_cases(network: QuantizedNetwork, count: int = CONSTRUCTED) -> dict[str, Case]:
    return {case.name: case for case in cases(network, build_program(network), count)}


def golden_of(case: Case) -> GoldenResult:
    return Golden(case.network, build_program(case.network), arrays).run(case.pixels[None], taps=True)


def test_each_runs_on_the_design_that_was_compiled():
    network = micro()
    found = all_cases(network)
    assert list(found)[:5] == ["ends of int16", "all dropped", "all equal", "just kept", "just dropped"]
    assert len(found) == CONSTRUCTED > CONSTRUCTED_OF_LARGE
    program, architecture = build_program(network), design_of(network).architecture
    for case in found.values():
        assert build_program(case.network) == program and make_design(case.network, architecture)
        assert case.network.digest != network.digest


def test_they_are_what_they_are_called():
    results = {name: golden_of(case) for name, case in all_cases(micro()).items()}
    saturated = {tap for tap, count in results["ends of int16"].saturations.items() if count}
    assert {"patch_embed", "blocks.0.attn.q", "blocks.0.attn.proj", "blocks.2.mlp.fc1"} <= saturated
    assert [stage[0] for stage in results["all dropped"].tokens] == [2, 2, 2]
    assert [stage[0] for stage in results["just kept"].tokens] == [17, 17, 17]
    assert [stage[0] for stage in results["just dropped"].tokens] == [2, 2, 2]
    for selector, threshold in enumerate(micro().thresholds):
        kept = results["just kept"].taps[f"selectors.{selector}.keep"][0]
        assert np.all(kept[:, 0] == 1) and np.all(kept[:, 1] >= threshold) and np.all(kept[:, 1] < threshold * 1.01)
    dropped = results["just dropped"].taps["selectors.0.keep"][0]
    assert np.all(dropped[:, 0] == 0) and np.all(dropped[:, 1] > micro().thresholds[0] * 0.99)
    scores = results["all equal"].taps["blocks.0.attn.scores.0"][0]
    assert np.all(scores == scores[:, :1])
    assert len({tuple(stage[0] for stage in one.tokens) for one in results.values()}) >= 4


def test_all_are_the_same_twice():
    first, second = (all_cases(micro(), 6) for _ in range(2))
    for name, case in first.items():
        assert case.network.digest == second[name].network.digest
        assert np.array_equal(case.pixels, second[name].pixels)


def test_a_model_that_drops_nothing_has_its_own():
    network = quantized(MICRO.model, MICRO.pruning.without())[1]
    found = all_cases(network, 4)
    assert list(found) == ["ends of int16", "all equal", "seed 2", "seed 3"]
    assert all(golden_of(case).tokens == [] for case in found.values())


def test_the_largest_ones_have_sums_that_fit():
    """Biases far beyond their sums: the engine would refuse them at the ends of int16."""
    spec = resolve_model("deit_digits")
    network = quantized(spec.model, spec.pruning)[1]
    linears = {
        name: replace(one, bias_frac_bits=one.bias_frac_bits - 20, bias=one.bias >> 14)
        for name, one in network.linears.items()
    }
    for case in all_cases(replace(network, linears=linears), CONSTRUCTED_OF_LARGE).values():
        assert make_design(case.network, design_of(network).architecture)


SEEN_BY_THEM_ALONE = [
    Mutation("token_selector.hpp", "weighted >= Int<48>(", "weighted > Int<48>(", "keep"),
    *(
        pytest.param(mutation, marks=pytest.mark.slow)
        for mutation in [
            Mutation("token_selector.hpp", "quotient > 0 ? quotient : Int<24>(1)", "quotient", "keep"),
            Mutation("token_selector.hpp", "count > 0 && lane", "lane", ""),
            Mutation("fixed_point.hpp", "x > largest ? Int<Bits>(largest)", "x > largest + 1 ? Int<Bits>(largest)", ""),
        ]
    ),
]  # fmt: skip


def test_every_line_to_break_is_still_there(simulators: Simulators):
    source = simulators.folder(design_of(micro())) / "src"
    for mutation in SEEN_BY_THEM_ALONE:
        chosen = mutation if isinstance(mutation, Mutation) else mutation.values[0]
        assert (source / chosen.file).read_text().count(chosen.old) == 1, f"{chosen}: write the mutation anew"


@pytest.mark.parametrize("mutation", SEEN_BY_THEM_ALONE, ids=str)
def test_a_wrong_line_that_photographs_do_not_see(simulators, tmp_path, mutation):
    at_zero = int(sigmoid(np.zeros(1), 12)[0])  # thresholds that a score equals
    design = design_of(replace(micro(), thresholds=(at_zero,) * 3))
    broken = Accelerator(design, mutated_library(simulators, design, tmp_path, mutation))
    plain = random_images(MICRO.model, 2)
    golden = Golden(design.network, design.program, arrays).run(plain, taps=True)
    for image, pixels in enumerate(plain):
        assert compare_run(broken, broken.run(pixels), golden, image).mismatches == ()
    found = []
    for case in all_cases(design.network).values():
        own = broken.with_network(case.network)
        found += compare_run(own, own.run(case.pixels), golden_of(case)).mismatches
    assert found
