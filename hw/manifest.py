"""What was made from what, as fields with their types and ranges. Two files, for two clocks:

    design.json           of a design: what a bitstream is made from. In its build folder, and in a bundle
    weights/network.json  of a network that was packed for it: beside its stripes of the weight stream

Enters: the file's folder. Leaves: a `DesignManifest` or a `NetworkManifest`, whose parts agree with each other. The
board has this module too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from hw.architecture import Architecture
from hw.clock import TOLERANCE, Clock
from hw.hardware import Capacities
from hw.interface import MOST_WORDS, Interface, Shapes
from hw.target import Target
from spvit.config import ModelConfig, PruningConfig, to_table
from spvit.errors import BundleError, UserError
from spvit.files import read_json
from spvit.schema import FLAG, NAME, SHA256, Entries, Items, Number, Whole, check_fields, from_table, shown

DESIGN, NETWORK = "design.json", "network.json"
WEIGHTS_FOLDER = "weights"
"""Within a build folder: NETWORK and the stripes."""
NETWORKS_FOLDER = "networks"
"""Within a bundle: a folder for each network, with NETWORK and the stripes."""
VERSION = 5
Digests = Annotated[Mapping[str, str], Entries(SHA256, "digests", 100_000)]


@dataclass(frozen=True)
class DesignManifest:
    """Of one design.

    name             of the model whose sizes it has, or of the family
    bram36_estimate  36 Kbit block RAMs
    sha256           path within the folder -> digest of the file
    """

    schema: Annotated[int, Whole(VERSION, VERSION)]
    name: Annotated[str, NAME]
    digest: Annotated[str, SHA256]
    target: Target
    clock: Clock
    architecture: Architecture
    capacities: Capacities
    interface: Interface
    bram36_estimate: Annotated[float, Number(0, 1_000_000)]
    sha256: Digests = field(hash=False)

    def __post_init__(self) -> None:
        """Raises BundleError also for parts that belong to different designs."""
        check_fields(self, BundleError)
        own, room = self.interface, self.capacities
        for name, found, wanted in (
            ("digest", own.digest, int(self.digest[:8], 16)),
            ("rows", own.rows, room.num_tokens),
            ("image_words", own.image_words, room.image_dim // own.image_lanes),
            ("num_classes", own.num_classes, room.num_classes),
            ("num_stages", own.num_stages, room.num_selectors),
            ("weight_ports", own.weight_ports, self.architecture.weight_ports),
            ("stripe_lanes", own.stripe_lanes, self.architecture.stripe_lanes),
        ):
            if found != wanted:
                raise BundleError(f"interface: {name}={found}, but the design has {wanted}")
        made, asked = self.clock.pl0_mhz * self.clock.ratio or self.clock.mhz, self.target.clock_mhz
        if abs(made - asked) > 2 * TOLERANCE * asked:
            raise BundleError(f"clock: its dividers make {made:.2f} MHz, but the design is for {asked:g}")

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        return asdict(self) | {"clock": self.clock.to_manifest(), "interface": self.interface.to_manifest()}


@dataclass(frozen=True)
class NetworkManifest:
    """Of a network, packed for one design.

    design              digest of the design that it needs
    digest              of the quantized network
    trained             false: its weights are seeded random ones
    first_word_of_step  where each step's weights begin in the stream
    sha256              file beside this one -> its digest
    """

    schema: Annotated[int, Whole(VERSION, VERSION)]
    design: Annotated[str, SHA256]
    digest: Annotated[str, SHA256]
    trained: Annotated[bool, FLAG]
    model: ModelConfig
    pruning: PruningConfig
    shapes: Shapes
    weights_checksum: Annotated[int, Whole(0, 2**32 - 1)]
    first_word_of_step: Annotated[tuple[int, ...], Items(Whole(0, MOST_WORDS), "words", 10_000_000)]
    logits_frac_bits: Annotated[int, Whole(-64, 64)]
    sha256: Digests = field(hash=False)

    def __post_init__(self) -> None:
        """Raises BundleError also for parts that belong to different networks."""
        check_fields(self, BundleError)
        own, model = self.shapes, self.model
        for name, found, wanted in (
            ("img_size", own.img_size, model.img_size),
            ("in_chans", own.in_chans, model.in_chans),
            ("num_classes", own.num_classes, model.num_classes),
            ("num_stages", own.num_stages, self.pruning.num_selectors),
            ("num_prefix_tokens", own.num_prefix_tokens, model.num_prefix_tokens),
            ("num_tokens", own.num_tokens, model.num_tokens),
        ):
            if found != wanted:
                raise BundleError(f"shapes: {name}={found}, but the network has {wanted}")

    def to_json(self) -> dict[str, Any]:
        """As the file has it."""
        return asdict(self) | {"model": to_table(self.model), "pruning": to_table(self.pruning)}


Manifest = TypeVar("Manifest", DesignManifest, NetworkManifest)
DERIVED: dict[type, dict[str, tuple[str, ...]]] = {
    DesignManifest: {"clock": ("ratio",), "interface": ("kernel", "registers", "buffers")},
    NetworkManifest: {},
}
"""What stands there for readers in other languages, and follows from the rest."""


def read_design(folder: Path, error: type[UserError] = BundleError) -> DesignManifest:
    """The design in a folder. Raises `error`."""
    return _read(DesignManifest, folder / DESIGN, error)


def read_network(folder: Path, error: type[UserError] = BundleError) -> NetworkManifest:
    """The network in a folder of stripes. Raises `error`."""
    return _read(NetworkManifest, folder / NETWORK, error)


def _read(kind: type[Manifest], path: Path, error: type[UserError]) -> Manifest:
    return parse_manifest(kind, read_json(path, "copy the bundle again", error), path, error)


def parse_manifest(
    kind: type[Manifest], document: Mapping[str, Any], path: Path, error: type[UserError] = BundleError
) -> Manifest:
    """The manifest in a document of `path`. Raises `error`."""
    if document.get("schema") != VERSION:
        raise error(
            f"{path}: schema={shown(document.get('schema'))}, this runtime reads {VERSION}; make it again with the "
            "project that this runtime comes from"
        )
    plain, derived = dict(document), DERIVED[kind]
    for part, names in derived.items():
        if isinstance(table := plain.get(part), dict):
            plain[part] = {name: value for name, value in table.items() if name not in names}
    try:
        manifest = from_table(kind, plain, f"{path}:", error)
    except UserError as problem:
        raise error(f"{problem}; make the bundle again") from None
    ours = json.loads(json.dumps(manifest.to_json()))
    for part, names in derived.items():
        for name in names:
            if document[part].get(name) != ours[part][name]:
                raise error(f"{path}: {part}: {name} is laid out otherwise than this runtime's; make the bundle again")
    return manifest
