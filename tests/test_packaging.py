"""`pip install .`: the wheel holds all that a checkout's rooms hold, and works from any folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("spvit", "quant", "hw", "sim", "host", "hls_templates", "spvit_fpga")
CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


def files_of(folder):
    """Of all rooms, relative to the folder."""
    found = (path for room in ROOMS for path in (folder / room).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, without a network: pip builds in the tree, and would leave its own build/ there."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for room in (*ROOMS, "tests"):
        shutil.copytree(ROOT / room, source / room, ignore=CACHES)
    for name in ("pyproject.toml", "requirements.in", "requirements-dev.in", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(out),
    ]
    run = subprocess.run([*command, "./"], cwd=source, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_it_holds_the_rooms_whole_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files_of(ROOT)
    assert {"hls_templates/engine.hpp", "hw/targets/zcu102.toml", "sim/bridge.cpp", "hw/model/lanes/cut.v"} <= held


def test_it_asks_for_what_the_environment_pins(site):
    (info,) = site.glob("*.dist-info")
    asked = PathDistribution(info).requires
    pinned = set(re.findall(r"^[\w.-]+==[\w.]+", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE))
    plain = {line for line in asked if ";" not in line}
    assert plain <= pinned and {"torch", "numpy", "jinja2"} <= {line.split("==")[0].lower() for line in plain}
    assert {line.split(";")[0] for line in asked} <= pinned and any("extra ==" in line for line in asked)


def run_installed(site, folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", *arguments]
    run = subprocess.run(
        command, cwd=folder, env=environment | {"PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_it_brings_the_console_script(site, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(site)}
    run = subprocess.run(
        [site / "bin" / "spvit", "cost", "--model", "deit_t"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "") and "5.738 M parameters" in run.stdout


def test_it_quantizes_and_renders_from_any_folder(site, tmp_path):
    assert "up to date" not in run_installed(site, tmp_path, "spvit_fpga", "hls", "--model", "micro")
    assert (tmp_path / "build" / "micro-zcu102" / "src" / "engine.hpp").read_bytes() == (
        ROOT / "hls_templates" / "engine.hpp"
    ).read_bytes()
    where = run_installed(site, tmp_path, "timeit", "-n1", "-r1", "import hw.render; print(hw.render.__file__)")
    assert where.startswith(str(site))


@pytest.mark.slow
def test_it_simulates_packs_and_reports_from_any_folder(site, tmp_path):
    assert "bit-exact" in run_installed(site, tmp_path, "spvit_fpga", "csim", "--model", "micro")
    run_installed(site, tmp_path, "spvit_fpga", "deploy", "--model", "micro")
    run_installed(site, tmp_path, "spvit_fpga", "report", "--model", "micro")
    folder = tmp_path / "build" / "micro-zcu102"
    assert {"csim.json", "deploy.tar.gz", "report.html"} <= {path.name for path in folder.iterdir()}


def test_a_checkout_can_be_installed_in_place(tmp_path):
    """`pip install -e .`, into an environment of its own."""
    for name in ("pyproject.toml", "requirements.in", "requirements-dev.in", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=CACHES)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    run = subprocess.run(
        [*command, str(tmp_path / "site"), "-e", "."], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
