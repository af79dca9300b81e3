"""The boards: part, clock, resources, memory ports. One TOML each in `targets/`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spvit.errors import ConfigError

TARGETS = Path(__file__).with_name("targets")


@dataclass(frozen=True)
class Target:
    """A board.

    clock_mhz       of the accelerator
    bram36          36 Kbit block RAMs; uram: 288 Kbit ones
    ports           AXI ports to DDR, each port_bits wide
    bandwidth_gbps  GB/s that the ports together are planned to deliver
    """

    name: str
    board_part: str
    part: str
    clock_mhz: float
    dsp: int
    bram36: int
    uram: int
    lut: int
    ff: int
    ports: int
    port_bits: int
    bandwidth_gbps: float


def target_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in TARGETS.glob("*.toml")))


def resolve_target(name: str) -> Target:
    """The target called `name`, or the one described by the TOML file of that path."""
    path = Path(name) if name.endswith(".toml") else TARGETS / f"{name}.toml"
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"TARGET={name} is unknown; choose one of {', '.join(target_names())}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from None
    fields: dict[str, Any] = {key: value for key, value in document.items() if not isinstance(value, dict)}
    for table in ("resources", "memory"):
        fields |= document.get(table, {})
    known = Target.__dataclass_fields__
    missing = [key for key in known if key not in fields]
    if missing:
        raise ConfigError(f"{path}: field {missing[0]} is missing")
    unknown = [key for key in fields if key not in known]
    if unknown:
        raise ConfigError(f"{path}: field {unknown[0]} is unknown; known are {', '.join(known)}")
    return Target(**fields)
