"""Multiply-accumulates (MACs, the papers' "FLOPs") and parameters of a model, part by part.

Enters: a model, its pruning, and how many patches live after each selector: as the configured fractions say, or
as an image really had it. Leaves: `Macs`, `Parameters`. As the papers do, only products of matrices count (linear
layers, attention's two products, the selectors' MLPs); normalisation, softmax and packaging do not.

    python -m spvit.cost deit_s [--keep 0.629,0.396,0.249]
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from spvit.command import Parser
from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.errors import ConfigError, exit_on_user_error


@dataclass(frozen=True)
class Macs:
    """MACs of one image, summed over the blocks. Floats, as token counts may be means over images."""

    patch_embed: float
    qkv: float
    scores: float  # Q·Kᵀ
    context: float  # attention · V
    proj: float
    fc1: float
    fc2: float
    selector: float
    head: float

    @property
    def total(self) -> float:
        return sum(float(part) for part in asdict(self).values())


@dataclass(frozen=True)
class Parameters:
    """Learnt numbers, biases included. The selectors' thresholds are calibrated, not learnt, and not counted."""

    patch_embed: int
    tokens: int  # class and distillation token, positions
    norms: int
    qkv: int
    proj: int
    fc1: int
    fc2: int
    selector: int
    head: int

    @property
    def total(self) -> int:
        return sum(int(part) for part in asdict(self).values())


def kept_patches(model: ModelConfig, pruning: PruningConfig) -> tuple[int, ...]:
    """Patches alive after each selector when the configured fractions are met to the nearest patch.

    With method="structured", channels in place of patches, here and wherever `kept` stands.
    """
    if pruning.num_selectors and not pruning.keep:
        raise ConfigError(
            f"{model.name}: keep is not set, so the cost is unknown; "
            f"give {pruning.num_selectors} fractions, as [pruning] keep or as KEEP="
        )
    return tuple(round(fraction * num_units(model, pruning)) for fraction in pruning.keep)


def num_units(model: ModelConfig, pruning: PruningConfig) -> int:
    """How many there are of what the selectors part: patches, or channels."""
    return model.embed_dim if pruning.method == "structured" else model.num_patches


def tokens_per_stage(
    model: ModelConfig, pruning: PruningConfig, kept: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Tokens that the blocks process, before the first selector and after each: prefix, patches and packages.

    kept  patches alive after each selector; None: as configured
    """
    kept = kept_patches(model, pruning) if kept is None else kept
    if len(kept) != pruning.num_selectors:
        raise ConfigError(
            f"{model.name}: {len(kept)} token counts for {pruning.num_selectors} selectors; give one each"
        )
    if pruning.method == "structured":
        return (float(model.num_tokens),) * (len(kept) + 1)
    tokens, packages, alive = [float(model.num_tokens)], 0, float(model.num_patches)
    for patches in kept:
        if patches < alive or pruning.rules == "released":  # something was dropped; the authors' code always appends
            packages = {"append": packages + 1, "add": 1, "none": 0}[pruning.package]
        alive = patches
        tokens.append(model.num_prefix_tokens + patches + packages)
    return tuple(tokens)


def count_macs(model: ModelConfig, pruning: PruningConfig, kept: Sequence[float] | None = None) -> Macs:
    """MACs of one image.

    kept  patches alive after each selector, of one image or as means; None: as configured
    """
    kept = kept_patches(model, pruning) if kept is None else kept
    stages = tokens_per_stage(model, pruning, kept)
    width, hidden = model.embed_dim, model.hidden_dim
    stage_widths = [width, *kept] if pruning.method == "structured" else [width] * len(stages)
    stage_of = [sum(location <= block for location in pruning.locations) for block in range(model.depth)]
    candidates = [model.num_patches, *kept][: pruning.num_selectors]  # what each selector scores
    values = sum(stages[stage] * stage_widths[stage] for stage in stage_of)  # of the stream, over all blocks
    pairs = sum(stages[stage] ** 2 for stage in stage_of)
    return Macs(
        patch_embed=model.num_patches * model.in_chans * model.patch_size**2 * width,
        qkv=values * 3 * width,
        scores=pairs * width,
        context=pairs * width,
        proj=values * width,
        fc1=values * hidden,
        fc2=values * hidden,
        selector=sum(candidates) * selector_macs_per_token(model, pruning),
        head=model.num_classifiers * width * model.num_classes,
    )


def selector_macs_per_token(model: ModelConfig, pruning: PruningConfig) -> int:
    """MACs that one selector spends on one candidate: every head's scorer and the head branch."""
    if pruning.method != "selector":
        return 0
    heads, dim = scored_heads(model, pruning)
    embed, *others = scorer_layers(dim, pruning.features)
    scorer = kernel_size(pruning.scorer) * embed[0] * embed[1]
    scorer += sum(inputs * outputs for inputs, outputs in others)
    branch = 2 * heads * head_branch_width(heads) if pruning.heads == "weighted" else 0
    return heads * scorer + branch


def count_parameters(model: ModelConfig, pruning: PruningConfig) -> Parameters:
    """Learnt parameters of the backbone and its selectors."""
    width, hidden, depth = model.embed_dim, model.hidden_dim, model.depth
    return Parameters(
        patch_embed=model.in_chans * model.patch_size**2 * width + width,
        tokens=(model.num_prefix_tokens + model.num_tokens) * width,
        norms=(2 * depth + 1) * 2 * width,
        qkv=depth * (width * 3 * width + 3 * width),
        proj=depth * (width * width + width),
        fc1=depth * (width * hidden + hidden),
        fc2=depth * (hidden * width + width),
        selector=pruning.num_selectors * selector_parameters(model, pruning),
        head=model.num_classifiers * (width * model.num_classes + model.num_classes),
    )


def selector_parameters(model: ModelConfig, pruning: PruningConfig) -> int:
    """Learnt parameters of one selector."""
    if pruning.method != "selector":
        return model.embed_dim if pruning.method == "structured" else 0
    heads, dim = scored_heads(model, pruning)
    embed, *others = scorer_layers(dim, pruning.features)
    norm = 2 * (dim if pruning.scorer == "mlp" else embed[1])
    scorer = norm + kernel_size(pruning.scorer) * embed[0] * embed[1] + embed[1]
    scorer += sum(inputs * outputs + outputs for inputs, outputs in others)
    width = head_branch_width(heads)
    branch = (heads * width + width) + (width * heads + heads) if pruning.heads == "weighted" else 0
    return (1 if pruning.share_heads else heads) * scorer + branch


def scored_heads(model: ModelConfig, pruning: PruningConfig) -> tuple[int, int]:
    """(heads, channels of each) that a selector scores: the model's, or all channels as one."""
    return (1, model.embed_dim) if pruning.heads == "single" else (model.num_heads, model.head_dim)


def kernel_size(scorer: str) -> int:
    """Neighbouring tokens that a scorer's first layer sees."""
    return 3 if scorer == "conv3" else 1


def scorer_layers(dim: int, features: str) -> tuple[tuple[int, int], ...]:
    """(inputs, outputs) of a scorer's linear layers embed, fc1, fc2, fc3, for a head of `dim` channels (Eq. 1-3)."""
    embed = dim if features == "split" else dim // 2
    return (dim, embed), (dim, dim // 2), (dim // 2, dim // 4), (dim // 4, 2)


def head_branch_width(heads: int) -> int:
    """Hidden units of the head branch (Eq. 5): half the heads, at least one."""
    return max(heads // 2, 1)


def table(model: ModelConfig, pruning: PruningConfig) -> str:
    """The cost, for people."""
    macs, parameters = count_macs(model, pruning), count_parameters(model, pruning)
    unpruned = count_macs(model, pruning.without()).total
    structured = pruning.method == "structured"
    counts = (model.embed_dim, *kept_patches(model, pruning)) if structured else tokens_per_stage(model, pruning)
    stages = f"{' -> '.join(f'{count:.0f}' for count in counts)} {'channels' if structured else 'tokens'}"
    where = f" before blocks {', '.join(map(str, pruning.locations))}" if pruning.locations else ", unpruned"
    lines = [f"{model.name}: {stages}{where}", "", f"{'part':<12}{'MACs':>16}{'share':>9}{'parameters':>14}"]
    by_part, learnt = asdict(macs), asdict(parameters)
    for part in (*by_part, "tokens", "norms"):
        spent = f"{by_part[part]:>16,.0f}{by_part[part] / macs.total:>9.1%}" if part in by_part else " " * 25
        lines.append(f"{part:<12}{spent}{f'{learnt[part]:,}' if part in learnt else '':>14}".rstrip())
    lines += [
        f"{'total':<12}{macs.total:>16,.0f}{1:>9.1%}{parameters.total:>14,}",
        "",
        f"{macs.total / 1e9:.3f} GMACs, {macs.total / unpruned - 1:+.1%} against {unpruned / 1e9:.3f} unpruned",
        f"{parameters.total / 1e6:.3f} M parameters",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser("python -m spvit.cost", "MACs and parameters of a model.")
    parser.add_argument("model", help="a name of the registry, or the path of a .toml")
    parser.add_argument("--keep", help='"none", or kept fractions of the original patches: 0.629,0.396,0.249')
    options = parser.parse_args(arguments)
    spec = resolve_model(options.model, options.keep)
    print(table(spec.model, spec.pruning))


if __name__ == "__main__":
    exit_on_user_error(main)
