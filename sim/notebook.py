"""The command that runs the notebook on the emulated device: `spvit notebook --model micro [--images F]`.

Enters: the build's arguments, images. Quantizes and generates first where that is needed, and packs the unpruned
network for the same design, to stand beside the pruned one. Leaves in the build folder: `latency.ipynb`, executed, and
`latency.json`.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

from hw.deploy import ROOT, sample_images
from hw.generate import (
    Project,
    check_request,
    ensure_project,
    is_network_written,
    make_design,
    make_project,
    write_network,
)
from hw.manifest import WEIGHTS_FOLDER
from quant.build import build_folder, design_folder, network_folder
from quant.inputs import is_trained
from quant.network import load_network
from quant.quantize import ensure_network
from sim.compiler import Compiler
from sim.options import NotebookOptions
from spvit import errors
from spvit.console import Console, stage
from spvit.errors import BuildError, UserError
from spvit.files import write_whole
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images

NOTEBOOK = ROOT / "host" / "latency.ipynb"
TIMEOUT_S = 3600


def execute(
    bundle: Path,
    baseline: Path | None,
    images: str | Path,
    folder: Path,
    cxx: str | None = None,
    network: Path | None = None,
) -> None:
    """Run the notebook, which leaves itself and `latency.json` in `folder`. Raises BuildError with a user's error.

    baseline  folder of the unpruned network, for the bundle's design
    network   of the one that stands before it; None: the bundle's own
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    variables = {
        "SPVIT_BUNDLE": str(bundle.resolve()),
        "SPVIT_IMAGES": str(images) if str(images).startswith("digits:") else str(Path(images).resolve()),
        "SPVIT_OUT": str((folder / "latency.json").resolve()),
    }
    if network is not None:
        variables["SPVIT_NETWORK"] = str(network.resolve())
    if baseline is not None:
        variables["SPVIT_BASELINE"] = str(baseline.resolve())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPVIT_")}
    environment |= variables | {"PYTHONPATH": str(ROOT)} | ({} if cxx is None else {"CXX": cxx})
    try:
        with tempfile.TemporaryDirectory() as sockets:  # in place of TCP ports: other users can't listen
            config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
            client = NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", config=config)
            client.execute(cwd=str(folder), env=environment)
    except CellExecutionError as error:
        if not issubclass(getattr(errors, error.ename, Exception), UserError):
            raise
        raise BuildError(f"{NOTEBOOK.name}: {error.evalue}") from None
    write_whole(folder / NOTEBOOK.name, nbformat.writes(notebook) + "\n")


def run(args: NotebookOptions) -> None:
    console = Console()
    spec, _, _ = check_request(args)
    Compiler.find(args.cxx).check()
    if args.images is not None:
        load_images(args.images, Preprocessing.from_model(spec.model))  # refuse broken ones before the long work
    ensure_network(args, console)
    project, _ = ensure_project(args)
    bundle = build_folder(args)
    baseline = _pack_unpruned(args, project, console) if spec.pruning.num_selectors else None
    images = args.images or _samples(spec.model.in_chans, bundle)
    with stage("running the notebook on the emulated device"):
        execute(design_folder(args), baseline, images, bundle, args.cxx, bundle / WEIGHTS_FOLDER)
    console.print(f"{bundle / NOTEBOOK.name} and latency.json: executed on the emulated device")


def _pack_unpruned(args: NotebookOptions, pruned: Project, console: Console) -> Path:
    """The same model with KEEP=none as a network for the pruned one's design: its weights' folder."""
    out = None if args.out is None else args.out.with_name(f"{args.out.name}-keep-none")
    unpruned = replace(args, keep="none", out=out)
    ensure_network(unpruned, console)
    network, layout = load_network(network_folder(unpruned)), pruned.design.layout
    design = make_design(network, layout.architecture, layout.capacities)
    project = make_project(design, pruned.target, trained=is_trained(network_folder(unpruned)))
    folder = build_folder(unpruned)
    if not is_network_written(project, folder):
        write_network(project, folder)
    return folder / WEIGHTS_FOLDER


def _samples(in_chans: int, folder: Path) -> Path:
    for path, content in sample_images(in_chans)[0].items():
        write_whole(folder / path, content)
    return folder / "images"
