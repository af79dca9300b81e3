"""The scripts around the C++: Vitis HLS in both of its forms, testbenches, the block design.

Enters: a design and its target. Leaves: {path: text} of `tcl/hls.tcl`, `tcl/hls_config*.cfg`, `tcl/vivado.tcl`, and for
each top function the testbench `tb/<top>.cpp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hw import clock, interface
from hw.hardware import Hardware
from hw.options import UNITS
from hw.render import TEMPLATES, design_digest, design_interface
from hw.target import Target
from hw.templates import render

VENDOR, LIBRARY, _, VERSION = interface.KERNEL_VLNV.split(":")
PS_CELL = "zynq_ultra_ps_e_0"
WIZARD_CELL = "clk_wiz_0"


@dataclass(frozen=True)
class MemoryPort:
    """One of the processing system's HP ports, and the kernel's m_axi bundles that share it."""

    index: int
    masters: tuple[str, ...]


def top_sources() -> dict[str, str]:
    """Every top function of a design, with its file under `src/`: the accelerator, then each kernel's own."""
    return {interface.TOP: "top.cpp"} | {top_name(unit): f"{unit}.cpp" for unit in UNITS}


def top_name(unit: str | None) -> str:
    """The top function of a kernel; None: the accelerator."""
    return interface.TOP if unit is None else f"{unit}_top"


def memory_ports(bundles: tuple[str, ...], ports: int) -> tuple[MemoryPort, ...]:
    """Spread the kernel's m_axi bundles over the board's ports: weights first, one each; then the others."""
    used = min(ports, len(bundles))
    return tuple(MemoryPort(index, bundles[index::used]) for index in range(used))


def render_scripts(hardware: Hardware, target: Target, title: str) -> dict[str, str]:
    """Every script and testbench, path -> text."""
    own = design_interface(hardware)
    sources = top_sources()
    context: dict[str, Any] = {
        "title": title,
        "digest": design_digest(hardware),
        "target": target,
        "layout": hardware,
        "ports": range(hardware.architecture.weight_ports),
        "image_words": own.image_words,
        "interface": own,
        "unwritten": interface.UNWRITTEN,
        "top": interface.TOP,
        "tops": sources,
        "sources": sources,
        "vendor": VENDOR,
        "library": LIBRARY,
        "version": VERSION,
        "uncertainty": clock.UNCERTAINTY,
    }
    files = {"tcl/hls.tcl": render(TEMPLATES / "hls.tcl.j2", context)}
    for top, source in sources.items():
        unit = None if top == interface.TOP else source.removesuffix(".cpp")
        name = config_name(unit)
        values = context | {"top": top, "source": source, "unit": unit, "name": name}
        files[f"tcl/{name}"] = render(TEMPLATES / "hls_config.cfg.j2", values)
        files[f"tb/{top}.cpp"] = render(TEMPLATES / "testbench.cpp.j2", values)
    if target.has_processing_system:
        files["tcl/vivado.tcl"] = render(TEMPLATES / "vivado.tcl.j2", context | _block_design(own.bundles, target))
    return files


def config_name(unit: str | None) -> str:
    """The v++ configuration file of a kernel; None: of the accelerator."""
    return "hls_config.cfg" if unit is None else f"hls_config-{unit}.cfg"


def _block_design(bundles: tuple[str, ...], target: Target) -> dict[str, Any]:
    return {
        "folder": interface.BITSTREAM_FOLDER,
        "board_pattern": target.board_part.rpartition(":")[0] + ":*",
        "hp_ports": memory_ports(bundles, target.ports),
        "clock": target.clock,
        "tolerance": clock.TOLERANCE,
        "wizard_cell": WIZARD_CELL,
        "ps_cell": PS_CELL,
        "kernel_cell": interface.KERNEL_CELL,
        "kernel_vlnv": interface.KERNEL_VLNV,
        "control": interface.CONTROL_BUNDLE,
        "interrupt_pin": interface.INTERRUPT_PIN,
        "interrupt_cell": interface.INTERRUPT_CELL,
        "interrupt_vlnv": interface.INTERRUPT_VLNV,
        "timer_cell": interface.TIMER_CELL,
        "timer_vlnv": interface.TIMER_VLNV,
        "kernel_address": interface.KERNEL_ADDRESS,
        "interrupt_address": interface.INTERRUPT_ADDRESS,
        "timer_address": interface.TIMER_ADDRESS,
        "address_range": interface.ADDRESS_RANGE,
    }
