"""SPViT on the board: images in, logits and kept tokens out.

    with Accelerator("bundle") as accelerator:
        result = accelerator.infer("images")        # a folder, a file, arrays, Pillow images
        for image in accelerator.stream(camera):    # the next image is prepared while one runs
            print(image.logits.argmax(), image.tokens)

numpy, Pillow and pynq alone. One thread at a time; a second process is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from host.board import Board
from host.bundle import Bundle, load_bundle
from host.result import ImageResult, Inference, Timing, kept_patches, stage_tokens
from hw.interface import STATUS_CHECKSUM, STATUS_ERROR, STATUS_STAGES, UNWRITTEN, Error
from spvit.errors import (
    DeviceBusyError,
    DeviceError,
    DeviceTimeoutError,
    ImageError,
    RefusedError,
    WeightsChangedError,
)
from spvit.images.preprocess import Pixels
from spvit.images.sources import ImageSet, load_images

TIMEOUT_S = 10.0
OneImage = str | Path | Image.Image | NDArray[Any]
NETWORK_ERRORS = {
    Error.NUM_WORDS: "the weight stream is not as long as the step table that heads it says",
    Error.TABLE_VERSION: "the bitstream reads another version of the step table that heads the weights",
    Error.TABLE_CHECKSUM: "the step table that heads the weights has not the checksum that it says",
    Error.STEP: "a step of the network leaves the memories of this design",
}
"""Why the network that was sent may not run."""
REPORTED = (RefusedError, WeightsChangedError)
"""Errors that the accelerator itself answered: it has ended."""


class Accelerator:
    """A bundle on a device. Frees its buffers in `close`, at the end of `with`, and after each error.

    After an error the next call loads the weights afresh.
    """

    def __init__(
        self, bundle: Bundle | str | Path, device: Any | None = None, wait: str = "auto", timeout_s: float = TIMEOUT_S
    ) -> None:
        """Check the bundle, load the bitstream, load the weights.

        device     PYNQ's; None: the board's
        wait       "interrupt", "polling", or "auto": by interrupt where the overlay has one
        timeout_s  for one image
        Raises BundleError, DeviceError.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.timeout_s = timeout_s
        self._exclusive = threading.Lock()
        self._buffers: dict[str, Any] = {}
        self._is_open = True
        self._board = Board(self.bundle, device, wait)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Accelerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the buffers and let others use the device. Does nothing the second time."""
        self._free()
        self._is_open = False
        self._board.release()

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

    def infer(self, images: str | Path | ImageSet | NDArray[np.uint8] | Iterable[OneImage]) -> Inference:
        """All of `images`.

        images  a folder, a file, an ImageSet, pixels uint8 [N, S, S, C] or [S, S, C], or anything that `stream` takes
        Raises ImageError, DeviceError.
        """
        if isinstance(images, (str, Path)):
            images = load_images(images, self.bundle.preprocessing)
        if isinstance(images, Image.Image):
            images = [images]
        if isinstance(images, ImageSet):
            images = images.pixels
        if isinstance(images, np.ndarray) and images.ndim == 3:
            images = images[None]
        return Inference.of(list(self.stream(images)), self.bundle.interface, self.bundle.logits_frac_bits)

    def stream(self, images: Iterable[OneImage]) -> Iterator[ImageResult]:
        """One result per image; a thread takes and prepares the next image while the accelerator runs.

        images  each a path, a Pillow image, or pixels uint8 [S, S, C]
        Raises ImageError, DeviceError.
        """
        with self._alone(), ThreadPoolExecutor(1, "spvit preprocessing") as pool:
            self._board.check_clock()  # PL0 is anyone's to set
            source = iter(images)
            coming = pool.submit(self._prepare, source)
            while (prepared := coming.result()) is not None:
                coming = pool.submit(self._prepare, source)
                yield self._run(*prepared)

    def _prepare(self, source: Iterator[OneImage]) -> tuple[Pixels, float] | None:
        """The next image's pixels, and the milliseconds that they took; None at the end."""
        try:
            image = next(source)
        except StopIteration:
            return None
        start = time.perf_counter()
        pixels = self.pixels(image)
        return pixels, _ms_since(start)

    def pixels(self, image: OneImage) -> Pixels:
        """The image as the accelerator sees it: uint8 [S, S, C]. Raises ImageError."""
        preprocessing = self.bundle.preprocessing
        if isinstance(image, (str, Path)):
            pixels: Pixels = load_images(image, preprocessing).pixels[0]
            return pixels
        if isinstance(image, Image.Image):
            return preprocessing.to_uint8(image)
        shape = self.bundle.interface.image.shape
        if not isinstance(image, np.ndarray):
            raise ImageError(f"a {type(image).__name__} is no image; give a path, a Pillow image or an array")
        if image.dtype != np.uint8 or image.shape != shape:
            raise ImageError(
                f"an array of {image.dtype} {list(image.shape)}: pixels are uint8 {list(shape)}; give a Pillow image "
                "to have it resized and cropped"
            )
        return np.asarray(image, np.uint8)

    def _run(self, pixels: Pixels, preprocess_ms: float) -> ImageResult:
        self._load()
        try:
            return self._run_loaded(pixels, preprocess_ms)
        except BaseException as error:
            self._recover(error)
            raise

    def _run_loaded(self, pixels: Pixels, preprocess_ms: float) -> ImageResult:
        board, interface = self._board, self.bundle.interface
        image, logits, status = (self._buffers[name] for name in ("image", "logits", "status"))
        start = time.perf_counter()
        image[:] = pixels
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
            raise DeviceTimeoutError(self._where_it_stood(answer))
        self._check_answer(answer)
        logits.invalidate()
        scores = np.array(logits)
        transfer_ms = _ms_since(start) - compute_ms
        cycles = board.cycles()
        if cycles is not None:
            compute_ms = cycles / board.clock_mhz / 1e3
        if board.is_emulated:
            timing = Timing(None, None, None if cycles is None else compute_ms, cycles)
        else:
            timing = Timing(preprocess_ms, transfer_ms, compute_ms, cycles)
        return ImageResult(scores, stage_tokens(interface, answer), kept_patches(interface, answer), timing)

    def _check_answer(self, status: NDArray[np.int32]) -> None:
        error = int(status[STATUS_ERROR])
        bundle = self.bundle
        if error == Error.DIGEST:
            raise RefusedError(
                f"{bundle.folder}: the bitstream was built from another design than digest={bundle.digest[:8]}; deploy "
                "the bundle with its own bitstream"
            )
        if error != Error.NONE and error not in NETWORK_ERRORS:
            written = "nothing" if error == UNWRITTEN else f"error {error}, which this runtime does not know"
            raise DeviceError(
                f"{bundle.folder}: the accelerator finished and answered {written}; deploy the bundle with its own "
                "bitstream"
            )
        checksum = int(status[STATUS_CHECKSUM]) & 0xFFFF_FFFF
        if checksum != bundle.weights_checksum:
            raise WeightsChangedError(
                f"{bundle.folder}: the weights reached the accelerator changed, checksum 0x{checksum:08x} in place of "
                f"0x{bundle.weights_checksum:08x}; the next call loads them again, and if this returns, memory or its "
                "clock is at fault"
            )
        if error in NETWORK_ERRORS:
            raise RefusedError(f"{bundle.folder}: {NETWORK_ERRORS[Error(error)]}; deploy the bundle again")

    def _where_it_stood(self, status: NDArray[np.int32]) -> str:
        passed, stages = max(int(status[STATUS_STAGES]), 0), self.bundle.interface.num_stages
        return (
            f"{self.bundle.folder}: no result after {self.timeout_s:g} s; {passed} of {stages} token selectors were "
            f"passed ({self._board.where_it_stands()}); the accelerator was reset, raise timeout_s if the time was too "
            "short"
        )

    def _load(self) -> None:
        """Allocate what is not allocated, and send the weights: once, or again after an error."""
        if not self._is_open:
            raise DeviceError(f"{self.bundle.folder}: closed; make a new Accelerator")
        if not self._board.is_ready:  # its loading was interrupted
            self._board.program()
        if self._buffers:
            return
        interface = self.bundle.interface
        try:
            for buffer in interface.buffers:
                self._buffers[buffer.name] = self._board.allocate(buffer)
            for path, buffer in zip(self.bundle.weights, interface.weights, strict=True):
                memory = self._buffers[buffer.name]
                memory[:] = np.fromfile(path, buffer.dtype).reshape(buffer.shape)
                memory.flush()
        except BaseException:
            self._free()
            raise
        self._board.registers.num_words = interface.port_words
        self._board.registers.digest = interface.digest

    def _free(self) -> None:
        while self._buffers:
            self._buffers.popitem()[1].freebuffer()

    def _recover(self, error: BaseException) -> None:
        """Nothing may be left that still writes to freed memory: what did not end is ended by loading the bitstream."""
        try:
            if not isinstance(error, REPORTED):
                self._board.program()
        finally:
            self._free()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._exclusive.acquire(blocking=False):
            raise DeviceBusyError(
                f"{self.bundle.folder}: another thread, or a stream that was not read to its end, is using this "
                "accelerator; one at a time"
            )
        try:
            yield
        finally:
            self._exclusive.release()


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3
