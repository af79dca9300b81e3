"""What was made from what: `manifest.json` of a build folder and of a bundle, as fields with their types and ranges.

Enters: the file, or the folder that it is in. Leaves: a `Manifest`, whose parts agree with each other. The board has
this module too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from hw.architecture import Architecture
from hw.clock import TOLERANCE, Clock
from hw.interface import Interface
from hw.target import Target
from spvit.config import ModelConfig, PruningConfig, to_table
from spvit.errors import BundleError, UserError
from spvit.files import read_json
from spvit.schema import SHA256, Entries, Items, Number, Whole, check_fields, from_table, shown

MANIFEST = "manifest.json"
VERSION = 4
MOST_WORDS = 2**31 - 1
DERIVED = {"clock": ("ratio",), "interface": ("kernel", "registers", "buffers")}
"""What stands there for readers in other languages, and follows from the rest."""


@dataclass(frozen=True)
class Manifest:
    """Of one design.

    digest, network_digest  of design and network
    port_words              of the weight stream
    first_word_of_step      where each step's weights begin in it
    bram36_estimate         36 Kbit block RAMs
    sha256                  path within the folder -> digest of the file
    """

    schema: Annotated[int, Whole(VERSION, VERSION)]
    digest: Annotated[str, SHA256]
    network_digest: Annotated[str, SHA256]
    target: Target
    clock: Clock
    model: ModelConfig
    pruning: PruningConfig
    architecture: Architecture
    max_tokens: Annotated[int, Whole(1, MOST_WORDS)]
    port_words: Annotated[int, Whole(1, MOST_WORDS)]
    interface: Interface
    weights_checksum: Annotated[int, Whole(0, 2**32 - 1)]
    first_word_of_step: Annotated[tuple[int, ...], Items(Whole(0, MOST_WORDS), "words", 10_000_000)]
    logits_frac_bits: Annotated[int, Whole(-64, 64)]
    bram36_estimate: Annotated[float, Number(0, 1_000_000)]
    sha256: Annotated[Mapping[str, str], Entries(SHA256, "digests", 100_000)] = field(hash=False)

    def __post_init__(self) -> None:
        """Raises BundleError also for parts that belong to different designs."""
        check_fields(self, BundleError)
        own, model = self.interface, self.model
        for name, found, wanted in (
            ("digest", own.digest, int(self.digest[:8], 16)),
            ("port_words", own.port_words, self.port_words),
            ("rows", own.rows, self.max_tokens),
            ("img_size", own.img_size, model.img_size),
            ("in_chans", own.in_chans, model.in_chans),
            ("num_classes", own.num_classes, model.num_classes),
            ("num_stages", own.num_stages, self.pruning.num_selectors),
            ("num_prefix_tokens", own.num_prefix_tokens, model.num_prefix_tokens),
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
        return asdict(self) | {
            "clock": self.clock.to_manifest(),
            "model": to_table(self.model),
            "pruning": to_table(self.pruning),
            "interface": self.interface.to_manifest(),
        }


def read_manifest(folder: Path, error: type[UserError] = BundleError) -> Manifest:
    """The manifest in a folder. Raises `error`."""
    path = folder / MANIFEST
    return parse_manifest(read_json(path, "copy the bundle again", error), path, error)


def parse_manifest(document: Mapping[str, Any], path: Path, error: type[UserError] = BundleError) -> Manifest:
    """The manifest in a document of `path`. Raises `error`."""
    if document.get("schema") != VERSION:
        raise error(
            f"{path}: schema={shown(document.get('schema'))}, this runtime reads {VERSION}; make the bundle again with "
            "the project that this runtime comes from"
        )
    plain = dict(document)
    for part, names in DERIVED.items():
        if isinstance(table := plain.get(part), dict):
            plain[part] = {name: value for name, value in table.items() if name not in names}
    try:
        manifest = from_table(Manifest, plain, f"{path}:", error)
    except UserError as problem:
        raise error(f"{problem}; make the bundle again") from None
    ours = json.loads(json.dumps(manifest.to_json()))
    for part, names in DERIVED.items():
        for name in names:
            if document[part].get(name) != ours[part][name]:
                raise error(f"{path}: {part}: {name} is laid out otherwise than this runtime's; make the bundle again")
    return manifest
