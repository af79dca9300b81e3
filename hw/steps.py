"""The steps of a program, and which formats the engine has bits for.

Steps are logical here (features, formats, names of layers); `layout` says where their operands lie on chip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from quant.formats import MAX_FRAC_BITS, MAX_SHIFT, MIN_SHIFT
from quant.functions import (
    EXP_MAX_FRAC_BITS,
    GELU_MAX_FRAC_BITS,
    GELU_MAX_OUTPUT_FRAC_BITS,
    GELU_MIN_OUTPUT_FRAC_BITS,
    MAX_CONTEXT_UP,
    SIGMOID_MAX_FRAC_BITS,
)
from spvit.errors import NetworkError


class Op(Enum):
    ENGINE = "engine"  # a pass of the matrix engine
    POOL = "pool"  # mean over the candidates of the features that the last pass left
    DECIDE = "decide"  # the selector's keep decisions
    PACKAGE = "package"  # kept rows to the front, the others into a package token
    IDLE = "idle"  # nothing but filling the next step's first tile; stands in no program


class Buffer(Enum):
    X = "x"  # the residual stream
    PATCHES = "patches"
    Q = "q"
    K = "k"
    V = "v"
    SCORES = "scores"
    CONTEXT = "context"  # takes Q's place, head by head
    HIDDEN = "hidden"
    FEATURES = "features"  # of the token selector, one head at a time, as are FC1 and FC2
    FC1 = "fc1"
    FC2 = "fc2"
    TOKEN_SCORES = "token_scores"
    BRANCH_HIDDEN = "branch_hidden"
    BRANCH = "branch"
    LOGITS = "logits"


class Memory(Enum):
    """On chip, in which buffers lie."""

    X = "x"  # the residual stream
    WORK = "work"  # everything else that lives within a block, in banks
    V = "v"  # values, skewed


class Prologue(Enum):
    NONE = "none"
    LAYER_NORM = "layer_norm"  # over the row
    HEAD_LAYER_NORM = "head_layer_norm"  # over one head's slice of the row
    SOFTMAX = "softmax"  # 2^(score - row maximum), keys that are no tokens masked
    CONCAT = "concat"  # lanes from `split` on come from the pooled features


class Weights(Enum):
    STREAM = "stream"  # from DDR, in order of use
    K = "k"  # column = a token's key
    V = "v"  # column = a dimension of the values, over the tokens


class WeightWidth(Enum):
    """Bits of each streamed weight; the others, an int16's lowest, are zero."""

    W16 = 16
    W12 = 12
    W8 = 8


class Rows(Enum):
    ALL = "all"
    PATCHES = "patches"  # all but the prefix
    CANDIDATES = "candidates"  # patches that are no package
    FIRST = "first"  # row 0: the class token


class Epilogue(Enum):
    STORE = "store"
    RESIDUAL = "residual"  # add the row of X, gather LayerNorm's statistics
    GELU = "gelu"
    SCORES = "scores"  # keep the row maximum
    CONTEXT = "context"  # divide by the row's sum of exponentials


class Package(Enum):
    """What becomes of dropped tokens, as `PruningConfig.package` says it."""

    APPEND = "append"  # each selector appends its package
    ADD = "add"  # later packages are added onto the first
    NONE = "none"  # they are gone


@dataclass(frozen=True)
class Step:
    """One step. Formats are fraction bits of the named tensor.

    unit             the kernel it belongs to: patch_embed, msa_block, mlp_block, token_selector, token_packager, head
    index            which one of these (block or selector)
    linear           layer whose weights are streamed
    head             attention head, where the step works on one
    in_features      per row of the source; None: the tokens
    out_features     None: the tokens
    source_bits      of the source as it lies in memory
    input_bits       of what enters the array (after the prologue)
    weight_bits      of K or V; the streamed layers carry theirs per channel
    weight_width     of the streamed layers' weights
    output_bits      of what leaves
    gelu_bits        before GELU
    residual_bits    of the row of X that is added
    branch_bits      DECIDE: of the head branch
    epsilon          LayerNorm's, as an integer beside C sum x^2 - (sum x)^2
    norm_features    channels of the LayerNorm
    threshold        DECIDE: 22 fraction bits
    """

    name: str
    unit: str
    index: int
    op: Op = Op.ENGINE
    rows: Rows = Rows.ALL
    source: Buffer = Buffer.X
    prologue: Prologue = Prologue.NONE
    weights: Weights = Weights.STREAM
    linear: str = ""
    head: int | None = None
    in_features: int | None = None
    out_features: int | None = None
    epilogue: Epilogue = Epilogue.STORE
    dest: Buffer = Buffer.X
    pool: bool = False
    source_bits: int = 0
    input_bits: int = 0
    weight_bits: int = 0
    output_bits: int = 0
    gelu_bits: int = 0
    residual_bits: int = 0
    branch_bits: int = 0
    epsilon: int = 0
    norm_features: int = 0
    threshold: int = 0
    weight_width: WeightWidth = WeightWidth.W16


@dataclass(frozen=True)
class Program:
    steps: tuple[Step, ...]

    def unit(self, unit: str, index: int = 0) -> range:
        """Positions of one kernel's steps, for its own top."""
        found = [i for i, step in enumerate(self.steps) if step.unit == unit and step.index == index]
        return range(found[0], found[-1] + 1) if found else range(0)

    def next_engine(self, index: int) -> int:
        """Position of the engine's next step after this one; the program's length if there is none."""
        return next((i for i in range(index + 1, len(self.steps)) if self.steps[i].op is Op.ENGINE), len(self.steps))

    @property
    def score_frac_bits(self) -> int:
        """Of all scores: one format, so that softmax need not align them."""
        return _one_format("the scores", self.steps, Epilogue.SCORES, "output_bits")

    @property
    def gelu_frac_bits(self) -> int:
        """Of all that enters a GELU, likewise."""
        return _one_format("what enters GELU", self.steps, Epilogue.GELU, "gelu_bits")

    def units(self) -> Iterator[tuple[str, int, range]]:
        """Kernels in order: name, which one, positions of its steps."""
        start = 0
        for i, step in enumerate(self.steps):
            following = self.steps[i + 1] if i + 1 < len(self.steps) else None
            if following is None or (following.unit, following.index) != (step.unit, step.index):
                yield step.unit, step.index, range(start, i + 1)
                start = i + 1


def check_formats(program: Program) -> None:
    """Raises NetworkError where a unit beside the array has no bits for a format; the layers' own: `weights.shifts`."""
    for step in program.steps:
        for what, bits, lowest, highest in _limits(step):
            if not lowest <= bits <= highest:
                raise NetworkError(
                    f"{step.name}: {what} would have {bits} fraction bits, the engine takes {lowest}..{highest}; "
                    "calibrate with images that are like those in use, or train with smaller weights"
                )
    assert program.score_frac_bits <= EXP_MAX_FRAC_BITS and program.gelu_frac_bits <= GELU_MAX_FRAC_BITS


def _limits(step: Step) -> Iterator[tuple[str, int, int, int]]:
    """What has a format, its fraction bits, the fewest and the most that there may be."""
    if step.epilogue is Epilogue.GELU:
        yield "what enters GELU", step.gelu_bits, 0, GELU_MAX_FRAC_BITS
        yield "what leaves GELU", step.output_bits, GELU_MIN_OUTPUT_FRAC_BITS, GELU_MAX_OUTPUT_FRAC_BITS
    elif step.epilogue is Epilogue.SCORES:
        yield "scores", step.output_bits, 0, EXP_MAX_FRAC_BITS
        product = step.input_bits + step.weight_bits
        yield "the product of q and k", product, step.output_bits + MIN_SHIFT, step.output_bits + MAX_SHIFT
    elif step.epilogue is Epilogue.CONTEXT:
        yield "context", step.output_bits, step.weight_bits, step.weight_bits + MAX_CONTEXT_UP
    elif step.op is Op.DECIDE:
        yield "scores", step.source_bits, 0, SIGMOID_MAX_FRAC_BITS
        yield "head weights", step.branch_bits, 0, SIGMOID_MAX_FRAC_BITS
    if step.prologue in (Prologue.LAYER_NORM, Prologue.HEAD_LAYER_NORM):
        yield "what leaves LayerNorm", step.input_bits, 0, MAX_FRAC_BITS


def _one_format(what: str, steps: Sequence[Step], epilogue: Epilogue, field: str) -> int:
    """Raises NetworkError where a tensor has another one than the first."""
    found = {step.name: int(getattr(step, field)) for step in steps if step.epilogue is epilogue}
    first = next(iter(found.values()), 0)
    for name, bits in found.items():
        if bits != first:
            raise NetworkError(
                f"{name}: {what} would have {bits} fraction bits, elsewhere they have {first}; "
                "the engine has one format for all of them: quantize the network again"
            )
    return first
