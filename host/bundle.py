"""What goes to the board, checked before anything is loaded.

Enters: a folder, unpacked from `deploy.tar.gz` or the build folder that it was packed from. Leaves: a `Bundle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hw.clock import Clock
from hw.interface import BITSTREAM, BITSTREAM_FOLDER, Interface
from hw.manifest import MANIFEST, Manifest, read_manifest
from spvit.errors import BundleError
from spvit.files import is_sealed, sha256
from spvit.images.preprocess import Preprocessing


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
    if folder.is_file():
        raise BundleError(f"{folder}: a file; unpack it (tar xzf {folder.name}) and give the folder")
    if not (folder / MANIFEST).exists():
        raise BundleError(
            f"{folder}: no {MANIFEST} in there; give a folder that make deploy packed, or one that make hls left"
        )
    manifest = read_manifest(folder)
    bundle, digests = _bundle(folder, manifest), manifest.sha256
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
            elif not is_sealed(file):
                raise BundleError(
                    f"{file}: neither {MANIFEST} nor make bitstream has a digest of it; make the bundle again"
                )
    return bundle


def _bundle(folder: Path, manifest: Manifest) -> Bundle:
    bitstream = folder / BITSTREAM_FOLDER / BITSTREAM
    return Bundle(
        folder=folder,
        name=manifest.model.name,
        board=manifest.target.name,
        digest=manifest.digest,
        interface=manifest.interface,
        preprocessing=Preprocessing.from_model(manifest.model),
        patch_size=manifest.model.patch_size,
        logits_frac_bits=manifest.logits_frac_bits,
        clock_mhz=manifest.target.clock_mhz,
        clock=manifest.clock,
        weights=tuple(folder / "weights" / f"{buffer.name}.bin" for buffer in manifest.interface.weights),
        weights_checksum=manifest.weights_checksum,
        bitstream=bitstream if bitstream.exists() else None,
    )


def _check_file(folder: Path, path: Path, digests: Mapping[str, str]) -> None:
    name = path.relative_to(folder).as_posix()
    if name not in digests:
        raise BundleError(f"{folder / MANIFEST}: it has no sha256 of {name}; make the bundle again")
    if sha256(path, "the bundle was cut short, copy it again", BundleError) != digests[name]:
        raise BundleError(
            f"{path}: not the file that {MANIFEST} was made with (SHA-256 differs); copy the bundle again"
        )
