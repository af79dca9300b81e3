"""Data: batches that depend on their place alone, folders of classes, and what is refused or skipped."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from spvit import distributed
from spvit.errors import ConfigError, ImageError
from spvit.images.preprocess import Preprocessing
from spvit.training.data import Data, InMemory, epoch_order, load_data, load_digits, sample
from spvit.training.recipe import Recipe
from tests.spvit.training.tiny import DIGITS, RECIPE, few_digits

PHOTO_MODEL = replace(DIGITS.model, name="photo", img_size=16, patch_size=4, in_chans=3, num_classes=2, mean=(), std=())
PHOTO_RECIPE = Recipe(workers=0, batch=4, repeats=1)
PLACE = (0, "backbone", 3)


def load(folder, **changes):
    return load_data(str(folder), PHOTO_MODEL, replace(PHOTO_RECIPE, **changes))


def test_the_digits_are_normalised_and_apart():
    training, test = (load_digits(part, DIGITS.model) for part in ("train", "test"))
    assert training[0].shape == (1347, 1, 8, 8)
    assert test[0].shape == (450, 1, 8, 8)
    assert training[0].min() == -1 and training[0].max() == 1
    assert training[0].dtype == torch.float32
    known = {image.numpy().tobytes() for image in training[0]}
    assert not any(image.numpy().tobytes() in known for image in test[0])


def test_an_epoch_holds_each_image_once_in_another_order():
    data = few_digits(70, replace(RECIPE, augment="none"))
    epochs = [torch.cat([labels for _, labels in data.training.epoch((0, "p", n), 10)]) for n in (0, 1, 1)]
    assert all(torch.equal(labels.sort().values, data.training.labels.sort().values) for labels in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and torch.equal(epochs[1], epochs[2])


def test_each_step_of_each_epoch_jitters_in_its_own_way():
    dot = torch.zeros(1, 1, 8, 8)
    dot[0, 0, 3, 2] = 1
    source = InMemory(dot.expand(60, -1, -1, -1), torch.zeros(60, dtype=torch.long), jittered=True)
    batches = [images for epoch in range(2) for images, _ in source.epoch((0, "p", epoch), 30)]
    assert len({images.numpy().tobytes() for images in batches}) == 4


def test_what_does_not_fill_a_batch_waits():
    data = few_digits(70)
    assert data.training.steps(32) == len(list(data.training.epoch(PLACE, 32))) == 2
    assert data.training.steps(100) == 1
    assert [len(labels) for _, labels in data.training.epoch(PLACE, 100)] == [70]


@pytest.mark.parametrize("source", ["digits", "photographs"])
def test_an_epoch_goes_on_in_its_middle_and_is_shared_by_processes(source, photographs, monkeypatch):
    training = few_digits(64).training if source == "digits" else load(photographs).training
    batch = 16 if source == "digits" else 4
    whole = list(training.epoch(PLACE, batch))
    rest = list(training.epoch(PLACE, batch, start=2))
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(rest, whole[2:], strict=True))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    parts = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(list(training.epoch(PLACE, batch)))
    for step, (images, labels) in enumerate(whole):
        assert torch.equal(torch.cat([parts[0][step][0], parts[1][step][0]]), images)
        assert torch.equal(torch.cat([parts[0][step][1], parts[1][step][1]]), labels)


def test_a_batch_is_shared_evenly(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    with pytest.raises(ConfigError, match=r"^batch=64 must be a multiple of the 3 processes$"):
        few_digits().training.steps(64)


def test_repeated_augmentation_takes_fewer_images_more_often():
    order = epoch_order(10, 3, PLACE).tolist()
    assert len(order) == 10
    assert order[0] == order[1] == order[2] and len(set(order)) == 4


def test_photographs_come_with_their_classes(photographs):
    data = load(photographs, augment="none")
    assert (len(data.training), len(data.test)) == (12, 6)
    for images, labels in data.test.views():  # blue is 0, red is 1
        is_red = images[:, 0].mean((1, 2)) > images[:, 2].mean((1, 2))
        assert torch.equal(is_red.long(), labels)
    images, _ = next(data.test.views())
    assert images.shape == (6, 3, 16, 16)
    plain = Preprocessing.from_model(PHOTO_MODEL)
    with Image.open(photographs / "val" / "blue" / "0.png") as image:
        expected = torch.from_numpy(plain.normalise(plain.to_uint8(image)[None])).float()
    assert torch.equal(images[:1], expected)


def test_views_of_a_photograph_differ_and_inferences_do_not(photographs):
    data = load(photographs, repeats=3)
    (images, labels), *_ = data.training.epoch(PLACE, 6)
    assert labels[0] == labels[1] == labels[2]
    assert not torch.equal(images[0], images[1])
    one, two = (sample(data.training, 5) for _ in range(2))
    assert torch.equal(one.images, two.images) and len(one) == 5
    assert set(one.labels.tolist()) == {0, 1}


def test_worker_processes_bring_the_same(photographs):
    alone, helped = (list(load(photographs, workers=workers).training.epoch(PLACE, 4)) for workers in (0, 2))
    assert all(
        torch.equal(a, b) for ours, theirs in zip(alone, helped, strict=True) for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_in_an_epoch_is_skipped_counted_and_named(photographs, workers, capfd):
    broken = photographs / "train" / "red" / "2.png"
    broken.write_bytes(broken.read_bytes()[:300])
    data = load(photographs, workers=workers)
    for epoch in range(2):
        batches = list(data.training.epoch((0, "p", epoch), 4))
        assert [len(labels) for _, labels in batches] == [4, 4, 4]
        assert all(images.isfinite().all() for images, _ in batches)
    assert data.unreadable == (str(broken),)
    assert capfd.readouterr().err.count(f"skipped: {broken}: cannot be decoded") == 1


def test_corrupt_images_are_not_evaluated(photographs):
    broken = photographs / "val" / "red" / "0.png"
    broken.write_text("no image")
    data = load(photographs)
    assert sum(len(labels) for _, labels in data.test.views()) == 5
    assert data.unreadable == (str(broken),)


def test_a_batch_without_any_readable_image(photographs):
    for file in (photographs / "train").rglob("*.png"):
        file.write_text("no image")
    with pytest.raises(ImageError) as refused:
        list(load(photographs).training.epoch(PLACE, 4))
    assert str(refused.value) == f"{photographs / 'train'}: none of a batch's 4 images can be read"


def remove(*parts):
    return lambda folder: shutil.rmtree(folder.joinpath(*parts))


def empty(folder):
    for file in (folder / "train" / "red").iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (remove("train"), "{0}/train: there is no such folder; a data set has train/<class>/ and val/<class>/ with images"),
        (remove("val"), "{0}/val: there is no such folder; a data set has train/<class>/ and val/<class>/ with images"),
        (remove("train", "red"), "{0}/train: has one class, blue; there is something to tell apart from two on, each in its own folder"),
        (lambda folder: [remove("train", name)(folder) for name in ("red", "blue")], "{0}/train: has no class folders; there is something to tell apart from two on, each in its own folder"),
        (empty, "{0}/train/red: no images in this folder; give one with "),
        (lambda folder: (folder / "val" / "red").rename(folder / "val" / "rot"), "{0}/val/rot: is a class that {0}/train does not have; remove it"),
        (lambda folder: shutil.copytree(folder / "train" / "red", folder / "train" / "green"), "{0}/train: has 3 class folders, but photo has num_classes=2; set num_classes = 3 in [model], or choose another data set"),
    ],
)  # fmt: skip
def test_data_sets_that_cannot_be(photographs, break_it, sentence):
    break_it(photographs)
    with pytest.raises((ConfigError, ImageError)) as refused:
        load(photographs)
    assert str(refused.value).startswith(sentence.format(photographs))


def test_data_that_is_not_there_or_does_not_fit():
    with pytest.raises(ConfigError) as refused:
        load_data("nowhere", DIGITS.model, RECIPE)
    assert (
        str(refused.value)
        == "--data nowhere: no such folder; give digits, or a folder with train/<class>/ and val/<class>/"
    )
    with pytest.raises(ConfigError) as refused:
        load_data("digits", replace(DIGITS.model, num_classes=7), RECIPE)
    assert str(refused.value).startswith(
        "deit_digits: digits are 8x8 grey images of 10 classes, but the model has img_size=8, in_chans=1, num_classes=7; "
    )
    with pytest.raises(
        ConfigError, match=r'^augment="deit" is for photographs in a folder; for digits choose jitter or none$'
    ):
        load_data("digits", DIGITS.model, replace(RECIPE, augment="deit"))


# --- held out ---


@pytest.mark.parametrize(("count", "most", "held"), [(100, 10, 10), (100, 1000, 20), (7, 3, 1), (3, 9, 1)])
def test_some_training_images_can_be_held_out(count, most, held):
    images = torch.arange(count, dtype=torch.float32)[:, None, None, None]
    training = InMemory(images, torch.arange(count), jittered=True)
    rest, apart = Data("x", training, training).hold_out(most)
    assert len(apart) == held and rest.test is training and rest.training.jittered
    chosen = apart.labels.tolist()
    assert chosen == apart.images.flatten().int().tolist() and chosen[0] == 0
    assert sorted([*chosen, *rest.training.labels.tolist()]) == list(range(count))


def test_a_part_of_a_folder(photographs):
    data = load(photographs)
    part = data.training.part([1, 3])
    assert part.files == [data.training.files[1], data.training.files[3]]
    assert part.labels == [data.training.labels[1], data.training.labels[3]]
    assert part.unreadable is data.training.unreadable
