"""What the engine's parts cost in LUTs and flip-flops, by mapping them to UltraScale+: `spvit measure`.

Enters: `lanes/*.v`, one small Verilog module per part, and the tables of `quant.functions` that some of them hold.
Leaves: a line per part, as `hw/model/resources.py` has it in its table. Needs yosys (Debian: apt-get install yosys).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from quant import functions as f
from spvit.errors import BuildError

MAPPINGS = ("", "-nowidelut")  # with and without wide multiplexers: neither is always the smaller
LANES = Path(__file__).with_name("lanes")
LUT_CELLS = ("LUT6_2", "LUT1", "LUT2", "LUT3", "LUT4", "LUT5", "LUT6", "SRL16E", "SRLC32E")
FF_CELLS = ("FDRE", "FDSE", "FDCE", "FDPE")
DSP_CELLS = ("multiply", "multiply_add", "pre_adder_dsp")  # black boxes that stand for one DSP48E2 each


def measure(module: str, **parameters: int) -> tuple[int, int, int]:
    """LUTs, flip-flops and DSPs of a module of `lanes/`. Raises BuildError without yosys.

    The smaller of two mappings. A LUT that yosys fills with one function counts whole: Vivado may put two small ones
    into one LUT.
    """
    if shutil.which("yosys") is None:
        raise BuildError("yosys not found: install it (Debian: apt-get install yosys)")
    return min(_map(module, parameters, mapping) for mapping in MAPPINGS)


def _map(module: str, parameters: Mapping[str, int], options: str) -> tuple[int, int, int]:
    settings = " ".join(f"-set {name} {value}" for name, value in parameters.items())
    # only what the module needs is read: an unrelated file changes names, and with them what abc finds
    script = (
        f"read_verilog -sv {module}.v; {f'chparam {settings} {module};' if settings else ''} "
        f"hierarchy -libdir . -top {module}; synth_xilinx -family xcup -noiopad -noclkbuf -nodsp {options}; "
        "flatten; tee -q -o stat.json stat -json"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in LANES.glob("*.v"):
            shutil.copy(path, folder)
        for name, text in _tables().items():
            (folder / name).write_text(text, encoding="utf-8")
        run = subprocess.run(
            ["yosys", "-q", "-p", script], cwd=folder, capture_output=True, encoding="utf-8", errors="replace"
        )
        if run.returncode != 0:
            raise BuildError(f"yosys could not map {module}: {(run.stderr or run.stdout).strip().splitlines()[-1]}")
        cells: Mapping[str, int] = json.loads((folder / "stat.json").read_text(encoding="utf-8"))["design"][
            "num_cells_by_type"
        ]
    counts = [sum(cells.get(cell, 0) for cell in kind) for kind in (LUT_CELLS, FF_CELLS, DSP_CELLS)]
    return counts[0], counts[1], counts[2]


def _tables() -> dict[str, str]:
    """Base and slope of each segment side by side, as the lanes hold them: hexadecimal, a line per segment."""
    slope_bits = 20
    table = f.rsqrt_table()
    words = [
        (int(base) << slope_bits) | (int(slope) & ((1 << slope_bits) - 1))
        for base, slope in zip(table.base, table.slope, strict=True)
    ]
    return {"rsqrt.hex": "".join(f"{word:x}\n" for word in words)}


def run() -> None:
    from hw.model.resources import MEASURED

    for key in MEASURED:
        print(f"{key.text:32} {measure(key.module, **dict(key.parameters))}", flush=True)
