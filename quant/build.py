"""What a build is: the model that its options ask for, and the folder that they name. No torch here.

Enters: `BuildOptions`, which every step from the checkpoint to the board shares.
Leaves: `build/<model>-<target>`, with what was changed appended, so that variants do not overwrite each other.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

from quant.options import BuildOptions, FinetuneOptions
from quant.widths import layer_widths, with_weight_bits
from spvit.checkpoint_options import checkpoint_options
from spvit.config import LATER_FIELDS, ModelSpec, resolve_model
from spvit.errors import ConfigError
from spvit.options import ModelOptions

ROOT = Path("build")
# Parts of [model] that are not quantized and generated yet, and what a model with them does.
NOT_BUILT = {
    "stage_depths": "pools its grid between stages",
    "stem_chans": "has a stem of convolutions",
    "patch_stride": "has patches that overlap",
    "aux_head": "has an auxiliary head",
}
# What needs no unit: multiplied into weights, or read where one of the parts above is.
NO_UNIT = ("qkv_bias", "skip_lam", "pos_embed", "stage_dims", "stage_heads", "refill", "after_pooling")
NETWORK_FOLDER = "network"  # within the build folder: the quantized network, the float model, the report


def model_spec(args: ModelOptions) -> ModelSpec:
    """The model that the arguments ask for. Raises ConfigError, also for parts that the accelerator has no unit for."""
    spec = resolve_model(args.model, args.keep)
    if isinstance(args, BuildOptions | FinetuneOptions):
        spec = with_weight_bits(spec, args.weight_bits)
    refuse_what_has_no_unit(spec, args.model)
    layer_widths(spec)
    return spec


def refuse_what_has_no_unit(spec: ModelSpec, source: str) -> None:
    """Raise ConfigError for what can be trained and evaluated, but not quantized and generated.

    source  what MODEL= says
    """
    for part, what in NOT_BUILT.items():
        if getattr(spec.model, part):
            where = "" if source == spec.model.name else f"{source}: "
            raise ConfigError(
                f"{where}{spec.model.name} {what}; hardware for that is not built yet, so only train, evaluate, "
                "count and export the model"
            )
    for section, config in (("model", spec.model), ("pruning", spec.pruning)):
        if section == "pruning" and not spec.pruning.num_selectors:
            continue  # nothing of it is used
        for item in fields(config):
            value = getattr(config, item.name)
            if item.name in LATER_FIELDS and item.name not in NO_UNIT and value != item.default:
                has, found = json.dumps(item.default), json.dumps(value)
                raise ConfigError(
                    f"{source}: [{section}] {item.name} = {found}: the accelerator has units for {item.name} = {has} "
                    f"alone; set that for the hardware, or only train, evaluate and count the model"
                )


def build_folder(args: BuildOptions, root: Path = ROOT) -> Path:
    """The folder that holds everything made from these arguments. Raises ConfigError when they name no model.

    `build/deit_s-zcu102`, `build/deit_s-zcu102-keep-none`, `build/deit_s-zcu102-ckpt-best-calib-photos`
    """
    if args.out is not None:
        return Path(args.out)
    own, asked = resolve_model(args.model), resolve_model(args.model, args.keep)
    parts = [own.model.name, Path(args.target).stem]
    # to trained selectors, KEEP= says something even where it says what is configured
    if asked.pruning != own.pruning or (args.keep is not None and args.ckpt is not None):
        keep = [f"{fraction:g}" for fraction in asked.pruning.keep] or ["none"]
        parts += ["keep", *keep]
    if args.threshold is not None:
        parts += ["threshold", args.threshold]
    if args.ckpt is not None:
        parts += ["ckpt", Path(args.ckpt).stem, *checkpoint_options(args).parts]
    if args.calib is not None:
        parts += ["calib", Path(args.calib).stem]
    if args.weight_bits is not None:
        parts += ["weights", args.weight_bits]
    if args.seed:
        parts += ["seed", str(args.seed)]
    if args.design is not None:
        parts += ["on", _design_name(args.design)]
    return root / "-".join(_shell_friendly(part) for part in parts)


def design_folder(args: BuildOptions, root: Path = ROOT) -> Path:
    """Where the hardware lies: the build folder, or that of the design that was asked for, which networks share.

    `build/design-deit-zcu102`
    """
    if args.design is None:
        return build_folder(args, root)
    if Path(args.design).is_dir():
        return Path(args.design)
    return root / "-".join(
        _shell_friendly(part) for part in ("design", _design_name(args.design), Path(args.target).stem)
    )


def _design_name(design: str) -> str:
    """Of a family, a TOML or a build folder."""
    return Path(design).resolve().name if Path(design).is_dir() else Path(design).stem


def network_folder(args: BuildOptions) -> Path:
    """Where the quantized network lies: `load_network(network_folder(args))`."""
    return build_folder(args) / NETWORK_FOLDER


def _shell_friendly(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "_", text)
