"""The quantized network: what `quant` leaves and `hw`, `sim` and `host` read. No torch here.

On disk: `network.json` (formats, configuration, digest) and `network.safetensors` (int16 tensors) in one folder.

Names. Linear layers carry timm's keys with q, k and v apart; LayerNorm's weight and bias are folded into the layer that
follows, 1/sqrt(d) and log2(e) into q, the pixels' mean and std into the patch embedding:

    patch_embed.proj                        [C, patch*patch*in_chans], input in (y, x, channel) order, raw uint8 pixels
    blocks.N.attn.{q,k,v,proj}, blocks.N.mlp.{fc1,fc2}
    selectors.N.scorers.H.{embed,fc1,fc2,fc3}   H is 0 alone if the heads share; fc3 is the difference keep - drop
    selectors.N.head_branch.{fc1,fc2}       fc1 averages over the head's channels too: [H/2, C]
    head                                    [classes, C]; distilled: [classes, 2 C], the mean of both heads

`frac_bits` gives each activation's format: the layer's own name for what leaves it (after the residual addition where
there is one), `.gelu` appended for what leaves its GELU, `norm*` for what leaves a LayerNorm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from spvit.config import WEIGHT_BITS, WEIGHT_WIDTHS, ModelConfig, PruningConfig, to_table
from spvit.errors import NetworkError
from spvit.files import read_bytes, read_json, write_whole
from spvit.model_config import MOST_BLOCKS
from spvit.schema import SHA256, Entries, Items, Whole, check_fields, from_table, shown_text

SCHEMA_VERSION = 1
FRAC_BITS = Whole(-64, 64)
SELECTOR_LAYER_NORM_EPS = 1e-5  # the released selectors keep PyTorch's default
Int16Array = NDArray[np.int16]


@dataclass(frozen=True)
class QuantizedLinear:
    """y = x W^T + b in integers.

    weight            int16 [out, in]
    weight_frac_bits  int16 [out], one format per output channel
    bias              int16 [out]
    bias_frac_bits    one for the layer
    weight_bits       16, or 12 or 8: then the others of each weight's, the lowest, are zero
    """

    weight: Int16Array
    weight_frac_bits: Int16Array
    bias: Int16Array
    bias_frac_bits: int
    weight_bits: int = 16

    @property
    def out_features(self) -> int:
        return int(self.weight.shape[0])

    @property
    def in_features(self) -> int:
        return int(self.weight.shape[1])

    def bias_at(self, input_frac_bits: int) -> NDArray[np.int64]:
        """The bias aligned to the accumulator, whose fraction is the input's and the weight's together. [out]"""
        shift = input_frac_bits + self.weight_frac_bits.astype(np.int64) - self.bias_frac_bits
        return self.bias.astype(np.int64) << shift


@dataclass(frozen=True)
class QuantizedNetwork:
    """Everything the accelerator is generated from.

    position    int16 [prefix + patches, C] in the format of `patch_embed`: position embedding, with the class (and
                distillation) token added to its row
    thresholds  per selector, 22 fraction bits
    """

    model: ModelConfig
    pruning: PruningConfig
    linears: Mapping[str, QuantizedLinear]
    frac_bits: Mapping[str, int]
    position: Int16Array
    thresholds: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, shape in linear_shapes(self.model, self.pruning).items():
            linear = self.linears.get(name)
            if linear is None:
                raise NetworkError(f"the quantized network lacks the layer {name}; quantize it again")
            if linear.weight.shape != shape:
                raise NetworkError(
                    f"layer {name} of the quantized network has shape {linear.weight.shape}, its configuration says "
                    f"{shape}; quantize it again"
                )
            if linear.weight_bits not in WEIGHT_WIDTHS or np.any(linear.weight & ((1 << 16 - linear.weight_bits) - 1)):
                raise NetworkError(
                    f"layer {name} of the quantized network says that its weights have {linear.weight_bits} bits, and "
                    "they don't; quantize it again"
                )
        missing = [name for name in activation_names(self.model, self.pruning) if name not in self.frac_bits]
        if missing:
            raise NetworkError(f"the quantized network lacks the format of {missing[0]}; quantize it again")

    @property
    def weight_bits(self) -> dict[str, int]:
        """The width of each layer's weights."""
        return {name: linear.weight_bits for name, linear in self.linears.items()}

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the result."""
        return hashlib.sha256(_header(self).encode() + _tensor_bytes(self)).hexdigest()


def linear_shapes(model: ModelConfig, pruning: PruningConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear layer, in order of use."""
    dim, hidden, d, heads = model.embed_dim, model.hidden_dim, model.head_dim, model.num_heads
    shapes = {"patch_embed.proj": (dim, model.patch_size**2 * model.in_chans)}
    for block in range(model.depth):
        if block in pruning.locations:
            selector = f"selectors.{pruning.locations.index(block)}"
            for head in range(1 if pruning.share_heads else heads):
                scorer = f"{selector}.scorers.{head}"
                shapes[f"{scorer}.embed"] = (d, d)
                shapes[f"{scorer}.fc1"] = (d // 2, d)
                shapes[f"{scorer}.fc2"] = (d // 4, d // 2)
                shapes[f"{scorer}.fc3"] = (1, d // 4)
            middle = max(heads // 2, 1)
            shapes[f"{selector}.head_branch.fc1"] = (middle, dim)
            shapes[f"{selector}.head_branch.fc2"] = (heads, middle)
        for layer in ("q", "k", "v", "proj"):
            shapes[f"blocks.{block}.attn.{layer}"] = (dim, dim)
        shapes[f"blocks.{block}.mlp.fc1"] = (hidden, dim)
        shapes[f"blocks.{block}.mlp.fc2"] = (dim, hidden)
    shapes["head"] = (model.num_classes, dim * model.num_prefix_tokens)
    return shapes


def activation_names(model: ModelConfig, pruning: PruningConfig) -> Iterator[str]:
    """Every activation that has a format."""
    yield from ("pixels", "patch_embed")
    for block in range(model.depth):
        if block in pruning.locations:
            selector = f"selectors.{pruning.locations.index(block)}"
            yield f"{selector}.norm"
            for layer in ("embed", "fc1", "fc2", "head_branch.fc1"):
                yield f"{selector}.{layer}"
                yield f"{selector}.{layer}.gelu"
            yield f"{selector}.fc3"
            yield f"{selector}.head_branch.fc2"
        attn, mlp = f"blocks.{block}.attn", f"blocks.{block}.mlp"
        yield f"blocks.{block}.norm1"
        yield from (f"{attn}.{tensor}" for tensor in ("q", "k", "v", "scores", "context", "proj"))
        yield f"blocks.{block}.norm2"
        yield from (f"{mlp}.fc1", f"{mlp}.fc1.gelu", f"{mlp}.fc2")
    yield from ("norm", "head")


@dataclass(frozen=True)
class _Description:
    """`network.json`; see QuantizedNetwork."""

    schema: Annotated[int, Whole(SCHEMA_VERSION, SCHEMA_VERSION)]
    model: ModelConfig
    pruning: PruningConfig
    bias_frac_bits: Annotated[Mapping[str, int], Entries(FRAC_BITS, "formats", 1_000_000)]
    frac_bits: Annotated[Mapping[str, int], Entries(FRAC_BITS, "formats", 1_000_000)]
    thresholds: Annotated[tuple[int, ...], Items(Whole(0, 1 << 22), "thresholds", MOST_BLOCKS)]
    sha256: Annotated[str, SHA256]
    weight_bits: Annotated[Mapping[str, int], Entries(WEIGHT_BITS, "widths", 1_000_000)] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)


def save_network(network: QuantizedNetwork, folder: Path) -> None:
    """Write `network.json` and `network.safetensors`; each appears whole or not at all."""
    tensors = _tensor_bytes(network)
    header = json.loads(_header(network))
    header["sha256"] = hashlib.sha256(tensors).hexdigest()
    write_whole(folder / "network.safetensors", tensors)
    write_whole(folder / "network.json", json.dumps(header, indent=1, sort_keys=True) + "\n")


def load_network(folder: Path) -> QuantizedNetwork:
    """Read what `save_network` wrote. Raises NetworkError, naming the file, when it is missing, torn or changed."""
    path = folder / "network.json"
    header = read_json(path, "run `make hls`", NetworkError)
    data = read_bytes(folder / "network.safetensors", "run `make hls`", NetworkError)
    if header.get("schema") != SCHEMA_VERSION:
        raise NetworkError(
            f"{path}: schema {header.get('schema')}, this version reads {SCHEMA_VERSION}; run `make hls` again"
        )
    if hashlib.sha256(data).hexdigest() != header.get("sha256"):
        raise NetworkError(
            f"{folder / 'network.safetensors'}: its SHA-256 is not the one in network.json; run `make hls` again"
        )
    try:
        described = from_table(_Description, header, f"{path}:", NetworkError)
    except NetworkError as error:
        raise NetworkError(f"{error}; run `make hls` again") from None
    tensors = _tensors(folder / "network.safetensors", data)
    try:
        return QuantizedNetwork(
            model=described.model,
            pruning=described.pruning,
            linears={
                name: QuantizedLinear(
                    tensors[f"{name}.weight"],
                    tensors[f"{name}.weight_frac_bits"],
                    tensors[f"{name}.bias"],
                    bias_frac_bits,
                    described.weight_bits.get(name, 16),
                )
                for name, bias_frac_bits in described.bias_frac_bits.items()
            },
            frac_bits=described.frac_bits,
            position=tensors["position"],
            thresholds=described.thresholds,
        )
    except KeyError as error:
        raise NetworkError(f"{path}: tensor {error} is missing; run `make hls` again") from None


def _tensors(path: Path, data: bytes) -> dict[str, Int16Array]:
    """Of a .safetensors file. Raises NetworkError unless all are int16."""
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise NetworkError(f"{path}: cannot be read ({' '.join(str(error).split())}); run `make hls` again") from None
    for name, tensor in tensors.items():
        if tensor.dtype != np.int16:
            raise NetworkError(f"{path}: {shown_text(name)} is {tensor.dtype} in place of int16; run `make hls` again")
    return tensors


def _header(network: QuantizedNetwork) -> str:
    header: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "model": to_table(network.model),
        "pruning": to_table(network.pruning),
        "bias_frac_bits": {name: linear.bias_frac_bits for name, linear in network.linears.items()},
        "frac_bits": dict(network.frac_bits),
        "thresholds": list(network.thresholds),
    }
    narrow = {name: bits for name, bits in network.weight_bits.items() if bits != 16}
    if narrow:  # what was written before there were such stays as it is
        header["weight_bits"] = narrow
    return json.dumps(header, sort_keys=True)


def _tensor_bytes(network: QuantizedNetwork) -> bytes:
    tensors = {"position": network.position}
    for name, linear in network.linears.items():
        tensors[f"{name}.weight"] = linear.weight
        tensors[f"{name}.weight_frac_bits"] = linear.weight_frac_bits
        tensors[f"{name}.bias"] = linear.bias
    return save({name: np.ascontiguousarray(tensor) for name, tensor in sorted(tensors.items())})
