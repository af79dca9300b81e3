"""Which patches each token selector kept, drawn over the image. Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spvit.images.preprocess import RESAMPLING, Pixels

GAP = 8  # pixels between the panels
DROPPED = 0.25  # brightness of what was packed away, under
VEIL = (36, 52, 92)  # this blue, so that it stands out from black as well
MIN_SIDE = 160  # pixels of a panel


def draw_kept(pixels: Pixels, kept: Sequence[NDArray[np.int64]], patch_size: int) -> Image.Image:
    """The image, and beside it one panel per token selector with what was dropped by then veiled.

    pixels  uint8 [S, S, C]
    kept    per selector, the patches it kept, counted row by row
    """
    colours = pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
    panels = [colours, *(veil_dropped(colours, patches, patch_size) for patches in kept)]
    side = pixels.shape[0] * max(1, -(-MIN_SIDE // pixels.shape[0]))
    strip = Image.new("RGB", (len(panels) * (side + GAP) - GAP, side), "white")
    for i, panel in enumerate(panels):
        image = Image.fromarray(panel).resize((side, side), RESAMPLING.NEAREST)
        strip.paste(image, (i * (side + GAP), 0))
    return strip


def veil_dropped(pixels: Pixels, patches: NDArray[np.int64], patch_size: int) -> Pixels:
    """A copy of uint8 [S, S, 3] with every patch dark and blue that is not among `patches`."""
    return veil_places(pixels, patches, pixels.shape[0] // patch_size)


def veil_places(pixels: Pixels, places: NDArray[np.int64], grid: int) -> Pixels:
    """`veil_dropped` of a grid of `grid` x `grid` places, each shown as an equal part of the image: where patches
    overlap or were pooled, about what it sees.
    """
    is_kept = np.zeros((grid, grid), dtype=np.bool_)
    is_kept.flat[places] = True
    place = np.arange(pixels.shape[0]) * grid // pixels.shape[0]  # of each pixel's row, or column
    is_kept = is_kept[place][:, place]
    veiled = np.rint(pixels * DROPPED + VEIL)
    return np.where(is_kept[:, :, None], pixels, veiled).astype(np.uint8)
