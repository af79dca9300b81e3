"""Levels of logic between the registers of the engine's control, mapped to UltraScale+ by yosys.

Enters: the control with a design's sizes and program (`sim.rtl.anchor`). Leaves: the path from a register to a register
that passes most cells, LUTs, wide multiplexers and carry cells alike, each of them a level. yosys counts its adders in
CARRY4, two of which are one CARRY8, so that a chain counts double here, never half.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hw.layout import Design
from sim.rtl.anchor import CONTROL, parameters, program_words
from spvit.errors import BuildError

REGISTERS = ("FD", "SRL", "RAMB")
"""Cells that hold a bit from one cycle to the next begin with these."""
WIRES = ("INV",)
"""Vivado folds an inverter into what it feeds."""


@dataclass(frozen=True)
class LevelsPath:
    """cells  that it passes, by their types, in order
    begin, end  registers, by the names of what they hold"""

    cells: tuple[str, ...]
    begin: str
    end: str

    @property
    def levels(self) -> int:
        return len(self.cells)

    def __str__(self) -> str:
        return f"{self.levels} levels of logic: {self.begin} -> {' '.join(self.cells)} -> {self.end}"


def longest_path(design: Design, source: str | None = None) -> LevelsPath:
    """Between registers of the control with a design's sizes. Raises BuildError without yosys.

    source  another text of engine_control.sv
    """
    if shutil.which("yosys") is None:
        raise BuildError("yosys not found: install it (Debian: apt-get install yosys)")
    settings = " ".join(f"-set {name} {value}" for name, value in parameters(design).items())
    script = (
        f"read_verilog -sv {CONTROL.name}; chparam {settings} engine_control; hierarchy -top engine_control; "
        "synth_xilinx -family xcup -noiopad -noclkbuf -nodsp -flatten; write_json mapped.json"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / CONTROL.name).write_text(source or CONTROL.read_text(encoding="utf-8"), encoding="utf-8")
        (folder / "program.hex").write_text(program_words(design), encoding="utf-8")
        run = subprocess.run(
            ["yosys", "-q", "-p", script], cwd=folder, capture_output=True, encoding="utf-8", errors="replace"
        )
        if run.returncode != 0:
            raise BuildError(f"yosys could not map {CONTROL.name}: {(run.stderr or run.stdout).strip()[-300:]}")
        modules = json.loads((folder / "mapped.json").read_text(encoding="utf-8"))["modules"]
    return _Netlist(next(one for name, one in modules.items() if "engine_control" in name)).longest()


class _Netlist:
    """A mapped module: cells, and the nets between them."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self.cells: Mapping[str, Any] = module["cells"]
        self.driver = {bit: cell for cell in self.cells for bit in self._bits(cell, "output")}
        self.names: dict[int, str] = {}
        for name, net in module["netnames"].items():
            if not net["hide_name"]:
                self.names.update({bit: f"{name}[{i}]" for i, bit in enumerate(net["bits"])})
        self.before = cache(self._before)

    def longest(self) -> LevelsPath:
        ends = [(bit, cell) for cell in self.cells if self._is_register(cell) for bit in self._bits(cell, "input")]
        bit, register = max(ends, key=lambda end: self.before(end[0])[0])
        cells: list[str] = []
        end = next((self.names[out] for out in self._bits(register, "output") if out in self.names), register)
        while (through := self.before(bit)[1]) is not None:
            if not self._kind(self.driver[bit]).startswith(WIRES):
                cells.append(self._kind(self.driver[bit]))
            bit = through
        return LevelsPath(tuple(reversed(cells)), self.names.get(bit, str(bit)), end)

    def _before(self, bit: int) -> tuple[int, int | None]:
        """Levels in front of a net, and the net that most of them are in front of."""
        cell = self.driver.get(bit)
        if cell is None or self._is_register(cell):
            return 0, None
        levels, through = max(((self.before(one)[0], one) for one in self._bits(cell, "input")), default=(0, None))
        return levels + (not self._kind(cell).startswith(WIRES)), through

    def _bits(self, cell: str, direction: str) -> Iterator[int]:
        one = self.cells[cell]
        for port, bits in one["connections"].items():
            if one["port_directions"][port] == direction:
                yield from (bit for bit in bits if isinstance(bit, int))  # constants are strings

    def _is_register(self, cell: str) -> bool:
        return self._kind(cell).startswith(REGISTERS)

    def _kind(self, cell: str) -> str:
        return str(self.cells[cell]["type"])
