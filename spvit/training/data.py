"""What is trained on: scikit-learn's digits, or a folder with train/<class>/ and val/<class>/, as ImageNet has them.

Enters: DATA=, a model, a recipe. Leaves: `Data`, whose batches are a function of seed, epoch and step, so that training
can go on anywhere, and of which each process gets its rows. An image that cannot be read is skipped, counted and named.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spvit import distributed
from spvit.config import ModelConfig
from spvit.console import Console
from spvit.errors import ConfigError, ImageError
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import View, class_folders, class_order, digits, read_image
from spvit.training.augment import TrainingView, erase, jitter
from spvit.training.draws import drawing
from spvit.training.recipe import Recipe

TEST_FOLDERS = ("val", "test")
INFERENCE_BATCH = 64
Batch = tuple[Tensor, Tensor]  # images (B, in_chans, S, S) normalised, labels (B)


class Source(Protocol):
    """One part of a data set."""

    def __len__(self) -> int: ...
    def steps(self, batch: int) -> int:
        """Whole batches in an epoch; at least one, of fewer images if there are no more."""

    def epoch(self, place: tuple[int | str, ...], batch: int, start: int = 0) -> Iterator[Batch]:
        """This process's rows of an epoch's batches from step `start` on, as training sees them.

        place  seed, phase, epoch: what the order and all else that is drawn depend on
        """

    def views(self, chosen: Sequence[int] | None = None) -> Iterator[Batch]:
        """All images, or the chosen ones, as inference sees them."""

    def part(self, chosen: Sequence[int]) -> "Source":
        """A source of some of the images."""

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that were skipped, and why."""


@dataclass(frozen=True)
class Data:
    """A data set."""

    name: str
    training: Source
    test: Source

    def calibration(self, count: int) -> Tensor:
        """Evenly spaced training images, at most `count`, as inference sees them: (B, in_chans, S, S)."""
        return sample(self.training, count).images

    def hold_out(self, most: int) -> tuple["Data", Source]:
        """Without some of the training images, evenly spaced, and these: at most `most`, and at most a fifth."""
        count = len(self.training)
        held = torch.linspace(0, count - 1, max(1, min(most, count // 5))).round().int().unique().tolist()
        rest = sorted({*range(count)} - {*held})
        return replace(self, training=self.training.part(rest)), self.training.part(held)

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Files that were skipped."""
        return tuple(sorted({*self.training.unreadable, *self.test.unreadable}))


def sample(source: Source, count: int) -> "InMemory":
    """Evenly spaced images of a source, at most `count`, as inference sees them."""
    chosen = torch.linspace(0, len(source) - 1, min(count, len(source))).round().int().tolist()
    images, labels = zip(*source.views(chosen), strict=True)
    return InMemory(torch.cat(images), torch.cat(labels))


def data_name(asked: str | None, model: ModelConfig) -> str:
    """What DATA= says; without it, the digits for a model of their size. Raises ConfigError."""
    if asked is not None:
        return asked
    if (model.img_size, model.in_chans) == (8, 1):
        return "digits"
    raise ConfigError(
        f"{model.name}: there is nothing to train on; give DATA=, a folder with train/<class>/ and val/<class>/"
    )


def load_data(name: str, model: ModelConfig, recipe: Recipe) -> Data:
    """What DATA= names. Raises ConfigError, ImageError."""
    if name == "digits":
        training, test = (load_digits(part, model) for part in ("train", "test"))
        if recipe.augment == "deit":
            raise ConfigError('augment="deit" is for photographs in a folder; for digits choose jitter or none')
        return Data(name, InMemory(*training, recipe.augment == "jitter"), InMemory(*test))
    root = Path(name)
    if not root.is_dir():
        raise ConfigError(
            f"--data {name}: no such folder; give digits, or a folder with train/<class>/ and val/<class>/"
        )
    names, files, labels = class_folders(root / "train")
    if (order := class_order(names)) is not None:
        distributed.say_once(order)
    if len(names) != model.num_classes:
        raise ConfigError(
            f"{root / 'train'}: has {len(names)} class folders, but {model.name} has num_classes={model.num_classes}; "
            f"set num_classes = {len(names)} in [model], or choose another data set"
        )
    for_tests = next((root / part for part in TEST_FOLDERS if (root / part).is_dir()), root / TEST_FOLDERS[0])
    test_names, test_files, test_labels = class_folders(for_tests)
    strangers = sorted(set(test_names) - set(names))
    if strangers:
        raise ConfigError(f"{for_tests / strangers[0]}: is a class that {root / 'train'} does not have; remove it")
    test_labels = [names.index(test_names[label]) for label in test_labels]
    plain = Preprocessing.from_model(model)
    view = TrainingView(plain, recipe.magnitude) if recipe.augment == "deit" else plain
    erasing = recipe.erasing if recipe.augment == "deit" else 0.0
    training_folder = Folder(files, labels, plain, view, erasing, recipe.repeats, recipe.workers)
    return Data(name, training_folder, Folder(test_files, test_labels, plain, plain, workers=recipe.workers))


def load_digits(part: Literal["train", "test"], model: ModelConfig) -> Batch:
    """scikit-learn's handwritten digits, as the model wants its images."""
    if (model.img_size, model.in_chans, model.num_classes) != (8, 1, 10):
        raise ConfigError(
            f"{model.name}: digits are 8x8 grey images of 10 classes, but the model has img_size={model.img_size}, "
            f"in_chans={model.in_chans}, num_classes={model.num_classes}; choose deit_digits, or sizes that fit"
        )
    pixels, labels = digits(part)
    images = torch.from_numpy(Preprocessing.from_model(model).normalise(pixels)).float()
    return images, torch.from_numpy(labels)


def epoch_order(count: int, repeats: int, place: tuple[int | str, ...]) -> Tensor:
    """`count` positions in an epoch's order, each image `repeats` times in a row (repeated augmentation)."""
    with drawing(*place, "order"):
        return torch.randperm(count).repeat_interleave(repeats)[:count]


def _steps(count: int, batch: int) -> int:
    """What is left over by whole batches waits for the next epoch's order."""
    if batch % distributed.world_size():
        raise ConfigError(f"batch={batch} must be a multiple of the {distributed.world_size()} processes")
    return max(count // batch, 1)


class InMemory:
    """A small part of a data set, held whole."""

    def __init__(self, images: Tensor, labels: Tensor, jittered: bool = False) -> None:
        self.images, self.labels, self.jittered = images, labels, jittered
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, batch: int) -> int:
        return _steps(len(self), batch)

    def epoch(self, place: tuple[int | str, ...], batch: int, start: int = 0) -> Iterator[Batch]:
        order = epoch_order(len(self), 1, place)
        for step in range(start, self.steps(batch)):
            chosen = order[step * batch : (step + 1) * batch]
            images = self.images[chosen]
            if self.jittered:
                with drawing(*place, step, "jitter"):
                    images = jitter(images)
            yield distributed.own_rows(images), distributed.own_rows(self.labels[chosen])

    def part(self, chosen: Sequence[int]) -> "InMemory":
        return InMemory(self.images[list(chosen)], self.labels[list(chosen)], self.jittered)

    def views(self, chosen: Sequence[int] | None = None) -> Iterator[Batch]:
        rows = torch.arange(len(self)) if chosen is None else torch.tensor(chosen, dtype=torch.long)
        for part in rows.split(INFERENCE_BATCH):
            yield self.images[part], self.labels[part]


@dataclass
class Folder:
    """Images in files, read by worker processes as they are needed.

    view        what a training image goes through; `preprocessing` is inference's
    repeats     views of an image in an epoch
    unreadable  files that were skipped, and why
    """

    files: Sequence[Path]
    labels: Sequence[int]
    preprocessing: Preprocessing
    view: View
    erasing: float = 0.0
    repeats: int = 1
    workers: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def steps(self, batch: int) -> int:
        return _steps(len(self), batch)

    def epoch(self, place: tuple[int | str, ...], batch: int, start: int = 0) -> Iterator[Batch]:
        order = epoch_order(len(self), self.repeats, place)
        positions = torch.arange(len(self))
        batches = [
            distributed.own_rows(positions[step * batch : (step + 1) * batch]).tolist()
            for step in range(start, self.steps(batch))
        ]
        return self._load(_Reader(self, order.tolist(), place), batches)

    def part(self, chosen: Sequence[int]) -> "Folder":
        """What it skips, this one knows, too."""
        files, labels = [self.files[position] for position in chosen], [self.labels[position] for position in chosen]
        return replace(self, files=files, labels=labels)

    def views(self, chosen: Sequence[int] | None = None) -> Iterator[Batch]:
        order = list(range(len(self))) if chosen is None else list(chosen)
        return self._load(_Reader(self, order, None), torch.arange(len(order)).split(INFERENCE_BATCH))

    def _load(self, reader: "_Reader", batches: Sequence[Sequence[int] | Tensor]) -> Iterator[Batch]:
        plain = [list(map(int, batch)) for batch in batches]
        for items in DataLoader(reader, batch_sampler=plain, num_workers=self.workers, collate_fn=list):
            good = [(image, label) for image, label in items if isinstance(image, Tensor)]
            for reason in (image for image, _ in items if isinstance(image, str)):
                self._skip(reason)
            if not good:
                raise ImageError(f"{self.files[0].parent.parent}: none of a batch's {len(items)} images can be read")
            if reader.place is not None:  # training: another of the batch takes the place, so that sizes stay
                good += good[:1] * (len(items) - len(good))
            yield torch.stack([image for image, _ in good]), torch.tensor([label for _, label in good])

    def _skip(self, reason: str) -> None:
        path = reason.partition(": ")[0]
        if path not in self.unreadable:
            Console(stderr=True).print(f"skipped: {reason}")
        self.unreadable[path] = reason


class _Reader(Dataset):
    """What a worker does for a position: the image and its label; why it cannot be read, in place of the image."""

    def __init__(self, folder: Folder, order: Sequence[int], place: tuple[int | str, ...] | None) -> None:
        self.folder, self.order, self.place = folder, order, place

    def __getitem__(self, position: int) -> tuple[Tensor | str, int]:
        folder, index = self.folder, self.order[position]
        try:
            if self.place is None:
                return self._normalised(folder.files[index], folder.preprocessing), folder.labels[index]
            with drawing(*self.place, position):
                image = self._normalised(folder.files[index], folder.view)
                return erase(image, folder.erasing), folder.labels[index]
        except ImageError as error:
            return str(error), folder.labels[index]

    def _normalised(self, path: Path, view: View) -> Tensor:
        pixels = read_image(path, view)
        return torch.from_numpy(self.folder.preprocessing.normalise(pixels[None])[0]).float()
