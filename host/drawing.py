"""Which patches each token selector kept, drawn over the image. Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from host.preprocess import Pixels

GAP = 8  # pixels between the panels
DROPPED = 0.25  # brightness of what was packed away
MIN_SIDE = 160  # pixels of a panel


def draw_kept(pixels: Pixels, kept: Sequence[NDArray[np.int64]], patch_size: int) -> Image.Image:
    """The image, and beside it one panel per token selector with what it dropped darkened.

    pixels  uint8 [S, S, C]
    kept    per selector, the patches it kept, counted row by row
    """
    panels = [pixels, *(darken_dropped(pixels, patches, patch_size) for patches in kept)]
    side = pixels.shape[0] * max(1, -(-MIN_SIDE // pixels.shape[0]))
    strip = Image.new("RGB", (len(panels) * (side + GAP) - GAP, side), "white")
    for i, panel in enumerate(panels):
        image = Image.fromarray(panel if panel.shape[2] == 3 else np.repeat(panel, 3, axis=2))
        strip.paste(image.resize((side, side), Image.Resampling.NEAREST), (i * (side + GAP), 0))
    return strip


def darken_dropped(pixels: Pixels, patches: NDArray[np.int64], patch_size: int) -> Pixels:
    """A copy with every patch dark that is not among `patches`."""
    grid = pixels.shape[0] // patch_size
    brightness = np.full(grid * grid, DROPPED)
    brightness[patches] = 1.0
    brightness = brightness.reshape(grid, grid).repeat(patch_size, axis=0).repeat(patch_size, axis=1)
    darkened: Pixels = np.rint(pixels * brightness[:, :, None]).astype(np.uint8)
    return darkened
