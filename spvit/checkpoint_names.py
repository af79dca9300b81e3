"""Which of a checkpoint's tensors are the weights, and what timm calls them.

Enters: the content of a file: state dicts under keys of training scripts, under prefixes of wrappers, as running means
beside the weights, in the names of Hugging Face or torchvision. Leaves: one state dict in timm's names, and in words
what was found beside it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spvit.errors import CheckpointError

WRAPPERS = ("model", "state_dict", "net", "network", "module", "weights", "params", "student")  # best first
ANCHORS = ("patch_embed.proj.weight", "pos_embed", "cls_token")  # a network is where one of these is
RUNNING_MEAN = re.compile(r"(^|[._])(ema|teacher|momentum|shadow|averaged|swa)(?=[._]|$)")
COUNTERS = re.compile(r"(.*\.)?(total_ops|total_params|n_averaged)")  # of thop and of torch's AveragedModel
DEPTH = 4  # of wrappers within wrappers

# Names that say the same as timm's; before them may stand what held the network. The first TELLING of a table are
# nobody else's.
TELLING = 4
HUGGING_FACE = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.output\.dense\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"layernorm\.(\w+)", r"norm.\1"),
    (r"(?:cls_)?classifier\.(\w+)", r"head.\1"),
    (r"distillation_classifier\.(\w+)", r"head_dist.\1"),
)
TORCHVISION = (
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(\w+)", r"norm.\1"),
    (r"heads\.head\.(\w+)", r"head.\1"),
)
NAMINGS = {"huggingface": HUGGING_FACE, "torchvision": TORCHVISION}


@dataclass(frozen=True)
class Weights:
    """One network of a checkpoint.

    state    tensors by timm's names, or by those that nobody knows
    keys     under which it stood, the outermost first
    prefix   that its names had
    naming   timm | huggingface | torchvision
    notes    what a person should know about the choice, as sentences
    ignored  names of tensors that are not the network's
    """

    state: dict[str, Tensor]
    keys: tuple[str, ...] = ()
    prefix: str = ""
    naming: str = "timm"
    notes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def is_running_mean(self) -> bool:
        return any(RUNNING_MEAN.search(part) for part in (*self.keys, self.prefix))

    @property
    def place(self) -> str:
        """Where it stood, in words."""
        return ".".join((*self.keys, self.prefix.rstrip("."))).strip(".") or "the file's own tensors"

    @property
    def rank(self) -> int:
        """Of two networks the one with the lower rank is the one that is meant."""
        return min((WRAPPERS.index(key) for key in self.keys if key in WRAPPERS), default=len(WRAPPERS))


def find_weights(path: str | Path, content: Mapping[Any, Any], running_mean: bool = False) -> Weights:
    """The network in a file's content.

    running_mean  take the running mean of the weights in place of them
    Raises CheckpointError where there is none, or more than one that could be meant.
    """
    networks = list(_networks(content))
    if not networks:
        return _only_state(path, content)
    means = [network for network in networks if network.is_running_mean]
    plain = [network for network in networks if not network.is_running_mean]
    if running_mean and not means:
        raise CheckpointError(
            f"{path}: EMA=1 asks for a running mean of the weights, but it holds {plain[0].place} alone; leave EMA= out"
        )
    chosen = _best(path, means if running_mean or not plain else plain)
    notes = chosen.notes
    if plain and means:
        other = plain if running_mean else means
        way = "" if running_mean else "; EMA=1 takes it"
        what = "the weights themselves are" if running_mean else "a running mean of the weights is"
        notes += (f"{chosen.place} is taken, {what} there too, {other[0].place}{way}",)
    elif means:
        notes += (f"{chosen.place} is taken, a running mean of the weights, since they are not there themselves",)
    return replace(chosen, notes=notes)


def _best(path: str | Path, networks: list[Weights]) -> Weights:
    ranked = sorted(networks, key=lambda network: network.rank)
    if len(ranked) > 1 and ranked[0].rank == ranked[1].rank:
        places = " and ".join(network.place for network in ranked[:2])
        raise CheckpointError(
            f"{path}: holds more than one network ({places}); save the one that is meant alone, "
            "with torch.save(net.state_dict(), ...)"
        )
    return ranked[0]


def _networks(content: Mapping[Any, Any], keys: tuple[str, ...] = ()) -> Iterator[Weights]:
    """Every network in a mapping and in the mappings within."""
    naming, tensors = _in_timms_names(_tensors_of(content))
    prefixes = {
        name.removesuffix(anchor)
        for name in tensors
        for anchor in ANCHORS
        if name == anchor or name.endswith(f".{anchor}")
    }
    for prefix in sorted(prefixes, key=len):
        around = [other for other in prefixes if prefix != other and prefix.startswith(other)]
        if around and not RUNNING_MEAN.search(prefix):
            continue  # a part of a network, such as its decoder
        means = tuple(other for other in prefixes - {prefix} if other.startswith(prefix) and RUNNING_MEAN.search(other))
        own = [name for name in tensors if name.startswith(prefix) and not name.startswith(means)]
        inside = {name.removeprefix(prefix): tensors[name] for name in own}
        outside = [name for name in tensors if name not in set(own)]
        heads = {name: tensors[name] for name in outside if re.match(r"head(_dist)?\.(weight|bias)", name)}
        if len(prefixes) == 1 and not heads.keys() & inside.keys():
            inside |= heads  # of a classifier around a backbone
            outside = [name for name in outside if name not in heads]
        counters = [name for name in inside if COUNTERS.fullmatch(name)]
        state = {name: value for name, value in inside.items() if name not in counters}
        yield Weights(state, keys, prefix, naming, ignored=(*counters, *outside))
    if len(keys) < DEPTH:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Mapping):
                yield from _networks(value, (*keys, _printable(key)))


def _tensors_of(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """What is a tensor, or could be one, under a name."""
    tensors: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            tensors[_printable(name)] = value.detach()
        elif isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.ndim:
            tensors[_printable(name)] = torch.from_numpy(np.ascontiguousarray(value))
    return tensors


def _printable(name: str) -> str:
    """A name that may stand in a sentence; a network's own ones are, and come back as they are."""
    return name if name.isprintable() else repr(name)


def _in_timms_names(tensors: dict[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The tensors under timm's names, where they have another library's; and whose names they had."""
    for naming, table in NAMINGS.items():
        telling = [re.compile(rf"(?:\w+\.)*{pattern}") for pattern, _ in table[:TELLING]]
        if not any(pattern.fullmatch(name) for pattern in telling for name in tensors):
            continue
        renamed = {_renamed(name, table): tensor for name, tensor in tensors.items()}
        if len(renamed) == len(tensors):  # else two networks' names would be one
            return naming, _joined_qkv(renamed)
    return "timm", tensors


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in table:
        match = re.fullmatch(rf"(?:\w+\.)*?{pattern}", name)
        if match:
            return match.expand(ours)
    return name


def _joined_qkv(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's query, key and value as one layer, where all three are there."""
    joined = dict(state)
    for name in state:
        block = re.fullmatch(r"(blocks\.\d+\.attn)\.query\.(\w+)", name)
        parts = [f"{block[1]}.{part}.{block[2]}" for part in ("query", "key", "value")] if block else []
        if (
            block
            and all(part in state and state[part].layout == torch.strided for part in parts)
            and (len({(state[part].shape[1:], state[part].ndim, state[part].is_nested) for part in parts}) == 1)
        ):
            joined[f"{block[1]}.qkv.{block[2]}"] = torch.cat([joined.pop(part) for part in parts])
    return joined


def _only_state(path: str | Path, content: Mapping[Any, Any]) -> Weights:
    """Where no network is known: what would be one if its names were. Raises CheckpointError for what could not."""
    key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    state = content if key is None else content[key]
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {_printable(str(name))} is a {type(value).__name__} in place of a tensor; "
                f"save the state dict alone, or under one of {', '.join(WRAPPERS)}"
            )
    if state and not any(re.match(r"(blocks|selectors|norm|head)\.", name) for name in state):
        first = _printable(next(iter(state)))
        raise CheckpointError(
            f"{path}: holds no vision transformer that is known here: it begins with {first}, and timm's, facebook's, "
            "Hugging Face's and torchvision's have patch_embed, pos_embed and blocks, or their like"
        )
    return Weights(_tensors_of(state), () if key is None else (key,))
