"""The boards: part, clock, resources, memory ports. One TOML each in `targets/`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from hw import clock
from hw.clock import Clock, make_clock
from spvit.errors import ConfigError
from spvit.files import read_toml
from spvit.schema import (
    LINE,
    NAME,
    Choice,
    Entries,
    Items,
    Number,
    Text,
    Whole,
    check_fields,
    from_table,
    shown,
    shown_text,
)  # fmt: skip

TARGETS = Path(__file__).with_name("targets")
TABLES = ("clocking", "resources", "memory")
SOURCES = ("part", "clock", "resources", "memory")  # of the figures
CLOCK_MHZ = Number(1, 1000)
PORT_EFFICIENCY = 0.85
"""Beats per cycle of a port that reads without pause: the rest goes between bursts."""
BOARD_PART = Text(r"[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+){3}", "a board as Vivado knows it, vendor:board:part0:1.0", 100)
PART = Text(r"[A-Za-z0-9_-]+", "an FPGA as Vivado knows it, xczu9eg-ffvb1156-2-e", 64)


@dataclass(frozen=True)
class Target:
    """A board.

    processor       beside the fabric: `zynq_ultra_ps_e`, or `none` on a card that a host reaches over PCIe
    clock_mhz       of the accelerator
    clock_source    how that is made: `wizard` or `pl0` of a processing system, `shell` of a card (hw/clock.py)
    clock_source_mhz  from what: the IOPLL that the board's preset sets, or the shell's fastest kernel clock
    bram36          36 Kbit block RAMs; uram: 288 Kbit ones
    memory_gbps     GB/s of the memory in theory
    memory_share    of it, that reads like these are planned to reach
    ports           AXI ports to DDR or HBM that the kernel may use, each port_bits wide, at port_mhz at most
    controller_ports      of each, which port of the memory's controller stands behind it; empty: each has its own
    controller_port_gbps  GB/s of one of these in theory; 0: no less than what stands before it
    sources         where the figures come from: of the part, the clock, the resources, the memory
    """

    name: Annotated[str, NAME]
    board_part: Annotated[str, BOARD_PART]
    part: Annotated[str, PART]
    processor: Annotated[str, Choice("zynq_ultra_ps_e", "none")]
    clock_mhz: Annotated[float, CLOCK_MHZ]
    clock_source: Annotated[str, Choice(*clock.SOURCES)]
    clock_source_mhz: Annotated[float, Number(1, 10_000)]
    dsp: Annotated[int, Whole(1, 100_000)]
    bram36: Annotated[int, Whole(1, 100_000)]
    uram: Annotated[int, Whole(0, 100_000)]
    lut: Annotated[int, Whole(1, 100_000_000)]
    ff: Annotated[int, Whole(1, 100_000_000)]
    ports: Annotated[int, Whole(1, 256)]
    port_bits: Annotated[int, Choice(32, 64, 128, 256, 512, 1024)]
    port_mhz: Annotated[float, CLOCK_MHZ]
    memory_gbps: Annotated[float, Number(0.01, 100_000)]
    memory_share: Annotated[float, Number(0.01, 1)]
    controller_ports: Annotated[tuple[int, ...], Items(Whole(0, 255), "ports", 256)]
    controller_port_gbps: Annotated[float, Number(0, 100_000)]
    sources: Annotated[Mapping[str, str], Entries(LINE, "texts", 16, SOURCES)] = field(hash=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.controller_ports and len(self.controller_ports) != self.ports:
            raise ConfigError(
                f"controller_ports={list(self.controller_ports)} must say one for each of ports={self.ports}, or be "
                "left out"
            )

    @property
    def has_processing_system(self) -> bool:
        """Whether a block design can be made: the processor and its DDR controller are on the chip."""
        return self.processor != "none"

    @property
    def clock(self) -> Clock:
        """How the accelerator's clock is made. Raises ConfigError where it cannot be."""
        return make_clock(self.clock_source, self.clock_source_mhz, self.part, self.clock_mhz, self.port_mhz)

    @property
    def made_port_mhz(self) -> float:
        """What the memory ports run at: a card's shell has their clock, PL0 alone is the accelerator's too."""
        if self.clock_source == "wizard":
            return self.clock.port_mhz or self.clock.mhz
        return self.port_mhz if self.clock_source == "shell" else min(self.clock_mhz, self.port_mhz)

    @property
    def limits_gbps(self) -> dict[str, float]:
        """What the weight stream could be limited to, by name. Stripes are equal: the port that has the least share of
        the controller's decides for all."""
        limits = {
            "memory": self.memory_gbps * self.memory_share,
            "ports": self.ports * self.port_bits / 8 * self.made_port_mhz / 1e3 * PORT_EFFICIENCY,
        }
        if self.controller_port_gbps:
            sharing = max((self.controller_ports.count(port) for port in self.controller_ports), default=1)
            limits["the controller's ports"] = self.ports * self.controller_port_gbps * PORT_EFFICIENCY / sharing
        return limits

    @property
    def bandwidth_gbps(self) -> float:
        """GB/s that the ports together are planned to deliver: the least of the limits."""
        return min(self.limits_gbps.values())


def target_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in TARGETS.glob("*.toml")))


def resolve_target(name: str) -> Target:
    """The target called `name`, or the one described by the TOML file of that path. Raises ConfigError."""
    is_path = name.lower().endswith(".toml")
    if not is_path and name not in target_names():
        raise ConfigError(f"TARGET={shown_text(name)} is unknown; choose one of {', '.join(target_names())}")
    path = Path(name) if is_path else TARGETS / f"{name}.toml"
    document = read_toml(path, f"TARGET= takes its path, or one of {', '.join(target_names())}", ConfigError)
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key in TABLES:
            if not isinstance(value, dict):
                raise ConfigError(f"{path}: {key}={shown(value)} must be a table, [{key}]")
            values |= value
        else:
            values[key] = value
    has_processor = values.get("processor") != "none"
    values.setdefault("clock_source", "wizard" if has_processor else "shell")
    values.setdefault("clock_source_mhz", clock.PLL_MHZ if has_processor else clock.SHELL_MHZ)
    values.setdefault("controller_ports", ())
    values.setdefault("controller_port_gbps", 0)
    target = from_table(Target, values, f"{path}:")
    if target.has_processing_system == (target.clock_source == "shell"):
        raise ConfigError(
            f"{path}: clock_source={target.clock_source!r} goes with another processor than {target.processor!r}; a "
            "processing system has wizard or pl0, a card without one shell"
        )
    return _checked(target, f"{path}: clock_mhz={target.clock_mhz:g}")


def with_clock(target: Target, clock_mhz: float | None) -> Target:
    """The target with the accelerator at another clock that it can make, or as it is. Raises ConfigError."""
    if clock_mhz is None:
        return target
    return _checked(replace(target, clock_mhz=clock_mhz), f"--clock {clock_mhz:g} on {target.name}")


def _checked(target: Target, named: str) -> Target:
    """The target, whose clock can be made. Raises ConfigError."""
    try:
        target.clock  # noqa: B018 - raises
    except ConfigError as error:
        raise ConfigError(f"{named}: {error}") from None
    return target
