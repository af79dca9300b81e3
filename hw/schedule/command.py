"""Whether synthesis can start an iteration every cycle: `spvit schedule --model deit_s`.

Enters: the build's arguments (`quant.build`) and the quantized network in the build folder, of which the design is
rendered. Leaves `schedule.json` in the build folder (`schedule-<top>.json` for a kernel's own top), and a table.
No synthesis has seen the design: every figure is of an open model of one, by several tables of delays.
"""

from __future__ import annotations

from hw.generate import check_request, ensure_project
from hw.options import ScheduleOptions
from hw.schedule.frontend import check_tools
from hw.schedule.loops import pipelined_loops
from hw.schedule.report import Schedule, schedule_loop, show, worst_of_each
from hw.target import with_clock
from quant.build import build_folder
from spvit.console import Console, stage
from spvit.files import check_writable, write_json


def run(args: ScheduleOptions) -> None:
    spec, target, architecture = check_request(args)
    target = with_clock(target, args.clock)
    check_tools()
    folder = build_folder(args)
    check_writable(folder)
    project, _ = ensure_project(args)
    sources = {path.removeprefix("src/"): text for path, text in project.files.items() if path.startswith("src/")}
    console = Console()
    found = []
    with stage("compiling the sources and scheduling each pipelined loop: up to a few minutes") as under_way:
        for loop in pipelined_loops(sources, f"{args.top or 'top'}.cpp"):
            under_way.detail(loop.label)
            found.append(schedule_loop(loop, target.clock_mhz))
    top = args.top or "the accelerator"
    engine = f"{architecture.tile_in}x{architecture.tile_out} {architecture.inner_product}"
    schedule = Schedule(spec.model.name, target.name, engine, top, target.clock_mhz, worst_of_each(found))
    show(schedule, console)
    path = folder / (f"schedule-{args.top}.json" if args.top else "schedule.json")
    write_json(path, schedule.document())
    console.print(str(path))
