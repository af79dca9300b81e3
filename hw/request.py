"""The hardware that a build asks for: a family's, one that is there already, or one of the model's own sizes."""

from __future__ import annotations

from pathlib import Path

from hw.architecture import Architecture
from hw.hardware import Capacities, Hardware, resolve_design
from hw.manifest import DESIGN, read_design
from hw.render import design_digest
from hw.target import Target
from quant.options import BuildOptions
from spvit.config import ModelSpec
from spvit.errors import ConfigError


def hardware_of(args: BuildOptions, spec: ModelSpec, target: Target) -> Hardware:
    """What the network is to run on. Raises ConfigError, also where it does not fit."""
    if args.design is None:
        engine = Architecture.for_target(target, spec.engine)
        return Hardware(engine, Capacities.of(spec.model, spec.pruning.num_selectors))
    asked = f"DESIGN={args.design}"
    if Path(args.design).is_dir():
        manifest = read_design(Path(args.design), ConfigError)
        if manifest.target != target:
            raise ConfigError(f"{asked} was made for another board than TARGET={target.name}: {manifest.target.name}")
        found = Hardware(manifest.architecture, manifest.capacities)
        if design_digest(found) != manifest.digest:
            raise ConfigError(
                f"{asked}: its {DESIGN} is of digest {manifest.digest[:8]}, and this project makes "
                f"{design_digest(found)[:8]} of its sizes; make it again (make hls), and its bitstream"
            )
    else:
        found = resolve_design(args.design, target)
    if spec.engine and Architecture.for_target(target, spec.engine) != found.architecture:
        raise ConfigError(f"{args.model}: its [engine] is another than that of {asked}; leave one of the two away")
    if misfits := found.misfits(spec.model, spec.pruning):
        raise ConfigError(
            f"{spec.model.name} does not fit {asked}: {misfits}; without DESIGN= it gets a design of its own"
        )
    return found


def design_name(args: BuildOptions) -> str | None:
    """Of the design that was asked for; None: the model's."""
    if args.design is None:
        return None
    is_made = Path(args.design).is_dir()
    return read_design(Path(args.design), ConfigError).name if is_made else Path(args.design).stem
