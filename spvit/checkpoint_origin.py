"""What a checkpoint was trained to see: the mean and standard deviation of its images, as far as its origin tells.

Enters: a checkpoint's path and content. Leaves: a warning where the model that is asked for sees something else.
Weights alone do not tell; a name, a training script's arguments, or the configuration that lies beside the file may.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spvit.config import ModelConfig, registry, resolve_model
from spvit.model_config import IMAGENET_MEAN, IMAGENET_STD

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
HALF = ((0.5,) * 3, (0.5,) * 3)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# What timm's and Hugging Face's models of a name expect; the first that is found.
EXPECTED: tuple[tuple[str, Statistics], ...] = (
    (r"clip", CLIP),
    (r"deit|dino|(^|[._-])mae([._-]|$)|lv_?vit|(^|[^a-z])pit[_-]", IMAGENET),
    (r"(^|[^a-z])vit[_-](tiny|small|base|large|huge)[_-]patch\d+|augreg", HALF),
)
CONFIGURATIONS = (("config.json", ("mean", "std")), ("preprocessor_config.json", ("image_mean", "image_std")))
MAX_CONFIGURATION = 2**20  # bytes; beyond, it is something else
TOLERANCE = 0.006  # IMAGENET's are rounded to two digits by some


def warning(path: Path, content: Mapping[Any, Any], model: ModelConfig) -> str | None:
    """A sentence where the checkpoint's origin says that its images had another mean and std than the model's."""
    found = _origin(path, content)
    if found is None or model.in_chans != len(IMAGENET_MEAN):
        return None
    where, (mean, std) = found
    if _close(mean, model.mean) and _close(std, model.std):
        return None
    rows = [
        name for name in registry()
        if (row := resolve_model(name).model).embed_dim == model.embed_dim and row.depth == model.depth
        and row.img_size == model.img_size and row.distilled == model.distilled
        and _close(row.mean, mean) and _close(row.std, std)
    ]  # fmt: skip
    choose = f"choose MODEL={rows[0]}, or " if rows else ""
    return (
        f"warning: {where} says that its images had mean {_listed(mean)} and std {_listed(std)}, but {model.name} has "
        f"mean {_listed(model.mean)} and std {_listed(model.std)}; {choose}set mean and std in [model]"
    )


def _origin(path: Path, content: Mapping[Any, Any]) -> tuple[str, Statistics] | None:
    """Who says it, and what."""
    for name, keys in CONFIGURATIONS:
        beside = path.parent / name
        found = _configured(beside, keys)
        if found is not None:
            return str(beside), found
    for words, name in ((f"the architecture {name} in it", name) for name in _architectures(content)):
        if (found := expected_of(name)) is not None:
            return words, found
    found = expected_of(path.name)
    return None if found is None else ("its name", found)


def expected_of(name: str) -> Statistics | None:
    """Mean and std that a model of this name expects; None: the name does not tell."""
    return next((values for pattern, values in EXPECTED if re.search(pattern, name.lower())), None)


def _configured(file: Path, keys: tuple[str, str]) -> Statistics | None:
    try:
        if not file.is_file() or file.stat().st_size > MAX_CONFIGURATION:
            return None
        content = json.loads(file.read_text(encoding="utf-8"))
        content = content.get("pretrained_cfg", content)
        mean, std = (tuple(float(value) for value in content[key]) for key in keys)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # another's configuration
    return (mean, std) if len(mean) == len(std) == len(IMAGENET_MEAN) else None


def _architectures(content: Mapping[Any, Any]) -> list[str]:
    """What training scripts noted: timm's `arch`, and the model in their arguments."""
    noted = [content.get("arch")]
    for key in ("args", "config", "hyper_parameters"):
        values = content.get(key)
        values = vars(values) if isinstance(values, argparse.Namespace) else values
        if isinstance(values, Mapping):
            noted += [values.get(name) for name in ("model", "arch", "model_name")]
    return [name for name in noted if isinstance(name, str)]


def _close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return len(a) == len(b) and all(abs(x - y) <= TOLERANCE for x, y in zip(a, b, strict=True))


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
