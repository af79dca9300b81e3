"""The accelerator as data.

Enters: a `QuantizedNetwork`, a `Target`, an `Architecture`. Leaves: a `Program`, the packed weights, and the rendered
Vitis HLS project under `build/<model>-<target>/`.

    target ─┐
    architecture ─► layout ─► program ─► weights ─► render ─► generate (the command)

    model/     what it will cost, as estimates: cycles, memory, resources
    schedule/  whether synthesis can start an iteration every cycle, computed from the generated sources
    vendor/    AMD's tools: scripts, runs, reports
"""
