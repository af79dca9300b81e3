"""The command that renders the accelerator: `spvit hls --model deit_s --target zcu102`.

Enters: the build's arguments (`quant.build`) and the quantized network that `quant.quantize` left in the build folder.
Leaves, beside it:

    src/            the C++ of the accelerator and of each kernel's own top
    tcl/            the scripts of Vitis HLS and Vivado
    tb/             testbenches, one per top function
    design.json     of these: configuration, clock, capacities, digests (hw.manifest)
    weights/        the network: a file per AXI port, its stripe of the weight stream, and network.json

Each appears whole or not at all, and what is there already keeps its date; equal inputs give byte-equal files.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hw.architecture import Architecture
from hw.hardware import Capacities, Hardware
from hw.layout import Design, Layout
from hw.manifest import DESIGN, NETWORK, VERSION, WEIGHTS_FOLDER, DesignManifest, NetworkManifest, read_design
from hw.model.memory import bram36
from hw.model.resources import check_fits
from hw.program import Op, build_program
from hw.render import design_digest, design_interface, render_sources
from hw.request import design_name, hardware_of
from hw.target import Target, resolve_target
from hw.vendor.scripts import render_scripts
from hw.weights import network_shapes, port_stripes, stream_checksum, weight_stream
from quant.build import build_folder, design_folder, model_spec, network_folder
from quant.inputs import is_trained
from quant.network import QuantizedNetwork, load_network
from quant.options import BuildOptions
from spvit.config import ModelSpec
from spvit.console import Console, stage
from spvit.errors import BuildError, ConfigError, FileError
from spvit.files import check_writable, read_bytes, staged


@dataclass(frozen=True)
class Project:
    """A network on a design for a target, as files.

    files    of the design: path -> text, relative to its build folder
    network  NETWORK, which stands beside the stripes
    stripes  of the weight stream, int16 [ports, words, stripe_lanes]
    """

    design: Design
    target: Target
    files: dict[str, str]
    network: str
    stripes: NDArray[np.int16]

    @property
    def network_files(self) -> dict[str, bytes]:
        """In the weights' folder: name -> content."""
        stripes = {f"weights_{port}.bin": stripe.tobytes() for port, stripe in enumerate(self.stripes)}
        return {**stripes, NETWORK: self.network.encode()}


def check_request(args: BuildOptions) -> tuple[ModelSpec, Target, Hardware]:
    """What the arguments ask for, refused before any work when it can't be. Raises ConfigError, FileError."""
    spec, target = model_spec(args), resolve_target(args.target)
    hardware = hardware_of(args, spec, target)
    check_fits(Layout(spec.model, hardware.architecture, hardware.capacities), target)
    check_writable(build_folder(args))
    return spec, target, hardware


def make_design(network: QuantizedNetwork, architecture: Architecture, room: Capacities | None = None) -> Design:
    """Program and layout of a network on an engine.

    room  the design's; None: the network's own sizes
    Raises ConfigError for a network that does not fit.
    """
    room = room or Capacities.of(network.model, network.pruning.num_selectors)
    layout = Layout(network.model, architecture, room)
    if found := layout.misfits(network.model, network.pruning):
        raise ConfigError(f"{network.model.name} does not fit the design: {found}")
    return Design(network, architecture, build_program(network), layout)


def make_project(design: Design, target: Target, name: str | None = None, trained: bool = False) -> Project:
    """Render and pack everything; nothing is written.

    name     of the design; None: the model's
    trained  whether the network's weights are, or seeded random ones
    """
    words, offsets = weight_stream(design)
    stripes = port_stripes(words, design.architecture.weight_ports)
    network = json.dumps(_network_manifest(design, words, offsets, trained).to_json(), indent=1) + "\n"
    files = design_files(design.layout, target, name or design.network.model.name)
    return Project(design, target, files, network, stripes)


def design_files(hardware: Hardware, target: Target, name: str) -> dict[str, str]:
    """Of the design alone: sources, scripts, DESIGN; path -> text."""
    title = f"{name} on {target.name}"
    files = {f"src/{path}": text for path, text in render_sources(hardware, title).items()}
    files |= render_scripts(hardware, target, title)
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in sorted(files.items())}
    manifest = DesignManifest(
        schema=VERSION,
        name=name,
        digest=design_digest(hardware),
        target=target,
        clock=target.clock,
        architecture=hardware.architecture,
        capacities=hardware.capacities,
        interface=design_interface(hardware),
        bram36_estimate=bram36(hardware),
        sha256=digests,
    )
    return files | {DESIGN: json.dumps(manifest.to_json(), indent=1) + "\n"}


def write_project(project: Project, folder: Path) -> None:
    """Design and network into one folder."""
    write_design(project, folder)
    write_network(project, folder)


def write_design(project: Project, folder: Path) -> None:
    """Each folder of the design whole; DESIGN comes last."""
    with staged(folder) as place:
        for path, text in project.files.items():
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_text(text, encoding="utf-8")


def write_network(project: Project, folder: Path) -> None:
    """The weights' folder, whole."""
    with staged(folder) as place:
        (place / WEIGHTS_FOLDER).mkdir()
        for name, content in project.network_files.items():
            (place / WEIGHTS_FOLDER / name).write_bytes(content)


def ensure_project(args: BuildOptions) -> tuple[Project, bool]:
    """The project of the network in the build folder, written unless it is there already; whether it was written."""
    _, target, hardware = check_request(args)
    place = network_folder(args)
    network = load_network(place)
    with stage("generating the C++ and the weight stream"):
        design = make_design(network, hardware.architecture, hardware.capacities)
        project = make_project(design, target, design_name(args), trained=is_trained(place))
    written = [is_design_written(project, design_folder(args)), is_network_written(project, build_folder(args))]
    # a design that is there keeps its date, and its bitstream with it
    if not written[0]:
        write_design(project, design_folder(args))
    if not written[1]:
        write_network(project, build_folder(args))
    return project, not all(written)


def made_design(args: BuildOptions, hardware: Hardware) -> DesignManifest:
    """The design that is there, for networks of this hardware. Raises BuildError where it is another one."""
    path = design_folder(args) / DESIGN
    made = read_design(path.parent, BuildError)
    if made.digest != (wanted := design_digest(hardware)):
        raise BuildError(
            f"{path}: of digest {made.digest[:8]}, and {args.model} would be packed for {wanted[:8]}; make the design "
            "again (make hls), and its bitstream"
        )
    return made


def pack(args: BuildOptions) -> None:
    """Pack the quantized network in the build folder for a design that is there, and say what was made.

    Raises BuildError where there is none, or it is another one.
    """
    start = time.monotonic()
    spec, target, hardware = check_request(args)
    made = made_design(args, hardware)
    place = network_folder(args)
    packed = make_design(load_network(place), hardware.architecture, hardware.capacities)
    project = make_project(packed, target, made.name, trained=is_trained(place))
    written = is_network_written(project, build_folder(args))
    if not written:
        write_network(project, build_folder(args))
    Console().print(
        f"{build_folder(args) / WEIGHTS_FOLDER}: {spec.model.name} for the design {made.name}, digest "
        f"{made.digest[:8]}\n"
        f"  program    {len(project.design.program.steps)} steps of at most {hardware.max_steps}\n"
        f"  weights    {project.stripes.nbytes / 1e6:.1f} MB over {hardware.architecture.weight_ports} ports\n"
        f"{'up to date' if written else 'written'} in {time.monotonic() - start:.1f} s"
    )


def is_written(project: Project, folder: Path) -> bool:
    """Whether design and network lie there as they would be written now."""
    return is_design_written(project, folder) and is_network_written(project, folder)


def is_design_written(project: Project, folder: Path) -> bool:
    """Whether every file of the design lies there as it would be written now."""
    return _are_written({path: text.encode() for path, text in project.files.items()}, folder)


def is_network_written(project: Project, folder: Path) -> bool:
    """The same of the network's."""
    return _are_written(project.network_files, folder / WEIGHTS_FOLDER)


def _are_written(contents: Mapping[str, bytes], folder: Path) -> bool:
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
        f"  read first {design_folder(args)}/src/top.cpp, accelerator.hpp, engine.hpp"
    )
    console.print(f"{'written' if written else 'up to date'} in {time.monotonic() - start:.1f} s")


def _network_manifest(
    design: Design, words: NDArray[np.int16], offsets: NDArray[np.int64], trained: bool
) -> NetworkManifest:
    network = design.network
    parts = enumerate(port_stripes(words, design.architecture.weight_ports))
    stripes = {f"weights_{port}.bin": stripe.tobytes() for port, stripe in parts}
    return NetworkManifest(
        schema=VERSION,
        design=design_digest(design.layout),
        digest=network.digest,
        trained=trained,
        model=network.model,
        pruning=network.pruning,
        shapes=network_shapes(design, len(words)),
        weights_checksum=stream_checksum(words),
        first_word_of_step=tuple(int(offset) for offset in offsets[:-1]),
        logits_frac_bits=network.frac_bits["head"],
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in stripes.items()},
    )
