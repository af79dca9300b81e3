"""The Pythons of PYNQ's images, made on this machine: an interpreter of that version, and the packages that it has there.

Enters: what lies in `pynq-3.txt` and `pynq-4.txt`. Leaves: environments in `.venv/board/`, made once, by pip.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tools import MISSING

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Image:
    """Of PYNQ, by the version of its Python and the file that lists its packages."""

    python: str
    packages: Path

    def interpreter(self) -> Path:
        """The Python on PATH, or pyenv's. Without it the test is left out, and fails in CI."""
        versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        found = [shutil.which(f"python{self.python}"), *sorted(versions.glob(f"{self.python}.*/bin/python"))]
        for path in filter(None, found):
            run = subprocess.run([path, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
                                 capture_output=True, text=True)  # fmt: skip
            if run.stdout.strip() == self.python:
                return Path(path)
        reason = MISSING.format(f"python{self.python}")
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI leaves nothing out", pytrace=False)
        pytest.skip(reason)

    def environment(self, *names: str) -> Path:
        """The interpreter with `names` of its packages and what those need; all of them when none is named."""
        lines = [line for line in self.packages.read_text().splitlines() if line and not line.startswith("#")]
        pinned = [line for line in lines if not names or line.partition("==")[0] in names]
        digest = hashlib.sha256("\n".join(pinned).encode()).hexdigest()[:8]
        folder = ROOT / ".venv" / "board" / f"{self.python}-{digest}"
        folder.parent.mkdir(exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / ".installed").exists():
                shutil.rmtree(folder, ignore_errors=True)
                _run(str(self.interpreter()), "-m", "venv", str(folder))
                pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
                _run(*pip, *[line for line in pinned if not line.startswith("pynq")])
                if any(line.startswith("pynq") for line in pinned):
                    _run(*pip, *pinned)
                    _run(*pip, "--no-deps", _own_version("hls4ml"))  # its headers alone, for the emulated device
                (folder / ".installed").touch()
        return folder / "bin" / "python"


OLDEST = Image("3.10", Path(__file__).with_name("pynq-3.txt"))
NEWEST = Image("3.12", Path(__file__).with_name("pynq-4.txt"))


def _own_version(package: str) -> str:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{package}==")).split()[0]


def _run(*command: str) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
