"""C-simulations, compiled once per session; workers side by side share them."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import array_api_compat.numpy as arrays
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hw.generate import is_design_written, make_project, write_design
from hw.layout import Design
from hw.manifest import DESIGN
from hw.target import resolve_target
from sim.bridge import Accelerator, CsimResult
from sim.build import build_library
from sim.compare import Mismatch, compare_taps
from sim.golden import Golden, GoldenResult

Pixels = NDArray[np.uint8]


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """One worker at a time."""
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of this session, the same one for all its workers."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    folder.mkdir(exist_ok=True)
    return folder


class Simulators:
    """Compiles designs, each in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, design: Design) -> Path:
        """Where the hardware's files lie, whatever network is to run on it."""
        project = make_project(design, resolve_target("zcu102"), "tests")
        digest = hashlib.sha256(project.files[DESIGN].encode()).hexdigest()
        with locked(self.root / digest[:16]) as folder:
            if not is_design_written(project, folder):
                write_design(project, folder)
        return folder

    def __call__(self, design: Design, unit: str | None = None, **options: Any) -> Accelerator:
        with locked(self.folder(design)) as folder:
            return Accelerator(design, build_library(folder / "src", unit, **options))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """For tensors this small a second thread costs more in waiting than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Simulators:
    return Simulators(shared_folder(tmp_path_factory, "csim"))


def golden_of(design: Design, pixels: Pixels) -> GoldenResult:
    return Golden(design.network, design.program, arrays).run(pixels, taps=True)


def mismatches(design: Design, result: CsimResult, golden: GoldenResult, image: int = 0) -> list[Mismatch | str]:
    """Everything that differs between a C-simulation and the golden: taps, logits, token counts."""
    found: list[Mismatch | str] = list(compare_taps(design, result.trace, golden, image).mismatches)
    if not np.array_equal(result.logits, golden.logits[image]):
        found.append(f"logits {result.logits} against {golden.logits[image]}")
    tokens = [stage[image] for stage in golden.tokens]
    if result.tokens != tokens:
        found.append(f"tokens {result.tokens} against {tokens}")
    return found


def simulate(accelerator: Accelerator, pixels: Pixels) -> GoldenResult:
    """C-simulates each image; every value of every tap must be the golden's, which is returned."""
    design = accelerator.design
    golden = golden_of(design, pixels)
    for image in range(len(pixels)):
        result = accelerator.run(pixels[image])
        assert result.trace.keys() == golden.taps.keys()
        found = mismatches(design, result, golden, image)
        assert not found, f"image {image}: {'; '.join(map(str, found[:3]))}"
    return golden
