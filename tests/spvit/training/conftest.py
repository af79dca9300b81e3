"""A folder of photographs with classes, as ImageNet has them."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photographs(tmp_path):
    """train/ and val/ with two classes, red and blue: 6 and 3 images of each."""
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
