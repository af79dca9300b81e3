"""The bundle: what is in it, that the board needs nothing else, and that it installs with one command."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from host.accelerator import Accelerator
from host.bundle import load_bundle, load_network
from hw.deploy import RUNTIME, bundle_files, bundle_name, pack, sample_images
from hw.generate import make_project
from hw.target import resolve_target
from sim.device.emulated import EmulatedDevice
from spvit.errors import BuildError, ConfigError
from spvit.files import seal
from spvit_fpga.cli import run as run_command

deploy = partial(run_command, "deploy")
ROOT = Path(__file__).parents[2]
BOARD_PACKAGES = {"numpy", "PIL", "pynq"}


@pytest.fixture(scope="module")
def project(build):
    return make_project(build.design, resolve_target("zcu102"))


def unpack(archive, folder):
    folder.mkdir()
    path = folder / "deploy.tar.gz"
    path.write_bytes(archive)
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    path.unlink()
    (bundle,) = folder.iterdir()
    return bundle


@pytest.fixture
def bundle(build, project, tmp_path):
    name = bundle_name(build.folder)
    return unpack(pack(bundle_files(project, build.folder), name), tmp_path / "board")


# --- what is in it ---


def test_it_works_with_the_emulated_device(build, bundle):
    assert bundle.name == "spvit-micro-zcu102"
    shutil.copytree(build.folder / "csim", bundle / "csim")  # compiled already: found only if the sources are the same
    compiled = len(list((bundle / "csim").iterdir()))
    with Accelerator(bundle, EmulatedDevice(bundle)) as accelerator:
        result = accelerator.infer(build.pixels)
    assert np.array_equal(result.logits, build.golden.logits)
    with Accelerator(bundle, EmulatedDevice(bundle)) as accelerator:
        assert len(accelerator.infer(bundle / "images").images) == 2
    assert len(list((bundle / "csim").iterdir())) == compiled


def test_every_file_has_its_digest(bundle):
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    digests = json.loads((bundle / "design.json").read_text())["sha256"]
    of_network = json.loads((bundle / "networks" / "micro" / "network.json").read_text())["sha256"]
    network = {f"networks/micro/{name}" for name in (*of_network, "network.json")}
    assert files == digests.keys() | {"design.json"} | network
    assert of_network.keys() == {"weights_0.bin", "weights_1.bin"}
    assert {"install.sh", "README.md", "latency.ipynb", "images/china.jpg", "images/README.txt"} <= files


def test_equal_inputs_give_equal_archives(build, project):
    name = bundle_name(build.folder)
    first, second = (pack(bundle_files(project, build.folder), name) for _ in range(2))
    assert first == second


def test_grey_models_get_digits():
    images, source = sample_images(1)
    assert len(images) == 8
    assert all(content.startswith(b"\x89PNG") for content in images.values())
    assert "digits" in source


def test_the_readme_says_which_image_and_that_there_is_no_bitstream(bundle):
    text = (bundle / "README.md").read_text()
    assert "There is no official image for the ZCU102" in text
    assert "**There is no bitstream in here**" in text
    assert "sudo ./spvit-micro-zcu102/install.sh" in text
    assert "\n\n\n" not in text


def test_a_bitstream_goes_along(build, project, tmp_path):
    folder = tmp_path / "micro-zcu102"
    shutil.copytree(build.folder, folder)
    (folder / "bitstream").mkdir()
    bitstream, handoff = folder / "bitstream" / "spvit.bit", folder / "bitstream" / "spvit.hwh"
    bitstream.write_bytes(b"bits")
    with pytest.raises(
        BuildError, match=r"^.*/spvit.hwh: missing beside spvit.bit, PYNQ needs both; run make bitstream"
    ):
        bundle_files(project, folder)
    handoff.write_text("<EDKSYSTEM/>")
    bundle = unpack(pack(bundle_files(project, folder), bundle_name(folder)), tmp_path / "board")
    assert load_bundle(bundle).bitstream.read_bytes() == b"bits"
    assert "There is no bitstream" not in (bundle / "README.md").read_text()
    os.utime(bitstream, (1, 1))
    with pytest.raises(
        BuildError, match=r"^.*/spvit.bit: older than .*design.json, the design has changed since; run "
    ):
        bundle_files(project, folder)


def test_a_card_without_a_processor_gets_none():
    with pytest.raises(ConfigError, match=r"^TARGET=u50 has no processor beside its logic, .*; choose one of .*zcu102"):
        deploy(["--model", "micro", "--target", "u50"])


def test_the_command(tmp_path, capsys):
    folder = tmp_path / "micro-zcu102"
    deploy(["--model", "micro", "--target", "zcu102", "--out", str(folder)])
    printed = capsys.readouterr().out
    assert f"{folder}/deploy.tar.gz: " in printed
    assert printed.endswith(
        "without a bitstream (make bitstream was not run): it works with the emulated device alone\n"
    )
    bundle = unpack((folder / "deploy.tar.gz").read_bytes(), tmp_path / "board")
    packed, built = load_bundle(bundle), load_bundle(folder)
    assert packed.digest == built.digest
    assert load_network(bundle, packed).digest == load_network(folder, built).digest


def test_a_newer_network_does_not_make_the_bitstream_stale(tmp_path):
    folder = tmp_path / "micro-zcu102"
    arguments = ["--model", "micro", "--target", "zcu102", "--out", str(folder)]
    deploy(arguments)
    before = load_network(folder, load_bundle(folder)).digest
    (folder / "bitstream").mkdir()
    for name in ("spvit.bit", "spvit.hwh"):
        (folder / "bitstream" / name).write_text("<EDKSYSTEM/>")
        seal(folder / "bitstream" / name)
    deploy([*arguments, "--seed", "1"])
    after = load_network(folder, load_bundle(folder)).digest
    bundle = unpack((folder / "deploy.tar.gz").read_bytes(), tmp_path / "board")
    packed = load_bundle(bundle)
    assert packed.bitstream is not None and load_network(bundle, packed).digest == after != before
    assert (folder / "weights" / "network.json").stat().st_mtime > (folder / "bitstream" / "spvit.bit").stat().st_mtime


# --- the board needs nothing else ---


def imported(path):
    """Top-level names that a file imports, wherever it does, for the Python of PYNQ 3.0."""
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 10))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def test_the_runtime_imports_numpy_pillow_and_pynq_alone():
    found = {(path, name) for path in RUNTIME for name in imported(ROOT / path)}
    others = {(path, name) for path, name in found if name not in sys.stdlib_module_names | BOARD_PACKAGES}
    allowed = {(path, name) for path, name in others if name in ("host", "hw", "spvit")}
    assert others - allowed == {
        ("spvit/images/sources.py", "sklearn"),  # asked only for what it carries, and only if it is there
        ("host/figures.py", "matplotlib"),  # the notebook's
    }
    assert {("host/board.py", "pynq"), ("spvit/images/preprocess.py", "PIL"), ("host/result.py", "numpy")} <= found


def test_every_module_that_the_runtime_imports_is_in_the_bundle():
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in RUNTIME}
    for path in RUNTIME:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("host", "hw", "spvit"):
                assert node.module in modules, (path, node.module)


FORBIDDEN = (
    "torch",
    "sklearn",
    "scipy",
    "brevitas",
    "hls4ml",
    "jinja2",
    "rich",
    "safetensors",
    "nbformat",
    "matplotlib",
)
ALONE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, ".")
import host.benchmark, spvit.images.drawing, host.images
from host.bundle import load_bundle, load_network
print(load_network(".", load_bundle(".")).name, host.__file__)
"""


def test_it_runs_in_a_folder_of_its_own_without_the_projects_packages(bundle):
    run = subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=bundle, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    name, file = run.stdout.split()
    assert (name, Path(file).resolve()) == ("micro", (bundle / "host" / "__init__.py").resolve())


WITHOUT_THE_PROJECT = """
import runpy, sys
from pathlib import Path
sys.path[:] = [".", *(place for place in sys.path if place and not (Path(place) / "sim" / "csim.py").exists())]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
sys.argv = ["host.benchmark", ".", "images", "--emulated"]
runpy.run_module("host.benchmark", run_name="__main__")
"""
"""Where it is not installed, as `make` does for its own environment."""


def test_the_emulated_device_needs_a_checkout(bundle):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", WITHOUT_THE_PROJECT]
    run = subprocess.run(command, cwd=bundle, capture_output=True, text=True, env=environment)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(
        r"error: the emulated device needs a checkout of the project, a bundle alone is not enough \(sim is missing\); "
        "run this there with the bundle's path\n",
        run.stderr,
    )


# --- installed with one command ---


def install(bundle, *arguments, **environment):
    return subprocess.run(
        [str(bundle / "install.sh"), *map(str, arguments)],
        capture_output=True, text=True, cwd="/", env=os.environ | {"PYTHON": sys.executable} | environment,
    )  # fmt: skip


def test_install(bundle, tmp_path):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / bundle.name).mkdir()
    (notebooks / bundle.name / "stale").touch()
    run = install(bundle, notebooks)
    target = notebooks / bundle.name
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == f"installed: {target}; open latency.ipynb there in Jupyter\n"
    assert [path.name for path in notebooks.iterdir()] == [bundle.name]
    assert not (target / "stale").exists()
    load_bundle(target)
    assert install(target, notebooks).returncode == 0  # where it already is
    load_bundle(target)
    assert install(bundle, PYNQ_JUPYTER_NOTEBOOKS=str(notebooks)).returncode == 0


def test_install_refuses(bundle, tmp_path):
    run = install(bundle, tmp_path / "nowhere")
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {tmp_path}/nowhere: no such folder, or not writable; run this with sudo")
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    for python, sentence in (
        ("false", "error: false: Python 3.10 or later is needed"),
        ("nowhere", "nowhere: not found"),
    ):
        run = install(bundle, notebooks, PYTHON=python)
        assert run.returncode == 2
        assert sentence in run.stderr
    image = bundle / "images" / "china.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:100])
    run = install(bundle, notebooks)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"error: images/china.jpg: (not an image|cannot be decoded).*\n", run.stderr)
    image.write_bytes(whole)
    weights = bundle / "networks" / "micro" / "weights_0.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    run = install(bundle, notebooks)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(
        r"error: networks/micro/weights_0.bin: not the file that network.json was made with .*\n", run.stderr
    )
    assert list(notebooks.iterdir()) == []
