"""The engine's control, mapped to UltraScale+ by yosys: the levels of logic between its registers fit the clock."""

from __future__ import annotations

import pytest

from hw.schedule.delays import DELAYS, UNCERTAINTY
from sim.rtl.anchor import CONTROL
from sim.rtl.levels import longest_path
from tests.sim.networks import design_of, micro
from tests.sim.timed.test_timing_agreement import random_design

pytestmark = pytest.mark.needs("yosys")

PERIOD_NS = 5.0
USABLE_NS = PERIOD_NS * (1 - UNCERTAINTY) - DELAYS["carry"].cautious[1]
"""At 200 MHz: what the schedule plans with, 3.65 ns, less the register that a path of the loop ends in."""
LEVEL_NS = DELAYS["select"].cautious[1]
"""A LUT with the net in front of it, as the cautious model takes a choice between registers."""
MOST_LEVELS = int(USABLE_NS / LEVEL_NS)
PLANTED = {
    "the tile behind is placed and decided in one cycle": [
        ("        place4 <= decided3.ends_pass ? begun : behind;\n", ""),
        (
            "    place_t place5;\n",
            "    always_comb place4 = decided3.ends_pass ? begun : behind;\n    place_t place5;\n",
        ),
    ],
    "the border is compared, and the tile behind made, when it is taken": [
        ("assign border = may_end", "assign border = running && cycles_left - 1'b1 == 0 && fill.left - accesses == 0"),
        ("        planned <= plan6;\n", ""),
        ("    step_t filled5;\n", "    step_t filled5;\n    always_comb planned = plan6;\n"),
    ],
}


def test_levels_between_registers(capsys):
    path = longest_path(design_of(micro()))
    with capsys.disabled():
        print(f"\nengine control, {path}; at most {MOST_LEVELS}")
    assert path.levels <= MOST_LEVELS


@pytest.mark.slow
def test_levels_of_a_model():
    path = longest_path(random_design("deit_t", None, (64, 64, "fast")))
    assert path.levels <= MOST_LEVELS, path


@pytest.mark.parametrize(
    "planted", [pytest.param(name, marks=[pytest.mark.slow] * bool(place)) for place, name in enumerate(PLANTED)]
)
def test_a_slow_path_is_found(planted: str):
    source = CONTROL.read_text(encoding="utf-8")
    for text, slower in PLANTED[planted]:
        assert source.count(text) == 1
        source = source.replace(text, slower)
    path = longest_path(design_of(micro()), source)
    assert path.levels > MOST_LEVELS, path
