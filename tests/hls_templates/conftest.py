"""The kernels' headers, compiled into small libraries that Python calls; once per session and width of integers."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from hw.generate import make_project, write_project
from hw.target import resolve_target
from sim.build import compile_flags
from tests.hls_templates.worlds import NUM_WORLDS, World, make_world
from tests.sim.conftest import locked, shared_folder
from tests.sim.networks import MICRO, design_of, random_network

Ints = NDArray[np.int64]


class Harness:
    """A compiled file of this folder."""

    def __init__(self, library: Path, exact: bool) -> None:
        self.library, self.exact = ctypes.CDLL(str(library)), exact

    def map(self, name: str, a: ArrayLike, b: ArrayLike = 0, parameter: int = 0, outputs: int = 1) -> Ints:
        """A function of arithmetic.cpp on each value, or on each row. [outputs, n], or [n] for one output"""
        first = np.ascontiguousarray(a, np.int64)
        second = np.ascontiguousarray(np.broadcast_to(b, first.shape) if np.ndim(b) == 0 else b, np.int64)
        n = len(first)
        out = np.full((outputs, n, *first.shape[1:]) if name == "rotate" else (outputs, n), -(2**62), np.int64)
        getattr(self.library, name)(_pointer(first), _pointer(second), _pointer(out), _int64(n), _int64(parameter))
        return out if outputs > 1 else out[0]

    def call(self, name: str, *arguments: NDArray[np.int64] | int) -> int:
        """A function of structures.cpp: arrays are int64, and may be written to."""
        converted = [
            _pointer(argument) if isinstance(argument, np.ndarray) else _int64(argument) for argument in arguments
        ]
        assert all(a.dtype == np.int64 and a.flags.c_contiguous for a in arguments if isinstance(a, np.ndarray))
        function = getattr(self.library, name)
        function.restype = ctypes.c_int64
        return int(function(*converted))


@pytest.fixture(scope="session")
def compile_harness(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Harness]:
    shared = shared_folder(tmp_path_factory, "harness")
    network = random_network(np.random.default_rng(0), MICRO.model, MICRO.pruning)
    with locked(shared / "micro") as folder:
        if not folder.exists():
            write_project(make_project(design_of(network), resolve_target("zcu102")), folder)  # for tables.hpp

    def compile_one(source: str, exact: bool) -> Harness:
        with locked(shared / f"{source}-{exact}") as path:
            library = path.with_suffix(".so")
            if library.exists():
                return Harness(library, exact)
            flags = [flag for flag in compile_flags(exact) if flag != "-O3"]
            flags += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # of ap_fixed, see sim/build.py
            command = ["g++", *flags, "-O1", "-shared", f"-I{folder / 'src'}", str(Path(__file__).with_name(source))]
            run = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True)
            assert (run.returncode, run.stderr) == (0, "")
            return Harness(library, exact)

    return compile_one


@pytest.fixture(params=[False, True], ids=["native", "exact"], scope="session")
def arithmetic(request: pytest.FixtureRequest, compile_harness: Callable[[str, bool], Harness]) -> Harness:
    return compile_harness("arithmetic.cpp", request.param)


@pytest.fixture(params=[False, True], ids=["native", "exact"], scope="session")
def structures(request: pytest.FixtureRequest, compile_harness: Callable[[str, bool], Harness]) -> Harness:
    return compile_harness("structures.cpp", request.param)


@pytest.fixture(params=range(NUM_WORLDS))
def world(request: pytest.FixtureRequest, structures: Harness) -> World:
    return make_world(structures, request.param)


def _pointer(array: Ints) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _int64(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)
