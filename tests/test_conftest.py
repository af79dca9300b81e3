"""That the shared settings take hold."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.tools import TOOLS

ROOT = Path(__file__).parents[1]


def test_workers_share_the_cores():
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    assert torch.get_num_threads() * workers <= max(os.cpu_count() or 1, workers)


def test_properties_have_no_deadline_and_are_the_same_in_ci():
    assert settings().deadline is None
    assert settings().derandomize == bool(os.environ.get("CI"))


def test_the_slow_profile_tries_more():
    assert settings.get_profile("slow").max_examples > settings.get_profile("default").max_examples


# --- tools that a machine may lack ---

# what Debian has before anyone installs anything, and g++ with make
FRESH = (
    "bash", "sh", "env", "cat", "chmod", "cp", "cut", "dirname", "basename", "false", "find", "grep", "head", "id", "ln",
    "ls", "mkdir", "mv", "nproc", "printf", "pwd", "readlink", "rm", "rmdir", "sed", "sleep", "sort", "tail", "tar", "touch",
    "tr", "true", "uname", "wc", "awk", "g++", "gcc", "cc", "c++", "as", "ld", "ar", "make",
)  # fmt: skip


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A PATH with g++ and what belongs to every machine, and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in FRESH:
        if (path := shutil.which(name)) is not None:
            (folder / name).symlink_to(path)
    assert (folder / "g++").exists() and (folder / "make").exists()
    return folder


def run_pytest(arguments, path, folder, ci=False):
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")}
    environment |= {"PATH": str(path)} | ({"CI": "1"} if ci else {})
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def said(run):
    return [line for line in run.stdout.splitlines() if line.startswith("LEFT OUT")]


@pytest.fixture
def suite(tmp_path):
    """A suite with tests that need tools, under our settings."""
    for name in ("tests/conftest.py", "tests/tools.py", ".ci/tools", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "tests" / "test_tools.py").write_text(
        "import pytest, shutil\n"
        "@pytest.mark.needs('yosys')\n"
        "@pytest.mark.parametrize('case', [1, 2])\n"
        "def test_yosys(case): assert shutil.which('yosys') and not shutil.which('tclsh')\n"
        "@pytest.mark.needs('tclsh', 'clang++')\n"
        "def test_two(): assert shutil.which('tclsh') and shutil.which('clang++')\n"
        "def test_alone(): pytest.skip('not here')\n"
        "def test_names_none(): assert not any(map(shutil.which, ('yosys', 'tclsh', 'clang++', 'git', 'google-chrome')))\n"
    )
    return tmp_path


def test_a_run_says_what_it_left_out_and_what_installs_it(suite, fresh):
    run = run_pytest([], fresh, suite)
    assert run.returncode == 0, run.stdout + run.stderr
    assert said(run) == [
        "LEFT OUT: 2 tests: yosys missing",
        "LEFT OUT: 1 test: tclsh, clang++ missing",
        "LEFT OUT: 1 test: not here",
        "LEFT OUT: this installs what is missing: sudo apt-get install clang tcl yosys verilator chromium git",
    ]


def test_ci_leaves_nothing_out(suite, fresh):
    run = run_pytest([], fresh, suite, ci=True)
    assert run.returncode == 1
    assert "1 passed, 1 skipped, 3 errors" in run.stdout
    assert (
        "yosys missing, and CI leaves nothing out: sudo apt-get install clang tcl yosys verilator chromium git"
        in run.stdout
    )


def test_a_tool_is_there_for_the_tests_that_name_it_alone(suite, tmp_path):
    """On any machine: so that a test that uses one without a word does not wait for a fresh machine to fail."""
    (tmp_path / "bin").mkdir()
    for name in ("yosys", "tclsh", "clang++", "git", "google-chrome"):
        (tmp_path / "bin" / name).touch(mode=0o755)
    run = run_pytest([], tmp_path / "bin", suite)
    assert "4 passed, 1 skipped" in run.stdout, run.stdout + run.stderr
    assert said(run) == ["LEFT OUT: 1 test: not here"]


NAMING_TOOLS = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.needs(" in path.read_text()]


@pytest.mark.parametrize(
    "where", [NAMING_TOOLS, pytest.param(["tests"], marks=pytest.mark.slow)], ids=["naming", "all"]
)
def test_this_suite_needs_no_tool_to_be_collected_and_leaves_out_the_tests_that_do(fresh, where):
    """What names a tool runs, that is to say: is left out, whatever fixtures it has."""
    run = run_pytest(["-m", "needs", *where], fresh, ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^\d\d+ skipped, \d+ deselected in", run.stdout, flags=re.MULTILINE), run.stdout[-500:]
    lines = said(run)
    for tool in ("clang++", "tclsh", "yosys", "verilator", "chromium", "git"):
        assert any(re.fullmatch(rf"LEFT OUT: \d+ tests?: {re.escape(tool)} missing", line) for line in lines), tool


def test_there_is_one_list_of_tools():
    packages = " ".join(TOOLS)
    assert f"`sudo apt-get install {packages}`" in (ROOT / "README.md").read_text()
    for place in (".ci/run", ".github/workflows/csim.yml"):
        text = (ROOT / place).read_text()
        assert ".ci/install-tools" in text
        assert not [package for package in TOOLS if re.search(rf"install .*\b{package}\b", text)]


def test_the_list_is_installed_with_one_command(tmp_path, fresh):
    """What is here already is not asked for; google-chrome will do for chromium."""
    for name in FRESH:
        if (fresh / name).exists():
            (tmp_path / name).symlink_to(fresh / name)
    for name in ("google-chrome", "git"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "apt-get").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    (tmp_path / "apt-get").chmod(0o755)
    command = ["bash", str(ROOT / ".ci" / "install-tools")]
    run = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    if os.geteuid() != 0:
        sentence = "error: clang tcl yosys verilator missing, and installing needs root: sudo apt-get install clang tcl yosys verilator\n"
        assert (run.returncode, run.stderr) == (2, sentence)
        return
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "calls").read_text().splitlines() == [
        "update --quiet",
        "install --quiet --yes --no-install-recommends clang tcl yosys verilator",
    ]
