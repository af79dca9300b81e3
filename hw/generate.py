"""The command that renders the accelerator: `spvit hls --model deit_s --target zcu102`.

Enters: the build's arguments (`quant.build`) and the quantized network that `quant.quantize` left in the build folder.
Leaves, beside it:

    src/            the C++ of the accelerator and of each kernel's own top
    tcl/            the scripts of Vitis HLS and Vivado
    tb/             testbenches, one per top function
    weights/        one file per AXI port: its stripe of the weight stream
    manifest.json   what was made from what: configuration, digests, sizes, preprocessing

Each appears whole or not at all; equal inputs give byte-equal files.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.architecture import Architecture
from hw.layout import Design, Layout
from hw.manifest import MANIFEST, VERSION, Manifest
from hw.model.memory import bram36
from hw.model.resources import check_fits
from hw.program import Op, build_program
from hw.render import design_digest, design_interface, render_sources
from hw.target import Target, resolve_target
from hw.vendor.scripts import render_scripts
from hw.weights import port_stripes, stream_checksum, weight_stream
from quant.build import build_folder, model_spec, network_folder
from quant.network import QuantizedNetwork, load_network
from quant.options import BuildOptions
from spvit.config import ModelSpec
from spvit.console import Console, stage
from spvit.errors import FileError
from spvit.files import check_writable, read_bytes, staged


@dataclass(frozen=True)
class Project:
    """A design for a target, as files.

    files    path -> text, relative to the build folder
    stripes  int16 [ports, words, stripe_lanes]
    """

    design: Design
    target: Target
    files: dict[str, str]
    stripes: NDArray[np.int16]


def check_request(args: BuildOptions) -> tuple[ModelSpec, Target, Architecture]:
    """What the arguments ask for, refused before any work when it can't be. Raises ConfigError, FileError."""
    spec, target = model_spec(args), resolve_target(args.target)
    architecture = Architecture.for_target(target, spec.engine)
    check_fits(Layout(spec.model, architecture), target)
    check_writable(build_folder(args))
    return spec, target, architecture


def make_design(network: QuantizedNetwork, architecture: Architecture) -> Design:
    """Program and layout of a network on an engine."""
    return Design(network, architecture, build_program(network), Layout(network.model, architecture))


def make_project(design: Design, target: Target) -> Project:
    """Render everything; nothing is written."""
    words, offsets = weight_stream(design)
    stripes = port_stripes(words, design.architecture.weight_ports)
    title = f"{design.network.model.name} on {target.name}"
    sources = render_sources(design, title, len(words))
    files = {f"src/{name}": text for name, text in sources.items()}
    files |= render_scripts(design, target, title, len(words))
    files[MANIFEST] = json.dumps(_manifest(design, target, files, words, offsets).to_json(), indent=1) + "\n"
    return Project(design, target, files, stripes)


def write_project(project: Project, folder: Path) -> None:
    """Write each folder of the project whole; manifest.json comes last."""
    with staged(folder) as place:
        for path, text in project.files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")
        (place / "weights").mkdir()
        for port, stripe in enumerate(project.stripes):
            stripe.tofile(place / "weights" / f"weights_{port}.bin")


def ensure_project(args: BuildOptions) -> tuple[Project, bool]:
    """The project of the network in the build folder, written unless it is there already; whether it was written."""
    _, target, architecture = check_request(args)
    network, folder = load_network(network_folder(args)), build_folder(args)
    with stage("generating the C++ and the weight stream"):
        project = make_project(make_design(network, architecture), target)
    if is_written(project, folder):
        return project, False
    write_project(project, folder)
    return project, True


def is_written(project: Project, folder: Path) -> bool:
    """Whether every file lies there as it would be written now."""
    contents = {path: text.encode() for path, text in project.files.items()}
    contents |= {f"weights/weights_{port}.bin": stripe.tobytes() for port, stripe in enumerate(project.stripes)}
    try:
        return all(read_bytes(folder / path, "make it again") == content for path, content in contents.items())
    except FileError:
        return False


def run(args: BuildOptions) -> None:
    """Render and write what the quantized network in the build folder is for, and say what was made."""
    start = time.monotonic()
    project, written = ensure_project(args)
    design, target, folder = project.design, project.target, build_folder(args)
    architecture = design.architecture
    passes = sum(step.op is Op.ENGINE for step in design.program.steps)
    console = Console()
    console.print(
        f"{folder}: {design.network.model.name} on {target.name}, {architecture.tile_in}x{architecture.tile_out} "
        f"{architecture.inner_product} engine, {architecture.multipliers} multipliers in the array\n"
        f"  program    {len(design.program.steps)} steps, {passes} passes of the engine\n"
        f"  weights    {project.stripes.nbytes / 1e6:.1f} MB over {architecture.weight_ports} ports, once per image\n"
        f"  on chip    {bram36(design.layout):g} of {target.bram36} BRAM36 (estimate), {design.layout.rows} tokens\n"
        f"  read first {folder}/src/top.cpp, accelerator.hpp, engine.hpp"
    )
    console.print(f"{'written' if written else 'up to date'} in {time.monotonic() - start:.1f} s")


def _manifest(
    design: Design, target: Target, files: dict[str, str], words: NDArray[np.int16], offsets: NDArray[np.int64]
) -> Manifest:
    network, layout = design.network, design.layout
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in sorted(files.items())}
    for port, stripe in enumerate(port_stripes(words, design.architecture.weight_ports)):
        digests[f"weights/weights_{port}.bin"] = hashlib.sha256(stripe.tobytes()).hexdigest()
    return Manifest(
        schema=VERSION,
        digest=design_digest(design, len(words)),
        network_digest=network.digest,
        target=target,
        clock=target.clock,
        model=network.model,
        pruning=network.pruning,
        architecture=design.architecture,
        max_tokens=layout.rows,
        port_words=len(words),
        interface=design_interface(design, len(words)),
        weights_checksum=stream_checksum(words),
        first_word_of_step=tuple(int(offset) for offset in offsets[:-1]),
        logits_frac_bits=network.frac_bits["head"],
        bram36_estimate=bram36(layout),
        sha256=digests,
    )
