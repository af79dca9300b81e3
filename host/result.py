"""What the accelerator leaves in its result buffers, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hw.interface import KEEP_ROWS_PER_WORD, STATUS_HEADER, Interface, Shapes


@dataclass(frozen=True)
class Timing:
    """Of one image. On the emulated device only what the cycle model gives, an estimate; None: not known.

    preprocess_ms  from the image to uint8 pixels
    transfer_ms    pixels to the accelerator's memory, results back, caches
    compute_ms     from start to interrupt: the design's own timer, or the host's clock where there is none
    cycles         of the accelerator's clock, by that timer
    """

    preprocess_ms: float | None
    transfer_ms: float | None
    compute_ms: float | None
    cycles: int | None


@dataclass(frozen=True)
class ImageResult:
    """logits  int16 [classes]
    tokens  rows after each token selector
    kept    per token selector, the patches it kept: int64 [kept], row by row over the image
    """

    logits: NDArray[np.int16]
    tokens: tuple[int, ...]
    kept: tuple[NDArray[np.int64], ...]
    timing: Timing


@dataclass(frozen=True)
class Inference:
    """Of several images.

    logits     int16 [images, classes], value = logits * 2**-frac_bits
    tokens     int64 [images, token selectors]
    """

    images: tuple[ImageResult, ...]
    logits: NDArray[np.int16]
    tokens: NDArray[np.int64]
    frac_bits: int

    @classmethod
    def of(cls, images: list[ImageResult], shapes: Shapes, frac_bits: int) -> Inference:
        logits = np.array([image.logits for image in images], np.int16).reshape(len(images), shapes.num_classes)
        tokens = np.array([image.tokens for image in images], np.int64).reshape(len(images), shapes.num_stages)
        return cls(tuple(images), logits, tokens, frac_bits)

    @property
    def scores(self) -> NDArray[np.float64]:
        """The logits as real numbers."""
        return self.logits * 2.0**-self.frac_bits

    @property
    def classes(self) -> NDArray[np.int64]:
        """The best class of each image."""
        return np.asarray(np.argmax(self.logits, axis=1))


def stage_tokens(interface: Interface, shapes: Shapes, status: NDArray[np.int32]) -> tuple[int, ...]:
    """Rows after each of the network's token selectors; the design's buffer may have room for more."""
    return tuple(int(count) for count in status[STATUS_HEADER :: interface.stage_words][: shapes.num_stages])


def kept_patches(interface: Interface, shapes: Shapes, status: NDArray[np.int32]) -> tuple[NDArray[np.int64], ...]:
    """Which of the image's patches each token selector kept.

    Rows are prefix, candidates, packages; a selector's candidates are the patches that the one before it kept.
    """
    candidates = np.arange(shapes.num_tokens - shapes.num_prefix_tokens)
    kept = []
    for stage in range(shapes.num_stages):
        first = STATUS_HEADER + stage * interface.stage_words + 1
        words = status[first : first + interface.keep_words].view(np.uint32)
        flags = (words[:, None] >> np.arange(KEEP_ROWS_PER_WORD, dtype=np.uint32)) & 1
        rows = flags.reshape(-1)[shapes.num_prefix_tokens :][: len(candidates)]
        candidates = candidates[rows != 0]
        kept.append(candidates)
    return tuple(kept)
