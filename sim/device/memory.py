"""The emulated board's DDR: contiguous buffers, each as the host's caches show it and as the accelerator's ports do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pynq import Device
from pynq.buffer import PynqBuffer

PAGE_BYTES = 4096
DDR_BASE = 0x1000_0000


@dataclass(eq=False)
class Allocation:
    """A buffer as the host's caches show it, and as it lies in DDR. uint8 [bytes] each"""

    address: int
    host: NDArray[np.uint8]
    ddr: NDArray[np.uint8]


class Memory:
    """Physically contiguous buffers, whole pages each."""

    def __init__(self, device: Device, size: int) -> None:
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
