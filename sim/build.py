"""Compiles generated C++ into a shared library, once per digest of sources, flags, compiler and CPU.

The C-simulation headers (ap_int.h, hls_stream.h) are Vitis's own when it is there, else those of the hls4ml wheel.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

from sim.compiler import Compiler
from spvit.errors import BuildError
from spvit.files import is_sealed, seal, whole_file

BRIDGE = Path(__file__).with_name("bridge.cpp")
TIMED = Path(__file__).with_name("timed")
WARNINGS = ("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-unused-label")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")


def header_folder() -> Path:
    """Where ap_int.h lies."""
    vitis = os.environ.get("XILINX_HLS")
    if vitis and (Path(vitis) / "include" / "ap_int.h").exists():
        return Path(vitis) / "include"
    spec = find_spec("hls4ml")
    if spec is None or not spec.submodule_search_locations:
        raise BuildError("ap_int.h not found: neither Vitis HLS (XILINX_HLS) nor the hls4ml package is installed")
    return Path(spec.submodule_search_locations[0]) / "templates" / "vivado" / "ap_types"


def unit_names(source_folder: Path) -> list[str]:
    """Kernels of a rendered design that have a top of their own."""
    return sorted(path.stem for path in source_folder.glob("*.cpp") if path.stem != "top")


def compile_flags(
    exact: bool = False, sanitize: bool = False, compiler: str | None = None, timed: bool = False
) -> list[str]:
    """Warnings stay on for our sources; nothing is printed for them.

    exact     ap_int of exact widths in place of native integers
    sanitize  address and undefined-behaviour sanitizers
    timed     count cycles, and check ports and distances (sim/timed)
    """
    # hidden: designs that are loaded side by side must not share the statics of their inline functions
    flags = ["-std=c++14", "-fPIC", "-fvisibility=hidden", "-DSPVIT_TRACE", *WARNINGS, "-isystem", str(header_folder())]
    flags += ["-DSPVIT_EXACT_WIDTHS"] if exact else ["-march=native"]
    if exact and not Compiler.find(compiler).is_clang:
        # ap_private masks bits in its default constructor that it never set, and GCC reports it wherever it is inlined;
        # what our own sources leave unset shows in the native build
        flags += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    flags += ["-DSPVIT_TIMED", f"-I{TIMED}"] if timed else []
    if sanitize:
        # ap_private shifts negative numbers to the left, in headers that are not ours
        return [*flags, "-O1", *SANITIZERS, *(["-fno-sanitize=shift"] if exact else [])]
    return [*flags, "-O3"]


def build_library(
    source_folder: Path,
    unit: str | None = None,
    exact: bool = False,
    compiler: str | None = None,
    sanitize: bool = False,
    timed: bool = False,
) -> Path:
    """Compile a top with the bridge; returns the library, from the cache when nothing changed.

    unit      the kernel whose own top it is; None: the accelerator
    compiler  its command line; None: what CXX says, or g++
    Raises BuildError with the compiler's first error.
    """
    found = Compiler.find(compiler)
    top = source_folder / f"{unit or 'top'}.cpp"
    if not top.exists():
        raise BuildError(
            f"TOP={unit} is no kernel of this design; choose one of {', '.join(unit_names(source_folder))}"
        )
    flags = compile_flags(exact, sanitize, compiler, timed) + ([f"-DSPVIT_UNIT_TOP={unit}_top"] if unit else [])
    digest = hashlib.sha256(" ".join([*found.words, *flags]).encode() + BRIDGE.read_bytes())
    digest.update(found.identity(flags))  # a library for another CPU would end with an illegal instruction
    own = [TIMED / "timed.cpp"] if timed else []
    for path in [top, *sorted(source_folder.glob("*.hpp")), *(sorted(TIMED.glob("*.[ch]pp")) if timed else [])]:
        digest.update(path.name.encode() + path.read_bytes())
    library = source_folder.parent / "csim" / f"spvit-{digest.hexdigest()[:16]}.so"
    if is_sealed(library):
        return library
    command = [*found.words, *flags, "-shared", f"-I{source_folder}", str(top), str(BRIDGE), *map(str, own)]
    with whole_file(library) as partial:
        result = subprocess.run([*command, "-o", str(partial)], capture_output=True, encoding="utf-8", errors="replace")
        if result.returncode != 0:
            first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[:300])
            raise BuildError(f"{found} could not compile {source_folder}: {first}")
    seal(library)
    if result.stderr:
        print(result.stderr)
    return library
