"""Augmentation: sizes, bounds, shares, and that it does something."""

import numpy as np
import pytest
import torch
from PIL import Image

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
