"""The overlay through PYNQ: registers by name, buffers, its clock, waiting by interrupt or by polling.

Nothing here knows of images; `host.accelerator` does. The emulated device runs this very code.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pynq import Clocks, Device, Overlay, allocate

from host.bundle import Bundle
from host.interrupts import forget_waits, in_loop, shortly
from host.lock import Lock
from hw.clock import TOLERANCE
from hw.interface import (
    AP_DONE,
    AP_IDLE,
    AP_START,
    BITSTREAM,
    BITSTREAM_FOLDER,
    INTERRUPT_PIN,
    KERNEL_CELL,
    TIMER_CELL,
    Buffer,
)
from spvit.errors import BundleError, DeviceError, DeviceMemoryError

BOARD_NAME = Path("/proc/device-tree/chosen/pynq_board")
POLL_SECONDS = 50e-6
LOOK_SECONDS = 0.25  # a hundred images: what a lost interrupt costs, once
GRACE_SECONDS = 0.05
MODES = ("auto", "interrupt", "polling")

# AXI Timer (PG079), counter 0: counts up, captures when capturetrig0 rises
TCSR0, TLR0, TCR0 = 0x00, 0x04, 0x08
CAPTURE_MODE, CAPTURE_ENABLE, LOAD, ENABLE, CAPTURED = 1 << 0, 1 << 3, 1 << 5, 1 << 7, 1 << 8


class Board:
    """A design's overlay on a device, held until `release`."""

    def __init__(self, bundle: Bundle, device: Any | None = None, wait: str = "auto") -> None:
        """Raises BundleError, DeviceError."""
        assert wait in MODES, wait
        self.bundle, self.interface = bundle, bundle.interface
        self.device = device if device is not None else _active_device()
        self.is_emulated = bool(getattr(self.device, "is_emulated", False))
        self._bitstream = self._find_bitstream()
        self._check_board()
        self.clock_mhz = 0.0
        self._lock = Lock(self.device.tag)
        try:
            self.program()
            if wait == "interrupt" and self._interrupt is None:
                raise DeviceError(
                    f"{self._bitstream}: its {KERNEL_CELL}/{INTERRUPT_PIN} reaches no interrupt of the PS; use "
                    'wait="polling"'
                )
        except BaseException:
            self.release()
            raise
        self.waits_by_interrupt = wait != "polling" and self._interrupt is not None

    def program(self) -> None:
        """Load the bitstream; this also ends whatever the accelerator was doing. Raises DeviceError."""
        self.is_ready = False  # until the end: whoever interrupts this leaves nothing that runs
        try:
            self._overlay = Overlay(str(self._bitstream), device=self.device)
        except Exception as error:  # noqa: BLE001 - PYNQ and its parsers raise whatever a broken overlay leads them into
            raise DeviceError(
                f"{self._bitstream}: PYNQ could not load it ({_one_line(error)}); run as root, with the PYNQ image "
                "that the bundle's README names"
            ) from None
        self._check_registers()
        self.check_clock()  # before the first register is touched: a design without a clock does not answer the bus
        self._kernel = in_loop(self._open_kernel())
        self._interrupt: Any = getattr(self._kernel, INTERRUPT_PIN, None)
        self._timer = getattr(self._overlay, TIMER_CELL) if TIMER_CELL in self._overlay.ip_dict else None
        if self._interrupt is not None:
            self.registers.GIER = 1
            self.registers.IP_IER = 1
        self.is_ready = True

    def check_clock(self) -> None:
        """Read what the fabric runs at: `clock_mhz`. Raises DeviceError above the design's clock; warns below it, once.

        PYNQ takes the PS's reference for 33.333 MHz, whatever the board's preset says: a thousandth is no other clock.
        """
        clock, wanted = self.bundle.clock, self.bundle.clock_mhz
        pl0_mhz = float(Clocks.fclk0_mhz)
        found = pl0_mhz * clock.ratio
        what = f"the accelerator's clock is {found:.2f} MHz (PL0 at {pl0_mhz:.2f}" + (
            f", times {clock.ratio:g} by the design's Clocking Wizard)" if clock.source == "wizard" else ")"
        )
        mend = (
            f"load it beside the .hwh that make bitstream left, which sets PL0 to {clock.pl0_mhz:.2f}, and leave "
            "Clocks.fclk0_mhz alone"
        )
        if found > wanted * (1 + TOLERANCE):
            raise DeviceError(f"{self._bitstream}: {what}, above the {wanted:g} that the bundle was built for; {mend}")
        if pl0_mhz < clock.least_pl0_mhz:
            raise DeviceError(
                f"{self._bitstream}: {what}, and its MMCM does not lock with PL0 below {clock.least_pl0_mhz:.2f}; "
                f"{mend}"
            )
        if found < wanted * (1 - TOLERANCE) and found != self.clock_mhz:
            warnings.warn(
                f"{self._bitstream}: {what}, below the {wanted:g} that the bundle was built for; figures are for "
                f"{found:.2f} MHz; {mend}",
                stacklevel=2,
            )
        self.clock_mhz = found

    def release(self) -> None:
        """Let the next process have it. Does nothing the second time."""
        self._lock.release()

    @property
    def registers(self) -> Any:
        """PYNQ's register map of the kernel."""
        return self._kernel.register_map

    def allocate(self, buffer: Buffer, resident: str) -> Any:
        """Contiguous memory, which `point` makes the accelerator's.

        resident  what lies there already, in words
        Raises DeviceMemoryError.
        """
        try:
            return allocate(buffer.shape, buffer.dtype, target=self.device)
        except (RuntimeError, MemoryError, OSError) as error:
            raise DeviceMemoryError(
                f"no contiguous memory for {buffer.name}, {buffer.nbytes / 1e6:.1f} MB, beside {resident} "
                f"({_one_line(error)}); close networks that are not in use, or other notebooks that hold buffers, or "
                "boot with a larger cma= on the kernel's command line"
            ) from None

    def point(self, memories: Mapping[str, Any], values: Mapping[str, int]) -> int:
        """Write the registers: addresses of `memories`, by the buffers' names, and `values`. Returns how many."""
        written = dict(values)
        for buffer in self.interface.buffers:
            low, high = buffer.address_registers
            address = memories[buffer.name].physical_address
            written |= {low: address & 0xFFFF_FFFF, high: address >> 32}
        for name, value in written.items():
            setattr(self.registers, name, value)
        return len(written)

    def start(self) -> None:
        """Run once."""
        if self._timer is not None:
            self._timer.write(TLR0, 0)
            self._timer.write(TCSR0, LOAD)
            self._timer.write(TCSR0, CAPTURE_MODE | CAPTURE_ENABLE | ENABLE | CAPTURED)
        self.registers.CTRL = AP_START

    def wait(self, timeout_s: float) -> bool:
        """Whether it finished in time."""
        deadline = time.perf_counter() + timeout_s
        if self.waits_by_interrupt:
            finished, arrived = in_loop(self._wait_interrupt(deadline))
            if not arrived:
                self.waits_by_interrupt = False
                warnings.warn(
                    f"{self._bitstream}: the accelerator finished and no interrupt arrived; it is polled from here on, "
                    "and a new Accelerator waits by interrupt again",
                    stacklevel=2,
                )
        else:
            finished = self._poll(deadline)
        if finished and self._interrupt is not None:
            self._clear_interrupt()
        return finished

    def cycles(self) -> int | None:
        """Between start and interrupt, by the design's timer; None where it has none, or it did not trigger."""
        if self._timer is None or self._interrupt is None or not self._timer.read(TCSR0) & CAPTURED:
            return None
        return int(self._timer.read(TLR0)) or None

    def where_it_stands(self) -> str:
        """The control register in words."""
        control = int(self.registers.CTRL)
        if control & (AP_DONE | AP_IDLE):
            state = "idle: it finished, or never started"
        else:
            state = "running" if control & AP_START else "not started"
        return f"CTRL=0x{control:x}, {state}"

    async def _open_kernel(self) -> Any:
        forget_waits()
        return getattr(self._overlay, KERNEL_CELL)  # in the loop that its interrupts will arrive in

    async def _wait_interrupt(self, deadline: float) -> tuple[bool, bool]:
        """Whether it finished, and whether it said so.

        An interrupt may be left over from before, so it is only a reason to look; and none may come, so this looks now
        and then all the same.
        """
        while not self._is_finished():
            remaining = deadline - time.perf_counter()
            if remaining <= 0:
                return False, True
            if not await shortly(self._interrupt, min(remaining, LOOK_SECONDS)) and self._is_finished():
                return True, await shortly(self._interrupt, GRACE_SECONDS)
        return True, True

    def _poll(self, deadline: float) -> bool:
        while not self._is_finished():
            if time.perf_counter() > deadline:
                return False
            time.sleep(POLL_SECONDS)  # lets the preprocessing of the next image run
        return True

    def _is_finished(self) -> bool:
        """Reading AP_DONE clears it, so this is asked until it says yes once."""
        return bool(int(self.registers.CTRL) & (AP_DONE | AP_IDLE))

    def _clear_interrupt(self) -> None:
        """Up to Vitis HLS 2021 a written 1 toggles the bit, since then reading clears it."""
        if int(self.registers.IP_ISR) and (left := int(self.registers.IP_ISR)):
            self.registers.IP_ISR = left

    def _find_bitstream(self) -> Path:
        own = getattr(self.device, "bitstream", None)  # the emulated device brings its own
        path = self.bundle.bitstream if own is None else Path(own)
        if path is None:
            raise DeviceError(
                f"{self.bundle.folder}: no {BITSTREAM_FOLDER}/{BITSTREAM}, it was packed before make bitstream ran; "
                "make it where Vivado is, or use the emulated device (--emulated, in a checkout of the project)"
            )
        return path

    def _check_board(self) -> None:
        board = getattr(self.device, "board", None)
        if board is None and BOARD_NAME.exists():
            board = BOARD_NAME.read_text(encoding="utf-8").strip("\0\n ")
        if board is not None and board.lower() != self.bundle.board.lower():
            raise BundleError(
                f"{self.bundle.folder}: made for {self.bundle.board}, and this board is {board}; make it again with "
                f"TARGET={board.lower()}"
            )

    def _check_registers(self) -> None:
        cells = self._overlay.ip_dict
        if KERNEL_CELL not in cells:
            raise DeviceError(
                f"{self._bitstream}: it has no {KERNEL_CELL}, only {', '.join(sorted(cells)) or 'nothing'}; deploy the "
                "bundle with the bitstream that make bitstream leaves"
            )
        found = cells[KERNEL_CELL]["registers"]
        for register in self.interface.registers:
            offset = found.get(register.name, {}).get("address_offset")
            if offset != register.offset:
                stands = "is missing" if offset is None else f"is at 0x{offset:02x}"
                raise DeviceError(
                    f"{self._bitstream}: register {register.name} {stands}, the manifest has it at "
                    f"0x{register.offset:02x}; the bitstream belongs to another design, make it again"
                )


def _active_device() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PYNQ's own word on it; ours follows
            return Device.active_device
    except RuntimeError:
        raise DeviceError(
            "PYNQ finds no board here; run this on the ZCU102 as root, or use the emulated device (--emulated, in a "
            "checkout of the project)"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
