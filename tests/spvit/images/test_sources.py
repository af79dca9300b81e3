"""Folders, files and scikit-learn's images; and that nothing broken is passed over."""

import hashlib
import importlib.resources
import io
import os
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from PIL.PngImagePlugin import PngInfo
from sklearn.datasets import load_digits

from spvit.errors import ImageError
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import SUFFIXES, class_folders, class_order, digits, load_images

ROOT = Path(__file__).parents[3]
RGB_4 = Preprocessing(4, 3, 1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
GREY_8 = Preprocessing(8, 1, 1.0, mean=(0.5,), std=(0.5,))


def save(path, level=0, mode="RGB", size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * 3 if mode == "RGB" else level).save(path)
    return path


def error_of(source, preprocessing=RGB_4):
    with pytest.raises(ImageError) as caught:
        load_images(source, preprocessing)
    return str(caught.value)


# --- digits ---


def test_digits_are_all_there_once_and_stratified():
    train, train_labels = digits("train")
    test, test_labels = digits("test")
    assert train.shape == (1347, 8, 8, 1)
    assert test.shape == (450, 8, 8, 1)
    assert train.dtype == test.dtype == np.uint8
    assert train_labels.dtype == test_labels.dtype == np.int64
    whole = load_digits()
    key = sorted((image.tobytes(), label) for image, label in zip(whole.images, whole.target, strict=True))
    values = np.concatenate([train, test])[..., 0] * (16 / 255)
    labels = np.concatenate([train_labels, test_labels])
    assert sorted((np.rint(v).tobytes(), label) for v, label in zip(values, labels, strict=True)) == key
    assert np.abs(np.bincount(test_labels) - np.bincount(whole.target) / 4).max() < 1


def test_digits_are_stretched_to_the_whole_range():
    assert np.unique(digits("test")[0]).tolist() == [round(value * 255 / 16) for value in range(17)]


def test_the_split_never_changes():
    """Weights were trained on it: another split would test them on what they have seen."""
    pixels, labels = digits("test")
    digest = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "466a68e3c80417917ac703a56c31eafc7d337649f117194ddb7c47cf1b0cf0bb"


@pytest.mark.parametrize("split", ["train", "test"])
def test_digits_by_name(split):
    images = load_images(f"digits:{split}", GREY_8)
    pixels, labels = digits(split)
    assert np.array_equal(images.pixels, pixels)
    assert np.array_equal(images.labels, labels)
    assert len(images) == len(set(images.names)) == len(labels)
    assert all(re.fullmatch(rf"digits/{split}/\d{{4}}", name) for name in images.names)
    whole = load_digits().target
    assert [whole[int(name[-4:])] for name in images.names] == labels.tolist()


def test_digits_for_a_model_of_another_size():
    images = load_images("digits:test", RGB_4)
    assert images.pixels.shape == (450, 4, 4, 3)
    assert (images.pixels[..., 0] == images.pixels[..., 2]).all()


# --- photographs, files, folders ---


def test_without_a_source_scikit_learns_photographs():
    preprocessing = Preprocessing(32, 3, 0.875, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = load_images(None, preprocessing)
    assert images.names == ("china.jpg", "flower.jpg")
    assert images.labels is None
    for name, pixels in zip(images.names, images.pixels, strict=True):
        with Image.open(importlib.resources.files("sklearn.datasets.images") / name) as photograph:
            assert np.array_equal(pixels, preprocessing.to_uint8(photograph))


def test_a_folder_is_sorted_and_taken_with_its_folders(tmp_path):
    levels = {"b.png": 1, "a/z.PNG": 2, "a/b/c.bmp": 3, "c.Tiff": 4}
    for name, level in levels.items():
        save(tmp_path / name, level)
    (tmp_path / "labels.txt").write_text("not an image, and not called one")
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / ".cache" / "x.png")
    (tmp_path / "._b.png").write_bytes(b"what macOS leaves on memory cards")
    for source in (tmp_path, str(tmp_path)):
        images = load_images(source, RGB_4)
        assert images.names == ("a/b/c.bmp", "a/z.PNG", "b.png", "c.Tiff")
        assert images.pixels.shape == (4, 4, 4, 3)
        assert images.pixels[:, 0, 0, 0].tolist() == [3, 2, 1, 4]
        assert images.labels is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_suffix_is_read(tmp_path, suffix):
    save(tmp_path / f"x{suffix}", 128, mode="L" if suffix == ".pgm" else "RGB")
    assert abs(int(load_images(tmp_path, RGB_4).pixels.max()) - 128) <= 2  # JPEG and WebP lose a little


def test_a_stereo_photograph_is_its_first(tmp_path):
    """Phones write these (MPO) and call them .jpg."""
    photograph = Image.fromarray(np.full((9, 12, 3), 90, np.uint8))
    photograph.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[photograph.resize((4, 4))])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert np.abs(load_images(tmp_path, RGB_4).pixels.astype(int) - 90).max() <= 2


def test_a_file_alone_may_be_called_anything(tmp_path):
    save(tmp_path / "photo.png", 7).rename(tmp_path / "my photo")
    images = load_images(tmp_path / "my photo", RGB_4)
    assert images.names == ("my photo",)
    assert (images.pixels == 7).all()


def test_links_to_folders_are_followed_each_folder_once(tmp_path):
    save(tmp_path / "elsewhere" / "x.png", 5)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "deep" / "round").symlink_to(tmp_path / "photos")
    assert load_images(tmp_path / "photos", RGB_4).names == ("linked/x.png",)


# --- metadata: the pixels are used, whatever they say ---


def tags(*entries):
    """EXIF of little-endian entries (tag, type, count, value)."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + packed + b"\0\0\0\0"


BROKEN = {
    "blank": b"Exif\0\0",
    "two headers": b"Exif\0\0" + tags((0x0112, 3, 1, 1)),
    "no TIFF": b"Exif\0\0This_is_not_valid_EXIF",
    "no header": b"\0\x08\0\x02\x01\x12\0\x03",
    "rubbish": b"Exif\0\0rubbish!",
    "cut short": b"Exif\0\0II*\0\x08\0\0\0\x10\0\x12\x01\x03",
    "a text as orientation": b"Exif\0\0II*\0" + struct.pack("<IHHHI4s", 8, 1, 0x0112, 2, 4, b"abc\0") + b"\0\0\0\0",
    "orientation 9": tags((0x0112, 3, 1, 9)),
    "orientation 0": tags((0x0112, 3, 1, 0)),
    "a tag beyond the file": tags((0x010E, 2, 4000, 900000)),
}
PHOTOGRAPH = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_broken_metadata_are_ignored_in_silence(tmp_path, recwarn, suffix, what):
    PHOTOGRAPH.save(tmp_path / f"a.{suffix}", exif=BROKEN[what])
    PHOTOGRAPH.save(tmp_path / f"b.{suffix}")
    with_, without = load_images(tmp_path, RGB_4).pixels
    assert np.array_equal(with_, without) and not recwarn.list


def test_a_broken_raw_profile_is_ignored(tmp_path, recwarn):
    info = PngInfo()
    info.add_text("Raw profile type exif", f"\nexif\n      22\n{BROKEN['no header'].hex()}\n")
    PHOTOGRAPH.save(tmp_path / "a.png", pnginfo=info)
    PHOTOGRAPH.save(tmp_path / "b.png")
    with_, without = load_images(tmp_path, RGB_4).pixels
    assert np.array_equal(with_, without) and not recwarn.list


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_that_can_be_read_is_followed(tmp_path, recwarn, suffix, orientation):
    """Beside a tag that cannot."""
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    PHOTOGRAPH.save(path, exif=tags((0x010E, 2, 4000, 900000), (0x0112, 3, 1, orientation)), **options)
    with Image.open(path) as image:
        stored = np.asarray(image)
    turned = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1), 7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "b.bmp")
    recwarn.clear()
    seen, expected = (load_images(file, RGB_4).pixels for file in (path, tmp_path / "b.bmp"))
    assert np.array_equal(seen, expected) and not recwarn.list


def test_broken_metadata_excuse_no_broken_pixels(tmp_path):
    path = tmp_path / "a.jpg"
    PHOTOGRAPH.resize((64, 64)).save(path, exif=BROKEN["no TIFF"])
    path.write_bytes(path.read_bytes()[:1200])
    assert re.fullmatch(
        rf"{re.escape(str(path))}: cannot be decoded \(.*truncated.*\); replace it or leave it out", error_of(path)
    )


# --- classes ---


def classes(folder, *names):
    for name in names:
        save(folder / name / "x.png")
    return class_folders(folder)[0]


def test_class_folders_that_are_numbers_are_in_their_order(tmp_path):
    names = classes(tmp_path, *map(str, range(12)))
    assert names == [str(number) for number in range(12)]
    assert class_order(names) == (
        "classes: 12 folders in the order of their numbers, so that class 2 is 2; in the order of their texts, which "
        "torchvision has, it would be 10"
    )
    _, files, labels = class_folders(tmp_path)
    assert [int(file.parent.name) for file in files] == labels


@pytest.mark.parametrize(
    "names", [["cat", "dog"], ["0", "1", "2"], ["00", "01", "10"], ["1", "10", "2b"], ["n01", "n02"]]
)
def test_other_class_folders_are_in_the_order_of_their_texts(tmp_path, names):
    assert classes(tmp_path, *names) == names
    assert class_order(names) is None


# --- errors ---


def test_a_broken_image_in_a_folder_is_named(tmp_path):
    save(tmp_path / "a.png")
    broken = tmp_path / "b.png"
    broken.write_text("no image")
    assert error_of(tmp_path) == f"{broken}: not an image; replace it or leave it out"
    broken.write_bytes(b"")
    assert error_of(tmp_path) == f"{broken}: not an image; replace it or leave it out"


def test_a_truncated_image_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    assert re.fullmatch(
        rf"{re.escape(str(path))}: cannot be decoded \(.*truncated.*\); replace it or leave it out", error_of(path)
    )


def test_a_format_beyond_the_suffixes_is_no_image(tmp_path, monkeypatch):
    """Pillow would give this one to Ghostscript."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\n[ $1 = --version ] || touch {tmp_path}/interpreted\necho 10.0\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"
    assert error_of(path) == f"{path}: not an image; replace it or leave it out"
    assert not (tmp_path / "interpreted").exists()


def test_a_folder_that_cannot_be_read_is_named():
    """Its images would be missing without a word. Run by nobody: root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        save(folder / "a.png")
        save(folder / "closed" / "b.png")
        (folder / "closed").chmod(0o000)
        code = (
            "import os, sys\n"
            "from spvit.images.preprocess import Preprocessing\n"
            "from spvit.images.sources import load_images\n"
            "RGB_4 = Preprocessing(4, 3, 1.0, mean=(0.5,) * 3, std=(0.5,) * 3)\n"
            "from spvit.errors import exit_on_user_error\n"
            "if os.getuid() == 0:\n    os.setgroups([])\n    os.setuid(65534)\n"
            "exit_on_user_error(lambda: print(load_images(sys.argv[1], RGB_4).names))\n"
        )
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            [sys.executable, "-c", code, name], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        (folder / "closed").chmod(0o755)
    sentence = f"error: {folder}/closed: Permission denied; give a folder of images, or an image\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", sentence)


def test_a_link_to_nowhere_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.symlink_to(tmp_path / "gone.png")
    assert error_of(tmp_path) == f"{path}: there is no such file; replace it or leave it out"


def test_an_image_without_suitable_pixels_is_named(tmp_path):
    path = tmp_path / "depth.tif"
    Image.new("F", (4, 4)).save(path)
    assert (
        error_of(tmp_path) == f"{path}: its pixels are of Pillow's mode F; convert it to RGB or grey with 8 or 16 bits"
    )


def test_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    assert (
        error_of(tmp_path) == f"{tmp_path}: no images in this folder; give one with "
        ".bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp files"
    )


def test_a_path_that_is_not_there(tmp_path):
    path = tmp_path / "gone"
    assert (
        error_of(path)
        == f"{path}: no such file or folder; give a folder of images, an image, digits:test or digits:train"
    )


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert error_of(path).startswith(f"{path}: no such file or folder; ")


def test_a_name_that_the_file_system_refuses():
    name = "x" * 400
    assert error_of(name) == f"{name}: File name too long; give a folder of images, or an image"


@pytest.mark.parametrize("source", ["digits:", "digits:validation"])
def test_digits_have_two_splits(source):
    assert error_of(source) == f"{source}: the digits come as digits:train and digits:test"


@pytest.mark.parametrize(("source", "wanted"), [(None, "the sample photographs"), ("digits:test", "digits:test")])
def test_without_scikit_learn(monkeypatch, source, wanted):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert (
        error_of(source)
        == f"{wanted}: they come with scikit-learn, which is not installed here; give a folder of images instead"
    )


def encoded(form):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, form)
    return file.getvalue()


@given(data=st.data())
@pytest.mark.parametrize("form", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_damaged_files_give_pixels_or_a_sentence(tmp_path_factory, form, data):
    content = bytearray(encoded(form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{form.lower()}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        images = load_images(path, RGB_4)
    except ImageError as error:
        message = str(error)
    else:
        message = f"{path}: decoded"
        assert images.pixels.shape == (1, 4, 4, 3)
    assert re.fullmatch(rf"{re.escape(str(path))}: [^\n]+", message)
