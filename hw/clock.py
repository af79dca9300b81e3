"""How a board makes the accelerator's clock, and what of each period a schedule may use.

Enters: a target's `clock_source`, what it is made from, the part and the clock that is asked for. Leaves: a `Clock`,
with every divider that the block design sets and the ratio from which the host computes what the fabric runs at; or a
ConfigError that names the nearest clocks that can be made. Standard library alone: the board imports this module too.

    wizard  PL0 of the processing system feeds a Clocking Wizard, whose MMCME4 makes almost any clock from it
    pl0     PL0 itself: the IOPLL divided by a whole number
    shell   the platform of a card that a host reaches over PCIe; XRT sets it as the linked xclbin says

The memory ports may have a clock of their own, from the wizard's same MMCM: a processing system's take up to 333 MHz.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any

from spvit.errors import ConfigError
from spvit.schema import Choice, Items, Number, Whole, check_fields

UNCERTAINTY = 0.27
"""Share of the period that Vitis HLS keeps for routing: its default (UG1399, set_clock_uncertainty), set on purpose."""
TOLERANCE = 1e-3
"""How far below the clock asked for a made one may be and still count as it."""
ROUNDING = 1e-4
"""How far above: what crystals are off by, and what a person rounds away who types 187.48 for 187.48125."""
SOURCES = ("wizard", "pl0", "shell")
PLL_MHZ = 1499.985
"""The IOPLL of a processing system whose file says nothing: 33.333 MHz x 90 / 2, the usual preset."""
SHELL_MHZ = 500.0
"""The fastest kernel clock of an Alveo platform whose file says nothing (UG1702, platforminfo: KERNEL_CLK)."""
WIZARD_INPUT_MHZ = 100
"""PL0 into the wizard is the IOPLL's nearest: what presets leave it at, and well inside an MMCM's input range."""

# MMCME4 (UG572, UG974): VCO = input x M / D, output = VCO / O; M and O in eighths, D whole
EIGHTHS = 8
MULTIPLY = (2 * EIGHTHS, 128 * EIGHTHS)
DIVIDE = (1, 106)
OUTPUT_DIVIDE = (2 * EIGHTHS, 128 * EIGHTHS)  # and 1; between 1 and 2 there is nothing
# its limits in MHz (DS925, MMCM switching characteristics); of the speed grades at 0.85 V, and -2LV at 0.72 V
VCO_MHZ = (800, 1600)
LEAST_PFD_MHZ = 10  # phase-frequency detector: input / D
MOST_PFD_MHZ = {"1": 450, "2": 500, "3": 550}
MOST_MHZ = {"1": 667, "2": 775, "3": 891, "2LV": 725}
"""Of an MMCM's output, and of the global clock buffer behind it or behind PL0."""
LEAST_WIZARD_MHZ = 10
"""An MMCM's output goes down to 6.25, where its steps are coarse."""
PORT_DIVIDE = (1, 128)
"""Of an MMCM's second output: whole numbers (UG572)."""
PL0_DIVISORS = 63
"""Of each of PL0's two dividers, six bits (UG1087, PL0_REF_CTRL)."""
MAKERS = {"wizard": "the MMCM of a Clocking Wizard", "pl0": "PL0"}


@dataclass(frozen=True)
class Clock:
    """A clock that can be made.

    mhz           what it comes out at, by the source's nominal frequency
    pl0_mhz       PL0 with its two divisors of the IOPLL; 0 where there is none
    multiply      M of the wizard's MMCM, divide D, output_divide O; all 1 without a wizard
    port_mhz      of the memory ports and their SmartConnects; 0: the accelerator's own
    port_divide   of the MMCM's second output, which makes it; 0: there is none
    """

    source: Annotated[str, Choice(*SOURCES)]
    mhz: Annotated[float, Number(0.01, 10_000)]
    pl0_mhz: Annotated[float, Number(0, 10_000)] = 0.0
    pl0_divisors: Annotated[tuple[int, int], Items(Whole(1, PL0_DIVISORS), "divisors", 2)] = (1, 1)
    multiply: Annotated[float, Number(1, 128)] = 1.0
    divide: Annotated[int, Whole(*DIVIDE)] = 1
    output_divide: Annotated[float, Number(1, 128)] = 1.0
    port_mhz: Annotated[float, Number(0, 10_000)] = 0.0
    port_divide: Annotated[int, Whole(0, PORT_DIVIDE[1])] = 0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def ratio(self) -> float:
        """The fabric's clock over PL0."""
        return self.multiply / self.divide / self.output_divide

    @property
    def least_pl0_mhz(self) -> float:
        """Below this the wizard's MMCM does not lock, and the design stays in reset."""
        return VCO_MHZ[0] * self.divide / self.multiply if self.source == "wizard" else 0.0

    def to_manifest(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio}


def usable_ns(clock_mhz: float) -> float:
    """Of a period: what is left for logic when the uncertainty is taken off."""
    return 1e3 / clock_mhz * (1 - UNCERTAINTY)


@lru_cache
def make_clock(source: str, source_mhz: float, part: str, mhz: float, port_mhz: float = 0.0) -> Clock:
    """The clock nearest to `mhz`, and not above it. Raises ConfigError, naming the nearest where none is near enough.

    source_mhz  the IOPLL; of a shell, its fastest kernel clock
    part        of the device: its speed grade limits an MMCM
    port_mhz    what the memory ports should run at, and not above it: a wizard makes that too; 0: they have no clock
    """
    if source == "shell":
        return _from_shell(source_mhz, mhz)
    grade = speed_grade(part)
    most = MOST_MHZ.get(grade, MOST_MHZ[grade[0]])
    least = LEAST_WIZARD_MHZ if source == "wizard" else source_mhz / PL0_DIVISORS**2
    if not least <= mhz <= most:
        raise ConfigError(f"cannot be made: {MAKERS[source]} makes {least:.4g} to {most:g} MHz on speed grade -{grade}")
    return _from_wizard(source_mhz, grade, mhz, port_mhz) if source == "wizard" else _from_pl0(source_mhz, mhz)


def speed_grade(part: str) -> str:
    """`2` of xczu9eg-ffvb1156-2-e, `2LV` of xck26-sfvc784-2LV-c; the slowest where a part has none."""
    found = re.search(r"-([123](?:LV?)?)(?:-|$)", part)
    return found[1] if found else "1"


def _from_shell(most_mhz: float, mhz: float) -> Clock:
    if mhz > most_mhz:
        raise ConfigError(f"cannot be made: the card's platform scales its kernel clock up to {most_mhz:g} MHz")
    return Clock("shell", mhz)


def _from_pl0(pll_mhz: float, mhz: float) -> Clock:
    dividers = pl0_dividers()
    slower = [divider for divider in dividers if pll_mhz / divider <= mhz * (1 + ROUNDING)]
    faster = [divider for divider in dividers if pll_mhz / divider > mhz * (1 + ROUNDING)]
    if slower and pll_mhz / slower[0] >= mhz * (1 - TOLERANCE):
        made = pll_mhz / slower[0]
        return Clock("pl0", _hertz(made), _hertz(made), _two_divisors(slower[0]))
    raise ConfigError(
        f"cannot be made: PL0 divides the IOPLL's {pll_mhz:g} MHz by a whole number; the nearest are "
        + " and ".join(f"{pll_mhz / divider:.2f} (by {divider})" for divider in (*slower[:1], *faster[-1:]))
    )


def pl0_dividers() -> list[int]:
    """What PL0 can divide by, least first: its two dividers in series."""
    return sorted({a * b for a in range(1, PL0_DIVISORS + 1) for b in range(1, a + 1)})


def _two_divisors(divider: int) -> tuple[int, int]:
    second = next(b for b in range(1, PL0_DIVISORS + 1) if divider % b == 0 and divider // b <= PL0_DIVISORS)
    return divider // second, second


def _from_wizard(pll_mhz: float, grade: str, mhz: float, port_mhz: float) -> Clock:
    divider = max(1, round(pll_mhz / WIZARD_INPUT_MHZ))
    pl0_mhz = pll_mhz / divider
    found = max(_mmcm_settings(pl0_mhz, grade, mhz, port_mhz), default=None)
    if found is None:
        raise ConfigError(f"cannot be made: no MMCM setting makes it from a PL0 of {pl0_mhz:.2f} MHz")
    multiply, divide, output = found.multiply / EIGHTHS, found.divide, found.output_divide / EIGHTHS
    vco = pl0_mhz * multiply / divide
    own = Clock("wizard", _hertz(vco / output), _hertz(pl0_mhz), _two_divisors(divider), multiply, divide, output)
    if not found.port_divide or found.port_divide == output:
        return own
    return replace(own, port_mhz=_hertz(vco / found.port_divide), port_divide=found.port_divide)


def _hertz(mhz: float) -> float:
    """As tools write a frequency."""
    return round(mhz, 6)


@dataclass(frozen=True)
class _Setting:
    """Of an MMCM, M and O in eighths; the greatest has the least error, then whole factors, then the fastest clock of
    the ports, then the fastest VCO."""

    error: Fraction
    port_divide: int
    port: Fraction
    vco: Fraction
    multiply: int
    divide: int
    output_divide: int

    def __lt__(self, other: _Setting) -> bool:
        return self._rank() < other._rank()

    def _rank(self) -> tuple[Fraction, bool, int, Fraction, Fraction]:
        is_whole = self.multiply % EIGHTHS == 0 and self.output_divide % EIGHTHS == 0
        return (-self.error, is_whole, -self.divide, self.port, self.vco)


def _mmcm_settings(input_mhz: float, grade: str, mhz: float, port_mhz: float) -> Iterator[_Setting]:
    """Every setting that makes `mhz` or less, by no more than the tolerance."""
    source, wanted = Fraction(input_mhz).limit_denominator(10**6), Fraction(mhz).limit_denominator(10**6)
    port = Fraction(port_mhz).limit_denominator(10**6)
    for divide in range(DIVIDE[0], DIVIDE[1] + 1):
        detector = source / divide
        if detector < LEAST_PFD_MHZ:
            return
        if detector > MOST_PFD_MHZ[grade[0]]:
            continue
        step = detector / EIGHTHS
        first, last = -(-VCO_MHZ[0] // step), VCO_MHZ[1] // step
        for multiply in range(max(int(first), MULTIPLY[0]), min(int(last), MULTIPLY[1]) + 1):
            vco = step * multiply
            output = -(-vco * EIGHTHS // wanted)  # rounded up: never faster than asked
            if output < OUTPUT_DIVIDE[0]:
                output = EIGHTHS if output <= EIGHTHS else OUTPUT_DIVIDE[0]
            error = 1 - vco * EIGHTHS / int(output) / wanted
            if output <= OUTPUT_DIVIDE[1] and 0 <= error <= TOLERANCE:
                # a difference that no crystal keeps is none: whole factors and a fast VCO are worth more
                port_divide = min(max(-(-vco // port), PORT_DIVIDE[0]), PORT_DIVIDE[1]) if port else 0
                made = vco / port_divide if port_divide else Fraction(0)
                yield _Setting(
                    Fraction(round(error * 2000), 2000), int(port_divide), made, vco, multiply, divide, int(output)
                )
