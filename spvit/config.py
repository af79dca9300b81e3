"""What a model is: backbone, pruning and engine wishes, as frozen dataclasses that validate themselves.

Enters: a name of the registry (`models.toml`) or the path of a TOML file, and a KEEP= override.
Leaves: a `ModelSpec`. No torch here: the hardware flow and the board's host import this module too.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from spvit.errors import ConfigError
from spvit.files import read_toml
from spvit.schema import FLAG, NAME, Choice, Items, Number, Whole, check_fields, from_table, shown, shown_text

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_BLOCKS = 256
MOST_STAGES = 8
MOST_PATCHES = 1 << 14
MOST_WEIGHTS = 4_000_000_000
WIDTH = Whole(1, 8192)
HIDDEN = Whole(1, 64 * 8192)
LATER_FIELDS = (
    *("pooling", "method", "heads", "scorer", "activation", "proportional_attention", "rules"),
    *("patch_stride", "stem_chans", "stage_depths", "stage_dims", "stage_heads", "qkv_bias", "skip_lam", "aux_head"),
    *("pos_embed", "refill", "after_pooling"),
)
STEM_STRIDE = 2  # of a stem's first convolution
AUX_WEIGHT = 0.5  # of the auxiliary head's logits beside the class token's
ENGINE_KEYS = (
    "tile_in", "tile_out", "inner_product", "weight_ports", "port_bits", "fill_lanes", "fifo_words", "uram",
)  # fmt: skip
REGISTRY_FILE = Path(__file__).with_name("models.toml")
# What timm, facebook and Hugging Face call rows of the registry. A tag that stands for other preprocessing (dino, mae,
# clip) is none of these.
PUBLIC_NAME = re.compile(
    r"(?P<family>deit|vit)_(?P<size>t|s|b|tiny|small|base)(?P<distilled>_distilled)?(_patch16)?(_224|(?P<large>_384))?"
    r"(_in21k)?(\.(fb|sam|orig|augreg2?)(_in21k)?(_ft)?(_in1k)?)?"
)
PUBLIC_PIT = re.compile(r"pit_(?P<size>t|ti|xs|s|b)(?P<distilled>_distilled)?(_224)?(\.in1k)?")


@dataclass(frozen=True)
class Stage:
    """Blocks that see one grid of patches in one width: all of a ViT's, some of a PiT's.

    first_block  0-based, through all stages
    """

    index: int
    first_block: int
    depth: int
    embed_dim: int
    num_heads: int
    hidden_dim: int
    grid_size: int

    @property
    def blocks(self) -> range:
        return range(self.first_block, self.first_block + self.depth)

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def num_patches(self) -> int:
        return self.grid_size**2


@dataclass(frozen=True)
class ModelConfig:
    """A vision transformer as a composition of parts: its sizes, and how its images are prepared.

    With the defaults a ViT or DeiT; LV-ViT has a stem of convolutions and an auxiliary head, PiT has patches that
    overlap and stages between which the grid is pooled. Sizes that stages differ in are here those of the first one.
    """

    name: Annotated[str, NAME]
    img_size: Annotated[int, Whole(1, 4096)] = 224  # pixels per side, square
    patch_size: Annotated[int, Whole(1, 1024)] = 16  # pixels per side
    in_chans: Annotated[int, Whole(1, 64)] = 3
    embed_dim: Annotated[int, WIDTH] = 384
    depth: Annotated[int, Whole(1, MOST_BLOCKS)] = 12
    num_heads: Annotated[int, Whole(1, 256)] = 6
    # hidden units over embed_dim, rounded down as timm does; a file may give hidden_dim
    mlp_ratio: Annotated[float, Number(0, 64, above=True)] = 4.0
    num_classes: Annotated[int, Whole(1, 1_000_000)] = 1000
    distilled: Annotated[bool, FLAG] = False  # a second prefix token with a head of its own
    layer_norm_eps: Annotated[float, Number(1e-12, 1)] = 1e-6
    # per channel, of pixels in 0..1; empty: ImageNet's for 3 channels, else 0.5
    mean: Annotated[tuple[float, ...], Items(Number(-1000, 1000), "numbers", 64)] = ()
    std: Annotated[tuple[float, ...], Items(Number(1e-4, 10_000), "numbers", 64)] = ()
    crop: Annotated[float, Number(0.1, 1)] = 0.875  # side of the centre crop, as a fraction of the resized image
    # what is classified: the class token | the mean of the tokens, without one (Table 12)
    pooling: Annotated[str, Choice("class", "mean")] = "class"
    patch_stride: Annotated[int, Whole(0, 1024)] = 0  # pixels from patch to patch; 0: patch_size, they don't overlap
    # channels of three convolutions in front of the patches, 7x7 with stride 2 and twice 3x3, each with BatchNorm and
    # ReLU (LV-ViT); 0: none
    stem_chans: Annotated[int, Whole(0, 1024)] = 0
    # blocks of each stage; between stages a depthwise convolution pools the grid, 3x3 with stride 2, and a linear layer
    # brings the other tokens along (PiT); (): all blocks are one stage
    stage_depths: Annotated[tuple[int, ...], Items(Whole(1, MOST_BLOCKS), "numbers of blocks", MOST_STAGES)] = ()
    stage_dims: Annotated[tuple[int, ...], Items(WIDTH, "widths", MOST_STAGES)] = ()  # (): doubled from stage to stage
    stage_heads: Annotated[tuple[int, ...], Items(Whole(1, 256), "numbers of heads", MOST_STAGES)] = ()  # (): likewise
    qkv_bias: Annotated[bool, FLAG] = True
    skip_lam: Annotated[float, Number(0.01, 100)] = 1.0  # x + f(x) / skip_lam in each residual (LV-ViT)
    # logits are the class token's and half the maximum over the living patches of a head of their own (LV-ViT)
    aux_head: Annotated[bool, FLAG] = False
    pos_embed: Annotated[str, Choice("all", "patches")] = "all"  # what has positions: prefix tokens too | patches alone

    def __post_init__(self) -> None:
        check_fields(self)
        if self.distilled and self.pooling == "mean":
            raise ConfigError('pooling="mean" leaves out the prefix tokens, so it cannot be distilled = true')
        if self.aux_head and (self.distilled or self.pooling == "mean"):
            other = "distilled = true" if self.distilled else 'pooling="mean"'
            raise ConfigError(f"aux_head=true adds to the logits of the class token alone, so it cannot be {other}")
        self._check_patches()
        if self.embed_dim % self.num_heads:
            raise ConfigError(
                f"num_heads={self.num_heads} must divide embed_dim={self.embed_dim}; "
                f"try {_nearest_divisors(self.embed_dim, self.num_heads)}"
            )
        if self.embed_dim * self.mlp_ratio < 1:
            raise ConfigError(
                f"mlp_ratio={self.mlp_ratio} leaves no hidden unit at embed_dim={self.embed_dim}; "
                f"choose at least {1 / self.embed_dim:.3g}"
            )
        self._check_stages()
        self._check_size()
        rgb = self.in_chans == len(IMAGENET_MEAN)
        self._set_per_channel("mean", IMAGENET_MEAN if rgb else (0.5,) * self.in_chans)
        self._set_per_channel("std", IMAGENET_STD if rgb else (0.5,) * self.in_chans)

    def _check_patches(self) -> None:
        """Patches fill the image, unless they overlap; behind a stem they are cut of its half as large output."""
        if self.patch_stride == self.patch_size:
            object.__setattr__(self, "patch_stride", 0)  # one way to say it
        if self.patch_size > self.img_size:
            raise ConfigError(
                f"patch_size={self.patch_size} is larger than img_size={self.img_size}; choose smaller patches"
            )
        if not self.patch_stride and self.img_size % self.patch_size:
            raise ConfigError(
                f"patch_size={self.patch_size} must divide img_size={self.img_size}; "
                f"try {_nearest_divisors(self.img_size, self.patch_size)}"
            )
        if self.patch_stride > self.patch_size:
            raise ConfigError(
                f"patch_stride={self.patch_stride} leaves pixels between patches unseen; choose at most "
                f"patch_size={self.patch_size}"
            )
        if self.patch_stride and (self.img_size - self.patch_size) % self.patch_stride:
            reached = self.img_size - (self.img_size - self.patch_size) % self.patch_stride
            raise ConfigError(
                f"patch_stride={self.patch_stride} reaches {reached} of img_size={self.img_size} pixels with "
                f"patch_size={self.patch_size}; choose a stride that divides {self.img_size - self.patch_size}"
            )
        if self.stem_chans:
            for name in ("img_size", "patch_size", "patch_stride"):
                if getattr(self, name) % STEM_STRIDE:
                    raise ConfigError(
                        f"{name}={getattr(self, name)} must be even behind a stem, which halves the image "
                        f"(stem_chans={self.stem_chans})"
                    )

    def _check_stages(self) -> None:
        depths, stages = self.stage_depths, len(self.stage_depths)
        if stages == 1:
            raise ConfigError(f"stage_depths={list(depths)} is one stage alone; leave it out, depth says as much")
        if stages and sum(depths) != self.depth:
            raise ConfigError(
                f"stage_depths={list(depths)} are {sum(depths)} blocks, but depth={self.depth}; "
                f"set depth = {sum(depths)}"
            )
        for name, first, of_first in (("stage_dims", "embed_dim", self.embed_dim),
                                      ("stage_heads", "num_heads", self.num_heads)):  # fmt: skip
            values = getattr(self, name)
            if values and len(values) != stages:
                raise ConfigError(f"{name}={list(values)} must have one number per stage, stage_depths={list(depths)}")
            if values and values[0] != of_first:
                raise ConfigError(
                    f"{name}={list(values)} begins with {values[0]}, but {first}={of_first}; set {first} = {values[0]}"
                )
            if values == tuple(of_first << stage for stage in range(stages)):
                object.__setattr__(self, name, ())  # one way to say it
        for before, after in pairwise(self.stages):
            if after.embed_dim % before.embed_dim:
                raise ConfigError(
                    f"stage_dims={list(self.stage_dims)}: {after.embed_dim} is no multiple of {before.embed_dim}, and "
                    "each channel is pooled by itself; choose a multiple"
                )
            if after.embed_dim % after.num_heads:
                raise ConfigError(
                    f"stage_heads={list(self.stage_heads)}: {after.num_heads} must divide its stage's "
                    f"{after.embed_dim} channels; try {_nearest_divisors(after.embed_dim, after.num_heads)}"
                )
        if self.pooling == "mean" and stages:
            raise ConfigError(
                f'pooling="mean" has no prefix tokens to bring from stage to stage, stage_depths={list(depths)}; '
                'set pooling = "class"'
            )

    def _check_size(self) -> None:
        """What no single field shows: such a model would not end, nor fit any memory."""
        if self.num_patches > MOST_PATCHES:
            raise ConfigError(
                f"img_size={self.img_size} and patch_size={self.patch_size} give {self.num_patches:,} patches; at most "
                f"{MOST_PATCHES:,} can be, so choose larger patches"
            )
        blocks = sum(stage.depth * stage.embed_dim * (4 * stage.embed_dim + 2 * stage.hidden_dim)
                     for stage in self.stages)  # fmt: skip
        rows = self.num_patches + self.patch_size**2 * (self.stem_chans or self.in_chans)
        weights = blocks + self.embed_dim * rows + self.stages[-1].embed_dim * self.num_classes
        if weights > MOST_WEIGHTS:
            raise ConfigError(
                f"embed_dim={self.embed_dim} and depth={self.depth} give {weights:,} weights; at most {MOST_WEIGHTS:,} "
                "can be, so choose a smaller model"
            )

    def _set_per_channel(self, key: str, default: tuple[float, ...]) -> None:
        values = getattr(self, key) or default
        if len(values) != self.in_chans:
            raise ConfigError(f"{key}={shown(values)} must have one number per channel, in_chans={self.in_chans}")
        object.__setattr__(self, key, tuple(float(value) for value in values))

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def hidden_dim(self) -> int:
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def stride(self) -> int:
        """Pixels from patch to patch."""
        return self.patch_stride or self.patch_size

    @property
    def grid_size(self) -> int:
        return (self.img_size - self.patch_size) // self.stride + 1

    @property
    def num_patches(self) -> int:
        return self.grid_size**2

    @property
    def stages(self) -> tuple[Stage, ...]:
        depths = self.stage_depths or (self.depth,)
        found, first, grid = list[Stage](), 0, self.grid_size
        for index, depth in enumerate(depths):
            width = self.stage_dims[index] if self.stage_dims else self.embed_dim << index
            heads = self.stage_heads[index] if self.stage_heads else self.num_heads << index
            found.append(Stage(index, first, depth, width, heads, int(width * self.mlp_ratio), grid))
            first, grid = first + depth, pooled_size(grid)
        return tuple(found)

    def stage_of(self, block: int) -> Stage:
        """The stage that a block is in."""
        return next(stage for stage in self.stages if block in stage.blocks)

    @property
    def num_prefix_tokens(self) -> int:
        return self.num_classifiers if self.pooling == "class" else 0

    @property
    def num_classifiers(self) -> int:
        """Linear layers at the end, one per token that is classified."""
        return 2 if self.distilled else 1

    @property
    def num_tokens(self) -> int:
        return self.num_prefix_tokens + self.num_patches


@dataclass(frozen=True)
class PruningConfig:
    """Where tokens are selected and by what, how many should stay, and what becomes of the others.

    The accelerator has units for the defaults of what stands below `features`; the others can be trained, evaluated
    and counted.
    """

    # a selector sits before each of these blocks, 0-based; () = unpruned
    locations: Annotated[tuple[int, ...], Items(Whole(0, MOST_BLOCKS - 1), "block numbers", MOST_BLOCKS)] = (3, 6, 9)
    # kept fraction of the original patches after each selector; () = no target
    keep: Annotated[tuple[float, ...], Items(Number(1e-4, 1), "fractions", MOST_BLOCKS)] = ()
    # the less informative tokens: a package token each time | one in all (add) | none
    package: Annotated[str, Choice("append", "add", "none")] = "append"
    share_heads: Annotated[bool, FLAG] = True  # one scorer for all heads, or one per head
    # local and global features from halves of one Linear(d, d) | from a single Linear(d, d/2)
    features: Annotated[str, Choice("split", "single")] = "split"
    # the paper's token selector | the class token's attention in the block before | chance | channels in place of
    # tokens, so that `keep` counts channels (Table 11)
    method: Annotated[str, Choice("selector", "class_attention", "random", "structured")] = "selector"
    # scores of several heads, weighted by the branch of Eq. 5 | averaged | of one (Table 5)
    heads: Annotated[str, Choice("weighted", "average", "single")] = "weighted"
    # Eq. 1 and 2 by LayerNorm and a linear layer | Conv1d of 1 or 3 tokens and BatchNorm (Table 10)
    scorer: Annotated[str, Choice("mlp", "conv1", "conv3")] = "mlp"
    activation: Annotated[str, Choice("gelu", "relu", "hardswish")] = "gelu"  # of the selectors (Table 10)
    proportional_attention: Annotated[bool, FLAG] = False  # a package counts in the softmax as often as it has tokens
    # how scores decide and packages count | as the authors' code has it: docs/released_code.md
    rules: Annotated[str, Choice("paper", "released")] = "paper"
    # what a pooling between stages reads in place of a dropped patch: the package token that it went into | zeros
    refill: Annotated[str, Choice("package", "zero")] = "package"
    # what lives behind a pooling: a place whose window's centre lived (carry) | every place (revive)
    after_pooling: Annotated[str, Choice("carry", "revive")] = "carry"

    def __post_init__(self) -> None:
        check_fields(self)
        if any(a >= b for a, b in zip(self.locations, self.locations[1:], strict=False)):
            raise ConfigError(f"locations={list(self.locations)} must increase from one selector to the next")
        if self.after_pooling == "carry" and any(a < b for a, b in pairwise(self.keep)):
            raise ConfigError(
                f"keep={list(self.keep)} counts what is left of the original patches, so it must not increase"
            )
        if self.keep and len(self.keep) != len(self.locations):
            raise ConfigError(
                f"keep={list(self.keep)} must have one fraction per selector, locations={list(self.locations)}"
            )
        if self.rules == "released" and (self.method != "selector" or self.scorer != "mlp"):
            other = f'method="{self.method}"' if self.method != "selector" else f'scorer="{self.scorer}"'
            raise ConfigError(f'rules="released" are those of the authors\' token selector, which has no {other}')
        if self.proportional_attention and (self.package == "none" or self.method == "structured"):
            without = 'package="none"' if self.package == "none" else 'method="structured"'
            raise ConfigError(f"proportional_attention=true counts a package's tokens, but {without} makes no package")
        if self.method == "class_attention" and self.locations[:1] == (0,):
            raise ConfigError(
                f'locations={list(self.locations)}: method="class_attention" reads the attention of the block before, '
                "so the first selector sits before block 1 or later"
            )

    @property
    def num_selectors(self) -> int:
        return len(self.locations)

    def without(self) -> "PruningConfig":
        """The unpruned configuration: no selector, every token lives."""
        return replace(self, locations=(), keep=())


@dataclass(frozen=True)
class ModelSpec:
    """What MODEL= resolves to. Of [engine], only the names are checked here; its values are the hardware flow's."""

    model: ModelConfig
    pruning: PruningConfig
    engine: Mapping[str, int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_selectors_fit(self.model, self.pruning)
        unknown = sorted(set(self.engine) - set(ENGINE_KEYS))
        if unknown:
            raise ConfigError(f"[engine] has no {shown_text(unknown[0])}; it knows {', '.join(ENGINE_KEYS)}")


def check_selectors_fit(model: ModelConfig, pruning: PruningConfig) -> None:
    """Raise ConfigError unless the backbone has the blocks and the head width that the selectors need."""
    for location in pruning.locations:
        if location >= model.depth:
            raise ConfigError(
                f"locations={list(pruning.locations)}: there is no block {location}; "
                f"depth={model.depth} numbers them 0 to {model.depth - 1}"
            )
    for location in pruning.locations:
        stage = model.stage_of(location)
        if stage.head_dim % 4 and pruning.method == "selector":
            raise ConfigError(
                f"num_heads={stage.num_heads} gives heads of {stage.head_dim} channels at embed_dim={stage.embed_dim}; "
                "a selector halves a head twice, so choose heads with a multiple of 4"
            )
    if pruning.locations and pruning.method == "class_attention" and model.pooling != "class":
        raise ConfigError('method="class_attention" needs the class token, which pooling="mean" leaves out')
    if pruning.locations and len(model.stages) > 1:
        _check_pooled_pruning(model, pruning)


def _check_pooled_pruning(model: ModelConfig, pruning: PruningConfig) -> None:
    """Of a model whose grid is pooled between stages."""
    pooled = f"stage_depths={list(model.stage_depths)}"
    if pruning.method == "structured":
        raise ConfigError(f'method="structured" drops channels for good, but {pooled} makes others of them')
    if pruning.proportional_attention:
        raise ConfigError(f"proportional_attention=true counts a package's patches, but {pooled} pools them into fewer")
    first_blocks = [stage.first_block for stage in model.stages[1:]]
    if pruning.method == "class_attention" and (between := {*pruning.locations}.intersection(first_blocks)):
        raise ConfigError(
            f'locations={list(pruning.locations)}: method="class_attention" reads the attention of the block before, '
            f"but a pooling stands between it and block {min(between)}; choose a later block"
        )
    is_read = pruning.locations[0] < first_blocks[-1]  # by some pooling
    if is_read and pruning.package == "none" and pruning.refill == "package":
        raise ConfigError(
            f'package="none" makes no package that could stand for dropped patches where {pooled} pools them; '
            'set refill = "zero"'
        )
    for (before, keep), (after, later) in pairwise(zip(pruning.locations, pruning.keep, strict=False)):
        if later > keep and model.stage_of(before) == model.stage_of(after):
            raise ConfigError(
                f"keep={list(pruning.keep)} counts what is left of a stage's patches, so it must not increase between "
                f"blocks {before} and {after}"
            )


def to_table(config: ModelConfig | PruningConfig) -> dict[str, Any]:
    """The fields as files keep them. Later ones are written only where they are not at their defaults, so that what
    was written and digested before there were such fields stays as it is.
    """
    defaults = {item.name: item.default for item in fields(config) if item.default is not MISSING}
    return {key: value for key, value in asdict(config).items() if key not in LATER_FIELDS or value != defaults[key]}


def registry() -> tuple[str, ...]:
    """The names that MODEL= knows."""
    return tuple(_read_toml(REGISTRY_FILE))


def registry_name(name: str) -> str:
    """The row of the registry that a name stands for: `deit_small_patch16_224` is `deit_s`, and
    `timm/vit_small_patch16_224.augreg_in1k` is `vit_s`. Others come back as they are.
    """
    public = name.rpartition("/")[2].lower().replace("-", "_")
    if (match := PUBLIC_PIT.fullmatch(public)) is not None:
        return f"pit_{match['size'].replace('ti', 't')}{match['distilled'] or ''}"
    if (match := PUBLIC_NAME.fullmatch(public)) is None:
        return name
    return f"{match['family']}_{match['size'][0]}{match['distilled'] or ''}{match['large'] or ''}"


def shipped_weights(model: str) -> Path | None:
    """The trained weights that come with a model of the registry."""
    path = REGISTRY_FILE.parent / "weights" / f"{model}.safetensors"
    return path if model in registry() and path.is_file() else None


def resolve_model(name_or_path: str, keep: str | None = None) -> ModelSpec:
    """The model that MODEL= and KEEP= ask for.

    name_or_path  a name of the registry, or the path of a .toml with [model], [pruning] and [engine]
    keep          None: as configured; "none": unpruned; "0.629,0.396,0.249": one fraction per selector
    Raises ConfigError, with the file and the field in its text.
    """
    if name_or_path.lower().endswith(".toml"):
        path = Path(name_or_path)
        spec = _spec_from_tables(_read_toml(path), source=name_or_path, default_name=path.stem)
    else:
        tables = _read_toml(REGISTRY_FILE)
        name = registry_name(name_or_path)
        if name not in tables:
            close = difflib.get_close_matches(name_or_path, tables, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ConfigError(
                f"MODEL={shown_text(name_or_path)} is neither the path of a .toml file nor one of "
                f"{', '.join(tables)}{hint}"
            )
        spec = _spec_from_tables(tables[name], source=REGISTRY_FILE.name, default_name=name)
    return spec if keep is None else replace(spec, pruning=_override_keep(spec.pruning, keep))


def _override_keep(pruning: PruningConfig, keep: str) -> PruningConfig:
    if keep.strip() == "none":
        return pruning.without()
    try:
        fractions = tuple(float(text) for text in keep.split(","))
        return replace(pruning, keep=fractions)
    except ValueError:
        raise ConfigError(
            f'KEEP={shown_text(keep)} must be "none" or fractions with commas between, as 0.629,0.396,0.249'
        ) from None
    except ConfigError as error:
        raise ConfigError(f"KEEP={shown_text(keep)}: {error}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    return read_toml(path, "MODEL= takes its path or one of the registry's names", ConfigError)


def _spec_from_tables(tables: Mapping[str, Any], source: str, default_name: str) -> ModelSpec:
    for section, values in tables.items():
        if section not in ("model", "pruning", "engine"):
            raise ConfigError(
                f"{source}: there is no [{shown_text(section)}]; the tables are [model], [pruning] and [engine]"
            )
        if not isinstance(values, Mapping):
            raise ConfigError(f"{source}: {section}={shown(values)} must be a table, [{section}]")
    if "model" not in tables:
        raise ConfigError(
            f"{source}: there is no [model] table; it holds img_size, embed_dim, depth and the other sizes"
        )
    where = f"{source}: [model]"
    model_table = _with_mlp_ratio({"name": default_name, **tables["model"]}, where)
    model = from_table(ModelConfig, model_table, where)
    pruning_table = tables.get("pruning", {"locations": []})  # no [pruning] table: an unpruned transformer
    pruning = from_table(PruningConfig, pruning_table, f"{source}: [pruning]")
    try:
        return ModelSpec(model, pruning, dict(tables.get("engine", {})))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _with_mlp_ratio(table: dict[str, Any], where: str) -> dict[str, Any]:
    """A model's table with hidden_dim, where it is given, as the mlp_ratio that gives just so many."""
    if "hidden_dim" not in table:
        return table
    hidden, width = table.pop("hidden_dim"), table.get("embed_dim", ModelConfig.embed_dim)
    if "mlp_ratio" in table:
        raise ConfigError(
            f"{where} hidden_dim={shown(hidden)} and mlp_ratio={shown(table['mlp_ratio'])} say the same; give one"
        )
    try:
        WIDTH.check("embed_dim", width)
        HIDDEN.check("hidden_dim", hidden)
    except ConfigError as error:
        raise ConfigError(f"{where} {error}") from None
    ratio = hidden / width
    # one step up where the product, rounded, falls short of the whole number
    return {**table, "mlp_ratio": ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)}


def pooled_size(grid: int) -> int:
    """Side of the grid behind a pooling of stride 2: a window stands on every other place."""
    return (grid + 1) // 2


def _nearest_divisors(number: int, wanted: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    nearest = sorted(sorted(divisors, key=lambda d: abs(d - wanted))[:3])
    return ", ".join(map(str, nearest))
