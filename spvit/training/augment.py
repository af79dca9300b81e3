"""What training images go through, one by one or by the batch. Inference sees what `spvit.images.preprocess` makes.

For photographs DeiT's: a crop, a flip, RandAugment (timm's rand-m9-mstd0.5-inc1) and erasing, then mixup or cutmix over
the batch. For images of a few pixels a slight turn and shift. Randomness comes from torch's own generator.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot

from spvit.images.preprocess import Pixels, Preprocessing

CROP_AREA = (0.08, 1.0)  # of the image's
CROP_ASPECT = (3 / 4, 4 / 3)
GREY = 128  # what an operation leaves uncovered; ImageNet's mean is close by
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)


def uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def one_in(count: int) -> bool:
    return int(torch.randint(count, ())) == 0


class TrainingView:
    """A training image, as DeiT sees it: in the place of `Preprocessing.to_uint8`.

    magnitude  of RandAugment's two operations, 0 to 10
    """

    def __init__(self, preprocessing: Preprocessing, magnitude: float) -> None:
        self.preprocessing, self.magnitude = preprocessing, magnitude

    def to_uint8(self, image: Image.Image) -> Pixels:
        """A random part of the image, flipped or not, after two random operations: uint8 [S, S, in_chans]."""
        size = self.preprocessing.img_size
        image = self.preprocessing.upright(image)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=crop_box(*image.size))
        if one_in(2):
            image = ImageOps.mirror(image)
        image = rand_augment(image, self.magnitude)
        return np.array(image, np.uint8).reshape(size, size, self.preprocessing.in_chans)


def crop_box(width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a random part, its area and aspect drawn within limits; the middle if none fits."""
    for _ in range(10):
        area = width * height * uniform(*CROP_AREA)
        aspect = math.exp(uniform(*map(math.log, CROP_ASPECT)))
        w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if 1 <= w <= width and 1 <= h <= height:
            left, top = uniform(0, width - w), uniform(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def rand_augment(image: Image.Image, magnitude: float) -> Image.Image:
    """Two of the operations, each in one case of two, about as strong as `magnitude` says (0 to 10)."""
    for _ in range(2):
        if one_in(2):
            strength = (magnitude + 0.5 * torch.randn(()).item()) / 10
            image = OPERATIONS[int(torch.randint(len(OPERATIONS), ()))](image, min(max(strength, 0.0), 1.0))
    return image


def _signed(value: float) -> float:
    return -value if one_in(2) else value


def _affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    resample = Image.Resampling.BILINEAR if one_in(2) else Image.Resampling.BICUBIC
    fill = GREY if image.mode == "L" else (GREY,) * 3
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), resample, fillcolor=fill)


def rotate(image: Image.Image, strength: float) -> Image.Image:
    """By up to 30 degrees."""
    resample = Image.Resampling.BILINEAR if one_in(2) else Image.Resampling.BICUBIC
    fill = GREY if image.mode == "L" else (GREY,) * 3
    return image.rotate(_signed(30 * strength), resample, fillcolor=fill)


def shear_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, 1, _signed(0.3 * strength), 0, 0, 1, 0)


def shear_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, 1, 0, 0, _signed(0.3 * strength), 1, 0)


def translate_x(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, 1, 0, _signed(0.45 * strength) * image.width, 0, 1, 0)


def translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _affine(image, 1, 0, 0, 0, 1, _signed(0.45 * strength) * image.height)


def solarize_add(image: Image.Image, strength: float) -> Image.Image:
    """What is darker than the middle becomes brighter, by up to 110."""
    added = int(110 * strength)
    return image.point([min(255, level + added) if level < 128 else level for level in range(256)] * _bands(image))


def _bands(image: Image.Image) -> int:
    return len(image.getbands())


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, strength: kind(image).enhance(max(0.1, 1 + _signed(0.9 * strength)))


OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, _: ImageOps.autocontrast(image),
    lambda image, _: ImageOps.equalize(image),
    lambda image, _: ImageOps.invert(image),
    rotate,
    lambda image, strength: ImageOps.posterize(image, max(1, 4 - int(4 * strength))),
    lambda image, strength: ImageOps.solarize(image, 256 - int(256 * strength)),
    solarize_add,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Sharpness),
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)


def erase(image: Tensor, probability: float) -> Tensor:
    """A normalised image (C, S, S), or the same with a rectangle of noise in it."""
    if torch.rand(()).item() >= probability:
        return image
    _, height, width = image.shape
    for _ in range(10):
        area = height * width * uniform(*ERASED_AREA)
        aspect = math.exp(uniform(*map(math.log, ERASED_ASPECT)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
            image = image.clone()
            image[:, top : top + h, left : left + w] = torch.randn(len(image), h, w)
            break
    return image


def smooth_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Labels (B) to probabilities (B, classes), some of it spread over all."""
    return one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mix(images: Tensor, targets: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Each image with its counterpart from the batch's other end: blended, or with a rectangle of it.

    mixup, cutmix  the shares' Beta distributions' parameters; 0: never. Where both are given, either in turn by chance
    Returns images and targets (B, classes) of the same shapes.
    """
    if not mixup and not cutmix:
        return images, targets
    cuts = bool(cutmix) and (not mixup or one_in(2))
    strength = cutmix if cuts else mixup
    share = float(np.random.default_rng(int(torch.randint(2**31, ()))).beta(strength, strength))
    if cuts:
        height, width = images.shape[-2:]
        h, w = (round(side * math.sqrt(1 - share)) for side in (height, width))
        top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
        mixed = images.clone()
        mixed[..., top : top + h, left : left + w] = images.flip(0)[..., top : top + h, left : left + w]
        images, share = mixed, 1 - h * w / (height * width)
    else:
        images = images * share + images.flip(0) * (1 - share)
    return images, targets * share + targets.flip(0) * (1 - share)


def jitter(images: Tensor) -> Tensor:
    """Two images in three turned by up to 15 degrees, scaled by up to 15% and shifted by up to a tenth of their side.

    The third stays as it is: resampling blurs so small an image, and inference sees crisp ones.
    """
    count = len(images)
    angle, scale, dx, dy = (torch.empty(count).uniform_(-limit, limit) for limit in (0.26, 0.15, 0.2, 0.2))
    cos, sin = torch.cos(angle) * (1 + scale), torch.sin(angle) * (1 + scale)
    maps = torch.stack([cos, -sin, dx, sin, cos, dy], dim=1).view(count, 2, 3)
    grid = affine_grid(maps, list(images.shape), align_corners=False)
    low, high = images.amin(), images.amax()
    # grid_sample pads with zeros, so the background is made zero for it; bicubic overshoots
    moved = (grid_sample(images - low, grid, mode="bicubic", align_corners=False) + low).clamp(low, high)
    return torch.where(torch.rand(count, 1, 1, 1) < 1 / 3, images, moved)
