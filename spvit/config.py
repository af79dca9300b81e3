"""What a model is: backbone, pruning and engine wishes, as frozen dataclasses that validate themselves.

Enters: a name of the registry (`models.toml`) or the path of a TOML file, and a KEEP= override.
Leaves: a `ModelSpec`. No torch here: the hardware flow and the board's host import this module too.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from spvit.errors import ConfigError
from spvit.files import read_toml

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PACKAGE_POLICIES = ("append", "add", "none")
SELECTOR_FEATURES = ("split", "single")
METHODS = ("selector", "class_attention", "random", "structured")
HEADS = ("weighted", "average", "single")
SCORERS = ("mlp", "conv1", "conv3")
ACTIVATIONS = ("gelu", "relu", "hardswish")
POOLINGS = ("class", "mean")
RULES = ("paper", "released")
LATER_FIELDS = ("pooling", "method", "heads", "scorer", "activation", "proportional_attention", "rules")
ENGINE_KEYS = ("tile_in", "tile_out", "inner_product", "weight_ports", "fifo_words", "uram")
REGISTRY_FILE = Path(__file__).with_name("models.toml")
# What timm, facebook and Hugging Face call rows of the registry. A tag that stands for other preprocessing (dino, mae,
# clip) is none of these.
PUBLIC_NAME = re.compile(
    r"(?P<family>deit|vit)_(?P<size>t|s|b|tiny|small|base)(?P<distilled>_distilled)?(_patch16)?(_224|(?P<large>_384))?"
    r"(_in21k)?(\.(fb|sam|orig|augreg2?)(_in21k)?(_ft)?(_in1k)?)?"
)


@dataclass(frozen=True)
class ModelConfig:
    """A ViT or DeiT: its sizes, and how its images are prepared."""

    name: str
    img_size: int = 224  # pixels per side, square
    patch_size: int = 16  # pixels per side
    in_chans: int = 3
    embed_dim: int = 384
    depth: int = 12
    num_heads: int = 6
    mlp_ratio: float = 4.0  # hidden units over embed_dim, rounded down as timm does; a file may give hidden_dim
    num_classes: int = 1000
    distilled: bool = False  # a second prefix token with a head of its own
    layer_norm_eps: float = 1e-6
    mean: tuple[float, ...] = ()  # per channel, of pixels in 0..1; empty: ImageNet's for 3 channels, else 0.5
    std: tuple[float, ...] = ()
    crop: float = 0.875  # side of the centre crop, as a fraction of the resized image
    pooling: str = "class"  # what is classified: the class token | the mean of the tokens, without one (Table 12)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise ConfigError(
                f"name={self.name!r} names folders: start with a letter or digit and use letters, digits, _, - and ."
            )
        for key in ("img_size", "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "num_classes"):
            _require_count(key, getattr(self, key))
        if not isinstance(self.distilled, bool):
            raise ConfigError(f"distilled={self.distilled!r} must be true or false")
        _require_choice("pooling", self.pooling, POOLINGS)
        if self.distilled and self.pooling == "mean":
            raise ConfigError('pooling="mean" leaves out the prefix tokens, so it cannot be distilled = true')
        _require_number("mlp_ratio", self.mlp_ratio, above=0)
        _require_number("layer_norm_eps", self.layer_norm_eps, above=0, up_to=1)
        _require_number("crop", self.crop, above=0, up_to=1)
        if self.img_size % self.patch_size:
            raise ConfigError(
                f"patch_size={self.patch_size} must divide img_size={self.img_size}; "
                f"try {_nearest_divisors(self.img_size, self.patch_size)}"
            )
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
        rgb = self.in_chans == len(IMAGENET_MEAN)
        self._set_per_channel("mean", IMAGENET_MEAN if rgb else (0.5,) * self.in_chans)
        self._set_per_channel("std", IMAGENET_STD if rgb else (0.5,) * self.in_chans)
        for value in self.std:
            _require_number("std", value, above=0)

    def _set_per_channel(self, key: str, default: tuple[float, ...]) -> None:
        values = getattr(self, key) or default
        if not isinstance(values, tuple) or len(values) != self.in_chans:
            raise ConfigError(f"{key}={values!r} must have one number per channel, in_chans={self.in_chans}")
        for value in values:
            _require_number(key, value)
        object.__setattr__(self, key, tuple(float(value) for value in values))

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def hidden_dim(self) -> int:
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def grid_size(self) -> int:
        return self.img_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid_size**2

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

    locations: tuple[int, ...] = (3, 6, 9)  # a selector sits before each of these blocks, 0-based; () = unpruned
    keep: tuple[float, ...] = ()  # kept fraction of the original patches after each selector; () = no target
    package: str = "append"  # the less informative tokens: a package token each time | one in all (add) | none
    share_heads: bool = True  # one scorer for all heads, or one per head
    features: str = "split"  # local and global features from halves of one Linear(d, d) | from a single Linear(d, d/2)
    # the paper's token selector | the class token's attention in the block before | chance | channels in place of
    # tokens, so that `keep` counts channels (Table 11)
    method: str = "selector"
    heads: str = "weighted"  # scores of several heads, weighted by the branch of Eq. 5 | averaged | of one (Table 5)
    scorer: str = (
        "mlp"  # Eq. 1 and 2 by LayerNorm and a linear layer | Conv1d of 1 or 3 tokens and BatchNorm (Table 10)
    )
    activation: str = "gelu"  # of the selectors (Table 10)
    proportional_attention: bool = False  # a package counts in the softmax as many times as it has tokens
    rules: str = "paper"  # how scores decide and packages count | as the authors' code has it: docs/released_code.md

    def __post_init__(self) -> None:
        if not isinstance(self.locations, tuple):
            raise ConfigError(f"locations={self.locations!r} must be a list of block numbers")
        for location in self.locations:
            _require_count("locations", location, minimum=0)
        if any(a >= b for a, b in zip(self.locations, self.locations[1:], strict=False)):
            raise ConfigError(f"locations={list(self.locations)} must increase from one selector to the next")
        if not isinstance(self.keep, tuple):
            raise ConfigError(f"keep={self.keep!r} must be a list of fractions")
        for fraction in self.keep:
            _require_number("keep", fraction, above=0, up_to=1)
        if any(a < b for a, b in zip(self.keep, self.keep[1:], strict=False)):
            raise ConfigError(
                f"keep={list(self.keep)} counts what is left of the original patches, so it must not increase"
            )
        if self.keep and len(self.keep) != len(self.locations):
            raise ConfigError(
                f"keep={list(self.keep)} must have one fraction per selector, locations={list(self.locations)}"
            )
        _require_choice("package", self.package, PACKAGE_POLICIES)
        _require_choice("features", self.features, SELECTOR_FEATURES)
        _require_choice("method", self.method, METHODS)
        _require_choice("heads", self.heads, HEADS)
        _require_choice("scorer", self.scorer, SCORERS)
        _require_choice("activation", self.activation, ACTIVATIONS)
        _require_choice("rules", self.rules, RULES)
        if self.rules == "released" and (self.method != "selector" or self.scorer != "mlp"):
            other = f'method="{self.method}"' if self.method != "selector" else f'scorer="{self.scorer}"'
            raise ConfigError(f'rules="released" are those of the authors\' token selector, which has no {other}')
        for key in ("share_heads", "proportional_attention"):
            if not isinstance(getattr(self, key), bool):
                raise ConfigError(f"{key}={getattr(self, key)!r} must be true or false")
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
            raise ConfigError(f"[engine] has no {unknown[0]}; it knows {', '.join(ENGINE_KEYS)}")


_Config = TypeVar("_Config", ModelConfig, PruningConfig)


def check_selectors_fit(model: ModelConfig, pruning: PruningConfig) -> None:
    """Raise ConfigError unless the backbone has the blocks and the head width that the selectors need."""
    for location in pruning.locations:
        if location >= model.depth:
            raise ConfigError(
                f"locations={list(pruning.locations)}: there is no block {location}; "
                f"depth={model.depth} numbers them 0 to {model.depth - 1}"
            )
    if pruning.locations and model.head_dim % 4 and pruning.method == "selector":
        raise ConfigError(
            f"num_heads={model.num_heads} gives heads of {model.head_dim} channels at embed_dim={model.embed_dim}; "
            "a selector halves a head twice, so choose heads with a multiple of 4"
        )
    if pruning.locations and pruning.method == "class_attention" and model.pooling != "class":
        raise ConfigError('method="class_attention" needs the class token, which pooling="mean" leaves out')


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
    match = PUBLIC_NAME.fullmatch(name.rpartition("/")[2].lower().replace("-", "_"))
    if match is None:
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
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        spec = _spec_from_tables(_read_toml(path), source=name_or_path, default_name=path.stem)
    else:
        tables = _read_toml(REGISTRY_FILE)
        name = registry_name(name_or_path)
        if name not in tables:
            close = difflib.get_close_matches(name_or_path, tables, n=2)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ConfigError(
                f"MODEL={name_or_path} is neither the path of a .toml file nor one of {', '.join(tables)}{hint}"
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
            f'KEEP={keep} must be "none" or fractions with commas between, as 0.629,0.396,0.249'
        ) from None
    except ConfigError as error:
        raise ConfigError(f"KEEP={keep}: {error}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    return read_toml(path, "MODEL= takes its path or one of the registry's names", ConfigError)


def _spec_from_tables(tables: Mapping[str, Any], source: str, default_name: str) -> ModelSpec:
    for section, values in tables.items():
        if section not in ("model", "pruning", "engine"):
            raise ConfigError(f"{source}: there is no [{section}]; the tables are [model], [pruning] and [engine]")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{source}: {section}={values!r} must be a table, [{section}]")
    if "model" not in tables:
        raise ConfigError(
            f"{source}: there is no [model] table; it holds img_size, embed_dim, depth and the other sizes"
        )
    where = f"{source}: [model]"
    model_table = _with_mlp_ratio({"name": default_name, **tables["model"]}, where)
    model = _dataclass_from_table(ModelConfig, model_table, where)
    pruning_table = tables.get("pruning", {"locations": []})  # no [pruning] table: an unpruned transformer
    pruning = _dataclass_from_table(PruningConfig, pruning_table, f"{source}: [pruning]")
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
        raise ConfigError(f"{where} hidden_dim={hidden!r} and mlp_ratio={table['mlp_ratio']!r} say the same; give one")
    try:
        _require_count("embed_dim", width)
        _require_count("hidden_dim", hidden)
    except ConfigError as error:
        raise ConfigError(f"{where} {error}") from None
    ratio = hidden / width
    # one step up where the product, rounded, falls short of the whole number
    return {**table, "mlp_ratio": ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)}


def _dataclass_from_table(cls: type[_Config], table: Mapping[str, Any], where: str) -> _Config:
    known = [item.name for item in fields(cls)]
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ConfigError(f"{where} has no {key}; {hint}it knows {', '.join(known)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where} {error}") from None


def _require_count(key: str, value: object, minimum: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{key}={value!r} must be a whole number of at least {minimum}")


def _require_number(key: str, value: object, above: float = -math.inf, up_to: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not above < value <= up_to:  # type: ignore[operator]
        bounds = "" if above == -math.inf else f" above {above}"
        bounds += "" if up_to == math.inf else f" and at most {up_to}"
        raise ConfigError(f"{key}={value!r} must be a number{bounds}")


def _require_choice(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value!r} must be one of {', '.join(choices)}")


def _nearest_divisors(number: int, wanted: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    nearest = sorted(sorted(divisors, key=lambda d: abs(d - wanted))[:3])
    return ", ".join(map(str, nearest))
