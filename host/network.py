"""A network in the accelerator's memory: images in, logits and kept tokens out.

Made by `Accelerator.load`; several share an accelerator, one image at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from host.bundle import PackedNetwork
from host.result import ImageResult, Inference
from spvit.errors import ImageError
from spvit.images.preprocess import Pixels, Preprocessing
from spvit.images.sources import ImageSet, load_images

if TYPE_CHECKING:
    from host.accelerator import Accelerator

OneImage = str | Path | Image.Image | NDArray[Any]


class Network:
    """Resident until `close`, of its own or of its accelerator."""

    def __init__(self, accelerator: Accelerator, packed: PackedNetwork) -> None:
        """For `Accelerator.load`.

        memory  name of a weight port -> the buffer behind it; nothing while the weights are not there
        """
        self.accelerator, self.packed = accelerator, packed
        self.memory: dict[str, Any] = {}

    @property
    def preprocessing(self) -> Preprocessing:
        return self.packed.preprocessing

    def close(self) -> None:
        """Free its weights; the accelerator's other networks stay. Does nothing the second time.

        Raises DeviceBusyError.
        """
        self.accelerator.unload(self)

    def activate(self) -> int:
        """Point the accelerator at this network, as its next image otherwise does. Returns registers written.

        Raises DeviceError.
        """
        with self.accelerator.alone():
            return self.accelerator.activate(self)

    def infer(self, images: str | Path | ImageSet | NDArray[np.uint8] | Iterable[OneImage]) -> Inference:
        """All of `images`.

        images  a folder, a file, an ImageSet, pixels uint8 [N, S, S, C] or [S, S, C], or anything that `stream` takes
        Raises ImageError, DeviceError.
        """
        if isinstance(images, (str, Path)):
            images = load_images(images, self.preprocessing)
        if isinstance(images, Image.Image):
            images = [images]
        if isinstance(images, ImageSet):
            images = images.pixels
        if isinstance(images, np.ndarray) and images.ndim == 3:
            images = images[None]
        return Inference.of(list(self.stream(images)), self.packed.shapes, self.packed.logits_frac_bits)

    def stream(self, images: Iterable[OneImage]) -> Iterator[ImageResult]:
        """One result per image; a thread takes and prepares the next image while the accelerator runs.

        images  each a path, a Pillow image, or pixels uint8 [S, S, C]
        Raises ImageError, DeviceError.
        """
        accelerator = self.accelerator
        with accelerator.alone(), ThreadPoolExecutor(1, "spvit preprocessing") as pool:
            accelerator.check_clock()
            source = iter(images)
            coming = pool.submit(self._prepare, source)
            while (prepared := coming.result()) is not None:
                coming = pool.submit(self._prepare, source)
                yield accelerator.run(self, *prepared)

    def _prepare(self, source: Iterator[OneImage]) -> tuple[Pixels, float] | None:
        """The next image's pixels, and the milliseconds that they took; None at the end."""
        try:
            image = next(source)
        except StopIteration:
            return None
        start = time.perf_counter()
        pixels = self.pixels(image)
        return pixels, (time.perf_counter() - start) * 1e3

    def pixels(self, image: OneImage) -> Pixels:
        """The image as the accelerator sees it: uint8 [S, S, C]. Raises ImageError."""
        if isinstance(image, (str, Path)):
            pixels: Pixels = load_images(image, self.preprocessing).pixels[0]
            return pixels
        if isinstance(image, Image.Image):
            return self.preprocessing.to_uint8(image)
        shape = self.packed.shapes.image
        if not isinstance(image, np.ndarray):
            raise ImageError(f"a {type(image).__name__} is no image; give a path, a Pillow image or an array")
        if image.dtype != np.uint8 or image.shape != shape:
            raise ImageError(
                f"an array of {image.dtype} {list(image.shape)}: pixels are uint8 {list(shape)}; give a Pillow image "
                "to have it resized and cropped"
            )
        return np.asarray(image, np.uint8)
