"""Trained weights from files, into an `SPViT`: timm's, facebook's, the SPViT authors' and this project's own.

Enters: a checkpoint's file, and the model that it should be. Leaves: an `SPViT` in evaluation mode, in float32. What a
file holds is read by `checkpoint_files`, found by `checkpoint_names` and rewritten by `checkpoint_conversion`. A file
that is not wholly and exactly the model's weights ends with a CheckpointError; nothing is loaded in part.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from spvit.checkpoint_conversion import DYNAMIC_VIT, as_ours, from_authors
from spvit.checkpoint_files import read_checkpoint
from spvit.checkpoint_names import Weights, find_weights
from spvit.checkpoint_options import MIN_THRESHOLD, CheckpointOptions
from spvit.checkpoint_origin import warning
from spvit.config import LATER_FIELDS, ModelConfig, PruningConfig, to_table
from spvit.errors import CheckpointError, ConfigError
from spvit.files import write_whole
from spvit.initialisation import initialise_selectors
from spvit.pruned_vit import SPViT

MAX_WEIGHT = 65504.0  # the largest number of float16; no trained transformer comes near it
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
FRESH_SELECTORS_SEED = 0
METADATA_KEY = "spvit"
DIGEST_KEY = "sha256"  # of the tensors, beside the configuration in it: safetensors has no checksums
# What the configuration in a file of our own must agree on with the one asked for; shapes alone don't show it.
MODEL_FIELDS = ("num_heads", "patch_size", "layer_norm_eps", "mean", "std", "pooling", "skip_lam", "stage_heads")
PRUNING_FIELDS = ("locations", "share_heads", "features", "method", "heads", "scorer", "activation", "rules",
                  "refill", "after_pooling")  # fmt: skip
# A field that a file does not have is at its default; lists, as files have them.
DEFAULTS: dict[str, Any] = {
    item.name: [] if item.default == () else item.default
    for part in (ModelConfig, PruningConfig) for item in fields(part) if item.name in LATER_FIELDS
}  # fmt: skip
HINTS = {  # first match on the tensor's name
    r"selectors\..*embed\.": "set features and share_heads of [pruning] as the selectors were trained",
    r"selectors\.": "set locations, num_heads, features and share_heads as the selectors were trained",
    r"pos_embed": "choose the MODEL= with the img_size, patch_size and distilled that it was trained with",
    r"dist_token|head_dist": "choose a MODEL= that is distilled, or is not, as it was trained",
    r"patch_embed\.(conv|bn)": "set stem_chans as it was trained, or choose the MODEL= that it was trained as",
    r"blocks\.\d+\.attn\.qkv\.bias": "set qkv_bias as it was trained",
    r"aux_head": "set num_classes and aux_head as it was trained",
    r"head": "set num_classes as it was trained",
    r"blocks\.\d+\.mlp\.": "set hidden_dim or mlp_ratio as it was trained, or choose the MODEL= that it was trained as",
    r"": "choose the MODEL= that it was trained as",
}
LIBRARIES = {"huggingface": "Hugging Face's", "torchvision": "torchvision's"}


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint was found to be."""

    path: str
    source: (
        str  # timm | facebook | huggingface | torchvision | tokenlabeling | naver | spvit-authors | dynamicvit | own
    )
    selectors_found: bool  # False: the selectors are fresh, not trained
    calibrated_keep: tuple[float, ...]  # kept fractions that the file's thresholds were calibrated for; () = unknown
    ignored: tuple[str, ...]  # names of tensors that the model asked for has no use for
    notes: tuple[str, ...] = ()  # what was chosen or rewritten on the way, and warnings: clauses

    def __str__(self) -> str:
        selectors = "" if self.selectors_found else "; it has no selectors: they are fresh and need training"
        ignored = f"; {len(self.ignored)} tensors were not needed" if self.ignored else ""
        return f"{self.path}: {self.source} checkpoint{selectors}{ignored}{''.join(f'; {note}' for note in self.notes)}"


def load_checkpoint(
    path: str | Path, model: ModelConfig, pruning: PruningConfig, options: CheckpointOptions | None = None
) -> SPViT:
    """The SPViT in a file. Use `load_checkpoint_with_report` to learn whether its selectors are trained ones."""
    return load_checkpoint_with_report(path, model, pruning, options)[0]


def load_checkpoint_with_report(
    path: str | Path, model: ModelConfig, pruning: PruningConfig, options: CheckpointOptions | None = None
) -> tuple[SPViT, LoadReport]:
    """The SPViT in a file, and what was found there.

    A plain ViT's checkpoint has no selectors: they are then initialised afresh, and the report says so.
    Raises CheckpointError naming the file, the tensor, both shapes and the way out.
    """
    options = options or CheckpointOptions()
    content, metadata = read_checkpoint(Path(path))
    saved = _saved_config(path, metadata)
    digest = saved.get(DIGEST_KEY)  # files from before there was one have none
    if digest is not None and digest != tensors_digest(content):
        raise CheckpointError(f"{path}: its weights are not those that were saved; fetch or save it again")
    weights = find_weights(path, content, options.ema)
    _require_plain_tensors(path, weights.state)
    source, state = _source(weights, bool(saved)), weights.state
    if source in ("spvit-authors", "dynamicvit"):
        state = from_authors(path, state, model, pruning)
    notes = weights.notes
    if source != "own":
        state, done = as_ours(path, state, model, options.interpolate)
        said = warning(Path(path), content, model)
        notes = (*notes, *done, *([said] if said else []))

    net = SPViT(model, pruning)
    belongs_to_selectors = re.compile(r"(selectors|score_predictor)\.|thresholds$")
    ignored = weights.ignored
    if not pruning.num_selectors:
        unused = tuple(name for name in state if belongs_to_selectors.match(name))
        state = {name: tensor for name, tensor in state.items() if name not in unused} | {"thresholds": net.thresholds}
        ignored += unused
    _check_saved_config(path, saved, model, pruning)
    calibrated_keep = _saved_keep(path, saved, pruning)
    expected = net.state_dict()
    learnt = any(name.startswith("selectors.") for name in expected)  # else thresholds are all that there is
    selectors_found = any(name.startswith("selectors." if learnt else "thresholds") for name in state)
    if not selectors_found:
        state |= {name: tensor for name, tensor in expected.items() if belongs_to_selectors.match(name)}
    state.setdefault("thresholds", net.thresholds)
    whose = LIBRARIES.get(weights.naming)
    _check_tensors(path, state, expected, model, f" ({whose} names are given as timm's)" if whose else "")
    net.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in state.items()})
    if not selectors_found:
        initialise_selectors(net, FRESH_SELECTORS_SEED)
    report = LoadReport(
        str(path), source, selectors_found or not pruning.num_selectors, calibrated_keep, ignored, notes
    )
    return net.eval(), report


def _source(weights: Weights, is_saved_here: bool) -> str:
    if any(name.startswith("score_predictor.") for name in weights.state):
        return "dynamicvit" if any(map(DYNAMIC_VIT.fullmatch, weights.state)) else "spvit-authors"
    if is_saved_here or any(name.startswith("selectors.") for name in weights.state):
        return "own"
    if "patch_embed.conv1.weight" in weights.state:
        return "tokenlabeling"
    if any(name.startswith("pools.") for name in weights.state):
        return "naver"
    if weights.naming == "timm" and weights.keys[:1] in (("model",), ("model_ema",)):
        return "facebook"
    return weights.naming


def save_checkpoint(path: str | Path, net: SPViT) -> None:
    """Write weights, thresholds, configuration and a digest to a .safetensors file, whole or not at all."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: checkpoints are written as .safetensors; choose a name that ends so")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    config = {"version": 1, "model": to_table(net.config), "pruning": to_table(net.pruning)}
    config[DIGEST_KEY] = tensors_digest(tensors)
    write_whole(path, save(tensors, metadata={METADATA_KEY: json.dumps(config)}), CheckpointError)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names and bytes; types and shapes are looked at anyway."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + b"\0" + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _require_plain_tensors(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for tensors that have no numbers, or not one for each place."""
    for name, tensor in state.items():
        if tensor.is_nested or tensor.layout != torch.strided:
            kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.").replace("_", " ")
            raise CheckpointError(f"{path}: {name} is a {kind} tensor; save it as an ordinary, dense one")
        if tensor.device.type == "meta":
            raise CheckpointError(
                f"{path}: {name} is on the meta device, a shape without numbers; save it after its weights were loaded"
            )


def _check_tensors(
    path: str | Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: ModelConfig, naming: str
) -> None:
    """Raise CheckpointError unless `state` has exactly the expected names and shapes, and finite numbers.

    naming  what is to be said of the names
    """
    for name, tensor in expected.items():
        if name in state and state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} has the shape {tuple(state[name].shape)}, "
                f"but {model.name} needs {tuple(tensor.shape)}; {_hint(name)}{naming}"
            )
    for problem, names in (
        (f"is missing, which {model.name} needs", [name for name in expected if name not in state]),
        (f"is there, which {model.name} does not have", [name for name in state if name not in expected]),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f"{path}: {names[0]}{more} {problem}; {_hint(names[0])}{naming}")
    for name, tensor in state.items():
        if not expected[name].is_floating_point():
            continue  # BatchNorm's count of batches
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{path}: {name} has the type {tensor.dtype}; save the weights as floating point")
        wrong = int((~torch.isfinite(tensor.to(torch.float32))).sum())
        if wrong:
            raise CheckpointError(
                f"{path}: {name} has {wrong} of {tensor.numel()} numbers that are NaN or infinite; "
                "take a checkpoint from before the training diverged"
            )
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if largest > MAX_WEIGHT:
            raise CheckpointError(
                f"{path}: {name} has a number of size {largest:.3g}, and no trained weight is beyond {MAX_WEIGHT:.0f}; "
                "take a checkpoint from before the training diverged"
            )
    for value in state["thresholds"].tolist():
        if not MIN_THRESHOLD <= value <= 1:
            raise CheckpointError(
                f"{path}: thresholds has {value}, outside 2**-16 to 1; calibrate the thresholds again"
            )


def _saved_config(path: str | Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The configuration in a file of our own; empty in the others."""
    if METADATA_KEY not in metadata:
        return {}
    try:
        config = json.loads(metadata[METADATA_KEY])
        model, pruning = dict(config["model"]), dict(config["pruning"])
        pruning["keep"] = tuple(float(fraction) for fraction in pruning.get("keep", ()))
        return {"model": model, "pruning": pruning, DIGEST_KEY: config.get(DIGEST_KEY)}
    except (ValueError, LookupError, TypeError, RecursionError):
        raise CheckpointError(f"{path}: its metadata cannot be read; save it again with save_checkpoint") from None


def _check_saved_config(path: str | Path, saved: Mapping[str, Any], model: ModelConfig, pruning: PruningConfig) -> None:
    if not saved:
        return
    wanted = [("model", name, getattr(model, name)) for name in MODEL_FIELDS]
    if pruning.num_selectors and saved["pruning"].get("locations"):
        wanted += [("pruning", name, getattr(pruning, name)) for name in PRUNING_FIELDS]
    for section, name, value in wanted:
        value = list(value) if isinstance(value, tuple) else value
        found = saved[section].get(name, DEFAULTS.get(name, value))
        if found != value:
            raise CheckpointError(
                f"{path}: was trained with {name}={found}, but {model.name} has {name}={value}; "
                f"set {name} = {json.dumps(found)} in [{section}], or choose another checkpoint"
            )


def _saved_keep(path: str | Path, saved: Mapping[str, Any], pruning: PruningConfig) -> tuple[float, ...]:
    """The kept fractions that the thresholds of a file of our own were made for; () where it does not say."""
    keep: tuple[float, ...] = saved["pruning"]["keep"] if saved else ()
    if pruning.num_selectors:
        try:
            replace(pruning, keep=keep)
        except ConfigError as error:
            raise CheckpointError(f"{path}: its metadata cannot be: {error}; save it again") from None
    return keep


def _hint(name: str) -> str:
    return next(hint for pattern, hint in HINTS.items() if re.match(pattern, name))
