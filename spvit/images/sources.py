"""Where images come from: a folder, a file, scikit-learn's digits or its two sample photographs.

Enters: what IMAGES= or CALIB= say, and a model's preprocessing. Leaves: an `ImageSet`.
numpy and Pillow alone; scikit-learn is asked only for what it carries.
"""

from __future__ import annotations

import importlib.util
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from spvit.errors import ImageError
from spvit.files import read_bytes
from spvit.images.preprocess import Pixels, Preprocessing

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""By content, whatever a file's name says: Pillow has more, and one of them hands the file to an interpreter."""
MOST_BYTES = 1 << 30  # of an image's file
SAMPLE_PHOTOGRAPHS = ("china.jpg", "flower.jpg")


@dataclass(frozen=True)
class ImageSet:
    """Images as one model sees them."""

    names: tuple[str, ...]  # the path inside the folder, or digits/test/0001
    pixels: Pixels  # [N, S, S, C]
    labels: NDArray[np.int64] | None  # [N]

    def __post_init__(self) -> None:
        assert self.pixels.dtype == np.uint8, self.pixels.dtype
        assert self.pixels.ndim == 4, self.pixels.shape
        assert len(self.pixels) == len(self.names) > 0, (self.pixels.shape, len(self.names))
        assert self.labels is None or self.labels.shape == (len(self.names),), self.labels.shape

    def __len__(self) -> int:
        return len(self.names)


def load_images(source: str | Path | None, preprocessing: Preprocessing) -> ImageSet:
    """The images of `source`, preprocessed.

    source  None: scikit-learn's sample photographs; "digits:test" and "digits:train": its handwritten digits;
            a file; or a folder, whose images are taken with those of its folders, sorted by path. Files there that
            don't end like images, and hidden ones, are not images; each other one must decode.
    Raises ImageError, with the file in its text.
    """
    if source is None:
        return _sample_photographs(preprocessing)
    if isinstance(source, str) and source.startswith("digits:"):
        return _digits(source, preprocessing)
    folder, files = image_files(Path(source))
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    return ImageSet(names, _stack((read_image(file, preprocessing) for file in files), len(files)), None)


def digits(split: Literal["train", "test"]) -> tuple[Pixels, NDArray[np.int64]]:
    """scikit-learn's 1,797 handwritten digits, a stratified quarter of them for testing.

    Returns pixels uint8 [N, 8, 8, 1], the data set's 0..16 stretched to 0..255, and labels int64 [N], both in the
    data set's order. The split is always the same one.
    """
    chosen, pixels, labels = _digits_split(split)
    return pixels[chosen], labels[chosen]


def _digits_split(split: str) -> tuple[NDArray[np.int64], Pixels, NDArray[np.int64]]:
    """Positions of the split's images, and all images and labels."""
    from sklearn.datasets import load_digits  # not on the board
    from sklearn.model_selection import train_test_split

    assert split in ("train", "test"), split
    values, labels = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    pixels = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return np.sort(train if split == "train" else test), pixels, labels.astype(np.int64)


def _digits(source: str, preprocessing: Preprocessing) -> ImageSet:
    split = source.removeprefix("digits:")
    if split not in ("train", "test"):
        raise ImageError(f"{source}: the digits come as digits:train and digits:test")
    _require_sklearn(source)
    chosen, pixels, labels = _digits_split(split)
    images = (preprocessing.to_uint8(Image.fromarray(pixels[position, :, :, 0])) for position in chosen)
    names = tuple(f"digits/{split}/{position:04}" for position in chosen)
    return ImageSet(names, _stack(images, len(chosen)), labels[chosen])


def _sample_photographs(preprocessing: Preprocessing) -> ImageSet:
    _require_sklearn("the sample photographs")
    from sklearn.datasets import load_sample_image

    photographs = (Image.fromarray(load_sample_image(name)) for name in SAMPLE_PHOTOGRAPHS)
    pixels = _stack(map(preprocessing.to_uint8, photographs), len(SAMPLE_PHOTOGRAPHS))
    return ImageSet(SAMPLE_PHOTOGRAPHS, pixels, None)


def _require_sklearn(wanted: str) -> None:
    if importlib.util.find_spec("sklearn") is None:
        raise ImageError(
            f"{wanted}: they come with scikit-learn, which is not installed here; give a folder of images instead"
        )


def image_files(path: Path) -> tuple[Path, list[Path]]:
    """The images below `path`, or `path` itself, and the folder that their names are relative to. Raises ImageError."""
    try:
        if path.is_dir():
            files = sorted(_images_below(path))
            if not files:
                raise ImageError(f"{path}: no images in this folder; give one with {', '.join(SUFFIXES)} files")
            return path, files
        if path.is_file():
            return path.parent, [path]
    except OSError as error:
        raise ImageError(f"{error.filename or path}: {error.strerror}; give a folder of images, or an image") from None
    raise ImageError(f"{path}: no such file or folder; give a folder of images, an image, digits:test or digits:train")


def _images_below(folder: Path) -> Iterator[Path]:
    """All that end like images, hidden ones aside; links to folders are followed, each folder once. Raises OSError."""

    def stop(error: OSError) -> None:
        raise error

    seen = set[tuple[int, int]]()
    for root, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        status = Path(root).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(root) / name


def class_folders(folder: Path) -> tuple[list[str], list[Path], list[int]]:
    """Of a folder with a folder of images per class: class names in order, image files, each one's class.

    Names that are numbers are in the order of the numbers, others in that of their text: `class_order` says which.
    Raises ImageError unless there are two classes, each with an image.
    """
    if not folder.is_dir():
        raise ImageError(
            f"{folder}: there is no such folder; a data set has train/<class>/ and val/<class>/ with images"
        )
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise ImageError(f"{folder}: {error.strerror}; give a folder with a folder of images per class") from None
    if _are_numbers(names):
        names.sort(key=int)
    if len(names) < 2:
        found = f"one class, {names[0]}" if names else "no class folders"
        raise ImageError(f"{folder}: has {found}; there is something to tell apart from two on, each in its own folder")
    files, labels = list[Path](), list[int]()
    for label, name in enumerate(names):
        _, found_files = image_files(folder / name)
        files += found_files
        labels += [label] * len(found_files)
    return names, files, labels


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() and name.isascii() for name in names)


def class_order(names: Sequence[str]) -> str | None:
    """A sentence on the order of classes whose numbers and texts are in different ones; None: there is but one."""
    as_text = sorted(names)
    if not _are_numbers(names) or list(names) == as_text:
        return None
    place = next(place for place, (name, text) in enumerate(zip(names, as_text, strict=True)) if name != text)
    return (
        f"classes: {len(names)} folders in the order of their numbers, so that class {place} is {names[place]}; in the "
        f"order of their texts, which torchvision has, it would be {as_text[place]}"
    )


class View(Protocol):
    """What makes pixels of an image: `Preprocessing`, or a training's augmentation."""

    def to_uint8(self, image: Image.Image) -> Pixels: ...


def read_image(path: Path, view: View) -> Pixels:
    """The image in a file, as `view` sees it. Raises ImageError, with the file in its text."""
    content = read_bytes(path, "replace it or leave it out", ImageError, MOST_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, about metadata that nobody uses
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return view.to_uint8(image)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image; replace it or leave it out") from None
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever a broken file leads them into
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{path}: cannot be decoded ({reason}); replace it or leave it out") from None


def _stack(images: Iterable[Pixels], count: int) -> Pixels:
    """[S, S, C] each to [N, S, S, C], without holding them twice."""
    pixels: Pixels | None = None
    for position, image in enumerate(images):
        if pixels is None:
            pixels = np.empty((count, *image.shape), np.uint8)
        pixels[position] = image
    assert pixels is not None
    return pixels
