"""The README's plot of latency against tokens: `spvit token-plot`.

Enters: nothing but the registry's models and a board. Leaves `docs/latency_tokens.svg`, and a narrow one for phones:
DeiT-S and DeiT-T, on the default engine and on one with the direct inner product and as many multipliers, by the closed
form: estimates.
"""

from __future__ import annotations

from hw.architecture import Architecture
from hw.model.charts import NARROW, WIDE, for_phones, standalone
from hw.target import resolve_target, with_clock
from sim.options import PlotOptions
from sim.report.charts import draw_tokens
from sim.report.data import DIRECT, latency_against_tokens
from spvit.config import resolve_model
from spvit.files import check_writable_file, write_whole

KEY_TILE = 64


def run(args: PlotOptions) -> None:
    for path in (args.out, for_phones(args.out)):
        check_writable_file(path)
    target = with_clock(resolve_target(args.target), args.clock)
    curves = {}
    for model in ("deit_s", "deit_t"):
        for engine in ({}, DIRECT):
            architecture = Architecture.for_target(target, engine)
            name = f"{model}, {architecture.tile_in}×{architecture.tile_out} {architecture.inner_product}"
            curves[name] = latency_against_tokens(resolve_model(model), target, architecture).latency
    rows = resolve_model("deit_s").model.num_tokens
    steps = range(KEY_TILE + 1, rows + 1, KEY_TILE)
    for path, width in ((args.out, WIDE), (for_phones(args.out), NARROW)):
        write_whole(path, standalone(draw_tokens(curves, steps, f"Latency against tokens on {target.name}", width)))
        print(path)
