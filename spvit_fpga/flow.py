"""The commands that are several steps of the house's rooms, one after the other."""

from __future__ import annotations

from dataclasses import replace

import hw.generate
import hw.model.measure
import hw.schedule.command
import hw.vendor.synth
import sim.vectors
from hw.generate import check_request
from hw.manifest import DESIGN
from hw.options import HlsOptions, ScheduleOptions, VendorOptions
from quant.build import build_folder, design_folder
from quant.options import BuildOptions
from sim.options import VectorsOptions
from spvit.command import handed_on
from spvit.console import stage
from spvit.errors import BuildError
from spvit_fpga.commands import NoOptions


def hls(options: HlsOptions) -> None:
    """Refuse what can't be built, quantize, generate."""
    check_request(options)
    if options.check:
        return
    with stage("loading", stays=False):  # torch: what is refused need not wait for it
        from quant.quantize import ensure_network

    ensure_network(options)
    hw.generate.run(options)


def weights(options: BuildOptions) -> None:
    """Refuse what does not fit, quantize, pack for a design that is there: no compiler, no design is written.

    Without DESIGN=, for that of the model's own sizes.
    """
    own = build_folder(BuildOptions(model=options.model, target=options.target))
    if options.design is None and options.out is None and own != build_folder(options) and (own / DESIGN).exists():
        options = replace(options, design=str(own))
    check_request(options)
    if not (place := design_folder(options) / DESIGN).exists():
        made = "" if options.design is None else f" DESIGN={options.design}"
        raise BuildError(
            f"{place}: there is no design yet; make hls TARGET={options.target} MODEL={options.model}{made} makes one"
        )
    hw.generate.made_design(options, check_request(options)[2])  # before the long work
    with stage("loading", stays=False):
        from quant.quantize import ensure_network

    ensure_network(options)
    hw.generate.pack(options)


def schedule(options: ScheduleOptions) -> None:
    """The schedule of a design that is made first where that is needed."""
    check_request(options)
    with stage("loading", stays=False):
        from quant.quantize import ensure_network

    ensure_network(options)
    hw.schedule.command.run(options)


def synth(options: VendorOptions) -> int:
    return _drive("synth", options)


def cosim(options: VendorOptions) -> int:
    return _drive("cosim", options)


def bitstream(options: VendorOptions) -> int:
    return _drive("bitstream", options)


def measure(_: NoOptions) -> None:
    hw.model.measure.run()


def _drive(stage: str, options: VendorOptions) -> int:
    """Refuse what can't be done, write the testbench's vectors, drive the tools."""
    hw.vendor.synth.check(stage, options)
    if options.check:
        return 0
    sim.vectors.run(handed_on(options, VectorsOptions))
    return hw.vendor.synth.run(stage, options)
