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
from spvit.model_config import MOST_BLOCKS, WIDTH
from spvit.model_config import ModelConfig as ModelConfig  # found here, beside what prunes it
from spvit.schema import FLAG, Choice, Items, Number, Whole, check_fields, from_table, shown, shown_text

HIDDEN = Whole(1, 64 * 8192)
LATER_FIELDS = (
    *("pooling", "method", "heads", "scorer", "activation", "proportional_attention", "rules"),
    *("patch_stride", "stem_chans", "stage_depths", "stage_dims", "stage_heads", "qkv_bias", "skip_lam", "aux_head"),
    *("pos_embed", "refill", "after_pooling"),
)
DEFAULT_LAYER = "default"
WEIGHT_WIDTHS = (8, 12, 16)
WEIGHT_BITS = Choice(*WEIGHT_WIDTHS)
"""Of the weights: what the stream's words are made of. Activations have 16."""
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
    """What MODEL= resolves to. Of [engine], only the names are checked here; its values are the hardware flow's, and so
    are the layers of [quantization]'s `weight_bits`: the weights' widths, by layers' names or parts of them
    (`quant.widths`).
    """

    model: ModelConfig
    pruning: PruningConfig
    engine: Mapping[str, int | str] = field(default_factory=dict)
    weight_bits: Mapping[str, int] = field(default_factory=dict)

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
        if section not in ("model", "pruning", "engine", "quantization"):
            raise ConfigError(
                f"{source}: there is no [{shown_text(section)}]; the tables are [model], [pruning], [engine] and "
                "[quantization]"
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
        return ModelSpec(model, pruning, dict(tables.get("engine", {})), _weight_bits(tables.get("quantization", {})))
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _weight_bits(table: Mapping[str, Any]) -> dict[str, int]:
    """[quantization]'s widths, by layer. Raises ConfigError."""
    for key in table:
        if key != "weight_bits":
            raise ConfigError(f"[quantization] has no {shown_text(key)}; it knows weight_bits")
    asked = table.get("weight_bits", {})
    widths = dict(asked) if isinstance(asked, Mapping) else {DEFAULT_LAYER: asked}
    for name, bits in widths.items():
        what = "" if name == DEFAULT_LAYER else f" of {shown_text(name)}"
        WEIGHT_BITS.check(f"[quantization] weight_bits{what}", bits)
    return widths


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
