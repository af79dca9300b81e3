"""Image sources, under the name by which scripts on the board import them; they stand where all rooms reach them."""

from spvit.images.sources import ImageSet, load_images

__all__ = ["ImageSet", "load_images"]
