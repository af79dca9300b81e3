"""The accelerator as data.

Enters: a `QuantizedNetwork`, a `Target`, an `Architecture`. Leaves: a `Program`, the packed weights, and the rendered
Vitis HLS project under `build/<model>-<target>/`.

    target ─┐
    architecture ─► layout ─► program ─► weights ─► render ─► generate (the command)

Without weights: latency ─► cycles, memory ─► resources, and on these estimate, explore, budget.
"""
