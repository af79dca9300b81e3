"""Against torchvision's rule written down a second time, with a bicubic filter of its own."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from spvit.config import ModelConfig
from spvit.errors import ConfigError, ImageError
from spvit.images.preprocess import Preprocessing

SENTENCE_IMAGE = "convert it to RGB or grey with 8 or 16 bits"


def square(img_size: int, in_chans: int = 3, crop: float = 1.0) -> Preprocessing:
    return Preprocessing(img_size, in_chans, crop, mean=(0.5,) * in_chans, std=(0.25,) * in_chans)


def bicubic_weights(size_in: int, size_out: int) -> np.ndarray:
    """[size_out, size_in]: Keys' cubic with a = -0.5, widened by the scale when shrinking, rows summing to 1."""
    scale = size_in / size_out
    centres = (np.arange(size_out) + 0.5) * scale
    x = np.abs((np.arange(size_in) + 0.5)[None, :] - centres[:, None]) / max(scale, 1.0)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


def torchvision_rule(pixels: np.ndarray, resize_to: int, img_size: int, rows_first: bool) -> np.ndarray:
    """Resize(resize_to, BICUBIC) and CenterCrop(img_size) of uint8 [H, W, C], up to the last bit of the filter."""
    height, width = pixels.shape[:2]
    if width <= height:
        new_height, new_width = int(resize_to * height / width), resize_to
    else:
        new_height, new_width = resize_to, int(resize_to * width / height)
    passes = [
        lambda values: np.einsum("ow,hwc->hoc", bicubic_weights(width, new_width), values),
        lambda values: np.einsum("oh,hwc->owc", bicubic_weights(height, new_height), values),
    ]
    values = pixels.astype(np.float64)
    for one_axis in passes if rows_first else reversed(passes):
        values = np.clip(np.rint(one_axis(values)), 0, 255)
    top = int(round((new_height - img_size) / 2.0))  # noqa: RUF046 - as torchvision has it
    left = int(round((new_width - img_size) / 2.0))  # noqa: RUF046
    return values[top : top + img_size, left : left + img_size]


@given(
    width=st.integers(1, 80),
    height=st.integers(1, 80),
    img_size=st.integers(1, 24),
    crop=st.sampled_from([0.875, 0.9, 0.95, 1.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
@example(width=9, height=10, img_size=8, crop=1.0, seed=0)
@example(width=10, height=9, img_size=8, crop=1.0, seed=0)
def test_follows_torchvisions_rule(width, height, img_size, crop, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = square(img_size, crop=crop).to_uint8(Image.fromarray(pixels))
    assert ours.shape == (img_size, img_size, 3)
    assert ours.dtype == np.uint8
    # Pillow's weights have 22 bits: a tie may fall differently in the first pass, and grow in the second
    assert error(ours, pixels, img_size, crop).max() <= 2


def error(ours, pixels, img_size, crop):
    """Distance from the rule, per pixel; Pillow starts with whichever axis is cheaper."""
    references = (torchvision_rule(pixels, int(img_size / crop), img_size, rows_first) for rows_first in (True, False))
    return min((np.abs(ours - reference) for reference in references), key=np.sum)


@pytest.mark.parametrize("crop", [0.875, 0.9])
def test_follows_torchvisions_rule_on_a_photograph(crop):
    photograph = load_sample_image("china.jpg")
    assert photograph.shape == (427, 640, 3)
    errors = error(square(224, crop=crop).to_uint8(Image.fromarray(photograph)), photograph, 224, crop)
    assert errors.max() <= 1
    assert errors.mean() < 1e-3


@pytest.mark.parametrize(
    ("img_size", "crop", "resize_to"), [(224, 0.875, 256), (224, 0.9, 248), (224, 1.0, 224), (8, 1.0, 8), (32, 0.9, 35)]
)
def test_resize_to_is_rounded_down_as_timm_does(img_size, crop, resize_to):
    assert square(img_size, crop=crop).resize_to == resize_to


@pytest.mark.parametrize(("width", "left"), [(9, 0), (10, 1), (11, 2), (12, 2), (13, 2), (15, 4)])
def test_crop_starts_at_half_the_margin_rounded_half_to_even(width, left):
    columns = np.broadcast_to(np.arange(width, dtype=np.uint8), (8, width))
    assert square(8, in_chans=1).to_uint8(Image.fromarray(columns.copy()))[0, 0, 0] == left


def test_an_image_of_the_models_size_is_left_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(square(16).to_uint8(Image.fromarray(pixels)), pixels)


@pytest.mark.parametrize("in_chans", [1, 3])
@given(level=st.integers(0, 255))
def test_a_grey_of_any_mode_is_that_grey(in_chans, level):
    grey = {
        "L": level,
        "LA": (level, 77),
        "RGB": (level,) * 3,
        "RGBA": (level,) * 3 + (77,),
        "RGBX": (level,) * 3 + (0,),
        "CMYK": (0, 0, 0, 255 - level),
        "YCbCr": (level, 128, 128),
        "HSV": (0, 0, level),
        "I": level * 257,
        "I;16": level * 257,
        "I;16B": level * 257,
    }
    images = [Image.new(mode, (5, 4), colour) for mode, colour in grey.items()]
    palette = Image.new("P", (5, 4), 3)
    palette.putpalette([1, 1, 1] * 3 + [level] * 3)
    images += [palette, Image.new("1", (5, 4), level & 1)]
    for image in images:
        expected = 255 * (level & 1) if image.mode == "1" else level
        pixels = square(4, in_chans).to_uint8(image)
        assert pixels.shape == (4, 4, in_chans)
        assert (pixels == expected).all(), (image.mode, pixels[0, 0], expected)


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_every_16_bit_grey_is_scaled_not_clipped(mode):
    values = np.arange(65536).reshape(256, 256)
    image = Image.fromarray(values.astype(np.uint16) if mode == "I;16" else values.astype(np.int32))
    assert image.mode == mode
    expected = np.floor(values / 65535 * 255 + 0.5)
    assert np.array_equal(square(256, in_chans=1).to_uint8(image)[:, :, 0], expected)


def test_16_bit_png_from_a_file():
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6), 200 * 257, np.uint16)).save(file, "PNG")
    assert (square(6).to_uint8(Image.open(file)) == 200).all()


def test_transparency_is_dropped_and_colours_are_kept():
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (square(4).to_uint8(image) == (10, 20, 30)).all()


def test_a_palettes_transparency_is_dropped_without_a_warning():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes([255, 100]))
    assert (square(4).to_uint8(Image.open(file)) == (10, 20, 30)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(orientation):
    upright = np.random.default_rng(orientation).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    # what the camera stores, so that turning it as the tag says gives `upright` (EXIF 2.3, tag 0x0112)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),  # to be turned clockwise
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(file, "PNG", exif=exif)
    assert np.array_equal(square(6).to_uint8(Image.open(file)), upright)


def test_normalise():
    preprocessing = Preprocessing(2, 3, 1.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    values = preprocessing.normalise(pixels)
    assert values.shape == (4, 3, 2, 2)
    assert values.dtype == np.float64
    for n, y, x, c in np.ndindex(pixels.shape):
        expected = (int(pixels[n, y, x, c]) / 255 - preprocessing.mean[c]) / preprocessing.std[c]
        assert values[n, c, y, x] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("shape", [(1, 2, 2, 1), (1, 3, 2, 2), (2, 2, 3)])
def test_normalise_takes_no_other_shape(shape):
    with pytest.raises(AssertionError, match=re.escape(str(shape))):
        square(2).normalise(np.zeros(shape, np.uint8))


def test_from_model():
    config = ModelConfig("m", img_size=32, patch_size=8, in_chans=1, crop=0.9, mean=(0.2,), std=(0.7,))
    assert Preprocessing.from_model(config) == Preprocessing(32, 1, 0.9, (0.2,), (0.7,))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"img_size": 0}, "img_size=0 must be at least 1"),
        ({"crop": 0.0}, "crop=0.0 must be above 0 and at most 1; DeiT has 0.875, timm 0.9"),
        ({"crop": 1.1}, "crop=1.1 must be above 0 and at most 1; DeiT has 0.875, timm 0.9"),
        ({"mean": (0.5,)}, "mean has 1 values for in_chans=3; give one per channel"),
        ({"std": ()}, "std has 0 values for in_chans=3; give one per channel"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean=(0.5, nan, 0.5) must be finite"),
        ({"std": (0.5, 0.0, 0.5)}, "std=(0.5, 0.0, 0.5) must be positive"),
    ],
)
def test_what_cannot_be(fields, sentence):
    valid = {"img_size": 8, "in_chans": 3, "crop": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    Preprocessing(**valid)
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        Preprocessing(**valid | fields)


@pytest.mark.parametrize(
    ("image", "in_chans", "sentence"),
    [
        (Image.new("F", (4, 4)), 3, f"its pixels are of Pillow's mode F; {SENTENCE_IMAGE}"),
        (Image.new("LAB", (4, 4)), 1, f"its pixels are of Pillow's mode LAB; {SENTENCE_IMAGE}"),
        (
            Image.new("I", (4, 4), 65536),
            1,
            "its grey values run from 65536 to 65536, beyond 16 bits; scale them to 0..65535 first",
        ),
        (
            Image.new("I", (4, 4), -1),
            3,
            "its grey values run from -1 to -1, beyond 16 bits; scale them to 0..65535 first",
        ),
        (Image.new("L", (4, 4)), 2, "the model takes 2 channels; images are read with 1 (grey) or 3 (RGB)"),
        (Image.new("L", (0, 4)), 1, "it has no pixels"),
        (Image.new("L", (1, 100_000)), 1, "it is 1 x 100000 pixels, too long and thin to resize; crop it first"),
        (Image.new("L", (100_000, 1)), 1, "it is 100000 x 1 pixels, too long and thin to resize; crop it first"),
    ],
)
def test_images_without_such_pixels(image, in_chans, sentence):
    with pytest.raises(ImageError, match=f"^{re.escape(sentence)}$"):
        square(32, in_chans).to_uint8(image)


def test_needs_neither_torch_nor_scikit_learn():
    """The board has numpy and Pillow alone."""
    program = "import sys, spvit.images.sources, spvit.images.preprocess; print(*sorted({'torch', 'sklearn', 'scipy'} & set(sys.modules)))"
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
