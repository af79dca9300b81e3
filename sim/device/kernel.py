"""The emulated board's accelerator: its s_axilite registers, and runs of the C-simulation behind them."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from host.bundle import Bundle
from hw import interface as names
from hw.facts import read_top
from hw.interface import AP_DONE, AP_IDLE, AP_READY, AP_START, STATUS_ERROR, STATUS_STAGES
from hw.manifest import read_design
from hw.model.latency import assumptions
from sim.bridge import CsimError, load_library, run_top
from sim.build import build_library
from sim.device.interrupts import InterruptController, Timer
from sim.device.memory import BusError, Memory
from sim.timed.timing import Clock

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


class Surroundings(Protocol):
    """What the kernel is wired to, and what it is told to do wrong."""

    bundle: Bundle
    memory: Memory
    controller: InterruptController
    timer: Timer
    faults: list[Fault]


class Kernel:
    """The s_axilite registers of the top function, and its runs."""

    _simulating = threading.Lock()  # the C++ keeps its state in statics

    def __init__(self, device: Surroundings, clear_on_read: bool, timed: bool, cycles: Cycles | None) -> None:
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
            registers = {name: self._register(name) for name in ("num_words", "digest", "image_words")}
            stripes = [
                self._view(buffer.name, registers["num_words"] * interface.stripe_bytes)
                for buffer in interface.weights()
            ]
            image = self._view("image", registers["image_words"] * interface.image_lanes)
            logits, status = (self._view(buffer.name, buffer.nbytes) for buffer in (interface.logits, interface.status))
            scores, answer = logits.copy(), status.copy()
            with self._simulating:
                if self.clock is not None:
                    self.clock.begin()
                run_top(self.library, stripes, registers, (image, scores, answer))
                cycles = None if self.clock is None else self.clock.cycles
        except (BusError, CsimError) as error:
            self.failures.append(str(error))
            return  # hardware would hang, or read nonsense: the host sees a kernel that does not finish
        words = answer.view(np.int32)
        if fault.delay_s == NEVER:
            last = min(1, int(words[STATUS_STAGES]))
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
                passed = words[names.STATUS_HEADER :: interface.stage_words][: words[STATUS_STAGES]]
                cycles = self.cycles(passed.tolist())
            if cycles is not None:
                self.device.timer.capture(cycles, rises)
            self._wire()

    def _register(self, name: str) -> int:
        return self._registers.get(self.interface.offsets[name], 0)

    def _view(self, name: str, nbytes: int) -> NDArray[np.uint8]:
        return self.device.memory.at(self.address(name), nbytes)


class BundleClock(Clock):
    """Of a bundle's timed C-simulation, with its target's memory, for programs as long as the design takes."""

    def __init__(self, bundle: Bundle, library: ctypes.CDLL) -> None:
        super().__init__(library, bundle.hardware.max_steps)
        self._assumed = assumptions(bundle.hardware.architecture, read_design(bundle.folder).target)
        self._facts = read_top(bundle.folder / "src")
        self._counters: NDArray[np.int64] | None = None

    def begin(self) -> None:
        """Before a run."""
        self._counters = self.start(self._assumed, self._facts)  # the library writes there until the next one
