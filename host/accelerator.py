"""SPViT on the board: images in, logits and kept tokens out.

    with Accelerator("bundle") as accelerator:
        result = accelerator.infer("images")        # a folder, a file, arrays, Pillow images
        for image in accelerator.stream(camera):    # the next image is prepared while one runs
            print(image.logits.argmax(), image.tokens)

One bitstream runs every network that was packed for its design. Those that are loaded lie in memory side by side:

        pruned = accelerator.load("bundle/networks/deit_s")
        unpruned = accelerator.load("bundle/networks/deit_s-keep-none")
        pruned.infer("images"), unpruned.infer("images")    # other addresses in the registers, nothing else

numpy, Pillow and pynq alone. One thread at a time; a second process is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from host.answer import REPORTED, check_answer
from host.board import Board
from host.bundle import Bundle, PackedNetwork, load_bundle, load_network
from host.network import Network, OneImage
from host.result import ImageResult, Inference, Timing, kept_patches, stage_tokens
from hw.interface import STATUS_STAGES, UNWRITTEN, Buffer
from spvit.errors import BundleError, DeviceBusyError, DeviceError, DeviceTimeoutError
from spvit.files import read_bytes
from spvit.images.preprocess import Pixels
from spvit.images.sources import ImageSet

TIMEOUT_S = 10.0


class Accelerator:
    """A design on a device, with its networks. Frees its buffers in `close` and at the end of `with`.

    After an error, the next call brings back what was given up for it: the network that ran, not the others.
    """

    def __init__(
        self, bundle: Bundle | str | Path, device: Any | None = None, wait: str = "auto", timeout_s: float = TIMEOUT_S
    ) -> None:
        """Check the bundle, load the bitstream, and load its network where it holds one alone.

        device     PYNQ's; None: the board's
        wait       "interrupt", "polling", or "auto": by interrupt where the overlay has one
        timeout_s  for one image
        Raises BundleError, DeviceError.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.timeout_s = timeout_s
        self.networks: list[Network] = []
        own = load_network(self.bundle.networks[0], self.bundle) if len(self.bundle.networks) == 1 else None
        self._own: Network | None = None
        self._active: Network | None = None  # that the registers speak of
        self._exclusive = threading.Lock()
        self._buffers: dict[str, Any] = {}
        self._is_open = True
        self._board = Board(self.bundle, device, wait)
        try:
            self._own = None if own is None else self.load(own)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the buffers and let others use the device. Does nothing the second time."""
        for memory in (self._buffers, *(network.memory for network in self.networks)):
            _free(memory)
        self.networks.clear()
        self._is_open = False
        self._board.release()

    # --- networks ---

    def load(self, network: PackedNetwork | str | Path) -> Network:
        """Send a network's weights to memory, beside those that are there.

        network  a folder with network.json and its stripes, or a build folder or bundle that holds one
        Raises BundleError, DeviceError.
        """
        packed = network if isinstance(network, PackedNetwork) else load_network(network, self.bundle)
        with self.alone():
            loaded = Network(self, packed)
            self.networks.append(loaded)
            try:
                self._bring(loaded)
            except BaseException:
                self.networks.remove(loaded)
                raise
        return loaded

    def unload(self, network: Network) -> None:
        """Free a network's weights. Does nothing the second time. Raises DeviceBusyError."""
        if network not in self.networks:
            return
        with self.alone():
            self.networks.remove(network)
            self._active = None if self._active is network else self._active
            _free(network.memory)

    @property
    def network(self) -> Network:
        """The one that came with the bundle. Raises BundleError where none did, or several."""
        if self._own is None:
            names = ", ".join(folder.name for folder in self.bundle.networks)
            raise BundleError(
                f"{self.bundle.folder}: it holds {f'several networks ({names})' if names else 'no network'}; load one "
                "with Accelerator.load, or name it with --network"
            )
        return self._own

    def infer(self, images: str | Path | ImageSet | NDArray[np.uint8] | Iterable[OneImage]) -> Inference:
        """By the bundle's own network, see `Network.infer`."""
        return self.network.infer(images)

    def stream(self, images: Iterable[OneImage]) -> Iterator[ImageResult]:
        """By the bundle's own network, see `Network.stream`."""
        return self.network.stream(images)

    # --- the device ---

    @property
    def is_emulated(self) -> bool:
        """Whether this is C-simulation behind the emulated device: its times are estimates from the cycle model."""
        return self._board.is_emulated

    @property
    def waits_by_interrupt(self) -> bool:
        return self._board.waits_by_interrupt

    @property
    def clock_mhz(self) -> float:
        return self._board.clock_mhz

    def check_clock(self) -> None:
        """PL0 is anyone's to set. Raises DeviceError."""
        self._board.check_clock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For whoever uses the device. Raises DeviceBusyError."""
        if not self._exclusive.acquire(blocking=False):
            raise DeviceBusyError(
                f"{self.bundle.folder}: another thread, or a stream that was not read to its end, is using this "
                "accelerator; one at a time"
            )
        try:
            yield
        finally:
            self._exclusive.release()

    def run(self, network: Network, pixels: Pixels, preprocess_ms: float) -> ImageResult:
        """One image, within `alone`. Raises DeviceError."""
        self.activate(network)
        try:
            return self._run_active(network.packed, pixels, preprocess_ms)
        except BaseException as error:
            self._recover(network, error)
            raise

    def activate(self, network: Network) -> int:
        """Have the registers speak of this network, within `alone`. Returns how many were written; 0: they did.

        Raises DeviceError.
        """
        self._bring(network)
        if self._active is network:
            return 0
        self._active = None
        values = self.bundle.interface.registers_of(network.packed.shapes)
        written = self._board.point(self._buffers | network.memory, values)
        self._active = network
        return written

    def _run_active(self, network: PackedNetwork, pixels: Pixels, preprocess_ms: float) -> ImageResult:
        board, interface, shapes = self._board, self.bundle.interface, network.shapes
        image, logits, status = (self._buffers[name] for name in ("image", "logits", "status"))
        start = time.perf_counter()
        image[: pixels.size] = pixels.reshape(-1)
        image.flush()
        status[:] = UNWRITTEN
        status.flush()
        started = time.perf_counter()
        board.start()
        finished = board.wait(self.timeout_s)
        compute_ms = _ms_since(started)
        status.invalidate()
        answer = np.array(status)
        if not finished:
            raise DeviceTimeoutError(self._where_it_stood(network, answer))
        check_answer(self.bundle, network, answer)
        logits.invalidate()
        scores = np.array(logits[: shapes.num_classes])
        transfer_ms = _ms_since(start) - compute_ms
        cycles = board.cycles()
        if cycles is not None:
            compute_ms = cycles / board.clock_mhz / 1e3
        if board.is_emulated:
            timing = Timing(None, None, None if cycles is None else compute_ms, cycles)
        else:
            timing = Timing(preprocess_ms, transfer_ms, compute_ms, cycles)
        tokens, kept = stage_tokens(interface, shapes, answer), kept_patches(interface, shapes, answer)
        return ImageResult(scores, tokens, kept, timing)

    def _where_it_stood(self, network: PackedNetwork, status: NDArray[np.int32]) -> str:
        passed, stages = max(int(status[STATUS_STAGES]), 0), network.shapes.num_stages
        return (
            f"{network.folder}: no result after {self.timeout_s:g} s; {passed} of {stages} token selectors were "
            f"passed ({self._board.where_it_stands()}); the accelerator was reset, raise timeout_s if the time was too "
            "short"
        )

    def _bring(self, network: Network) -> None:
        """Allocate what is not allocated, and send the network's weights: once, or again after an error.

        Raises BundleError, DeviceError.
        """
        if not self._is_open:
            raise DeviceError(f"{self.bundle.folder}: closed; make a new Accelerator")
        if network not in self.networks:
            raise DeviceError(f"{network.packed.folder}: this network was closed; load it again")
        if not self._board.is_ready:  # its loading was interrupted
            self._board.program()
        interface = self.bundle.interface
        if not self._buffers:
            self._allocate((interface.image, interface.logits, interface.status), self._buffers)
        if not network.memory:
            self._send_weights(network)

    def _send_weights(self, network: Network) -> None:
        packed = network.packed
        buffers = self.bundle.interface.weights(packed.shapes.num_words)
        self._allocate(buffers, network.memory)
        try:
            for path, buffer in zip(packed.weights, buffers, strict=True):
                content = read_bytes(path, "copy the bundle again", BundleError, buffer.nbytes)
                if len(content) != buffer.nbytes:  # it was whole when the network was loaded
                    raise BundleError(f"{path}: {len(content)} bytes of {buffer.nbytes}; copy the bundle again")
                memory = network.memory[buffer.name]
                memory[:] = np.frombuffer(content, buffer.dtype).reshape(buffer.shape)
                memory.flush()
        except BaseException:
            _free(network.memory)
            raise

    def _allocate(self, buffers: Iterable[Buffer], memory: dict[str, Any]) -> None:
        """All of `buffers`, by name, or none. Raises DeviceMemoryError."""
        try:
            for buffer in buffers:
                memory[buffer.name] = self._board.allocate(buffer, self._resident())
        except BaseException:
            _free(memory)
            raise

    def _resident(self) -> str:
        """What this accelerator holds of the device's memory, in words."""
        own = [(f"{network.packed.folder}", network.memory) for network in self.networks if network.memory]
        held = [("the image and its results", self._buffers), *own] if self._buffers else own
        sizes = [f"{name} ({sum(each.nbytes for each in memory.values()) / 1e6:.1f} MB)" for name, memory in held]
        return " and ".join([", ".join(sizes[:-1]), sizes[-1]] if len(sizes) > 1 else sizes) or "nothing of ours"

    def _recover(self, network: Network, error: BaseException) -> None:
        """Nothing may be left that still writes to freed memory: what did not end is ended by loading the bitstream."""
        self._active = None
        try:
            if not isinstance(error, REPORTED):
                self._board.program()
        finally:
            _free(self._buffers)
            _free(network.memory)


def _free(memory: dict[str, Any]) -> None:
    while memory:
        memory.popitem()[1].freebuffer()


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
