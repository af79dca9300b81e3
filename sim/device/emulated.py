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

import asyncio
import ctypes
import itertools
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pynq import Device
from pynq.buffer import PynqBuffer
from pynq.interrupt import _InterruptController
from pynqmetadata.frontends import Metadata
from pynqmetadata.views.runtime import RuntimeMetadataParser

from host.bundle import MANIFEST, Bundle, load_bundle
from hw import interface as names
from hw.architecture import Architecture
from hw.interface import AP_DONE, AP_IDLE, AP_READY, AP_START, STATUS_ERROR, STATUS_STAGES, Interface
from hw.model.latency import Assumptions, assumptions
from hw.target import Target
from sim.bridge import CsimError, load_library, run_top
from sim.build import build_library
from sim.handoff import handoff
from sim.timed.timing import Clock
from spvit.errors import BundleError
from spvit.files import read_json
from spvit.schema import from_table

PAGE_BYTES = 4096
DDR_BASE = 0x1000_0000
PS_IRQ = 121  # the PS's number of pl_ps_irq0[0]
IOPLL_CTRL, PL0_REF_CTRL = 0xFF5E_0020, 0xFF5E_00C0
IOPLL_FBDIV = 60  # 33.333 MHz * 60 = 2000 MHz, from which 200 MHz divide evenly
NEVER = float("inf")
Cycles = Callable[[Sequence[int]], int]


@dataclass(frozen=True)
class Fault:
    """What the next run does in place of its duty.

    delay_s  how late it finishes; NEVER: it stops after the first token selector and stays busy
    error    what it answers in place of 0
    """

    delay_s: float = 0.0
    error: int | None = None


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
        self._ps_registers = {IOPLL_CTRL: IOPLL_FBDIV << 8, PL0_REF_CTRL: 1 << 24}
        folder = tempfile.mkdtemp(prefix="spvit-emulated-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.bitstream = Path(folder) / names.BITSTREAM
        self.bitstream.write_text(f"no bitstream: the emulated device runs the C-simulation of {self.bundle.digest}\n")
        self.bitstream.with_suffix(".hwh").write_text(
            handoff(overlay or self.bundle.interface, self.bundle.clock_mhz, interrupt)
        )
        Device.active_device = self

    # what PYNQ asks of a device

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> RuntimeMetadataParser:
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
        ddr = self.memory.at(self.kernel.address(f"weights_{port}"), names.WORD_BYTES * (word + 1))
        ddr[names.WORD_BYTES * word + bit // 8] ^= 1 << bit % 8

    def _cell(self, address: int) -> tuple[Any, int]:
        for base, cell in (
            (names.KERNEL_ADDRESS, self.kernel),
            (names.INTERRUPT_ADDRESS, self.controller),
            (names.TIMER_ADDRESS, self.timer),
        ):
            if base <= address < base + names.ADDRESS_RANGE:
                return cell, address - base
        return None, address

    def _read(self, address: int) -> int:
        cell, offset = self._cell(address)
        return int(cell.read(offset)) if cell is not None else self._ps_registers.get(offset, 0)

    def _write(self, address: int, value: int) -> None:
        cell, offset = self._cell(address)
        if cell is not None:
            cell.write(offset, value)
        else:
            self._ps_registers[offset] = value


@dataclass(eq=False)
class Allocation:
    """A buffer as the host's caches show it, and as it lies in DDR. uint8 [bytes] each"""

    address: int
    host: NDArray[np.uint8]
    ddr: NDArray[np.uint8]


class Memory:
    """Physically contiguous buffers, whole pages each."""

    def __init__(self, device: EmulatedDevice, size: int) -> None:
        self.device, self.size = device, size
        self.allocations: dict[int, Allocation] = {}

    @property
    def bytes_in_use(self) -> int:
        return sum(len(allocation.ddr) for allocation in self.allocations.values())

    def allocate(self, shape: Any, dtype: Any) -> PynqBuffer:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        pages = -(-nbytes // PAGE_BYTES) * PAGE_BYTES
        address = DDR_BASE
        for allocation in sorted(self.allocations.values(), key=lambda each: each.address):  # the first gap that fits
            if allocation.address - address >= pages:
                break
            address = allocation.address + len(allocation.ddr)
        if address + pages > DDR_BASE + self.size:
            raise RuntimeError("BO allocation failed: Cannot allocate memory")  # as PYNQ says it
        allocation = Allocation(address, np.zeros(pages, np.uint8), np.zeros(pages, np.uint8))
        self.allocations[address] = allocation
        buffer = PynqBuffer(
            shape, dtype, bo=allocation, device=self.device, buffer=allocation.host.data, device_address=address
        )
        buffer.memory, buffer.pointer, buffer.return_to = self, address, self
        buffer.freed = True  # nothing to unmap
        return buffer

    def return_pointer(self, address: int) -> None:
        """PYNQ calls this when a buffer is freed."""
        del self.allocations[address]

    def at(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """DDR as the accelerator's ports see it. Raises BusError."""
        for allocation in self.allocations.values():
            offset = address - allocation.address
            if offset >= 0 and offset + nbytes <= len(allocation.ddr):
                return allocation.ddr[offset : offset + nbytes]
        raise BusError(f"no buffer has {nbytes} bytes at 0x{address:x}")


class BusError(Exception):
    """The accelerator was sent to memory that nobody allocated."""


class Kernel:
    """The s_axilite registers of the top function, and its runs."""

    _simulating = threading.Lock()  # the C++ keeps its state in statics

    def __init__(self, device: EmulatedDevice, clear_on_read: bool, timed: bool, cycles: Cycles | None) -> None:
        self.device, self.clear_on_read, self.cycles = device, clear_on_read, cycles
        self.interface = device.bundle.interface
        self.library = load_library(build_library(device.bundle.folder / "src", timed=timed))
        self.clock = BundleClock(device.bundle, self.library) if timed else None
        self.runs = 0
        self.failures: list[str] = []  # why runs did not end, where the host has only a time-out to see
        self._guard = threading.RLock()
        self._generation = 0
        self.reset()

    def reset(self) -> None:
        with self._guard:
            self._generation += 1
            self._registers: dict[int, int] = {}
            self._control = AP_IDLE
            self._enabled, self._status, self._global = 0, 0, 0
            self._wire()

    def address(self, name: str) -> int:
        """That the host wrote for a buffer."""
        return self._register(name) | self._registers.get(self.interface.offsets[name] + 4, 0) << 32

    def read(self, offset: int) -> int:
        with self._guard:
            if offset == 0x00:
                control = self._control
                self._control &= ~(AP_DONE | AP_READY)
                return control
            if offset == 0x0C:
                status = self._status
                if self.clear_on_read:
                    self._status = 0
                    self._wire()
                return status
            return {0x04: self._global, 0x08: self._enabled}.get(offset, self._registers.get(offset, 0))

    def write(self, offset: int, value: int) -> None:
        with self._guard:
            if offset == 0x00:
                if value & AP_START and not self._control & AP_START:
                    self._start()
            elif offset == 0x04:
                self._global = value & 1
            elif offset == 0x08:
                self._enabled = value & 3
            elif offset == 0x0C:
                if not self.clear_on_read:
                    self._status ^= value & 3
            else:
                self._registers[offset] = value
            self._wire()

    def _wire(self) -> None:
        self.device.controller.set_input(bool(self._global and self._status))

    def _start(self) -> None:
        self._control = AP_START
        self.runs += 1
        fault = self.device.faults.pop(0) if self.device.faults else Fault()
        worker = threading.Thread(target=self._run, args=(self._generation, fault), name="emulated kernel", daemon=True)
        worker.start()

    def _run(self, generation: int, fault: Fault) -> None:
        interface = self.interface
        try:
            stripes = [self._view(buffer.name, buffer.nbytes) for buffer in interface.weights]
            image, logits, status = (
                self._view(buffer.name, buffer.nbytes)
                for buffer in (interface.image, interface.logits, interface.status)
            )
            scores, answer = logits.copy(), status.copy()
            with self._simulating:
                counters = None if self.clock is None else self.clock.start()
                run_top(
                    self.library, interface, [stripe.ctypes.data for stripe in stripes],
                    (self._register("num_words"), self._register("digest")),
                    (image.ctypes.data, scores.ctypes.data, answer.ctypes.data),
                )  # fmt: skip
                cycles = None if counters is None or self.clock is None else self.clock.cycles
        except (BusError, CsimError) as error:
            self.failures.append(str(error))
            return  # hardware would hang, or read nonsense: the host sees a kernel that does not finish
        words = answer.view(np.int32)
        if fault.delay_s == NEVER:
            last = min(1, interface.num_stages)
            words[STATUS_STAGES], words[STATUS_ERROR] = last, status.view(np.int32)[STATUS_ERROR]
            words[names.STATUS_HEADER + last * interface.stage_words :] = names.UNWRITTEN
            scores = logits.copy()
        elif fault.delay_s:
            threading.Event().wait(fault.delay_s)
        if fault.error is not None:
            words[STATUS_ERROR] = fault.error
        with self._guard:
            if generation != self._generation:
                return  # the bitstream was loaded anew meanwhile
            logits[:], status[:] = scores, answer
            if fault.delay_s == NEVER:
                return
            self._control = AP_DONE | AP_IDLE | AP_READY
            was_high = bool(self._global and self._status)
            self._status |= self._enabled & 1
            rises = not was_high and bool(self._global and self._status)
            if self.cycles is not None:
                cycles = self.cycles(words[names.STATUS_HEADER :: interface.stage_words].tolist())
            if cycles is not None:
                self.device.timer.capture(cycles, rises)
            self._wire()

    def _register(self, name: str) -> int:
        return self._registers.get(self.interface.offsets[name], 0)

    def _view(self, name: str, nbytes: int) -> NDArray[np.uint8]:
        return self.device.memory.at(self.address(name), nbytes)


class BundleClock(Clock):
    """Of a bundle's timed C-simulation, with its target's memory."""

    def __init__(self, bundle: Bundle, library: ctypes.CDLL) -> None:
        path = bundle.folder / MANIFEST
        manifest = read_json(path, "make the bundle again", BundleError)
        super().__init__(library, len(manifest["first_word_of_step"]))
        architecture = from_table(Architecture, manifest["architecture"], f"{path}: architecture", BundleError)
        target = from_table(Target, manifest["target"], f"{path}: target", BundleError)
        self._assumed = assumptions(architecture, target)

    def start(self, assumed: Assumptions | None = None) -> NDArray[np.int64]:
        return super().start(assumed or self._assumed)


class InterruptController:
    """AXI INTC (PG099) with one level-sensitive input, whose `irq` is the PS's first interrupt from the logic."""

    ISR, IPR, IER, IAR, SIE, CIE, MER = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x1C

    def __init__(self) -> None:
        self.line = InterruptLine()
        self._guard = threading.RLock()
        self.reset()

    def reset(self) -> None:
        with self._guard:
            self._input = False
            self._latched = self._enabled = self._master = 0
            self.line.set_level(False)

    def set_input(self, level: bool) -> None:
        with self._guard:
            self._input = level
            self._update()

    def read(self, offset: int) -> int:
        with self._guard:
            values = {
                self.ISR: self._latched, self.IPR: self._latched & self._enabled, self.IER: self._enabled,
                self.MER: self._master,
            }  # fmt: skip
            return values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        with self._guard:
            if offset == self.IAR:
                self._latched &= ~value  # a level that is still there latches again
            elif offset == self.IER:
                self._enabled = value
            elif offset == self.SIE:
                self._enabled |= value
            elif offset == self.CIE:
                self._enabled &= ~value
            elif offset == self.MER:
                self._master = value
            self._update()

    def _update(self) -> None:
        self._latched |= int(self._input)
        self.line.set_level(bool(self._master & 1 and self._latched & self._enabled))


class InterruptLine:
    """In the place of PYNQ's UioController: tells waiting events, once per `add_event`, that the line is high."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._level = False
        self._armed: list[tuple[asyncio.AbstractEventLoop, Any]] = []

    def add_event(self, event: Any, number: int) -> None:
        with self._guard:
            self._armed.append((asyncio.get_event_loop(), event))
            self._fire()

    def set_level(self, level: bool) -> None:
        with self._guard:
            self._level = level
            self._fire()

    def _fire(self) -> None:
        if self._level:
            armed, self._armed = self._armed, []
            for loop, event in armed:
                loop.call_soon_threadsafe(event.set)


class Timer:
    """AXI Timer (PG079), counter 0 in capture mode; it does not count, it is told."""

    TCSR0, TLR0 = 0x00, 0x04
    CAPTURE_MODE, CAPTURE_ENABLE, ENABLE, CAPTURED = 1 << 0, 1 << 3, 1 << 7, 1 << 8

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._control, self._load = 0, 0

    def capture(self, cycles: int, triggered: bool) -> None:
        wanted = self.CAPTURE_MODE | self.CAPTURE_ENABLE | self.ENABLE
        if triggered and self._control & wanted == wanted:
            self._load = cycles
            self._control |= self.CAPTURED

    def read(self, offset: int) -> int:
        return {self.TCSR0: self._control, self.TLR0: self._load}.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset == self.TCSR0:
            captured = self._control & self.CAPTURED & ~value  # a written 1 clears it
            self._control = value & ~self.CAPTURED | captured
        elif offset == self.TLR0:
            self._load = value


def emulate(bundle: str | Path) -> EmulatedDevice:
    """The bundle's device as the benchmark and the notebook want it: with estimated times."""
    return EmulatedDevice(bundle, timed=True)
