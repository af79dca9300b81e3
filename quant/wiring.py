"""Which activation enters each linear layer, which one leaves it, and which residual is added before rounding.

No torch here: calibration, the Brevitas model and the tests of the formats' rules read this one table.
"""

from __future__ import annotations

from dataclasses import dataclass

from spvit.config import ModelConfig, PruningConfig


@dataclass(frozen=True)
class Wire:
    """The activations around one linear layer, by name.

    residual  added to the unrounded accumulator: result = requantize(source W^T + b + residual)
    """

    source: str
    result: str
    residual: str | None = None


def stream_before(block: int) -> str:
    """The residual stream as it enters `block`, its selector included."""
    return "patch_embed" if block == 0 else f"blocks.{block - 1}.mlp.fc2"


def wiring(model: ModelConfig, pruning: PruningConfig) -> dict[str, Wire]:
    """The wire of every linear layer, with the keys of `linear_shapes`."""
    wires = {"patch_embed.proj": Wire("pixels", "patch_embed", "patch_embed")}  # the residual is the position
    for block in range(model.depth):
        if block in pruning.locations:
            wires |= _selector_wires(
                block, pruning.locations.index(block), 1 if pruning.share_heads else model.num_heads
            )
        attn, mlp = f"blocks.{block}.attn", f"blocks.{block}.mlp"
        wires |= {f"{attn}.{name}": Wire(f"blocks.{block}.norm1", f"{attn}.{name}") for name in ("q", "k", "v")}
        wires[f"{attn}.proj"] = Wire(f"{attn}.context", f"{attn}.proj", stream_before(block))
        wires[f"{mlp}.fc1"] = Wire(f"blocks.{block}.norm2", f"{mlp}.fc1")
        wires[f"{mlp}.fc2"] = Wire(f"{mlp}.fc1.gelu", f"{mlp}.fc2", f"{attn}.proj")
    wires["head"] = Wire("norm", "head")
    return wires


def _selector_wires(block: int, index: int, num_scorers: int) -> dict[str, Wire]:
    """All scorers of a selector share their activations' formats."""
    selector = f"selectors.{index}"
    wires = {}
    for head in range(num_scorers):
        source = f"{selector}.norm"
        for layer in ("embed", "fc1", "fc2", "fc3"):
            wires[f"{selector}.scorers.{head}.{layer}"] = Wire(source, f"{selector}.{layer}")
            source = f"{selector}.{layer}.gelu"
    branch = f"{selector}.head_branch"
    wires[f"{branch}.fc1"] = Wire(stream_before(block), f"{branch}.fc1")
    wires[f"{branch}.fc2"] = Wire(f"{branch}.fc1.gelu", f"{branch}.fc2")
    return wires
