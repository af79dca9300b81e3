"""THE preprocessing: calibration, training's evaluation, C-simulation and the board all take their images from here.

Enters: a Pillow image of any mode and size. Leaves: uint8 pixels [S, S, C] for the accelerator, whose patch embedding
has mean and std folded in; `normalise` gives the float network what its training saw. numpy and Pillow alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spvit.errors import ConfigError, ImageError

Pixels = NDArray[np.uint8]
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
ORIENTATION = 0x0112  # EXIF's tag: how the camera was held
TRANSPOSE: Any = getattr(Image, "Transpose", Image)  # Pillow before 9.1 has its members there
RESAMPLING: Any = getattr(Image, "Resampling", Image)
TURNS = {
    2: TRANSPOSE.FLIP_LEFT_RIGHT, 3: TRANSPOSE.ROTATE_180, 4: TRANSPOSE.FLIP_TOP_BOTTOM, 5: TRANSPOSE.TRANSPOSE,
    6: TRANSPOSE.ROTATE_270, 7: TRANSPOSE.TRANSVERSE, 8: TRANSPOSE.ROTATE_90,
}  # fmt: skip
"""What makes an image of that orientation upright; 1 is, and so is what has none that can be read."""
MAX_RESIZED_PIXELS = 2**26  # 200 MB as RGB; a photograph resized to 256 has some 90 thousand


class ImageModel(Protocol):
    """The fields of a ModelConfig that say what the model wants to see."""

    @property
    def img_size(self) -> int: ...
    @property
    def in_chans(self) -> int: ...
    @property
    def crop(self) -> float: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop and normalisation, as torchvision and timm evaluate their models."""

    img_size: int  # side of the square that the model sees, pixels
    in_chans: int  # 1 (grey) or 3 (RGB)
    crop: float  # img_size over the resized image's shorter side: 0.875 in DeiT and SPViT, 0.9 in timm
    mean: tuple[float, ...]  # per channel, of pixels scaled to 0..1
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.img_size < 1:
            raise ConfigError(f"img_size={self.img_size} must be at least 1")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"crop={self.crop} must be above 0 and at most 1; DeiT has 0.875, timm 0.9")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.in_chans:
                raise ConfigError(f"{name} has {len(values)} values for in_chans={self.in_chans}; give one per channel")
            if not np.isfinite(values).all():
                raise ConfigError(f"{name}={values} must be finite")
        if min(self.std, default=1.0) <= 0:
            raise ConfigError(f"std={self.std} must be positive")

    @classmethod
    def from_model(cls, config: ImageModel) -> Preprocessing:
        return cls(config.img_size, config.in_chans, config.crop, tuple(config.mean), tuple(config.std))

    @property
    def resize_to(self) -> int:
        """The shorter side before the crop: 224 / 0.875 = 256, 224 / 0.9 = 248 (rounded down, as timm does)."""
        return int(self.img_size / self.crop)

    def to_uint8(self, image: Image.Image) -> Pixels:
        """Upright, in the model's channels, shorter side resized (bicubic), centre cropped: uint8 [S, S, in_chans].

        Transparency is dropped, not blended. Raises ImageError for what has no such pixels.
        """
        image = _resize_shorter_side(self.upright(image), self.resize_to)
        # round() is half to even, as in torchvision's center_crop
        left, top = (round((side - self.img_size) / 2) for side in image.size)
        image = image.crop((left, top, left + self.img_size, top + self.img_size))
        return np.array(image, np.uint8).reshape(self.img_size, self.img_size, self.in_chans)

    def upright(self, image: Image.Image) -> Image.Image:
        """The whole image as its camera held it, with the model's channels of 8 bits. Raises ImageError."""
        image.load()  # a broken file ends here; from here on only its metadata can be wrong
        turn = TURNS.get(_orientation(image))
        return _in_channels(image if turn is None else image.transpose(turn), self.in_chans)

    def normalise(self, pixels: Pixels) -> NDArray[np.float64]:
        """(pixels / 255 - mean) / std: uint8 [N, S, S, C] to float64 [N, C, S, S]."""
        assert pixels.dtype == np.uint8, pixels.dtype
        assert pixels.shape[1:] == (self.img_size, self.img_size, self.in_chans), pixels.shape
        values = (pixels / 255.0 - np.array(self.mean)) / np.array(self.std)
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def _orientation(image: Image.Image) -> int:
    """What the metadata say; 1 where they say nothing, or cannot be read: the pixels are fine without them."""
    try:
        value: object = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - Pillow raises whatever broken metadata lead it into, SyntaxError among it
        return 1
    return value if isinstance(value, int) else 1


def _in_channels(image: Image.Image, in_chans: int) -> Image.Image:
    """The image with 8 bits per channel, grey or RGB."""
    if 0 in image.size:
        raise ImageError("it has no pixels")
    if in_chans not in (1, 3):
        raise ImageError(f"the model takes {in_chans} channels; images are read with 1 (grey) or 3 (RGB)")
    if image.mode == "I" or image.mode.startswith("I;16"):  # a 16-bit PNG is one or the other, by Pillow's version
        image = _from_16_bit(np.array(image, np.int64))
    elif image.mode not in EIGHT_BIT_MODES:  # Pillow would clip floating-point numbers without a word
        raise ImageError(f"its pixels are of Pillow's mode {image.mode}; convert it to RGB or grey with 8 or 16 bits")
    elif "transparency" in image.info:  # a palette with transparent entries; straight to RGB, Pillow warns
        image = image.convert("RGBA")
    return image.convert("L" if in_chans == 1 else "RGB")


def _from_16_bit(values: NDArray[np.int64]) -> Image.Image:
    """Grey values 0..65535 as 0..255; Pillow's own conversion clips them."""
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ImageError(
            f"its grey values run from {values.min()} to {values.max()}, beyond 16 bits; scale them to 0..65535 first"
        )
    return Image.fromarray(((values * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))


def _resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """torchvision's Resize(size): the longer side is rounded down."""
    width, height = image.size
    if min(image.size) == size:
        return image
    if width <= height:
        resized = (size, size * height // width)
    else:
        resized = (size * width // height, size)
    if resized[0] * resized[1] > MAX_RESIZED_PIXELS:
        raise ImageError(f"it is {width} x {height} pixels, too long and thin to resize; crop it first")
    return image.resize(resized, RESAMPLING.BICUBIC)
