"""The command that packs the board's bundle: `spvit deploy --model deit_s --target zcu102`.

Enters: the build's arguments; a bitstream in the build folder, if `make bitstream` ran. Quantizes and generates first
where that is needed. Leaves: `deploy.tar.gz` in the build folder, with the design and, in `networks/`, the network that
was asked for; equal inputs give byte-equal archives.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from hw.generate import Project, check_request, ensure_project
from hw.interface import BITSTREAM, BITSTREAM_FOLDER
from hw.manifest import DESIGN, NETWORKS_FOLDER
from hw.render import design_digest, design_interface
from hw.target import Target, resolve_target, target_names
from hw.templates import render
from quant.build import build_folder, design_folder
from quant.options import BuildOptions
from quant.quantize import ensure_network
from spvit.console import Console
from spvit.errors import BuildError, ConfigError
from spvit.files import write_whole
from spvit.images.sources import digits

ARCHIVE = "deploy.tar.gz"
BUNDLE_PREFIX = "spvit-"
ROOT = Path(__file__).parents[1]
RUNTIME = (
    "host/__init__.py", "host/accelerator.py", "host/answer.py", "host/benchmark.py", "host/board.py",
    "host/bundle.py", "host/figures.py", "host/images.py", "host/interrupts.py", "host/lock.py", "host/measure.py",
    "host/network.py", "host/power.py", "host/result.py", "hw/__init__.py", "hw/architecture.py", "hw/clock.py",
    "hw/hardware.py", "hw/interface.py", "hw/manifest.py", "hw/target.py", "spvit/__init__.py", "spvit/command.py",
    "spvit/config.py", "spvit/errors.py", "spvit/files.py", "spvit/images/__init__.py", "spvit/images/drawing.py",
    "spvit/model_config.py",
    "spvit/images/preprocess.py", "spvit/images/sources.py", "spvit/schema.py",
)  # fmt: skip
"""What the board imports."""
SAMPLE_DIGITS = 8


def bundle_files(project: Project, folder: Path, design: Path | None = None) -> dict[str, bytes]:
    """Path within the bundle -> content. Raises BuildError."""
    files = {path: (ROOT / path).read_bytes() for path in RUNTIME}
    files["latency.ipynb"] = (ROOT / "host" / "latency.ipynb").read_bytes()
    files["install.sh"] = (ROOT / "host" / "deploy" / "install.sh").read_bytes()
    files |= {path: text.encode() for path, text in project.files.items() if path.startswith("src/")}
    files |= bitstream_files(design or folder)
    images, source = sample_images(project.design.network.model.in_chans)
    files |= images
    files["README.md"] = _readme(project, folder, f"{BITSTREAM_FOLDER}/{BITSTREAM}" in files, source)
    manifest = json.loads(project.files[DESIGN])
    manifest["sha256"] = {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())}
    files[DESIGN] = (json.dumps(manifest, indent=1) + "\n").encode()
    place = f"{NETWORKS_FOLDER}/{network_name(project, folder)}"
    return files | {f"{place}/{path}": content for path, content in project.network_files.items()}


def bitstream_files(folder: Path) -> dict[str, bytes]:
    """What `make bitstream` left, or nothing. Raises BuildError when it is of an earlier design.

    A network may be newer: it is data to the bitstream.
    """
    bitstream = folder / BITSTREAM_FOLDER / BITSTREAM
    if not bitstream.exists():
        return {}
    handoff = bitstream.with_suffix(".hwh")
    if not handoff.exists():
        raise BuildError(f"{handoff}: missing beside {bitstream.name}, PYNQ needs both; run make bitstream again")
    if bitstream.stat().st_mtime < (folder / DESIGN).stat().st_mtime:
        raise BuildError(
            f"{bitstream}: older than {folder / DESIGN}, the design has changed since; run make bitstream again, or "
            "remove it to pack for the emulated device"
        )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in (bitstream, handoff)}


def sample_images(in_chans: int) -> tuple[dict[str, bytes], str]:
    """Images that fit the model, and where they are from."""
    if in_chans == 3:
        from importlib.resources import files

        folder = files("sklearn.datasets.images")
        names = ("china.jpg", "flower.jpg", "README.txt")
        photographs = {f"images/{name}": (folder / name).read_bytes() for name in names}
        return photographs, " (scikit-learn's photographs, CC BY 2.0: images/README.txt)"
    samples = {}
    for i, pixels in enumerate(digits("test")[0][:SAMPLE_DIGITS]):
        file = io.BytesIO()
        Image.fromarray(pixels[:, :, 0]).save(file, "PNG")
        samples[f"images/{i:04}.png"] = file.getvalue()
    return samples, " (scikit-learn's handwritten digits)"


def pack(files: Mapping[str, bytes], name: str) -> bytes:
    """A .tar.gz of `files` below the folder `name`, without times and owners."""
    archive = io.BytesIO()
    with gzip.GzipFile(fileobj=archive, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            entry.mode = 0o755 if path.endswith(".sh") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def bundle_name(folder: Path) -> str:
    """The folder that the archive unpacks to; a name that needs no quotation marks."""
    return f"{BUNDLE_PREFIX}{re.sub(r'[^A-Za-z0-9._-]+', '_', folder.resolve().name)}"


def network_name(project: Project, folder: Path) -> str:
    """Of the network's folder within the bundle: the build folder's, without the board."""
    return bundle_name(folder).removeprefix(BUNDLE_PREFIX).replace(f"-{project.target.name}", "", 1)


def run(args: BuildOptions) -> None:
    _, target, _ = check_request(args)
    check_target(target)
    console = Console()
    ensure_network(args, console)
    project, _ = ensure_project(args)
    folder = build_folder(args)
    has_bitstream = pack_project(project, folder, design_folder(args))
    console.print(f"{folder / ARCHIVE}: {(folder / ARCHIVE).stat().st_size / 1e6:.1f} MB; copy it to the board, then")
    console.print(f"  tar xzf {ARCHIVE} && sudo ./{bundle_name(folder)}/install.sh")
    if not has_bitstream:
        console.print("without a bitstream (make bitstream was not run): it works with the emulated device alone")


def check_target(target: Target) -> None:
    """Raise ConfigError for a board whose runtime there is none of."""
    if not target.has_processing_system:
        boards = ", ".join(name for name in target_names() if resolve_target(name).has_processing_system)
        raise ConfigError(
            f"TARGET={target.name} has no processor beside its logic, and the runtime is for PYNQ on one; choose one "
            f"of {boards}"
        )


def pack_project(project: Project, folder: Path, design: Path | None = None) -> bool:
    """Leave the archive in the build folder; whether a bitstream is in it. Raises BuildError.

    design  folder of the hardware, where it is another one
    """
    files = bundle_files(project, folder, design)
    write_whole(folder / ARCHIVE, pack(files, bundle_name(folder)))
    return f"{BITSTREAM_FOLDER}/{BITSTREAM}" in files


def _readme(project: Project, folder: Path, has_bitstream: bool, image_source: str) -> bytes:
    interface = design_interface(project.design.layout)
    beside = (interface.image, interface.logits, interface.status)
    values = {
        "name": bundle_name(folder),
        "network": network_name(project, folder),
        "model": project.design.network.model.name,
        "board": project.target.name,
        "has_bitstream": has_bitstream,
        "network_mb": project.stripes.nbytes / 1e6,
        "buffer_mb": sum(buffer.nbytes for buffer in beside) / 1e6,
        "digest": design_digest(project.design.layout),
        "image_source": image_source,
    }
    return render(ROOT / "host" / "deploy" / "README.md.j2", values).encode()
