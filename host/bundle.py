"""What goes to the board, checked before anything is loaded: a design, and networks that were packed for it.

Enters: folders, unpacked from `deploy.tar.gz` or the build folders that it was packed from. Leaves: a `Bundle`, and a
`PackedNetwork` for each network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hw.clock import Clock
from hw.hardware import Hardware
from hw.interface import BITSTREAM, BITSTREAM_FOLDER, Interface, Shapes
from hw.manifest import (
    DESIGN,
    NETWORK,
    NETWORKS_FOLDER,
    WEIGHTS_FOLDER,
    DesignManifest,
    NetworkManifest,
    read_design,
    read_network,
)
from spvit.errors import BundleError, ConfigError
from spvit.files import is_sealed, sha256
from spvit.images.preprocess import Preprocessing


@dataclass(frozen=True)
class Bundle:
    """A design as the board needs it.

    bitstream  None where it was not built
    board      name of the target
    clock_mhz  that the design was built for; clock: how the board makes it
    networks   folders of those that came with it
    """

    folder: Path
    name: str
    board: str
    digest: str
    hardware: Hardware
    interface: Interface
    clock_mhz: float
    clock: Clock
    bitstream: Path | None
    networks: tuple[Path, ...]


@dataclass(frozen=True)
class PackedNetwork:
    """A network as it lies in memory, and what its images and results are.

    trained           false: its weights are seeded random ones
    weights           one file per port
    weights_checksum  what the accelerator makes of them as they arrive
    """

    folder: Path
    name: str
    digest: str
    trained: bool
    shapes: Shapes
    preprocessing: Preprocessing
    patch_size: int
    logits_frac_bits: int
    weights: tuple[Path, ...]
    weights_checksum: int

    @property
    def num_tokens(self) -> int:
        """Before the first token selector."""
        return self.shapes.num_tokens


def load_bundle(folder: str | Path) -> Bundle:
    """Read and check a design: schema, fields, and each file's SHA-256. Raises BundleError."""
    folder = _unpacked(folder)
    if not (folder / DESIGN).exists():
        raise BundleError(
            f"{folder}: no {DESIGN} in there; give a folder that make deploy packed, or one that make hls left"
        )
    manifest = read_design(folder)
    bundle, digests = _bundle(folder, manifest), manifest.sha256
    if bundle.bitstream is not None:
        for file in (bundle.bitstream, bundle.bitstream.with_suffix(".hwh")):
            if file.relative_to(folder).as_posix() in digests:
                _check_file(folder / DESIGN, file, digests)
            elif not is_sealed(file):
                raise BundleError(
                    f"{file}: neither {DESIGN} nor make bitstream has a digest of it; make the bundle again"
                )
    return bundle


def load_network(folder: str | Path, bundle: Bundle) -> PackedNetwork:
    """Read and check a network for the bundle's design.

    folder  with NETWORK and the stripes, or one of a build or a bundle that holds such a one
    Raises BundleError.
    """
    folder = _unpacked(folder)
    found = network_folders(folder)
    if len(found) != 1:
        raise BundleError(
            f"{folder}: {_how_many(found)} in there; give a folder with {NETWORK} and its stripes, "
            f"such as a bundle's {NETWORKS_FOLDER}/<name>, or one that make hls left"
        )
    manifest = read_network(found[0])
    _check_fits(found[0] / NETWORK, manifest, bundle)
    network = _network(found[0], manifest, bundle.interface)
    own = bundle.interface.weights(manifest.shapes.num_words)
    for path, buffer in zip(network.weights, own, strict=True):
        _check_file(found[0] / NETWORK, path, manifest.sha256)
        if path.stat().st_size != buffer.nbytes:
            raise BundleError(
                f"{path}: {path.stat().st_size} bytes, the manifest's num_words={manifest.shapes.num_words} asks for "
                f"{buffer.nbytes}; pack the network again"
            )
    return network


def network_folders(folder: Path) -> tuple[Path, ...]:
    """Where networks lie: in the folder itself, in a build folder's weights, in a bundle's networks."""
    for place in (folder, folder / WEIGHTS_FOLDER):
        if (place / NETWORK).exists():
            return (place,)
    return tuple(sorted(path.parent for path in (folder / NETWORKS_FOLDER).glob(f"*/{NETWORK}")))


def _how_many(networks: tuple[Path, ...]) -> str:
    return f"several networks ({', '.join(path.name for path in networks)})" if networks else f"no {NETWORK}"


def _unpacked(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.is_file():
        raise BundleError(f"{folder}: a file; unpack it (tar xzf {folder.name}) and give the folder")
    return folder


def _bundle(folder: Path, manifest: DesignManifest) -> Bundle:
    bitstream = folder / BITSTREAM_FOLDER / BITSTREAM
    return Bundle(
        folder=folder,
        name=manifest.name,
        board=manifest.target.name,
        digest=manifest.digest,
        hardware=Hardware(manifest.architecture, manifest.capacities),
        interface=manifest.interface,
        clock_mhz=manifest.target.clock_mhz,
        clock=manifest.clock,
        bitstream=bitstream if bitstream.exists() else None,
        networks=network_folders(folder),
    )


def _network(folder: Path, manifest: NetworkManifest, interface: Interface) -> PackedNetwork:
    return PackedNetwork(
        folder=folder,
        name=manifest.model.name,
        digest=manifest.digest,
        trained=manifest.trained,
        shapes=manifest.shapes,
        preprocessing=Preprocessing.from_model(manifest.model),
        patch_size=manifest.model.patch_size,
        logits_frac_bits=manifest.logits_frac_bits,
        weights=tuple(folder / f"{buffer.name}.bin" for buffer in interface.weights()),
        weights_checksum=manifest.weights_checksum,
    )


def _check_fits(path: Path, network: NetworkManifest, bundle: Bundle) -> None:
    if network.design != bundle.digest:
        raise BundleError(
            f"{path}: packed for design {network.design[:12]}, and {bundle.folder} is design {bundle.digest[:12]}; "
            "pack the network again, for this design"
        )
    try:
        misfits = bundle.hardware.misfits(network.model, network.pruning)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from None
    most = bundle.interface.port_words
    if network.shapes.num_words > most:
        misfits += f"{', ' if misfits else ''}num_words={network.shapes.num_words} (room for {most})"
    if misfits:
        raise BundleError(f"{path}: too large for the design in {bundle.folder}: {misfits}; pack it for a larger one")


def _check_file(manifest: Path, path: Path, digests: Mapping[str, str]) -> None:
    name = path.relative_to(manifest.parent).as_posix()
    if name not in digests:
        raise BundleError(f"{manifest}: it has no sha256 of {name}; make the bundle again")
    if sha256(path, "the bundle was cut short, copy it again", BundleError) != digests[name]:
        raise BundleError(
            f"{path}: not the file that {manifest.name} was made with (SHA-256 differs); copy the bundle again"
        )
