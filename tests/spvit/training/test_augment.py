"""Augmentation: sizes, bounds, shares, and that it does something."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from spvit.images.preprocess import Preprocessing
from spvit.training.augment import (
    OPERATIONS,
    TrainingView,
    crop_box,
    erase,
    jitter,
    mix,
    rand_augment,
    smooth_targets,
)
from spvit.training.draws import drawing


def photograph(mode="RGB", width=40, height=30):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_has_the_models_size_and_varies(channels):
    view = TrainingView(Preprocessing(16, channels, 0.875, (0.5,) * channels, (0.5,) * channels), 9.0)
    views = []
    for number in range(20):
        with drawing(number):
            views.append(view.to_uint8(photograph()))
    assert {pixels.shape for pixels in views} == {(16, 16, channels)}
    assert len({pixels.tobytes() for pixels in views}) == 20
    with drawing(3):
        assert np.array_equal(view.to_uint8(photograph()), views[3])


@pytest.mark.parametrize(("width", "height"), [(40, 30), (500, 20), (1, 1)])
def test_crops_lie_within_and_have_the_area(width, height):
    areas = []
    for number in range(50):
        with drawing(number):
            left, top, right, bottom = crop_box(width, height)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        areas.append((right - left) * (bottom - top) / (width * height))
    if width == 40:
        assert min(areas) >= 0.08 - 1e-9 and max(areas) <= 1 and np.std(areas) > 0.15


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("strength", [0.0, 0.9, 1.0])
def test_every_operation_keeps_size_and_mode(mode, strength):
    for operation in OPERATIONS:
        image = operation(photograph(mode), strength)
        assert image.size == (40, 30) and image.mode == mode


def test_operations_change_the_image_more_the_stronger():
    """Of those that have a strength, on an image whose neighbours are alike."""
    slope = Image.linear_gradient("L").resize((64, 64)).rotate(30)
    image = Image.merge("RGB", [slope, slope.transpose(Image.Transpose.ROTATE_90), slope])
    original = np.asarray(image, np.int32)
    for operation in OPERATIONS[3:]:
        weak, strong = (np.abs(np.asarray(operation(image, s), np.int32) - original).mean() for s in (0.05, 0.9))
        assert strong > weak, operation


def test_half_of_the_operations_are_drawn():
    changed = 0
    for number in range(400):
        with drawing(number):
            changed += rand_augment(photograph(), 9.0).tobytes() != photograph().tobytes()
    assert 0.65 < changed / 400 < 0.8  # 1 - 1/4, less what an operation leaves as it was


def test_erasing_takes_a_rectangle_in_one_of_four():
    image = torch.zeros(3, 32, 32)
    areas = []
    for number in range(400):
        with drawing(number):
            areas.append((erase(image, 0.25) != 0).any(0).double().mean().item())
    erased = [area for area in areas if area]
    assert 0.18 < len(erased) / 400 < 0.32
    assert min(erased) > 0.01 and max(erased) < 0.4
    assert not image.any()


def test_smoothed_targets_are_probabilities():
    targets = smooth_targets(torch.tensor([2, 0]), 4, 0.1)
    assert targets.flatten().tolist() == pytest.approx([0.025, 0.025, 0.925, 0.025, 0.925, 0.025, 0.025, 0.025])


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mixed_targets_follow_the_pixels(mixup, cutmix):
    """Images of ones and zeros: what an image has of its counterpart's pixels, its target has of its class."""
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    targets = torch.eye(2)
    shares = set()
    for number in range(30):
        with drawing(number):
            mixed, wanted = mix(images, targets, mixup, cutmix)
        assert mixed[0].mean().item() == pytest.approx(wanted[0, 1].item(), abs=1e-6)
        assert mixed[1].mean().item() == pytest.approx(wanted[1, 1].item(), abs=1e-6)
        assert wanted.sum(1).tolist() == pytest.approx([1, 1])
        if not mixup:
            assert set(mixed.unique().tolist()) <= {0.0, 1.0}
        shares.add(round(wanted[0, 0].item(), 4))
    assert len(shares) > 8
    assert mix(images, targets, 0.0, 0.0)[0] is images


def test_jitter_moves_two_in_three_a_little_and_pads_with_background():
    torch.manual_seed(0)
    blank = torch.full((300, 1, 8, 8), -1.0)
    dots = blank.clone()
    dots[:, :, 3:5, 3:5] = 1
    moved = jitter(dots)
    assert moved.shape == dots.shape
    assert moved.min() == -1 and moved.max() == 1
    same = (moved == dots).all(dim=(1, 2, 3))
    assert 75 < same.sum() < 125
    assert len({image.numpy().tobytes() for image in moved[~same]}) == (~same).sum()
    rows = torch.arange(8.0)
    mass = (moved[~same] + 1).sum(1)
    for axis in (1, 2):
        centre = (mass.sum(3 - axis) * rows).sum(1) / mass.sum((1, 2))
        assert ((centre - 3.5).abs() < 1.2).all() and centre.std() > 0.2
    assert torch.equal(jitter(blank), blank)


# --- timm's published definitions (timm/data/auto_augment.py, rand-m9-mstd0.5-inc1); levels are tenths ---

FILL = (128, 128, 128)


def affine(*matrix):
    return lambda image, resample: image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=FILL)


def enhanced(kind, level, sign):
    return lambda image, _: kind(image).enhance(max(0.1, 1.0 + sign * level / 10 * 0.9))


def brightened(image, level):
    table = [min(255, i + int(level / 10 * 110)) if i < 128 else i for i in range(256)]
    return image.point(table * 3)


def published(level, sign):
    """Each operation of timm's increasing set, in its order."""
    return {
        "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
        "Equalize": lambda image, _: ImageOps.equalize(image),
        "Invert": lambda image, _: ImageOps.invert(image),
        "Rotate": lambda image, resample: image.rotate(sign * level / 10 * 30.0, resample, fillcolor=FILL),
        "PosterizeIncreasing": lambda image, _: ImageOps.posterize(image, max(1, 4 - int(level / 10 * 4))),
        "SolarizeIncreasing": lambda image, _: ImageOps.solarize(image, 256 - int(level / 10 * 256)),
        "SolarizeAdd": lambda image, _: brightened(image, level),
        "ColorIncreasing": enhanced(ImageEnhance.Color, level, sign),
        "ContrastIncreasing": enhanced(ImageEnhance.Contrast, level, sign),
        "BrightnessIncreasing": enhanced(ImageEnhance.Brightness, level, sign),
        "SharpnessIncreasing": enhanced(ImageEnhance.Sharpness, level, sign),
        "ShearX": affine(1, sign * level / 10 * 0.3, 0, 0, 1, 0),
        "ShearY": affine(1, 0, 0, sign * level / 10 * 0.3, 1, 0),
        "TranslateXRel": affine(1, 0, sign * level / 10 * 0.45 * 40, 0, 1, 0),
        "TranslateYRel": affine(1, 0, 0, 0, 1, sign * level / 10 * 0.45 * 30),
    }


@pytest.mark.parametrize("level", [0.0, 0.01, 1.0, 4.5, 9.0, 9.7, 10.0])
@pytest.mark.parametrize("negative", [False, True])
def test_every_operation_is_timms(monkeypatch, level, negative):
    """Pixel for pixel. One departure: timm's posterize keeps no bit at level 10, a black image; ours keeps one."""
    monkeypatch.setattr("spvit.training.augment.one_in", lambda _: negative)
    resample = Image.Resampling.BILINEAR if negative else Image.Resampling.BICUBIC
    wanted = published(level, -1 if negative else 1)
    assert len(OPERATIONS) == len(wanted) == 15
    for ours, (name, theirs) in zip(OPERATIONS, wanted.items(), strict=True):
        assert np.array_equal(ours(photograph(), level / 10), theirs(photograph(), resample)), name


def test_magnitudes_and_choices_are_drawn_as_timm_draws_them(monkeypatch):
    """Two operations, each skipped in one case of two, any of them alike, at level gauss(9, 0.5) within 0 and 10."""
    drawn = []
    recorders = tuple(
        lambda image, strength, place=place: drawn.append((place, strength)) or image for place in range(15)
    )
    monkeypatch.setattr("spvit.training.augment.OPERATIONS", recorders)
    with drawing(0):
        for _ in range(3000):
            rand_augment(photograph(), 9.0)
    assert len(drawn) == pytest.approx(3000, abs=4 * (6000 / 4) ** 0.5)
    strengths = np.array([strength for _, strength in drawn])
    assert strengths.max() == 1 and np.mean(strengths == 1) == pytest.approx(0.0228, abs=0.012)  # beyond two deviations
    assert np.median(strengths) == pytest.approx(0.9, abs=0.004) and strengths.std() == pytest.approx(0.049, abs=0.003)
    counts = np.bincount([place for place, _ in drawn], minlength=15)
    assert ((counts - len(drawn) / 15) ** 2 / (len(drawn) / 15)).sum() < 36  # chi-square, 14 degrees: one in a thousand
