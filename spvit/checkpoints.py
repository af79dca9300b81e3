"""Trained weights from files, into an `SPViT`: timm's, facebook's, the SPViT authors' and this project's own.

Enters: a .pth, .pt or .safetensors file, and the model that it should be. Leaves: an `SPViT` in evaluation mode, in
float32. No pickled code is run. A file that is not wholly and exactly the model's weights ends with a
CheckpointError; nothing is loaded in part.
"""

import argparse
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spvit.config import LATER_FIELDS, ModelConfig, PruningConfig, to_table
from spvit.errors import CheckpointError
from spvit.files import write_whole
from spvit.initialisation import initialise_selectors
from spvit.pruned_vit import SPViT

MIN_THRESHOLD = 2.0**-16  # below, the fixed-point decision cannot tell a threshold from zero
FRESH_SELECTORS_SEED = 0
METADATA_KEY = "spvit"
WRAPPERS = ("model", "state_dict", "model_ema")  # keys under which training scripts keep the weights, best first
# What the configuration in a file of our own must agree on with the one asked for; shapes alone don't show it.
MODEL_FIELDS = ("num_heads", "patch_size", "layer_norm_eps", "mean", "std", "pooling")
PRUNING_FIELDS = ("locations", "share_heads", "features", "method", "heads", "scorer", "activation", "rules")
# A field that a file does not have is at its default.
DEFAULTS = {item.name: item.default for part in (ModelConfig, PruningConfig) for item in fields(part)
            if item.name in LATER_FIELDS}  # fmt: skip
HINTS = {  # first match on the tensor's name
    r"selectors\..*embed\.": "set features and share_heads of [pruning] as the selectors were trained",
    r"selectors\.": "set locations, num_heads, features and share_heads as the selectors were trained",
    r"pos_embed": "choose the MODEL= with the img_size, patch_size and distilled that it was trained with",
    r"dist_token|head_dist": "choose a MODEL= that is distilled, or is not, as it was trained",
    r"head": "set num_classes as it was trained",
    r"": "choose the MODEL= that it was trained as",
}
# The authors' names of a selector's parts, with a copy for each head even where all heads share one.
AUTHORS_SCORER = {
    "in_conv.0": "norm",
    "in_conv.1": "embed",
    "out_conv.0": "fc1",
    "out_conv.2": "fc2",
    "out_conv.4": "fc3",
}
AUTHORS_BRANCH = {"senet.0": "head_branch.fc1", "senet.2": "head_branch.fc2"}


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint was found to be."""

    path: str
    source: str  # timm | facebook | spvit-authors | own
    selectors_found: bool  # False: the selectors are fresh, not trained
    calibrated_keep: tuple[float, ...]  # kept fractions that the file's thresholds were calibrated for; () = unknown
    ignored: tuple[str, ...]  # names of tensors that the model asked for has no use for

    def __str__(self) -> str:
        selectors = "" if self.selectors_found else "; it has no selectors: they are fresh and need training"
        ignored = f"; {len(self.ignored)} tensors were not needed" if self.ignored else ""
        return f"{self.path}: {self.source} checkpoint{selectors}{ignored}"


def load_checkpoint(path: str | Path, model: ModelConfig, pruning: PruningConfig) -> SPViT:
    """The SPViT in a file. Use `load_checkpoint_with_report` to learn whether its selectors are trained ones."""
    return load_checkpoint_with_report(path, model, pruning)[0]


def load_checkpoint_with_report(
    path: str | Path, model: ModelConfig, pruning: PruningConfig
) -> tuple[SPViT, LoadReport]:
    """The SPViT in a file, and what was found there.

    A plain ViT's checkpoint has no selectors: they are then initialised afresh, and the report says so.
    Raises CheckpointError naming the file, the tensor, both shapes and the way out.
    """
    content, metadata = _read(Path(path))
    saved = _saved_config(path, metadata)
    wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    state = _tensors(path, content[wrapper] if wrapper else content)
    if any(name.startswith("score_predictor.") for name in state):
        source, state = "spvit-authors", _from_authors(path, state, model, pruning)
    elif saved or any(name.startswith("selectors.") for name in state):
        source = "own"
    else:
        source = "facebook" if wrapper else "timm"

    net = SPViT(model, pruning)
    belongs_to_selectors = re.compile(r"selectors\.|thresholds$")
    ignored: tuple[str, ...] = ()
    if not pruning.num_selectors:
        ignored = tuple(name for name in state if belongs_to_selectors.match(name))
        state = {name: tensor for name, tensor in state.items() if name not in ignored} | {"thresholds": net.thresholds}
    _check_saved_config(path, saved, model, pruning)
    expected = net.state_dict()
    learnt = any(name.startswith("selectors.") for name in expected)  # else thresholds are all that there is
    selectors_found = any(name.startswith("selectors." if learnt else "thresholds") for name in state)
    if not selectors_found:
        state |= {name: tensor for name, tensor in expected.items() if belongs_to_selectors.match(name)}
    state.setdefault("thresholds", net.thresholds)
    _check_tensors(path, state, expected, model)
    net.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in state.items()})
    if not selectors_found:
        initialise_selectors(net, FRESH_SELECTORS_SEED)
    calibrated_keep = tuple(saved["pruning"].get("keep", ())) if saved else ()
    report = LoadReport(str(path), source, selectors_found or not pruning.num_selectors, calibrated_keep, ignored)
    return net.eval(), report


def save_checkpoint(path: str | Path, net: SPViT) -> None:
    """Write weights, thresholds and configuration to a .safetensors file, whole or not at all."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: checkpoints are written as .safetensors; choose a name that ends so")
    config = {"version": 1, "model": to_table(net.config), "pruning": to_table(net.pruning)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    write_whole(path, save(tensors, metadata={METADATA_KEY: json.dumps(config)}), CheckpointError)


def _read(path: Path) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """The file's content and a safetensors file's metadata."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; give the path of a .pth, .pt or .safetensors checkpoint")
    broken = f"{path}: not a checkpoint, or cut short; fetch or save it again"
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{broken} ({_first_line(error)})") from None
    if path.suffix not in (".pth", ".pt"):
        raise CheckpointError(
            f"{path}: checkpoints end with .pth, .pt or .safetensors, not {path.suffix or 'no suffix'}"
        )
    try:
        # DeiT's training script stores its command line beside the weights; a Namespace holds data only
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle's age; what cannot be read is an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise CheckpointError(
                f"{path}: holds pickled code ({code[1]}), which is never run; "
                "load it where you trust it and save the weights alone, with torch.save(net.state_dict(), ...)"
            ) from None
        raise CheckpointError(broken) from None
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, OverflowError):
        raise CheckpointError(broken) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__} in place of a state dict; save net.state_dict()"
        )
    return content, {}


def _tensors(path: str | Path, state: Mapping[str, Any]) -> dict[str, Tensor]:
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"{path}: {name} is a {type(value).__name__} in place of a tensor; "
                f"save the state dict alone, or under one of {', '.join(WRAPPERS)}"
            )
    return dict(state)


def _from_authors(
    path: str | Path, state: Mapping[str, Tensor], model: ModelConfig, pruning: PruningConfig
) -> dict[str, Tensor]:
    """The authors' tensors under our names; the copies that they keep for each head of a shared scorer become one."""
    ours: dict[str, Tensor] = {}
    heads: dict[int, set[int]] = {}
    for name, tensor in state.items():
        scorer = re.fullmatch(r"score_predictor\.(\d+)\.(in_conv|out_conv)\.(\d+)\.(\d+)\.(weight|bias)", name)
        branch = re.fullmatch(r"score_predictor\.(\d+)\.(senet\.\d+)\.(weight|bias)", name)
        if scorer and f"{scorer[2]}.{scorer[4]}" in AUTHORS_SCORER:
            stage, head = int(scorer[1]), int(scorer[3])
            heads.setdefault(stage, set()).add(head)
            part = f"{AUTHORS_SCORER[f'{scorer[2]}.{scorer[4]}']}.{scorer[5]}"
            name = f"selectors.{stage}.scorers.{0 if pruning.share_heads else head}.{part}"
            if name in ours and not torch.equal(ours[name], tensor):
                raise CheckpointError(
                    f"{path}: the heads of score_predictor.{stage} have weights of their own; "
                    "set share_heads = false in [pruning]"
                )
        elif branch and branch[2] in AUTHORS_BRANCH:
            name = f"selectors.{branch[1]}.{AUTHORS_BRANCH[branch[2]]}.{branch[3]}"
        ours[name] = tensor
    for stage, found in heads.items():
        if found != set(range(model.num_heads)):
            raise CheckpointError(
                f"{path}: score_predictor.{stage} scores {len(found)} heads, but {model.name} has "
                f"num_heads={model.num_heads}; {HINTS['']}"
            )
    return ours


def _check_tensors(
    path: str | Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: ModelConfig
) -> None:
    """Raise CheckpointError unless `state` has exactly the expected names and shapes, and finite numbers."""
    for name, tensor in expected.items():
        if name in state and state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} has the shape {tuple(state[name].shape)}, "
                f"but {model.name} needs {tuple(tensor.shape)}; {_hint(name)}"
            )
    for problem, names in (
        (f"is missing, which {model.name} needs", [name for name in expected if name not in state]),
        (f"is there, which {model.name} does not have", [name for name in state if name not in expected]),
    ):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f"{path}: {names[0]}{more} {problem}; {_hint(names[0])}")
    for name, tensor in state.items():
        if not expected[name].is_floating_point():
            continue  # BatchNorm's count of batches
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} has the type {tensor.dtype}; save the weights as floating point")
        wrong = int((~torch.isfinite(tensor.to(torch.float32))).sum())
        if wrong:
            raise CheckpointError(
                f"{path}: {name} has {wrong} of {tensor.numel()} numbers that are NaN or infinite; "
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
        return {"model": dict(config["model"]), "pruning": dict(config["pruning"])}
    except (ValueError, LookupError, TypeError):
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


def _hint(name: str) -> str:
    return next(hint for pattern, hint in HINTS.items() if re.match(pattern, name))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
