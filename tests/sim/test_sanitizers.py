"""The C++ under the address and undefined-behaviour sanitizers, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hw.render import design_interface
from hw.weights import port_stripes, weight_stream
from sim.build import build_library, compile_flags
from sim.constructed import deciding
from tests.sim.conftest import golden_of
from tests.sim.networks import MICRO, design_of, micro, random_images, with_extreme_tensors

PIXELS = random_images(MICRO.model, 1)
RUNNER = """
import ctypes, json, sys
import numpy as np

library, given = ctypes.CDLL(sys.argv[1]), np.load(sys.argv[2])
tokens = []
for stripes in given["stripes"]:
    logits, status = np.zeros(given["classes"], np.int16), np.full(given["status_words"], -1, np.int32)
    error = ctypes.create_string_buffer(512)
    ports = (ctypes.c_void_p * len(stripes))(*(stripe.ctypes.data for stripe in stripes))
    image = given["image"]
    stopped = library.spvit_run(
        ports, ctypes.c_int64(stripes[0].nbytes), ctypes.c_int32(stripes.shape[1]), ctypes.c_uint32(int(given["digest"])),
        ctypes.c_void_p(image.ctypes.data), ctypes.c_int64(image.nbytes), ctypes.c_int32(int(given["image_words"])),
        *(ctypes.c_void_p(array.ctypes.data) for array in (logits, status)), None, error, 512,
    )
    assert not stopped, error.value
    tokens.append([status.tolist(), logits.tolist()])
print(json.dumps(tokens))
"""


def sanitizer_libraries() -> str:
    names = ("libasan.so", "libubsan.so")
    return " ".join(
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in names
    )


def run_sanitized(library: Path, folder: Path, *given: object) -> subprocess.CompletedProcess[str]:
    (folder / "runner.py").write_text(RUNNER)
    environment = os.environ | {
        "LD_PRELOAD": sanitizer_libraries(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    command = [sys.executable, str(folder / "runner.py"), str(library), *map(str, given)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["native", "exact"])
def test_edge_token_counts_and_extreme_tensors_are_clean(simulators, tmp_path, exact):
    networks = [micro()]
    for scores in [(32767, 32767, 32767), (-32768, 0, 0), (32767, -32768, 0), (32767, 32767, -32768)]:
        network = micro()
        for selector, score in enumerate(scores):
            network = deciding(network, selector, score)
        networks.append(network)
    networks += [with_extreme_tensors(micro(), np.random.default_rng(seed)) for seed in range(4)]
    designs = [design_of(network) for network in networks]
    library = build_library(simulators.folder(designs[0]) / "src", sanitize=True, exact=exact)
    interface = design_interface(designs[0].layout)
    np.savez(
        tmp_path / "given.npz",
        stripes=np.stack(
            [port_stripes(weight_stream(design)[0], design.architecture.weight_ports) for design in designs]
        ),
        image=PIXELS[0],
        classes=interface.num_classes,
        status_words=interface.status_words,
        digest=interface.digest,
        image_words=PIXELS[0].nbytes // interface.image_lanes,
    )
    run = run_sanitized(library, tmp_path, tmp_path / "given.npz")
    assert (run.returncode, run.stderr) == (0, "")
    for (status, logits), design in zip(json.loads(run.stdout), designs, strict=True):
        golden = golden_of(design, PIXELS)
        assert logits == golden.logits[0].tolist()
        assert status[0] == 0 and status[1] == 3


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        ("static int array[4]; volatile int i = 5; return array[i];", "index 5 out of bounds"),
        ("int* gone = new int[4]; delete[] gone; return *(volatile int*)gone;", "heap-use-after-free"),
        ("volatile int big = 2147483647; return big + 1;", "signed integer overflow"),
    ],
)
def test_the_sanitizers_are_on(tmp_path, body, finding):
    """What they are there for stops a library that is built and run in the same way."""
    (tmp_path / "bad.cpp").write_text(
        f'extern "C" __attribute__((visibility("default"))) int spvit_run(...) {{ {body} }}\n'
    )
    flags = [*compile_flags(sanitize=True), "-shared", str(tmp_path / "bad.cpp"), "-o", str(tmp_path / "bad.so")]
    subprocess.run(["g++", *flags], check=True)
    np.savez(
        tmp_path / "given.npz",
        stripes=np.zeros((1, 1, 1, 8), np.int16),
        image=0,
        classes=1,
        status_words=1,
        digest=0,
        image_words=1,
    )
    run = run_sanitized(tmp_path / "bad.so", tmp_path, tmp_path / "given.npz")
    assert run.returncode != 0 and finding in run.stderr
