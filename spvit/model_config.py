"""What a backbone is, as a frozen dataclass that validates itself: its parts, its stages, how its images are prepared.

No torch here: the hardware flow and the board's host import this module too.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from spvit.errors import ConfigError
from spvit.schema import FLAG, NAME, Choice, Items, Number, Whole, check_fields, shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MOST_BLOCKS = 256
MOST_STAGES = 8
MOST_PATCHES = 1 << 14
MOST_WEIGHTS = 4_000_000_000
WIDTH = Whole(1, 8192)
STEM_STRIDE = 2  # of a stem's first convolution
AUX_WEIGHT = 0.5  # of the auxiliary head's logits beside the class token's


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


def pooled_size(grid: int) -> int:
    """Side of the grid behind a pooling of stride 2: a window stands on every other place."""
    return (grid + 1) // 2


def _nearest_divisors(number: int, wanted: int) -> str:
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    nearest = sorted(sorted(divisors, key=lambda d: abs(d - wanted))[:3])
    return ", ".join(map(str, nearest))
