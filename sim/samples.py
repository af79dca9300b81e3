"""What is evaluated: images with their classes, read one by one.

Enters: what DATA= says, and a model. Leaves: `Samples`, whose images are what inference sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from spvit import distributed
from spvit.config import ModelConfig
from spvit.errors import ConfigError
from spvit.images.preprocess import Pixels, Preprocessing
from spvit.images.sources import class_folders, class_order, load_images, read_image

TEST_FOLDERS = ("val", "test")


@dataclass(frozen=True)
class Samples:
    """A labelled data set.

    classes  names, by label
    names    of the images, for people
    labels   of the images
    read     the pixels uint8 [S, S, C] of an image, by position; raises ImageError for one that is broken
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    read: Callable[[int], Pixels]

    def __len__(self) -> int:
        return len(self.names)


def default_data(model: ModelConfig) -> str:
    """The data set of a model that is told none. Raises ConfigError where there is none that fits."""
    if (model.in_chans, model.num_classes) == (1, 10):
        return "digits:test"
    raise ConfigError(
        f"{model.name}: no labelled images come with a model of {model.num_classes} classes; "
        "give DATA=, a folder that holds a folder of images per class"
    )


def load_samples(source: str, model: ModelConfig) -> Samples:
    """scikit-learn's digits ("digits:test", "digits:train"), or a folder that holds a folder of images per class.

    "digits" are those for testing, and of a folder with val/ or test/ in it, that one is taken.
    Raises ConfigError, ImageError.
    """
    source = "digits:test" if source == "digits" else source
    preprocessing = Preprocessing.from_model(model)
    if source.startswith("digits:"):
        images = load_images(source, preprocessing)
        assert images.labels is not None
        classes, pixels = tuple("0123456789"), images.pixels
        samples = Samples(classes, images.names, tuple(images.labels.tolist()), lambda i: pixels[i])
    else:
        root = Path(source)
        folder = next((root / part for part in TEST_FOLDERS if (root / part).is_dir()), root)
        found, files, labels = class_folders(folder)
        if (order := class_order(found)) is not None:
            distributed.say_once(order)
        names = tuple(file.relative_to(folder).as_posix() for file in files)
        samples = Samples(tuple(found), names, tuple(labels), partial(_read_file, files, preprocessing))
    if len(samples.classes) != model.num_classes:
        raise ConfigError(
            f"{source}: has {len(samples.classes)} classes, but {model.name} has num_classes={model.num_classes}; "
            "choose the data set that it was trained for"
        )
    return samples


def _read_file(files: list[Path], preprocessing: Preprocessing, position: int) -> Pixels:
    return read_image(files[position], preprocessing)
