"""A PYNQ device whose programmable logic is the C-simulation of the generated kernels.

Enters: a bundle or a build folder with `src/`. Host code runs on it unchanged, through PYNQ's Overlay, allocate and
register maps: register by register (s_axilite, AXI interrupt controller, AXI timer, the PS's clocks), buffer by buffer
(what was not flushed does not arrive), with interrupts. Time is not emulated: the design's timer shows the cycles that
the timed C-simulation counts for the image, an estimate, or nothing.

    device = EmulatedDevice("build/micro-zcu102")
    with Accelerator("build/micro-zcu102", device) as accelerator: ...

It can be told to misbehave: see `Fault`, `flip_weight_bit` and `contiguous_bytes`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from pynq import Clocks, Device
from pynq.buffer import PynqBuffer
from pynq.interrupt import _InterruptController
from pynqmetadata.frontends import Metadata
from pynqmetadata.views.runtime import RuntimeMetadataParser

from host.bundle import Bundle, load_bundle
from hw import interface as names
from hw.interface import Interface
from sim.device.clocks import ClockTree
from sim.device.interrupts import InterruptController, Timer
from sim.device.kernel import NEVER, Cycles, Fault, Kernel
from sim.device.memory import Allocation, Memory
from sim.handoff import handoff

__all__ = ["NEVER", "EmulatedDevice", "Fault", "emulate"]

PS_IRQ = 121  # the PS's number of pl_ps_irq0[0]


class EmulatedDevice(Device):
    """Becomes PYNQ's active device. One design at a time; its kernel runs in a thread, as hardware would."""

    is_emulated = True
    _tags = itertools.count()

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        tag: str | None = None,
        board: str | None = None,
        overlay: Interface | None = None,
        pl0_mhz: float | None = None,
        interrupt: bool = True,
        clear_on_read: bool = True,
        contiguous_bytes: int = 1 << 29,
        timed: bool = False,
        cycles: Cycles | None = None,
    ) -> None:
        """Compile the bundle's kernels where that was not done yet.

        tag               the device's name for other processes; None: nobody else's
        board             name of the board; None: the bundle's
        overlay           what the bitstream has for an interface; None: the bundle's
        pl0_mhz           that the bitstream's .hwh asks PYNQ for; None: the bundle's
        interrupt         whether the kernel's interrupt reaches the PS
        clear_on_read     IP_ISR as Vitis HLS has it since 2022.1; False: a written 1 toggles it
        contiguous_bytes  free memory for buffers
        timed             run the timed C-simulation, slower, and let the timer show its cycles
        cycles            what the timer shows in its place, by the image's rows after each token selector
        Raises BundleError, BuildError.
        """
        super().__init__(tag or f"emulated-{os.getpid()}-{next(self._tags)}")
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.board = board or self.bundle.board
        self.name = self.board
        self.arch = "aarch64"
        self.capabilities = {"REGISTER_RW": True}
        self.memory = Memory(self, contiguous_bytes)
        self.controller = InterruptController()
        self.timer = Timer()
        self.kernel = Kernel(self, clear_on_read, timed, cycles)
        self.faults: list[Fault] = []
        self.downloads = 0
        clock = self.bundle.clock
        own_pl0_mhz = clock.pl0_mhz or clock.mhz  # a card's platform makes its clock without one
        self.clocks = ClockTree(own_pl0_mhz, clock.pl0_divisors)
        folder = tempfile.mkdtemp(prefix="spvit-emulated-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.bitstream = Path(folder) / names.BITSTREAM
        self.bitstream.write_text(
            f"no bitstream: the emulated device runs the C-simulation of {self.bundle.digest}\n", encoding="utf-8"
        )
        self.bitstream.with_suffix(".hwh").write_text(
            handoff(overlay or self.bundle.interface, pl0_mhz or own_pl0_mhz, interrupt), encoding="utf-8"
        )
        Device.active_device = self

    # what PYNQ asks of a device

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> RuntimeMetadataParser:
        if hasattr(Clocks, "_real_instance"):  # PYNQ keeps the first device's clocks: on a board there is no other
            del Clocks._real_instance
        return RuntimeMetadataParser(Metadata(input=str(Path(bitfile_name).with_suffix(".hwh"))))

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Everything in the programmable logic starts anew; a run that was under way never ends."""
        self.downloads += 1
        self.kernel.reset()
        self.controller.reset()
        self.timer.reset()
        _InterruptController._uio_devices[PS_IRQ] = self.controller.line
        super().post_download(bitstream, parser, self.name)

    def allocate(self, shape: Any, dtype: Any, **_: Any) -> PynqBuffer:
        return self.memory.allocate(shape, dtype)

    def flush(self, bo: Allocation, offset: int, ptr: int, size: int) -> None:
        """PYNQ's are of the whole buffer, whatever the slice."""
        bo.ddr[:] = bo.host

    def invalidate(self, bo: Allocation, offset: int, ptr: int, size: int) -> None:
        bo.host[:] = bo.ddr

    def read_registers(self, address: int, length: int) -> bytes:
        words = (self._read(address + 4 * i) for i in range(length // 4))
        return b"".join(word.to_bytes(4, "little") for word in words)

    def write_registers(self, address: int, data: bytes) -> None:
        for i in range(0, len(data), 4):
            self._write(address + i, int.from_bytes(bytes(data[i : i + 4]), "little"))

    # misbehaviour

    def flip_weight_bit(self, port: int, word: int, bit: int) -> None:
        """One bit of what lies in memory, until the host writes it again."""
        nbytes = 2 * self.kernel.interface.stripe_lanes
        ddr = self.memory.at(self.kernel.address(f"weights_{port}"), nbytes * (word + 1))
        ddr[nbytes * word + bit // 8] ^= 1 << bit % 8

    def _cell(self, address: int) -> tuple[Any, int]:
        for base, cell in (
            (names.KERNEL_ADDRESS, self.kernel),
            (names.INTERRUPT_ADDRESS, self.controller),
            (names.TIMER_ADDRESS, self.timer),
        ):
            if base <= address < base + names.ADDRESS_RANGE:
                return cell, address - base
        return self.clocks, address

    def _read(self, address: int) -> int:
        cell, offset = self._cell(address)
        return int(cell.read(offset))

    def _write(self, address: int, value: int) -> None:
        cell, offset = self._cell(address)
        cell.write(offset, value)


def emulate(bundle: str | Path) -> EmulatedDevice:
    """The bundle's device as the benchmark and the notebook want it: with estimated times."""
    return EmulatedDevice(bundle, timed=True)
