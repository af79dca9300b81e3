"""That the shared settings take hold."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from hypothesis import settings


def test_workers_share_the_cores():
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    assert torch.get_num_threads() * workers <= max(os.cpu_count() or 1, workers)


def test_properties_have_no_deadline_and_are_the_same_in_ci():
    assert settings().deadline is None
    assert settings().derandomize == bool(os.environ.get("CI"))


def test_the_slow_profile_tries_more():
    assert settings.get_profile("slow").max_examples > settings.get_profile("default").max_examples


def test_a_run_says_which_checks_it_left_out(tmp_path):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_tools.py").write_text(
        "import pytest\n"
        "@pytest.mark.skipif(True, reason='the tool is missing: nothing is held to it')\n"
        "@pytest.mark.parametrize('case', [1, 2])\n"
        "def test_with_the_tool(case): pass\n"
        "def test_alone(): pytest.skip('not here')\n"
        "def test_runs(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
    said = [line for line in run.stdout.splitlines() if line.startswith("LEFT OUT")]
    assert said == [
        "LEFT OUT: 2 tests: the tool is missing: nothing is held to it",
        "LEFT OUT: 1 test: not here",
    ]
