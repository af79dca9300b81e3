"""The golden as files, for the testbenches: a step of `spvit synth`, `cosim` and `bitstream`.

Enters: the build's arguments (`quant.build`), images. Quantizes and generates first where that is needed.
Leaves: `tb/<top>/0/`, `tb/<top>/1/`, ... in the build folder, one per call of the top function. Little-endian integers:

    weights_N.bin     int16, what lies behind each weight port
    the accelerator   image.bin uint8; logits.bin int16 and status.bin int32, as the golden has them
    a kernel's own    call.bin int32 [tokens, packages], selection_in.bin int32; selection.bin, tokens.bin int32
                      and x.bin int16, as the golden has them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import array_api_compat.torch as arrays
import numpy as np
from numpy.typing import NDArray

from hw.generate import check_request, ensure_project
from hw.layout import Design
from hw.vendor.scripts import top_name
from hw.weights import port_stripes, row_words, stream_checksum, unit_stream, weight_stream
from quant.build import design_folder
from quant.quantize import ensure_network
from sim.compare import expected_status
from sim.csim import default_images
from sim.golden import Golden
from sim.options import VectorsOptions
from sim.units import Entry, entries
from spvit.console import Console, stage
from spvit.files import whole_folder
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images

Case = Mapping[str, NDArray[Any]]


def run(args: VectorsOptions) -> None:
    spec, _, _ = check_request(args)
    images = load_images(args.images or default_images(spec.model.in_chans), Preprocessing.from_model(spec.model))
    console = Console()
    ensure_network(args, console)
    project, _ = ensure_project(args)
    design, folder = project.design, design_folder(args) / "tb" / top_name(args.top)
    pixels = images.pixels[: args.calls]
    cases = unit_cases(design, args.top, pixels) if args.top else accelerator_cases(design, pixels)
    with stage("computing the golden's inputs and outputs"):
        calls = write_cases(cases, args.calls, folder)
    console.print(f"{folder}: the golden's inputs and outputs for {calls} calls of {top_name(args.top)}")


def accelerator_cases(design: Design, pixels: NDArray[np.uint8]) -> Iterator[Case]:
    """One case per image. [images, S, S, in_chans]"""
    words = weight_stream(design)[0]
    golden = Golden(design.network, design.program, arrays)
    behind = design.layout.capacities.num_classes - design.network.model.num_classes  # of the buffer: not written
    for image in pixels:
        expected = golden.run(image[None], taps=True)
        yield _stripe_files(design, words) | {
            "image": image,
            "logits": np.pad(expected.logits[0], (0, behind)),
            "status": expected_status(design, expected, stream_checksum(words)),
        }


def unit_cases(design: Design, unit: str, pixels: NDArray[np.uint8]) -> Iterator[Case]:
    """One case per kernel of that name and image."""
    golden = Golden(design.network, design.program, arrays)
    for image in pixels:
        found = list(entries(design, golden.run(image[None], taps=True)))
        for position, entry in enumerate(found):
            if entry.unit == unit:
                yield _unit_case(design, entry, found[position + 1])


def write_cases(cases: Iterator[Case], calls: int, folder: Path) -> int:
    """The folder whole or not at all. Returns how many cases it has."""
    count = 0
    with whole_folder(folder) as staged:
        for case, _ in zip(cases, range(calls), strict=False):
            (staged / str(count)).mkdir()
            for name, values in case.items():
                np.ascontiguousarray(values).tofile(staged / str(count) / f"{name}.bin")
            count += 1
    return count


def _unit_case(design: Design, entry: Entry, following: Entry) -> Case:
    steps = design.program.unit(entry.unit, entry.index)
    given = entry.selection if entry.unit == "token_packager" else np.zeros((len(entry.x), 2), np.int32)
    selection = following.selection if entry.unit == "token_selector" else given
    return _stripe_files(design, unit_stream(design, steps, entry.x)) | {
        "call": np.array([len(entry.x), entry.num_packages], np.int32),
        "selection_in": given.astype(np.int32),
        "selection": selection.astype(np.int32),
        "tokens": np.array([len(following.x), following.num_packages], np.int32),
        "x": row_words(design, following.x),
    }


def _stripe_files(design: Design, words: NDArray[np.int16]) -> dict[str, NDArray[Any]]:
    stripes = port_stripes(words, design.architecture.weight_ports)
    return {f"weights_{port}": stripe for port, stripe in enumerate(stripes)}
