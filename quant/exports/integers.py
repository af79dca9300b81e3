"""The quantized network as one plain .npz: integers, and the format of each.

Enters: a `QuantizedNetwork`. Leaves: named arrays, which NumPy alone reads; docs/exports.md says what they mean.
"""

from __future__ import annotations

import io
import json

import numpy as np
from numpy.typing import NDArray

from quant.network import QuantizedNetwork
from spvit.config import to_table


def to_arrays(network: QuantizedNetwork) -> dict[str, NDArray[np.generic]]:
    """Everything of the network by name; the real value of an integer q is q * 2**-frac_bits.

    LAYER.weight            int16 [out, in]
    LAYER.weight_frac_bits  int16 [out]
    LAYER.bias              int16 [out]
    LAYER.bias_frac_bits    int16 ()
    position                int16 [prefix + patches, C], in the format of `patch_embed`
    frac_bits/ACTIVATION    int16 (): the format of what leaves a layer, a LayerNorm or a GELU
    thresholds              int32 [selectors], 22 fraction bits
    config                  JSON text: the tables [model] and [pruning], and the network's digest
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, linear in network.linears.items():
        arrays[f"{name}.weight"] = linear.weight
        arrays[f"{name}.weight_frac_bits"] = linear.weight_frac_bits
        arrays[f"{name}.bias"] = linear.bias
        arrays[f"{name}.bias_frac_bits"] = np.array(linear.bias_frac_bits, np.int16)
    arrays["position"] = network.position
    arrays |= {f"frac_bits/{name}": np.array(bits, np.int16) for name, bits in network.frac_bits.items()}
    arrays["thresholds"] = np.array(network.thresholds, np.int32)
    config = {"model": to_table(network.model), "pruning": to_table(network.pruning), "digest": network.digest}
    arrays["config"] = np.array(json.dumps(config, sort_keys=True))
    return arrays


def to_npz(network: QuantizedNetwork) -> bytes:
    """The file's content; equal networks give equal bytes."""
    memory = io.BytesIO()
    np.savez(memory, **to_arrays(network))
    return memory.getvalue()
