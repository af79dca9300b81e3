"""Weights that say the same in other tensors, rewritten exactly: what timm names, as an `SPViT` has it.

Enters: a state dict in timm's names, or the SPViT authors'. Leaves: the same function's tensors under an `SPViT`'s
names, and what was done, in words. What would be another function ends with a CheckpointError that names it.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spvit.config import ModelConfig, PruningConfig
from spvit.errors import CheckpointError
from spvit.model_config import STEM_STRIDE

# Parts that other transformers have, which no tensor of ours can stand for.
FOREIGN = (
    (r"fc_norm\.", "a norm after the mean of the tokens (timm's global_pool='avg')"),
    (r"norm_pre\.", "a norm before the first block, as CLIP has"),
    (r"pre_logits\.", "a layer in front of the head (pre_logits)"),
    (r"(reg_token|register_tokens)$", "register tokens"),
    (r"attn_pool\.", "a pooling by attention"),
    (r"patch_embed\.(?!proj\.|(conv|bn)[1-3]\.|conv\.)", "a stem of other layers"),
    (r"blocks\.\d+\.attn\.[qk]_norm\.", "norms of queries and keys"),
    (r"(.*\.)?(rel_pos|relative_position)", "relative positions"),
    (r"blocks\.\d+\.mlp\.(w12|w3|fc1_g|fc1_x|gate_proj)\.", "a gated MLP"),
    (r"(stages|layers|downsample_layers)\.", "stages of another kind than PiT's"),
)
# Parts that some of our models have: the tensors that tell, what they belong to, the field of [model] that gives it.
PARTS = (
    (r"patch_embed\.(conv|bn)[1-3]\.", "a stem of convolutions, as LV-ViT has", "stem_chans"),
    (r"(transformers|pools)\.", "stages between which the grid is pooled, as PiT has", "stage_depths"),
    (r"patch_embed\.conv\.", "PiT", "stage_depths"),
    (r"aux_head\.", "an auxiliary head, as LV-ViT has", "aux_head"),
)
DYNAMIC_VIT = re.compile(r"score_predictor\.\d+\.(in_conv|out_conv)\.\d+\.(weight|bias)")
# The authors' names of a selector's parts, with a copy for each head even where all heads share one.
AUTHORS_SCORER = {
    "in_conv.0": "norm",
    "in_conv.1": "embed",
    "out_conv.0": "fc1",
    "out_conv.2": "fc2",
    "out_conv.4": "fc3",
}
AUTHORS_BRANCH = {"senet.0": "head_branch.fc1", "senet.2": "head_branch.fc2"}
LAYER_SCALE = re.compile(r"blocks\.(\d+)\.(?:ls([12])\.gamma|gamma_([12]))")
SCALED = {"1": "attn.proj", "2": "mlp.fc2"}


def as_ours(
    path: str | Path, state: Mapping[str, Tensor], model: ModelConfig, resize: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The backbone's tensors as the model has them, and what was done to them.

    resize  another image size's positions are resized
    """
    for pattern, what in FOREIGN:
        found = next((name for name in state if re.match(pattern, name)), None)
        if found is not None:
            raise CheckpointError(
                f"{path}: {found} belongs to {what}, which {model.name} does not have and no MODEL= could; "
                "choose a checkpoint of a ViT, DeiT, LV-ViT or PiT"
            )
    for pattern, what, field in PARTS:
        found = next((name for name in state if re.match(pattern, name)), None)
        if found is not None and not getattr(model, field):
            raise CheckpointError(
                f"{path}: {found} belongs to {what}, which {model.name} does not have; choose the MODEL= that it was "
                f"trained as, or set {field} in [model]"
            )
    ours, notes = _under_our_names(state, model), list[str]()
    notes += _fold_layer_scale(path, ours)
    if model.qkv_bias:
        notes += _without_qkv_bias(path, ours)
    notes += _place_positions(path, ours, model, resize)
    if not any(name.startswith("head.") for name in ours) and any(name.startswith("blocks.") for name in ours):
        raise CheckpointError(
            f"{path}: has no head, as a network of 0 classes is saved: it gives features and names no class; "
            f"take the checkpoint with its head, or add head.weight and head.bias for {model.num_classes} classes"
        )
    return ours, tuple(notes)


def _under_our_names(state: Mapping[str, Tensor], model: ModelConfig) -> dict[str, Tensor]:
    """A PiT's tensors, named and shaped as its authors or timm do: blocks are numbered through all stages here, and
    positions are rows. What does not fit the model's stages keeps its name, and is told later.
    """
    if not model.stage_depths:
        return dict(state)
    ours = dict[str, Tensor]()
    for name, tensor in state.items():
        if match := re.fullmatch(r"transformers\.(\d)\.blocks\.(\d+)\.(.+)", name):
            stage = model.stages[int(match[1])] if int(match[1]) < len(model.stages) else None
            if stage is not None and int(match[2]) < stage.depth:
                name = f"blocks.{stage.first_block + int(match[2])}.{match[3]}"
        elif match := re.fullmatch(r"transformers\.([1-9])\.pool\.(.+)", name):
            name = f"pools.{int(match[1]) - 1}.{match[2]}"
        elif match := re.fullmatch(r"patch_embed\.conv\.(weight|bias)", name):
            name = f"patch_embed.proj.{match[1]}"
        elif name == "pos_embed" and tensor.ndim == 4:
            tensor = tensor.flatten(2).transpose(1, 2)
        ours[name] = tensor
    prefix = ours.get("cls_token")
    if model.distilled and "dist_token" not in ours and prefix is not None and tuple(prefix.shape[:2]) == (1, 2):
        ours["cls_token"], ours["dist_token"] = prefix[:, :1], prefix[:, 1:]
    return ours


def _fold_layer_scale(path: str | Path, state: dict[str, Tensor]) -> list[str]:
    """x + gamma * (W h + b) is x + (gamma W) h + gamma b (timm's ls1.gamma, facebook's gamma_1)."""
    scales = {name: match for name in state if (match := LAYER_SCALE.fullmatch(name))}
    for name, match in scales.items():
        gamma = state.pop(name)
        layer = f"blocks.{match[1]}.{SCALED[match[2] or match[3]]}"
        for part in (f"{layer}.weight", f"{layer}.bias"):
            weight = state.get(part)
            if weight is None or not weight.ndim or not weight.is_floating_point():
                continue  # what is missing or wrong is told later
            if gamma.ndim != 1 or len(gamma) != len(weight) or not gamma.is_floating_point():
                raise CheckpointError(
                    f"{path}: {name} has the shape {tuple(gamma.shape)} and cannot scale {part}, "
                    f"{tuple(weight.shape)}; save the checkpoint again"
                )
            column = gamma.double() if weight.ndim == 1 else gamma.double()[:, None]
            state[part] = (weight.double() * column).float()
    return [f"layer scale is multiplied into {' and '.join(SCALED.values())}"] if scales else []


def _without_qkv_bias(path: str | Path, state: dict[str, Tensor]) -> list[str]:
    """A layer without a bias is one whose bias is zero (timm's qkv_bias=False)."""
    names = [name for name in state if re.fullmatch(r"blocks\.\d+\.attn\.qkv\.weight", name) and state[name].ndim]
    missing = [bias for name in names if (bias := name.removesuffix("weight") + "bias") not in state]
    for bias in missing:
        state[bias] = torch.zeros(len(state[bias.removesuffix("bias") + "weight"]))
    if not missing:
        return []
    which = "no block has a bias of q, k and v" if len(missing) == len(names) else f"there is no {missing[0]}"
    more = f" (nor {len(missing) - 1} more)" if 1 < len(missing) < len(names) else ""
    return [f"{which}{more}: zeros stand for it"]


def _place_positions(path: str | Path, state: dict[str, Tensor], model: ModelConfig, resize: bool) -> list[str]:
    """Rows for the prefix tokens where only patches have positions; another grid's, resized if that is asked for."""
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3 or len(positions) != 1 or not positions.is_floating_point():
        return []
    if model.pooling != "class":
        return []
    prefix, rows, width = model.num_prefix_tokens, positions.shape[1], positions.shape[2]
    kernel, notes = state.get("patch_embed.proj.weight"), list[str]()
    side = model.patch_size // STEM_STRIDE if model.stem_chans else model.patch_size
    if kernel is not None and tuple(kernel.shape[2:]) != (side, side):
        return []  # the patches are others, which is told later
    if width != model.embed_dim:
        return []
    placed = prefix if model.pos_embed == "all" else 0
    for given in (placed, 0):
        grid = math.isqrt(max(rows - given, 0))
        if grid and grid * grid == rows - given:
            break
    else:
        return []  # no square of patches
    if grid != model.grid_size:
        if not resize:
            raise CheckpointError(
                f"{path}: pos_embed has the shape {tuple(positions.shape)}, but {model.name} needs "
                f"{(1, placed + model.num_patches, model.embed_dim)}; it was trained at "
                f"img_size={(grid - 1) * model.stride + model.patch_size}, "
                f"{grid} x {grid} patches in place of {model.grid_size} x {model.grid_size}: set that, or let "
                "POS=interpolate resize the positions, bicubic, as timm does"
            )
        patches = positions[:, given:].float().reshape(1, grid, grid, width).permute(0, 3, 1, 2)
        size = (model.grid_size, model.grid_size)
        patches = interpolate(patches, size, mode="bicubic", antialias=True, align_corners=False)
        patches = patches.permute(0, 2, 3, 1).reshape(1, -1, width)
        positions = torch.cat([positions[:, :given].float(), patches], dim=1)
        notes.append(f"positions are resized from {grid} x {grid} patches to {size[0]} x {size[1]}, bicubic")
    if given < placed:
        positions = torch.cat([positions.new_zeros(1, prefix, width), positions], dim=1)
        notes.append("only patches have positions: zeros stand for the class token's")
    state["pos_embed"] = positions
    return notes


def from_authors(
    path: str | Path, state: Mapping[str, Tensor], model: ModelConfig, pruning: PruningConfig
) -> dict[str, Tensor]:
    """The authors' tensors under our names; the copies that they keep for each head of a shared scorer become one."""
    ours: dict[str, Tensor] = {}
    heads: dict[int, set[int]] = {}
    for name, tensor in state.items():
        scorer = re.fullmatch(r"score_predictor\.(\d+)\.(in_conv|out_conv)\.(\d+)\.(\d+)\.(weight|bias)", name)
        branch = re.fullmatch(r"score_predictor\.(\d+)\.(senet\.\d+)\.(weight|bias)", name)
        if DYNAMIC_VIT.fullmatch(name) and pruning.num_selectors:
            raise CheckpointError(
                f"{path}: {name} is of DynamicViT's selectors, which score whole tokens and not their heads; "
                "KEEP=none loads the backbone without them"
            )
        if scorer and f"{scorer[2]}.{scorer[4]}" in AUTHORS_SCORER:
            stage, head = int(scorer[1]), int(scorer[3])
            heads.setdefault(stage, set()).add(head)
            part = f"{AUTHORS_SCORER[f'{scorer[2]}.{scorer[4]}']}.{scorer[5]}"
            name = f"selectors.{stage}.scorers.{0 if pruning.share_heads else head}.{part}"
            if pruning.num_selectors and name in ours and not torch.equal(ours[name], tensor):
                raise CheckpointError(
                    f"{path}: the heads of score_predictor.{stage} have weights of their own; "
                    "set share_heads = false in [pruning]"
                )
        elif branch and branch[2] in AUTHORS_BRANCH:
            name = f"selectors.{branch[1]}.{AUTHORS_BRANCH[branch[2]]}.{branch[3]}"
        ours[name] = tensor
    for stage, found in heads.items():
        if pruning.num_selectors <= stage and model.stage_depths:
            continue  # nobody knows of which stage it is, nor uses it
        location = pruning.locations[stage] if stage < pruning.num_selectors else 0
        expected = model.stage_of(location).num_heads
        if found != set(range(expected)):
            raise CheckpointError(
                f"{path}: score_predictor.{stage} scores {len(found)} heads, but {model.name} has "
                f"num_heads={expected}; choose the MODEL= that it was trained as"
            )
    return ours
