"""PYNQ's interrupts, in an event loop of their own, and what is left of them when a wait is given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from pynq.interrupt import _InterruptController

Result = TypeVar("Result")
_loop: asyncio.AbstractEventLoop | None = None


def in_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run in the one event loop that PYNQ's interrupts belong to: a thread of its own, since Jupyter's loop is busy.

    Who is interrupted here leaves nothing behind that still waits.
    """
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
        threading.Thread(target=_loop.run_forever, name="spvit interrupts", daemon=True).start()
    future = asyncio.run_coroutine_threadsafe(work, _loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def shortly(interrupt: Any, seconds: float) -> bool:
    """Whether the interrupt arrives within that time. Where it does not, PYNQ goes on listening for it."""
    try:
        await asyncio.wait_for(interrupt.wait(), seconds)
    except asyncio.TimeoutError:  # noqa: UP041 - two classes before Python 3.11, which the board may have
        return False
    return True


def forget_waits() -> None:
    """Nobody is waiting any more: a bitstream was loaded.

    PYNQ makes new controllers for it, but the PS's interrupt line still knows who waited before. The controller of a
    wait that was given up would be told first, acknowledge the interrupt and leave the one that waits for it asleep.
    """
    for line in _InterruptController._uio_devices.values():
        line.wait_events = []
    _InterruptController._controllers.clear()
