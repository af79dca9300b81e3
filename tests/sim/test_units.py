"""Each kernel's own top against the golden; and what is compared when one goes wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.render import UNITS
from sim.constructed import deciding
from sim.units import compare_unit, entries
from tests.sim.conftest import golden_of
from tests.sim.networks import MICRO, design_of, micro, quantized, random_images

PIXELS = random_images(MICRO.model, 3)


@pytest.fixture(scope="module")
def design():
    return design_of(micro())


@pytest.mark.parametrize("unit", UNITS)
def test_a_kernel_alone_equals_the_golden(simulators, design, unit):
    accelerator, golden = simulators(design, unit=unit), golden_of(design, PIXELS)
    count = sum(name == unit for name, _, _ in design.program.units())
    assert count == {"msa_block": 4, "mlp_block": 4}.get(unit, 3)
    for image in range(len(PIXELS)):
        comparison = compare_unit(accelerator, unit, golden, image)
        assert comparison.mismatches == ()
        steps = [step for step in design.program.steps if step.unit == unit]
        assert comparison.taps >= len(steps) + count  # and what each hands on
        assert comparison.values >= sum(golden.taps[step.name][image].size for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("package", ["add", "none"])
def test_kernels_of_other_policies(simulators, unit, package):
    model = replace(MICRO.model, distilled=True)
    design = design_of(quantized(model, replace(MICRO.pruning, package=package))[1], 16, 8)
    golden = golden_of(design, PIXELS)
    assert compare_unit(simulators(design, unit=unit), unit, golden).mismatches == ()


def test_entries_are_what_the_golden_brings(design):
    """The residual stream before each kernel is the one that the kernel before it left."""
    golden = golden_of(design, PIXELS)
    for image in range(len(PIXELS)):
        found = list(entries(design, golden, image))
        assert [entry.unit for entry in found][:4] == ["patch_embed", "msa_block", "mlp_block", "token_selector"]
        assert [(e.unit, e.index) for e in found] == [(unit, index) for unit, index, _ in design.program.units()]
        by_name = {(entry.unit, entry.index): entry for entry in found}
        assert np.array_equal(by_name["patch_embed", 0].x, design.network.position)
        assert np.array_equal(by_name["msa_block", 0].x[1:], golden.taps["patch_embed"][image])
        assert np.array_equal(by_name["mlp_block", 2].x, golden.taps["blocks.2.attn.proj"][image])
        packed = by_name["msa_block", 1]
        assert np.array_equal(packed.x, golden.taps["selectors.0.package"][image])
        keep = golden.taps["selectors.0.keep"][image][:, 0]
        assert packed.num_packages == (0 if keep.all() else 1)
        given = by_name["token_packager", 0].selection
        assert np.array_equal(given[1 : 1 + len(keep)], golden.taps["selectors.0.keep"][image])
        assert not given[:1].any() and not given[1 + len(keep) :].any()


def test_packages_are_counted_from_selector_to_selector():
    network = micro()
    for selector, score in enumerate((-32768, 32767, 32767)):  # the second finds no candidates
        network = deciding(network, selector, score)
    design = design_of(network)
    found = {(e.unit, e.index): e for e in entries(design, golden_of(design, PIXELS[:1]))}
    assert [found["token_packager", i].num_packages for i in range(3)] == [0, 1, 1]
    assert [len(found["token_packager", i].x) for i in range(3)] == [17, 2, 2]
    assert found["head", 0].num_packages == 1


@pytest.mark.parametrize(
    ("unit", "tap", "text"),
    [
        ("mlp_block", "blocks.1.mlp.fc2", "blocks.1.mlp.fc2[0, 3]: C-simulation"),
        ("token_selector", "selectors.0.keep", "selectors.0.keep[0, 0]: C-simulation"),
        ("token_packager", "selectors.1.package", "selectors.1.package[1, 0]: C-simulation"),
    ],
)
def test_a_changed_golden_is_a_mismatch(simulators, design, unit, tap, text):
    golden = golden_of(design, PIXELS[:1])
    at = {"mlp_block": (0, 3), "token_selector": (0, 0), "token_packager": (1, 0)}[unit]
    golden.taps[tap][0][at] ^= 1
    found = [str(mismatch) for mismatch in compare_unit(simulators(design, unit=unit), unit, golden).mismatches]
    assert any(line.startswith(text) for line in found), found
