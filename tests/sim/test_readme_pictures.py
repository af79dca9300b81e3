"""The README's pictures: what they show, and that they are small."""

import io

import numpy as np
import pytest
from PIL import Image

from sim import readme_pictures
from sim.readme_pictures import HEIGHT, MOST_BYTES, WIDTH, kept_tokens, screenshot
from spvit.config import resolve_model
from spvit.errors import BuildError
from spvit.initialisation import seeded

MICRO = resolve_model("micro")


def test_kept_tokens_say_whether_the_weights_are_random(monkeypatch):
    net = seeded(MICRO.model, MICRO.pruning).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    titles, make = [], readme_pictures.Figure

    def remembered(*arguments, **options):
        figure = make(*arguments, **options)
        say = figure.suptitle
        monkeypatch.setattr(figure, "suptitle", lambda text, **style: (titles.append(text), say(text, **style)))
        return figure

    monkeypatch.setattr(readme_pictures, "Figure", remembered)
    for weights in ("random weights (seed 0)", "a checkpoint, SHA-256 0123456789ab…"):
        picture = kept_tokens(net, pixels, weights)
        assert Image.open(io.BytesIO(picture)).format == "JPEG" and len(picture) <= MOST_BYTES
    assert titles == [
        "micro, random weights (seed 0): says nothing of a trained model",
        "micro, a checkpoint, SHA-256 0123456789ab…",
    ]


def test_without_a_browser_it_says_what_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(readme_pictures.shutil, "which", lambda name: None)
    with pytest.raises(BuildError, match=r"^report\.png takes Chromium and playwright; install them, as "):
        screenshot(tmp_path / "report.html")


@pytest.mark.needs("chromium")
def test_a_screenshot_is_the_pages_head(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<body style='margin: 0; background: rgb(0, 90, 180)'><div style='height: 3000px'></div></body>")
    picture = Image.open(io.BytesIO(screenshot(page)))
    assert picture.size == (WIDTH, HEIGHT) and picture.convert("RGB").getpixel((500, 300)) == (0, 90, 180)
