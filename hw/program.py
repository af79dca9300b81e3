"""From a network to its program: the ordered list of steps that the golden, the renderer and the cycle model all walk.

Enters: a `QuantizedNetwork`, or `Sizes` alone. Leaves: a `Program` (`hw.steps`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hw.steps import Buffer, Epilogue, Op, Program, Prologue, Rows, Step, Weights, WeightWidth, check_formats
from quant.functions import layer_norm_epsilon
from quant.network import SELECTOR_LAYER_NORM_EPS
from spvit.config import ModelConfig, PruningConfig

__all__ = ["Buffer", "Epilogue", "Op", "Program", "Prologue", "Rows", "Sizes", "Step", "Weights", "build_program"]


class Lowerable(Protocol):
    """What a program is made of: a `QuantizedNetwork`, or its sizes alone."""

    @property
    def model(self) -> ModelConfig: ...
    @property
    def pruning(self) -> PruningConfig: ...
    @property
    def frac_bits(self) -> Mapping[str, int]: ...
    @property
    def thresholds(self) -> Sequence[int]: ...
    @property
    def weight_bits(self) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class Sizes:
    """A network before it is quantized: every format and threshold is 0.

    weight_bits  by layer, where weights have less than 16
    """

    model: ModelConfig
    pruning: PruningConfig
    weight_bits: Mapping[str, int] = field(default_factory=dict)

    @property
    def frac_bits(self) -> Mapping[str, int]:
        return defaultdict(int)

    @property
    def thresholds(self) -> Sequence[int]:
        return (0,) * self.pruning.num_selectors


def build_program(network: Lowerable) -> Program:
    """Lower a network to steps. Of `Sizes`, they have no formats: enough to count cycles."""
    model, pruning, bits = network.model, network.pruning, network.frac_bits
    steps = [_patch_embed(network)]
    residual_bits = bits["patch_embed"]
    for block in range(model.depth):
        if block in pruning.locations:
            selector = pruning.locations.index(block)
            steps += _token_selector(network, selector, residual_bits)
            steps.append(
                Step(
                    f"selectors.{selector}.package",
                    "token_packager",
                    selector,
                    op=Op.PACKAGE,
                    source_bits=residual_bits,
                    output_bits=residual_bits,
                )
            )
        steps += _msa_block(network, block, residual_bits)
        residual_bits = bits[f"blocks.{block}.attn.proj"]
        steps += _mlp_block(network, block, residual_bits)
        residual_bits = bits[f"blocks.{block}.mlp.fc2"]
    steps.append(_head(network, residual_bits))
    widths = network.weight_bits
    program = Program(
        tuple(replace(step, weight_width=WeightWidth(widths.get(step.linear, WeightWidth.W16.value))) for step in steps)
    )
    if not isinstance(network, Sizes):
        check_formats(program)
    return program


def _patch_embed(network: Lowerable) -> Step:
    model, bits = network.model, network.frac_bits
    return Step(
        "patch_embed",
        "patch_embed",
        0,
        rows=Rows.PATCHES,
        source=Buffer.PATCHES,
        linear="patch_embed.proj",
        in_features=model.patch_size**2 * model.in_chans,
        out_features=model.embed_dim,
        epilogue=Epilogue.RESIDUAL,
        dest=Buffer.X,
        source_bits=bits["pixels"],
        input_bits=bits["pixels"],
        output_bits=bits["patch_embed"],
        residual_bits=bits["patch_embed"],
    )


def _msa_block(network: Lowerable, block: int, residual_bits: int) -> Iterator[Step]:
    """K, V, Q: in this order, so that the first head's keys are complete when their tile is filled behind Q."""
    model, bits = network.model, network.frac_bits
    dim, d = model.embed_dim, model.head_dim
    attn = f"blocks.{block}.attn"
    norm = f"blocks.{block}.norm1"
    for name, dest in (("k", Buffer.K), ("v", Buffer.V), ("q", Buffer.Q)):
        yield Step(
            f"{attn}.{name}",
            "msa_block",
            block,
            source=Buffer.X,
            prologue=Prologue.LAYER_NORM,
            linear=f"{attn}.{name}",
            in_features=dim,
            out_features=dim,
            dest=dest,
            source_bits=residual_bits,
            input_bits=bits[norm],
            output_bits=bits[f"{attn}.{name}"],
            epsilon=layer_norm_epsilon(model.layer_norm_eps, dim, residual_bits),
            norm_features=dim,
        )
    for head in range(model.num_heads):
        yield Step(
            f"{attn}.scores.{head}",
            "msa_block",
            block,
            source=Buffer.Q,
            weights=Weights.K,
            head=head,
            in_features=d,
            epilogue=Epilogue.SCORES,
            dest=Buffer.SCORES,
            source_bits=bits[f"{attn}.q"],
            input_bits=bits[f"{attn}.q"],
            weight_bits=bits[f"{attn}.k"],
            output_bits=bits[f"{attn}.scores"],
        )
        yield Step(
            f"{attn}.context.{head}",
            "msa_block",
            block,
            source=Buffer.SCORES,
            prologue=Prologue.SOFTMAX,
            weights=Weights.V,
            head=head,
            out_features=d,
            epilogue=Epilogue.CONTEXT,
            dest=Buffer.CONTEXT,
            source_bits=bits[f"{attn}.scores"],
            weight_bits=bits[f"{attn}.v"],
            output_bits=bits[f"{attn}.context"],
        )
    yield Step(
        f"{attn}.proj",
        "msa_block",
        block,
        source=Buffer.CONTEXT,
        linear=f"{attn}.proj",
        in_features=dim,
        out_features=dim,
        epilogue=Epilogue.RESIDUAL,
        dest=Buffer.X,
        source_bits=bits[f"{attn}.context"],
        input_bits=bits[f"{attn}.context"],
        output_bits=bits[f"{attn}.proj"],
        residual_bits=residual_bits,
    )


def _mlp_block(network: Lowerable, block: int, residual_bits: int) -> Iterator[Step]:
    model, bits = network.model, network.frac_bits
    mlp = f"blocks.{block}.mlp"
    yield Step(
        f"{mlp}.fc1",
        "mlp_block",
        block,
        source=Buffer.X,
        prologue=Prologue.LAYER_NORM,
        linear=f"{mlp}.fc1",
        in_features=model.embed_dim,
        out_features=model.hidden_dim,
        epilogue=Epilogue.GELU,
        dest=Buffer.HIDDEN,
        source_bits=residual_bits,
        input_bits=bits[f"blocks.{block}.norm2"],
        gelu_bits=bits[f"{mlp}.fc1"],
        output_bits=bits[f"{mlp}.fc1.gelu"],
        epsilon=layer_norm_epsilon(model.layer_norm_eps, model.embed_dim, residual_bits),
        norm_features=model.embed_dim,
    )
    yield Step(
        f"{mlp}.fc2",
        "mlp_block",
        block,
        source=Buffer.HIDDEN,
        linear=f"{mlp}.fc2",
        in_features=model.hidden_dim,
        out_features=model.embed_dim,
        epilogue=Epilogue.RESIDUAL,
        dest=Buffer.X,
        source_bits=bits[f"{mlp}.fc1.gelu"],
        input_bits=bits[f"{mlp}.fc1.gelu"],
        output_bits=bits[f"{mlp}.fc2"],
        residual_bits=residual_bits,
    )


def _token_selector(network: Lowerable, index: int, residual_bits: int) -> Iterator[Step]:
    model, pruning, bits = network.model, network.pruning, network.frac_bits
    d, heads = model.head_dim, model.num_heads
    selector = f"selectors.{index}"
    unit = ("token_selector", index)
    for head in range(heads):
        scorer = f"{selector}.scorers.{0 if pruning.share_heads else head}"
        yield Step(
            f"{selector}.embed.{head}",
            *unit,
            rows=Rows.CANDIDATES,
            source=Buffer.X,
            prologue=Prologue.HEAD_LAYER_NORM,
            linear=f"{scorer}.embed",
            head=head,
            in_features=d,
            out_features=d,
            epilogue=Epilogue.GELU,
            dest=Buffer.FEATURES,
            pool=True,
            source_bits=residual_bits,
            input_bits=bits[f"{selector}.norm"],
            gelu_bits=bits[f"{selector}.embed"],
            output_bits=bits[f"{selector}.embed.gelu"],
            epsilon=layer_norm_epsilon(SELECTOR_LAYER_NORM_EPS, d, residual_bits),
            norm_features=d,
        )
        yield Step(f"{selector}.pool.{head}", *unit, op=Op.POOL, head=head, out_features=d)
        yield Step(
            f"{selector}.fc1.{head}",
            *unit,
            rows=Rows.CANDIDATES,
            source=Buffer.FEATURES,
            prologue=Prologue.CONCAT,
            linear=f"{scorer}.fc1",
            head=head,
            in_features=d,
            out_features=d // 2,
            epilogue=Epilogue.GELU,
            dest=Buffer.FC1,
            source_bits=bits[f"{selector}.embed.gelu"],
            input_bits=bits[f"{selector}.embed.gelu"],
            gelu_bits=bits[f"{selector}.fc1"],
            output_bits=bits[f"{selector}.fc1.gelu"],
        )
        yield Step(
            f"{selector}.fc2.{head}",
            *unit,
            rows=Rows.CANDIDATES,
            source=Buffer.FC1,
            linear=f"{scorer}.fc2",
            head=head,
            in_features=d // 2,
            out_features=d // 4,
            epilogue=Epilogue.GELU,
            dest=Buffer.FC2,
            source_bits=bits[f"{selector}.fc1.gelu"],
            input_bits=bits[f"{selector}.fc1.gelu"],
            gelu_bits=bits[f"{selector}.fc2"],
            output_bits=bits[f"{selector}.fc2.gelu"],
        )
        yield Step(
            f"{selector}.fc3.{head}",
            *unit,
            rows=Rows.CANDIDATES,
            source=Buffer.FC2,
            linear=f"{scorer}.fc3",
            head=head,
            in_features=d // 4,
            out_features=1,
            dest=Buffer.TOKEN_SCORES,
            source_bits=bits[f"{selector}.fc2.gelu"],
            input_bits=bits[f"{selector}.fc2.gelu"],
            output_bits=bits[f"{selector}.fc3"],
        )
    middle = max(heads // 2, 1)
    branch = f"{selector}.head_branch"
    yield Step(
        f"{branch}.fc1",
        *unit,
        rows=Rows.CANDIDATES,
        source=Buffer.X,
        linear=f"{branch}.fc1",
        in_features=model.embed_dim,
        out_features=middle,
        epilogue=Epilogue.GELU,
        dest=Buffer.BRANCH_HIDDEN,
        source_bits=residual_bits,
        input_bits=residual_bits,
        gelu_bits=bits[f"{branch}.fc1"],
        output_bits=bits[f"{branch}.fc1.gelu"],
    )
    yield Step(
        f"{branch}.fc2",
        *unit,
        rows=Rows.CANDIDATES,
        source=Buffer.BRANCH_HIDDEN,
        linear=f"{branch}.fc2",
        in_features=middle,
        out_features=heads,
        dest=Buffer.BRANCH,
        source_bits=bits[f"{branch}.fc1.gelu"],
        input_bits=bits[f"{branch}.fc1.gelu"],
        output_bits=bits[f"{branch}.fc2"],
    )
    yield Step(
        f"{selector}.keep",
        *unit,
        op=Op.DECIDE,
        rows=Rows.CANDIDATES,
        source=Buffer.TOKEN_SCORES,
        source_bits=bits[f"{selector}.fc3"],
        branch_bits=bits[f"{branch}.fc2"],
        threshold=network.thresholds[index],
    )


def _head(network: Lowerable, residual_bits: int) -> Step:
    model, bits = network.model, network.frac_bits
    return Step(
        "head",
        "head",
        0,
        rows=Rows.FIRST,
        source=Buffer.X,
        prologue=Prologue.LAYER_NORM,
        linear="head",
        in_features=model.embed_dim * model.num_prefix_tokens,
        out_features=model.num_classes,
        dest=Buffer.LOGITS,
        source_bits=residual_bits,
        input_bits=bits["norm"],
        output_bits=bits["head"],
        epsilon=layer_norm_epsilon(model.layer_norm_eps, model.embed_dim, residual_bits),
        norm_features=model.embed_dim,
    )
