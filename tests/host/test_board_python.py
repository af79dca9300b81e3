"""The bundle under the Pythons of PYNQ's images, oldest and newest: it installs, decodes and infers."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from hw.deploy import RUNTIME, bundle_files, pack
from hw.generate import make_project
from hw.target import resolve_target
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images
from tests.host.board_python import NEWEST, OLDEST, ROOT
from tests.host.test_deploy import install, unpack

IMAGES = pytest.mark.parametrize("image", [OLDEST, NEWEST], ids=["PYNQ 3", "PYNQ 4"])
LOOK = """
import json, sys
from pathlib import Path
import PIL, numpy
from host.bundle import load_bundle, load_network
from spvit.images.drawing import draw_kept
from host.images import load_images
network = load_network(".", load_bundle("."))
images = load_images(sys.argv[1], network.preprocessing)
draw_kept(images.pixels[0], [numpy.arange(3)], network.patch_size)
numpy.save(sys.argv[2], images.pixels)
print(json.dumps([sys.version_info[:2], PIL.__version__, numpy.__version__, images.names]))
"""


@pytest.fixture
def bundle(build, tmp_path):
    project = make_project(build.design, resolve_target("zcu102"))
    return unpack(pack(bundle_files(project, build.folder), "bundle"), tmp_path / "board")


@pytest.fixture
def pictures(tmp_path):
    """Of each kind that is decoded without loss, upright and not."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    picture = Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "turned.png", exif=turned)
    for name, mode in (("grey.png", "L"), ("palette.png", "P"), ("alpha.png", "RGBA"), ("plain.bmp", "RGB")):
        picture.convert(mode).save(folder / name)
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    return folder


@IMAGES
def test_it_sees_the_pixels_that_calibration_saw(bundle, pictures, tmp_path, image):
    """numpy and Pillow alone, of the versions that the image has."""
    python = image.environment("numpy", "pillow")
    run = subprocess.run(
        [python, "-c", LOOK, pictures, tmp_path / "pixels.npy"], cwd=bundle, capture_output=True, text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    version, pillow, numpy, names = json.loads(run.stdout)
    pinned = image.packages.read_text()
    assert ".".join(map(str, version)) == image.python
    assert f"pillow=={pillow}\n" in pinned and f"numpy=={numpy}\n" in pinned
    manifest = json.loads(next(bundle.glob("networks/*/network.json")).read_text())["model"]
    preprocessing = Preprocessing(
        manifest["img_size"], manifest["in_chans"], manifest["crop"], tuple(manifest["mean"]), tuple(manifest["std"])
    )
    ours = load_images(pictures, preprocessing)
    assert tuple(names) == ours.names and len(names) == 6
    assert np.array_equal(np.load(tmp_path / "pixels.npy"), ours.pixels)


@pytest.mark.parametrize("image", [OLDEST], ids=["PYNQ 3"])
def test_every_file_of_the_runtime_is_of_its_python(image):
    check = "import ast, sys\nfor path in sys.argv[1:]: compile(open(path).read(), path, 'exec')"
    run = subprocess.run([image.interpreter(), "-c", check, *RUNTIME], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.slow
@IMAGES
def test_it_installs_and_infers_with_its_pynq(build, bundle, tmp_path, image):
    """The whole runtime, PYNQ included, on the emulated device."""
    python = image.environment()
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    run = install(bundle, notebooks, PYTHON=str(python))
    assert (run.returncode, run.stderr) == (0, "")
    out = tmp_path / "latency.json"
    run = subprocess.run(
        [python, "-W", "ignore", "-m", "host.benchmark", bundle, bundle / "images", "--emulated", "--out", out],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    report = json.loads(out.read_text())["measurement"]
    assert report["kind"] == "estimate" and report["images"] == 2 and report["waits_by_interrupt"]
