"""The emulated board's interrupts: AXI INTC, the line from it to the PS, and the AXI Timer that captures at it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any


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
    """In the place of PYNQ's UioController: tells waiting events, once per `add_event`, that the line is high.

    As there, `wait_events` know nothing of bitstreams: who waited when one was loaded is still told.
    """

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._level = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.wait_events: list[Any] = []

    def add_event(self, event: Any, number: int) -> None:
        with self._guard:
            self._loop = asyncio.get_event_loop()
            self.wait_events.append(event)
            self._fire()

    def set_level(self, level: bool) -> None:
        with self._guard:
            self._level = level
            self._fire()

    def _fire(self) -> None:
        if self._level and self._loop is not None:
            waiting, self.wait_events = self.wait_events, []
            for event in waiting:
                self._loop.call_soon_threadsafe(event.set)


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
