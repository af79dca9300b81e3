"""Settings that all tests share; what a run is made of stands in pyproject.toml."""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.tools import Tools, left_out

# Workers side by side share the cores: each computes, and compiles, with its part of them. Set before anything imports
# numpy or torch, and inherited by the commands that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    threads = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(threads))

# `make test` runs this, but what the tests run was not called by make: commands then speak of their options, not of make's
# variables. A test of that sets it again.
for variable in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS"):
    os.environ.pop(variable, None)

# No deadlines: the machine may be busy. In CI the same examples every time.
DERANDOMIZE = bool(os.environ.get("CI"))
settings.register_profile("default", deadline=None, derandomize=DERANDOMIZE, print_blob=True)
settings.register_profile("slow", settings.get_profile("default"), max_examples=1000)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    folder = tempfile.TemporaryDirectory(prefix="spvit-path-")
    config.add_cleanup(folder.cleanup)
    config.pluginmanager.register(Tools(Path(folder.name)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in left_out(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, yellow=True)
