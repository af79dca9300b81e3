"""The emulated board's clock tree: the PS's IOPLL and its PL0, as registers that PYNQ reads and writes.

UG1087, CRL_APB: IOPLL_CTRL has FBDIV and DIV2, PL0_REF_CTRL its two divisors. The fabric's clock is PL0's times
the ratio of the design's Clocking Wizard, which has no registers.
"""

from __future__ import annotations

BASE = 0xFF5E_0000
IOPLL_CTRL, PL0_REF_CTRL = BASE + 0x20, BASE + 0xC0
DIV2, CLKACT = 1 << 16, 1 << 24
REFERENCE_MHZ = 33.333
"""What PYNQ takes the PS's reference clock for on every board."""


class ClockTree:
    """Registers of the PS, those of its clocks with the values that the board's first boot loader leaves."""

    def __init__(self, pl0_mhz: float, divisors: tuple[int, int]) -> None:
        feedback = round(2 * pl0_mhz * divisors[0] * divisors[1] / REFERENCE_MHZ)
        self.registers = {
            IOPLL_CTRL: feedback << 8 | DIV2,
            PL0_REF_CTRL: CLKACT | divisors[0] << 8 | divisors[1] << 16,
        }

    def read(self, address: int) -> int:
        return self.registers.get(address, 0)

    def write(self, address: int, value: int) -> None:
        self.registers[address] = value
