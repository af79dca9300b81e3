"""The drawing of the whole flow: `spvit flow-plot` leaves the README's, `docs/flow.svg` and `flow-phone.svg`.

Enters: an engine. Leaves: SVG text, the engine's own sizes in it, for a desk's screen or a telephone.
"""

from __future__ import annotations

from pathlib import Path

from hw.architecture import Architecture
from hw.model.charts import for_phones
from hw.target import resolve_target
from hw.templates import render
from sim.options import DrawingOptions
from spvit.files import check_writable_file, write_whole

README_TARGET = "zcu102"


def draw_flow(architecture: Architecture, is_narrow: bool = False) -> str:
    """From a checkpoint to the board, with this engine in the middle."""
    values = {
        "tile_in": architecture.tile_in,
        "tile_out": architecture.tile_out,
        "multipliers": architecture.multipliers,
        "ports": architecture.weight_ports,
        "is_narrow": is_narrow,
    }
    return render(Path(__file__).with_name("flow.svg.j2"), values).strip() + "\n"


def run(args: DrawingOptions) -> None:
    architecture = Architecture.for_target(resolve_target(README_TARGET), {})
    for path, is_narrow in ((args.out, False), (for_phones(args.out), True)):
        check_writable_file(path)
        write_whole(path, draw_flow(architecture, is_narrow))
        print(path)
