"""How many bits each layer's weights have: 16, or 12 or 8, of which more fit a word of the weight stream.

Enters: a `ModelSpec`, whose `weight_bits` names layers, or parts of their names, and what `WEIGHT_BITS=` says. Leaves:
the width of every layer. A narrower weight is an int16 whose lowest bits are zero: everything behind the stream sees
int16, and formats are those of int16. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quant.network import linear_shapes
from spvit.config import DEFAULT_LAYER, WEIGHT_BITS, ModelSpec
from spvit.errors import ConfigError
from spvit.schema import shown_text

FULL_WIDTH = 16


def layer_widths(spec: ModelSpec) -> dict[str, int]:
    """The width of each linear layer's weights, by its name in the quantized network. Of two names that both say it,
    the one with more parts holds: `blocks.11.mlp.fc1` before `mlp.fc1` before `default`.

    Raises ConfigError for a name that stands in no layer's.
    """
    layers = linear_shapes(spec.model, spec.pruning)
    widths = dict.fromkeys(layers, spec.weight_bits.get(DEFAULT_LAYER, FULL_WIDTH))
    for name in sorted(spec.weight_bits, key=lambda one: one.count(".")):
        if name == DEFAULT_LAYER:
            continue
        named = [layer for layer in layers if f".{name}." in f".{layer}."]
        if not named:
            raise ConfigError(
                f"[quantization] weight_bits: no layer is called {shown_text(name)}; there are patch_embed, attn.q, "
                "mlp.fc1, blocks.0, selectors, head and the like, and default"
            )
        widths |= dict.fromkeys(named, spec.weight_bits[name])
    return widths


def with_weight_bits(spec: ModelSpec, asked: str | None) -> ModelSpec:
    """The model with the widths that WEIGHT_BITS= asks for: `12`, or `12,head=16`. Raises ConfigError."""
    if asked is None:
        return spec
    widths: dict[str, int] = {}
    for part in asked.split(","):
        name, equals, width = part.strip().rpartition("=")
        if not width.isdecimal() or (equals and not name):
            raise ConfigError(
                f"WEIGHT_BITS={shown_text(asked)} must be 16, 12 or 8, with layers that differ behind it: 12,head=16"
            )
        if (name or DEFAULT_LAYER) in widths:
            raise ConfigError(
                f"WEIGHT_BITS={shown_text(asked)} says twice what {name or 'all layers'} have; say it once"
            )
        widths[name or DEFAULT_LAYER] = int(width) if len(width) < 9 else -1
    for bits in widths.values():
        WEIGHT_BITS.check(f"WEIGHT_BITS={shown_text(asked)}: width", bits)
    return replace(spec, weight_bits=widths)


def narrow(widths: Mapping[str, int]) -> dict[str, int]:
    """Those that are not full."""
    return {name: bits for name, bits in widths.items() if bits != FULL_WIDTH}
