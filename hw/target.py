"""The boards: part, clock, resources, memory ports. One TOML each in `targets/`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from spvit.errors import ConfigError
from spvit.files import read_toml

TARGETS = Path(__file__).with_name("targets")
TABLES = ("resources", "memory")
PROCESSORS = ("zynq_ultra_ps_e", "none")


@dataclass(frozen=True)
class Target:
    """A board.

    processor       beside the fabric: `zynq_ultra_ps_e`, or `none` on a card that a host reaches over PCIe
    clock_mhz       of the accelerator
    bram36          36 Kbit block RAMs; uram: 288 Kbit ones
    ports           AXI ports to DDR or HBM that the kernel may use, each port_bits wide
    bandwidth_gbps  GB/s that the ports together are planned to deliver
    sources         where the figures come from: of the part, the clock, the resources, the memory
    """

    name: str
    board_part: str
    part: str
    processor: str
    clock_mhz: float
    dsp: int
    bram36: int
    uram: int
    lut: int
    ff: int
    ports: int
    port_bits: int
    bandwidth_gbps: float
    sources: Mapping[str, str] = field(hash=False)

    @property
    def has_processing_system(self) -> bool:
        """Whether a block design can be made: the processor and its DDR controller are on the chip."""
        return self.processor != "none"


def target_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in TARGETS.glob("*.toml")))


def resolve_target(name: str) -> Target:
    """The target called `name`, or the one described by the TOML file of that path. Raises ConfigError."""
    if not name.endswith(".toml") and name not in target_names():
        raise ConfigError(f"TARGET={name} is unknown; choose one of {', '.join(target_names())}")
    path = Path(name) if name.endswith(".toml") else TARGETS / f"{name}.toml"
    document = read_toml(path, f"TARGET= takes its path, or one of {', '.join(target_names())}", ConfigError)
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key in TABLES:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {key} must be a table, [{key}]")
            values |= value
        else:
            values[key] = value
    known = [one.name for one in fields(Target)]
    missing = [key for key in known if key not in values]
    if missing:
        raise ConfigError(f"{path}: field {missing[0]} is missing")
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ConfigError(f"{path}: field {unknown[0]} is unknown; known are {', '.join(known)}")
    for key, value in values.items():
        _check_field(path, key, value)
    return Target(**values)


def add_clock(parser: argparse.ArgumentParser) -> None:
    """The argument that `with_clock` takes."""
    parser.add_argument("--clock", type=float, metavar="MHZ", help="of the accelerator (default: the target's)")


def with_clock(target: Target, clock_mhz: float | None) -> Target:
    """The target with the accelerator at another clock, or as it is. Raises ConfigError."""
    if clock_mhz is None:
        return target
    if not clock_mhz > 0:
        raise ConfigError(f"--clock {clock_mhz:g} must be above 0 MHz")
    return replace(target, clock_mhz=clock_mhz)


def _check_field(path: Path, key: str, value: object) -> None:
    kind = {one.name: one.type for one in fields(Target)}[key]
    if kind == "str":
        if not isinstance(value, str):
            raise ConfigError(f"{path}: {key}={value!r} must be a text")
        if key == "processor" and value not in PROCESSORS:
            raise ConfigError(f"{path}: processor={value!r} is unknown; choose {' or '.join(PROCESSORS)}")
    elif kind in ("int", "float"):
        allowed = int if kind == "int" else (int, float)
        least = 0 if key == "uram" else 1
        if isinstance(value, bool) or not isinstance(value, allowed) or not value >= least:
            raise ConfigError(
                f"{path}: {key}={value!r} must be a {'whole ' if kind == 'int' else ''}number, {least} or more"
            )
    elif not isinstance(value, dict) or not all(isinstance(text, str) and text for text in value.values()):
        raise ConfigError(f"{path}: {key} must be a table of texts, [{key}]")
