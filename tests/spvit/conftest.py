"""These tests' tensors are tiny: a second thread costs them more in waiting than it brings."""

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def photographs(tmp_path):
    """A folder as ImageNet's: train/ and val/ with two classes, red and blue, 6 and 3 images of each."""
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for name, channel in (("red", 0), ("blue", 2)):
            folder = tmp_path / "photographs" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 120, (20, 30, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photographs"
