"""Multiply-accumulates (MACs, the papers' "FLOPs") and parameters of a model, part by part.

Enters: a model, its pruning, and how many patches live after each selector: as the configured fractions say, or
as an image really had it. Leaves: `Macs`, `Parameters`. As the papers do, only products of matrices count (linear
layers, attention's two products, the selectors' MLPs); normalisation, softmax and packaging do not.

    spvit cost --model deit_s [--keep 0.629,0.396,0.249]
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.console import Console, Table, tokens
from spvit.errors import ConfigError
from spvit.model_config import STEM_STRIDE, Stage
from spvit.options import CostOptions

STEM_TAPS, POOL_TAPS = 7 * 7, 3 * 3  # of a stem's first convolution; of its others and of a pooling


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
    pool: float  # between stages
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
    pool: int
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
    units = num_units(model, pruning)
    return tuple(round(fraction * count) for fraction, count in zip(pruning.keep, units, strict=True))


def num_units(model: ModelConfig, pruning: PruningConfig) -> tuple[int, ...]:
    """How many there are of what each selector parts: patches of its stage's grid, or channels."""
    stages = [model.stage_of(location) for location in pruning.locations]
    return tuple(stage.embed_dim if pruning.method == "structured" else stage.num_patches for stage in stages)


@dataclass(frozen=True)
class Tokens:
    """What a block processes.

    patches   alive; behind a pooling with after_pooling="carry", of which only a fraction is known, to the nearest one
    packages  package tokens
    """

    patches: float
    packages: int


def tokens_of_blocks(model: ModelConfig, pruning: PruningConfig, kept: Sequence[float]) -> list[Tokens]:
    """What each block processes.

    kept  patches alive after each selector
    """
    found, selector, packages = list[Tokens](), 0, 0
    for stage in model.stages:
        alive = _at_entry(model, pruning, found, stage)
        for block in stage.blocks:
            if block in pruning.locations:
                patches = kept[selector]
                if patches < alive or pruning.rules == "released":  # dropped some; the authors' code always appends
                    packages = {"append": packages + 1, "add": 1, "none": 0}[pruning.package]
                alive, selector = patches, selector + 1
            found.append(Tokens(alive, packages))
    return found


def _at_entry(model: ModelConfig, pruning: PruningConfig, before: Sequence[Tokens], stage: Stage) -> float:
    """Patches alive in front of a stage's first block and its selector.

    before  what the blocks of the stages before it process
    """
    if not stage.index or pruning.after_pooling == "revive":
        return float(stage.num_patches)
    patches = before[stage.first_block - 1].patches
    return float(round(patches * stage.num_patches / model.stages[stage.index - 1].num_patches))


def tokens_per_stage(
    model: ModelConfig, pruning: PruningConfig, kept: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Tokens that the blocks process, the first one and the one behind each selector: prefix, patches and packages.

    kept  patches alive after each selector; None: as configured
    """
    kept = _checked(model, pruning, kept)
    if pruning.method == "structured":
        return (float(model.num_tokens),) * (len(kept) + 1)
    blocks, prefix = tokens_of_blocks(model, pruning, kept), model.num_prefix_tokens
    behind = (blocks[location] for location in pruning.locations)
    return (float(model.num_tokens), *(prefix + one.patches + one.packages for one in behind))


def _checked(model: ModelConfig, pruning: PruningConfig, kept: Sequence[float] | None) -> Sequence[float]:
    kept = kept_patches(model, pruning) if kept is None else kept
    if len(kept) != pruning.num_selectors:
        raise ConfigError(
            f"{model.name}: {len(kept)} token counts for {pruning.num_selectors} selectors; give one each"
        )
    return kept


def count_macs(model: ModelConfig, pruning: PruningConfig, kept: Sequence[float] | None = None) -> Macs:
    """MACs of one image.

    kept  patches alive after each selector, of one image or as means; None: as configured
    """
    kept = _checked(model, pruning, kept)
    structured = pruning.method == "structured"
    tokens = tokens_of_blocks(model, pruning.without() if structured else pruning, kept)
    spent: defaultdict[str, float] = defaultdict(float)
    prefix = model.num_prefix_tokens
    for stage in model.stages:
        width, hidden = stage.embed_dim, stage.hidden_dim
        others = prefix + (tokens[stage.first_block - 1].packages if stage.index else 0)
        candidates = _at_entry(model, pruning, tokens, stage)
        if stage.index:
            before = model.stages[stage.index - 1].embed_dim
            spent["pool"] += POOL_TAPS * candidates * width + others * before * width
        for block in stage.blocks:
            living = float(width)  # channels of the residual stream
            selectors_so_far = sum(location <= block for location in pruning.locations)
            if block in pruning.locations:
                spent["selector"] += candidates * selector_macs_per_token(stage, pruning)
            if structured and selectors_so_far:
                living = kept[selectors_so_far - 1]
            count = prefix + tokens[block].patches + tokens[block].packages
            spent["qkv"] += count * living * 3 * width
            spent["scores"] += count**2 * width
            spent["proj"] += count * living * width
            spent["fc1"] += count * living * hidden
            candidates = tokens[block].patches
    last = model.stages[-1].embed_dim
    classified = model.num_classifiers + (tokens[-1].patches if model.aux_head else 0)
    return Macs(
        patch_embed=_patch_embed_macs(model),
        qkv=spent["qkv"],
        scores=spent["scores"],
        context=spent["scores"],
        proj=spent["proj"],
        fc1=spent["fc1"],
        fc2=spent["fc1"],
        pool=spent["pool"],
        selector=spent["selector"],
        head=classified * last * model.num_classes,
    )


def _patch_embed_macs(model: ModelConfig) -> int:
    stem, kernel = model.stem_chans, model.patch_size**2 * model.in_chans
    macs = 0
    if stem:
        pixels = (model.img_size // STEM_STRIDE) ** 2
        macs = pixels * stem * (STEM_TAPS * model.in_chans + 2 * POOL_TAPS * stem)
        kernel = (model.patch_size // STEM_STRIDE) ** 2 * stem
    return macs + model.num_patches * kernel * model.embed_dim


def selector_macs_per_token(stage: Stage | ModelConfig, pruning: PruningConfig) -> int:
    """MACs that a stage's selector spends on one candidate: every head's scorer and the head branch.

    stage  a model stands for its first one, here and below
    """
    if pruning.method != "selector":
        return 0
    heads, dim = scored_heads(stage, pruning)
    embed, *others = scorer_layers(dim, pruning.features)
    scorer = kernel_size(pruning.scorer) * embed[0] * embed[1]
    scorer += sum(inputs * outputs for inputs, outputs in others)
    branch = 2 * heads * head_branch_width(heads) if pruning.heads == "weighted" else 0
    return heads * scorer + branch


def count_parameters(model: ModelConfig, pruning: PruningConfig) -> Parameters:
    """Learnt parameters of the backbone and its selectors."""
    learnt: defaultdict[str, int] = defaultdict(int)
    for stage in model.stages:
        width, hidden, depth = stage.embed_dim, stage.hidden_dim, stage.depth
        learnt["norms"] += depth * 2 * 2 * width
        learnt["qkv"] += depth * 3 * (width * width + (width if model.qkv_bias else 0))
        learnt["proj"] += depth * (width * width + width)
        learnt["fc1"] += depth * (width * hidden + hidden)
        learnt["fc2"] += depth * (hidden * width + width)
        if stage.index:
            before = model.stages[stage.index - 1].embed_dim
            learnt["pool"] += (POOL_TAPS + 1) * width + before * width + width
    first, last = model.embed_dim, model.stages[-1].embed_dim
    placed = model.num_tokens if model.pos_embed == "all" else model.num_patches
    stages = [model.stage_of(location) for location in pruning.locations]
    return Parameters(
        patch_embed=_patch_embed_parameters(model),
        tokens=(model.num_prefix_tokens + placed) * first,
        norms=learnt["norms"] + 2 * last,
        qkv=learnt["qkv"],
        proj=learnt["proj"],
        fc1=learnt["fc1"],
        fc2=learnt["fc2"],
        pool=learnt["pool"],
        selector=sum(selector_parameters(stage, pruning) for stage in stages),
        head=(model.num_classifiers + model.aux_head) * (last * model.num_classes + model.num_classes),
    )


def _patch_embed_parameters(model: ModelConfig) -> int:
    stem, kernel = model.stem_chans, model.patch_size**2 * model.in_chans
    learnt = 0
    if stem:
        learnt = stem * (STEM_TAPS * model.in_chans + 2 * POOL_TAPS * stem) + 3 * 2 * stem
        kernel = (model.patch_size // STEM_STRIDE) ** 2 * stem
    return learnt + kernel * model.embed_dim + model.embed_dim


def selector_parameters(stage: Stage | ModelConfig, pruning: PruningConfig) -> int:
    """Learnt parameters of one selector."""
    if pruning.method != "selector":
        return stage.embed_dim if pruning.method == "structured" else 0
    heads, dim = scored_heads(stage, pruning)
    embed, *others = scorer_layers(dim, pruning.features)
    norm = 2 * (dim if pruning.scorer == "mlp" else embed[1])
    scorer = norm + kernel_size(pruning.scorer) * embed[0] * embed[1] + embed[1]
    scorer += sum(inputs * outputs + outputs for inputs, outputs in others)
    width = head_branch_width(heads)
    branch = (heads * width + width) + (width * heads + heads) if pruning.heads == "weighted" else 0
    return (1 if pruning.share_heads else heads) * scorer + branch


def scored_heads(stage: Stage | ModelConfig, pruning: PruningConfig) -> tuple[int, int]:
    """(heads, channels of each) that a selector scores: the stage's, or all channels as one."""
    return (1, stage.embed_dim) if pruning.heads == "single" else (stage.num_heads, stage.head_dim)


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


def macs_unit(macs: float) -> tuple[float, str]:
    """The unit to speak of so many MACs in, and how many it is: GMACs, or MMACs below a tenth of one."""
    return (1e9, "GMACs") if macs >= 1e8 else (1e6, "MMACs")


def macs_text(macs: float) -> str:
    """`2.64 GMACs`, `4.21 MMACs`."""
    scale, unit = macs_unit(macs)
    return f"{macs / scale:.2f} {unit}"


def show(model: ModelConfig, pruning: PruningConfig, console: Console) -> None:
    """The cost, for people."""
    macs, parameters = count_macs(model, pruning), count_parameters(model, pruning)
    unpruned = count_macs(model, pruning.without()).total
    structured = pruning.method == "structured"
    counts = (model.embed_dim, *kept_patches(model, pruning)) if structured else tokens_per_stage(model, pruning)
    stages = f"{tokens(counts)} {'channels' if structured else 'tokens'}"
    where = f" before blocks {', '.join(map(str, pruning.locations))}" if pruning.locations else ", unpruned"
    table = Table(f"{model.name}: {stages}{where}", "part", (("cost", "MACs"), ("share", "%"), "parameters"))
    by_part, learnt = asdict(macs), asdict(parameters)
    if not model.stage_depths:
        del by_part["pool"]
    for part in (*by_part, "tokens", "norms"):
        spent = (f"{by_part[part]:,.0f}", f"{100 * by_part[part] / macs.total:.1f}") if part in by_part else ("", "")
        table.add_row(part, *spent, f"{learnt[part]:,}" if part in learnt else "")
    table.add_row("total", f"{macs.total:,.0f}", "100.0", f"{parameters.total:,}", style="bold")
    console.print(table)
    scale, unit = macs_unit(unpruned)
    console.print(
        f"{macs.total / scale:.3f} {unit}, {macs.total / unpruned - 1:+.1%} against {unpruned / scale:.3f} unpruned; "
        f"{parameters.total / 1e6:.3f} M parameters"
    )


def run(options: CostOptions) -> None:
    spec = resolve_model(options.model, options.keep)
    show(spec.model, spec.pruning, Console())
