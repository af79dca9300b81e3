"""Which clocks a board can make, what they come out at, and what is said where one cannot be made."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hw.clock import (
    LEAST_PFD_MHZ,
    LEAST_WIZARD_MHZ,
    MOST_MHZ,
    MOST_PFD_MHZ,
    TOLERANCE,
    UNCERTAINTY,
    VCO_MHZ,
    make_clock,
    pl0_dividers,
    speed_grade,
    usable_ns,
)
from hw.target import resolve_target, target_names
from spvit.errors import ConfigError

ZCU102_MHZ = 1499.85
PART = "xczu9eg-ffvb1156-2-e"
GRADES = {"1": "xczu3eg-sbva484-1-i", "2": PART, "2LV": "xck26-sfvc784-2LV-c"}


def refusal(source, mhz, source_mhz=ZCU102_MHZ, part=PART):
    with pytest.raises(ConfigError) as error:
        make_clock(source, source_mhz, part, mhz)
    return str(error.value)


@pytest.mark.parametrize("name", target_names())
def test_every_board_makes_its_own_clock(name):
    target = resolve_target(name)
    assert target.clock.source == target.clock_source
    assert target.clock_mhz * (1 - TOLERANCE) <= target.clock.mhz <= target.clock_mhz


def test_the_zcu102s_200_mhz():
    clock = resolve_target("zcu102").clock
    assert (clock.source, clock.pl0_divisors, clock.pl0_mhz) == ("wizard", (15, 1), 99.99)
    assert (clock.multiply, clock.divide, clock.output_divide, clock.ratio) == (12, 1, 6, 2)
    assert (clock.port_divide, clock.port_mhz) == (4, 299.97)
    alone = make_clock("wizard", ZCU102_MHZ, PART, 200)
    assert (alone.multiply, alone.output_divide, alone.port_divide, alone.port_mhz) == (16, 8, 0, 0)
    assert clock.mhz == 199.98
    assert clock.to_manifest()["ratio"] == 2


@pytest.mark.parametrize(
    ("divider", "mhz"), [(6, 249.97), (7, 214.26), (8, 187.48), (10, 149.98), (15, 99.99), (63 * 63, 0.37)]
)
def test_what_pl0_divides_to(divider, mhz):
    asked = ZCU102_MHZ / divider
    clock = make_clock("pl0", ZCU102_MHZ, PART, asked)
    assert clock.pl0_divisors[0] * clock.pl0_divisors[1] == divider and max(clock.pl0_divisors) <= 63
    assert clock.mhz == clock.pl0_mhz == pytest.approx(asked) and int(clock.mhz * 100) / 100 == mhz
    assert clock.ratio == 1


def test_pl0_alone_never_makes_200():
    assert refusal("pl0", 200) == (
        "cannot be made: PL0 divides the IOPLL's 1499.85 MHz by a whole number; the nearest are 187.48 (by 8) "
        "and 214.26 (by 7)"
    )
    assert make_clock("pl0", ZCU102_MHZ, PART, 187.5).pl0_divisors == (8, 1)  # a ten-thousandth below is it
    assert make_clock("pl0", ZCU102_MHZ, PART, 187.48).pl0_divisors == (8, 1)  # as the sentence rounds it
    assert "the nearest are 166.65 (by 9) and 187.48 (by 8)" in refusal("pl0", 187.4)  # never faster than asked
    assert 67 not in pl0_dividers() and 63 * 63 in pl0_dividers()  # six bits each


@pytest.mark.parametrize(
    ("source", "mhz", "sentence"),
    [
        ("wizard", 6, "cannot be made: the MMCM of a Clocking Wizard makes 10 to 775 MHz on speed grade -2"),
        ("wizard", 776, "cannot be made: the MMCM of a Clocking Wizard makes 10 to 775 MHz on speed grade -2"),
        ("pl0", 1e9, "cannot be made: PL0 makes 0.3779 to 775 MHz on speed grade -2"),
        ("shell", 501, "cannot be made: the card's platform scales its kernel clock up to 500 MHz"),
    ],
)  # fmt: skip
def test_out_of_reach(source, mhz, sentence):
    assert refusal(source, mhz, 500 if source == "shell" else ZCU102_MHZ) == sentence


def test_a_pll_from_which_nothing_is_made():
    assert refusal("wizard", 200, source_mhz=5) == "cannot be made: no MMCM setting makes it from a PL0 of 5.00 MHz"


@given(
    mhz=st.floats(LEAST_WIZARD_MHZ, 660), pll_mhz=st.sampled_from([1499.85, 1499.985, 1000.0, 999.99, 1333.32]),
    grade=st.sampled_from(sorted(GRADES)),
)  # fmt: skip
@example(mhz=660.0, pll_mhz=1499.85, grade="1")
@example(mhz=LEAST_WIZARD_MHZ, pll_mhz=1499.85, grade="2")
def test_an_mmcm_stays_within_its_limits(mhz, pll_mhz, grade):
    clock = make_clock("wizard", pll_mhz, GRADES[grade], mhz)
    detector, vco = clock.pl0_mhz / clock.divide, clock.pl0_mhz / clock.divide * clock.multiply
    assert clock.mhz == pytest.approx(vco / clock.output_divide, abs=1e-5)
    assert mhz * (1 - TOLERANCE) - 1e-5 <= clock.mhz <= mhz + 1e-5
    assert VCO_MHZ[0] - 1e-4 <= vco <= VCO_MHZ[1] + 1e-4
    assert LEAST_PFD_MHZ <= detector <= MOST_PFD_MHZ[grade[0]]
    assert clock.mhz <= MOST_MHZ[grade]
    assert 2 <= clock.multiply <= 128 and clock.multiply * 8 == int(clock.multiply * 8)
    assert clock.output_divide == 1 or 2 <= clock.output_divide <= 128
    assert clock.output_divide * 8 == int(clock.output_divide * 8)
    assert 1 <= clock.divide <= 106


@pytest.mark.parametrize(
    ("part", "grade"),
    [
        (PART, "2"),
        ("xck26-sfvc784-2LV-c", "2LV"),
        ("xczu3eg-sbva484-1-i", "1"),
        ("xcu50-fsvh2104-2-e", "2"),
        ("x", "1"),
    ],
)
def test_speed_grades(part, grade):
    assert speed_grade(part) == grade


def test_what_a_schedule_may_use():
    assert UNCERTAINTY == 0.27
    assert usable_ns(200) == pytest.approx(3.65)
