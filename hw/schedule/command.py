"""Whether synthesis can start an iteration every cycle: `spvit schedule --model deit_s`.

Enters: the build's arguments (`quant.build`) and the quantized network in the build folder, of which the design is
rendered. Leaves `schedule.json` in the build folder (`schedule-<top>.json` for a kernel's own top), and a table.
No synthesis has seen the design: every figure is of an open model of one, by several tables of delays.
"""

from __future__ import annotations

from pathlib import Path

from hw.generate import Project, check_request, ensure_project
from hw.options import ScheduleOptions
from hw.schedule.frontend import check_tools
from hw.schedule.loops import pipelined_loops
from hw.schedule.report import Schedule, schedule_loop, show, worst_of_each
from hw.target import with_clock
from quant.build import build_folder
from spvit.console import Console, stage
from spvit.files import check_writable, write_json


def run(args: ScheduleOptions) -> None:
    _, board, _ = check_request(args)
    check_tools()
    folder = build_folder(args)
    check_writable(folder)
    project, _ = ensure_project(args)
    schedule = make_schedule(project, with_clock(board, args.clock).clock_mhz, args.top)
    console = Console()
    show(schedule, console)
    console.print(str(write_schedule(schedule, args.top, folder)))


def make_schedule(project: Project, clock_mhz: float, top: str | None = None) -> Schedule:
    """Of each pipelined loop of the accelerator, or of one unit. Raises BuildError."""
    sources = {path.removeprefix("src/"): text for path, text in project.files.items() if path.startswith("src/")}
    found = []
    with stage("compiling the sources and scheduling each pipelined loop: up to a few minutes") as under_way:
        for loop in pipelined_loops(sources, f"{top or 'top'}.cpp"):
            under_way.detail(loop.label)
            found.append(schedule_loop(loop, clock_mhz))
    architecture, name = project.design.architecture, project.design.network.model.name
    engine = f"{architecture.tile_in}x{architecture.tile_out} {architecture.inner_product}"
    what = top or "the accelerator"
    return Schedule(name, project.target.name, engine, what, clock_mhz, worst_of_each(found))


def write_schedule(schedule: Schedule, top: str | None, folder: Path) -> Path:
    path = folder / (f"schedule-{top}.json" if top else "schedule.json")
    write_json(path, schedule.document())
    return path
