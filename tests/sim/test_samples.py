"""What DATA= may be, and each wrong one's sentence."""

import numpy as np
import pytest
from PIL import Image

from sim.samples import default_data, load_samples
from spvit.config import ModelConfig, resolve_model
from spvit.errors import ConfigError, ImageError
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images

DIGITS, MICRO = resolve_model("deit_digits").model, resolve_model("micro").model
TWO = ModelConfig("two", 16, 4, 3, 32, 2, 2, num_classes=2)


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def test_the_digits_are_those_of_inference():
    samples, images = load_samples("digits:test", DIGITS), load_images("digits:test", Preprocessing.from_model(DIGITS))
    assert samples.names == images.names and list(samples.labels) == images.labels.tolist()
    assert np.array_equal(samples.read(7), images.pixels[7])
    assert samples.classes == tuple("0123456789") and len(samples) == 450
    assert default_data(DIGITS) == "digits:test"
    assert load_samples("digits", DIGITS).names == images.names


@pytest.mark.parametrize("part", ["", "val", "test"])
def test_folders_name_the_classes(tmp_path, part):
    for position, name in enumerate(["b/2.png", "a/z.png", "a/deep/y.png", ".hidden/x.png"]):
        draw(tmp_path / part / name, position)
    (tmp_path / part / "a" / "notes.txt").write_text("no image")
    samples = load_samples(str(tmp_path), TWO)
    assert (samples.classes, samples.names, samples.labels) == (
        ("a", "b"),
        ("a/deep/y.png", "a/z.png", "b/2.png"),
        (0, 0, 1),
    )
    with Image.open(tmp_path / part / "b/2.png") as image:
        assert np.array_equal(samples.read(2), Preprocessing.from_model(TWO).to_uint8(image))


def test_a_broken_image_is_named_when_it_is_read(tmp_path):
    draw(tmp_path / "a/1.png")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/2.png").write_bytes(b"not an image")
    samples = load_samples(str(tmp_path), TWO)
    with pytest.raises(ImageError) as error:
        samples.read(1)
    assert str(error.value) == f"{tmp_path / 'b/2.png'}: not an image; replace it or leave it out"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "{}: has no class folders; there is something to tell apart from two on, each in its own folder"),
        (["1.png"], "{}: has no class folders; there is something to tell apart from two on, each in its own folder"),
        (["cat/1.png"], "{}: has one class, cat; there is something to tell apart from two on, each in its own folder"),
        (["cat/1.png", "dog/1.txt"], "{}/dog: no images in this folder; give one with .bmp, "),
    ],
)
def test_what_is_no_data_set(tmp_path, files, sentence):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        draw(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_text("")
    with pytest.raises(ImageError) as error:
        load_samples(str(tmp_path), TWO)
    assert str(error.value).startswith(sentence.format(tmp_path))


def test_a_missing_folder(tmp_path):
    with pytest.raises(ImageError) as error:
        load_samples(str(tmp_path / "gone"), TWO)
    assert str(error.value) == (
        f"{tmp_path / 'gone'}: there is no such folder; a data set has train/<class>/ and val/<class>/ with images"
    )


def test_another_number_of_classes():
    with pytest.raises(ConfigError) as error:
        load_samples("digits:test", MICRO)
    assert str(error.value) == (
        "digits:test: has 10 classes, but micro has num_classes=7; choose the data set that it was trained for"
    )


def test_a_model_without_a_data_set():
    with pytest.raises(ConfigError) as error:
        default_data(MICRO)
    assert str(error.value) == (
        "micro: no labelled images come with a model of 7 classes; "
        "give DATA=, a folder that holds a folder of images per class"
    )
