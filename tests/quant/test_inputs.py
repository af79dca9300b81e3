from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from quant import inputs
from quant.inputs import calibration_images, plan, poverty, views
from quant.options import BuildOptions
from spvit.config import registry, resolve_model, shipped_weights
from spvit.errors import CheckpointError, ImageError
from spvit.files import whole_folder
from tests.options import read

MICRO = resolve_model("micro")


def arguments(*texts: str) -> BuildOptions:
    return read(BuildOptions, "--model", "micro", *texts)


def test_without_images_there_are_views_of_the_bundled_photographs():
    pixels, words = calibration_images(MICRO, None)
    assert pixels.shape == (24, 16, 16, 3) and pixels.dtype == np.uint8
    assert words == "24 views of the two bundled photographs (give your own images with CALIB=)"
    assert len(np.unique(pixels.reshape(24, -1), axis=0)) == 24


def test_a_model_of_grey_images_is_calibrated_with_digits():
    spec = resolve_model("deit_digits")
    pixels, words = calibration_images(spec, None)
    assert pixels.shape == (256, 8, 8, 1)
    assert words == "256 of 1347 images of digits:train"


def test_a_big_model_takes_fewer_images():
    assert len(calibration_images(resolve_model("deit_b"), None)[0]) < len(calibration_images(MICRO, None)[0])


def test_images_of_a_folder_are_taken_evenly(tmp_path, monkeypatch):
    for index in range(10):
        Image.new("RGB", (20, 20), (index, index, index)).save(tmp_path / f"{index}.png")
    pixels, words = calibration_images(MICRO, str(tmp_path))
    assert pixels[:, 0, 0, 0].tolist() == list(range(10)) and words == f"10 of 10 images of {tmp_path}"
    monkeypatch.setattr(inputs, "MAX_IMAGES", 4)
    pixels, words = calibration_images(MICRO, str(tmp_path))
    assert pixels[:, 0, 0, 0].tolist() == [0, 3, 6, 9] and words == f"4 of 10 images of {tmp_path}"


@pytest.mark.parametrize(
    ("levels", "what"),
    [
        ([[255]], "the one image is of a single colour"),
        ([[0], [255], [7]], "all 3 images are of a single colour"),
        ([[1, 2], [1, 2]], "all 2 images are the same"),
        ([[1, 2]], None),
        ([[1, 2], [2, 1]], None),
        ([[1, 1], [2, 1]], None),
    ],
)
def test_images_that_teach_nothing_are_warned_of(levels, what):
    """levels: of the left and the right half."""
    pixels = np.array([np.broadcast_to(np.repeat(row, 8 // len(row))[None, :, None], (8, 8, 3)) for row in levels])
    said = poverty(pixels.astype(np.uint8))
    assert (said is None) == (what is None)
    assert what is None or said.startswith(f"warning: calibration: {what}, so hardly a range")


def test_the_bundled_images_teach_something():
    for name in ("micro", "deit_digits"):
        assert poverty(calibration_images(resolve_model(name), None)[0]) is None


def test_a_folder_that_is_not_there_is_a_users_error():
    with pytest.raises(ImageError, match="nowhere"):
        plan(arguments("--calib", "nowhere"))


def test_views_are_whole_images_parts_and_mirrors():
    photograph = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    seen = views(photograph)
    assert seen.shape == (12, 16, 16, 3)
    assert np.array_equal(seen[0], photograph[0])
    assert np.array_equal(seen[6], photograph[0, :, ::-1])


def test_a_checkpoint_that_is_not_there_is_a_users_error():
    with pytest.raises(CheckpointError, match=r"gone\.pth: there is no such file"):
        plan(arguments("--ckpt", "gone.pth"))


def test_weights_ship_with_models_of_the_registry_alone(tmp_path):
    for name in registry():
        path = shipped_weights(name)
        assert path is None or path.is_file()
    assert shipped_weights(str(tmp_path / "deit_digits.toml")) is None


def test_inputs_tell_every_change(tmp_path):
    first = plan(arguments())
    weights = tmp_path / "a.pth"
    weights.write_bytes(b"1")
    others = [
        plan(arguments("--seed", "1")),
        plan(arguments("--keep", "none")),
        plan(arguments("--keep", "0.7,0.5,0.25")),
        replace(first, checkpoint=weights),
        replace(first, pixels=first.pixels[:-1]),
        replace(first, spec=replace(first.spec, model=replace(first.spec.model, layer_norm_eps=1e-5))),
    ]
    distinct = {first.inputs, *(other.inputs for other in others)}
    assert len(distinct) == 1 + len(others)
    assert plan(arguments()).inputs == first.inputs


def test_inputs_are_recognised_in_a_folder(tmp_path):
    made = plan(arguments()).inputs
    assert not made.written_in(tmp_path)
    folder = tmp_path / "network"
    with whole_folder(folder) as fresh:
        made.write(fresh)
    assert made.written_in(folder)
    assert not replace(made, code="other").written_in(folder)
    (folder / "inputs.json").write_text("{")
    assert not made.written_in(folder)
