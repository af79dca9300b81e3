"""What goes to the board, checked before anything is loaded.

Enters: a folder, unpacked from `deploy.tar.gz` or the build folder that it was packed from. Leaves: a `Bundle`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.clock import Clock
from hw.interface import BITSTREAM, BITSTREAM_FOLDER, Interface
from spvit.errors import BundleError
from spvit.files import read_json, sha256
from spvit.images.preprocess import Preprocessing

MANIFEST = "manifest.json"
SCHEMA = 3


@dataclass(frozen=True)
class Bundle:
    """A design as the board needs it.

    weights           one file per port, as it is to lie in memory
    weights_checksum  what the accelerator makes of them as they arrive
    bitstream         None where it was not built
    board             name of the target
    clock_mhz         that the design was built for; clock: how the board makes it
    """

    folder: Path
    name: str
    board: str
    digest: str
    interface: Interface
    preprocessing: Preprocessing
    patch_size: int
    logits_frac_bits: int
    clock_mhz: float
    clock: Clock
    weights: tuple[Path, ...]
    weights_checksum: int
    bitstream: Path | None

    @property
    def num_tokens(self) -> int:
        """Before the first token selector."""
        return self.interface.rows


def load_bundle(folder: str | Path) -> Bundle:
    """Read and check a bundle: schema, fields, and each file's SHA-256. Raises BundleError."""
    folder = Path(folder)
    manifest = _read_manifest(folder)
    path = folder / MANIFEST
    if manifest.get("schema") != SCHEMA:
        raise BundleError(
            f"{path}: schema={manifest.get('schema')!r}, this runtime reads {SCHEMA}; make the bundle again with the "
            "project that this runtime comes from"
        )
    try:
        bundle = _bundle(folder, manifest)
        digests = dict(manifest["sha256"])
        described = manifest["interface"]["registers"], manifest["interface"]["buffers"]
    except KeyError as error:
        raise BundleError(f"{path}: field {error.args[0]} is missing; make the bundle again") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: not what make hls writes ({error}); make the bundle again") from None
    ours = bundle.interface.to_manifest()
    if described != (ours["registers"], json.loads(json.dumps(ours["buffers"]))):
        raise BundleError(f"{path}: its registers are laid out otherwise than this runtime's; make the bundle again")
    for weights in bundle.weights:
        _check_file(folder, weights, digests)
        if weights.stat().st_size != bundle.interface.weights[0].nbytes:
            raise BundleError(
                f"{weights}: {weights.stat().st_size} bytes, the manifest's port_words={bundle.interface.port_words} "
                f"asks for {bundle.interface.weights[0].nbytes}; make the bundle again"
            )
    if bundle.bitstream is not None:
        for file in (bundle.bitstream, bundle.bitstream.with_suffix(".hwh")):
            if file.relative_to(folder).as_posix() in digests:
                _check_file(folder, file, digests)
    return bundle


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST
    if folder.is_file():
        raise BundleError(f"{folder}: a file; unpack it (tar xzf {folder.name}) and give the folder")
    if not path.exists():
        raise BundleError(
            f"{folder}: no {MANIFEST} in there; give a folder that make deploy packed, or one that make hls left"
        )
    return read_json(path, "copy the bundle again", BundleError)


def _bundle(folder: Path, manifest: Mapping[str, Any]) -> Bundle:
    model, target = manifest["model"], manifest["target"]
    interface = Interface.from_manifest(manifest["interface"])
    bitstream = folder / BITSTREAM_FOLDER / BITSTREAM
    return Bundle(
        folder=folder,
        name=str(model["name"]),
        board=str(target["name"]),
        digest=str(manifest["digest"]),
        interface=interface,
        preprocessing=Preprocessing(
            int(model["img_size"]), int(model["in_chans"]), float(model["crop"]), tuple(model["mean"]),
            tuple(model["std"]),
        ),
        patch_size=int(model["patch_size"]),
        logits_frac_bits=int(manifest["logits_frac_bits"]),
        clock_mhz=float(target["clock_mhz"]),
        clock=Clock.from_manifest(manifest["clock"]),
        weights=tuple(folder / "weights" / f"{buffer.name}.bin" for buffer in interface.weights),
        weights_checksum=int(manifest["weights_checksum"]),
        bitstream=bitstream if bitstream.exists() else None,
    )  # fmt: skip


def _check_file(folder: Path, path: Path, digests: Mapping[str, str]) -> None:
    name = path.relative_to(folder).as_posix()
    if name not in digests:
        raise BundleError(f"{folder / MANIFEST}: it has no sha256 of {name}; make the bundle again")
    if sha256(path, "the bundle was cut short, copy it again", BundleError) != digests[name]:
        raise BundleError(
            f"{path}: not the file that {MANIFEST} was made with (SHA-256 differs); copy the bundle again"
        )
