"""From a design to its Vitis HLS project: `{path: text}`, nothing written.

The kernels are headers in `hls_templates/`, copied as they are. What is rendered holds values: the configuration, the
tables, the program, the ports. No arithmetic, no loop bodies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hw.architecture import PORT_LANES
from hw.interface import Interface
from hw.layout import Design
from hw.model.latency import pipeline_cycles
from hw.options import UNITS
from hw.program import Buffer, Epilogue, Op, Prologue, Step, Weights
from hw.templates import render
from quant import functions as f
from quant.formats import (
    ACTIVATION_BITS,
    MAX_FRAC_BITS,
    MIN_SECOND_SHIFT,
    MIN_SHIFT,
    RESIDUAL_GUARD_BITS,
    SECOND_SHIFT_BITS,
    SHIFT_BITS,
)

TEMPLATES = Path(__file__).parent.parent / "hls_templates"
STEP_FIELDS = (
    "op", "rows", "source", "source_lane", "prologue", "split", "head", "weights", "weights_lane", "in_tiles",
    "out_tiles", "epilogue", "dest", "dest_lane", "pool", "shift", "norm_shift", "epsilon", "residual_shift",
    "second_shift", "frac_bits", "aux_frac_bits", "threshold", "next_engine",
)  # fmt: skip
IDLE = ("Op::IDLE", "Rows::ALL", "Buffer::X", "0", "Prologue::NONE", "0", "0", "Weights::STREAM", "0", "1", "1",
        "Epilogue::STORE", "Buffer::WORK", "0", "false", *["0"] * 9)  # fmt: skip


def kernel_sources() -> dict[str, str]:
    """The headers that need no rendering."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.hpp"))}


@cache
def _template_texts() -> list[str]:
    """Read once, so that one process speaks of one state of them."""
    return [
        f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in sorted(TEMPLATES.iterdir()) if path.is_file()
    ]


def design_digest(design: Design, num_words: int) -> str:
    """SHA-256 of what decides the generated sources and their weights."""
    parts = [design.network.digest, repr(design.architecture), repr(design.program), str(num_words)]
    parts += _template_texts()
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def design_interface(design: Design, num_words: int) -> Interface:
    """Registers and buffers of the accelerator.

    num_words  of the weight stream
    """
    model = design.network.model
    return Interface(
        digest=int(design_digest(design, num_words)[:8], 16),
        weight_ports=design.architecture.weight_ports,
        port_words=num_words,
        img_size=model.img_size,
        in_chans=model.in_chans,
        num_classes=model.num_classes,
        num_stages=design.network.pruning.num_selectors,
        num_prefix_tokens=model.num_prefix_tokens,
        rows=design.layout.rows,
    )


def render_sources(design: Design, title: str, num_words: int) -> dict[str, str]:
    """Every C++ file under `src/`.

    num_words  of the weight stream, all ports together
    """
    network, layout = design.network, design.layout
    kernels = _kernels(design)
    context: dict[str, Any] = {
        "title": title,
        "digest": design_digest(design, num_words),
        "model": network.model,
        "pruning": network.pruning,
        "architecture": design.architecture,
        "layout": layout,
        "program": design.program,
        "ports": range(design.architecture.weight_ports),
        "port_words": num_words,
        "image_words": network.model.img_size**2 * network.model.in_chans // layout.image_lanes,
        "interface": design_interface(design, num_words),
        "fifo_words": design.architecture.fifo_words,
        "pipeline_cycles": pipeline_cycles(design.architecture),
        "logits_bits": network.frac_bits["head"],
        "logits_lane": layout.first_lane(Buffer.LOGITS),
        "kernels": kernels,
        "units": {_camel(unit): text for unit, text in UNITS.items()},
        "columns": STEP_FIELDS,
        "steps": [(step, step_fields(design, step)) for step in design.program.steps],
        "idle": IDLE,
        "constants": _constants(),
        "tables": _tables(),
    }
    sources = kernel_sources()
    for name in ("config.hpp", "tables.hpp", "program.hpp", "top.hpp", "top.cpp"):
        sources[name] = render(TEMPLATES / f"{name}.j2", context)
    names = {name for name, _ in kernels}
    for unit, description in UNITS.items():
        if _camel(unit) in names:
            own = {"name": unit, "kernel": _camel(unit), "description": description}
            sources[f"{unit}.cpp"] = render(TEMPLATES / "unit.cpp.j2", context | own)
    return sources


def step_fields(design: Design, step: Step) -> tuple[str, ...]:
    """The row of the C++ program table, in the order of `STEP_FIELDS`."""
    layout = design.layout
    head = step.head or 0
    weights_lane = 0
    if step.weights is Weights.K:
        weights_lane = head * layout.head_lanes  # within K's bank
    elif step.weights is Weights.V:
        weights_lane = head * layout.head_lanes
    elif step.op is Op.DECIDE:
        weights_lane = layout.first_lane(Buffer.BRANCH)
    source_head = step.head if step.source in (Buffer.X, Buffer.Q) else None
    dest_head = step.head if step.dest in (Buffer.CONTEXT, Buffer.TOKEN_SCORES) else None
    values: dict[str, object] = {
        "op": f"Op::{step.op.name}",
        "rows": f"Rows::{step.rows.name}",
        "source": f"Buffer::{_memory(step.source)}",
        "source_lane": layout.first_lane(step.source, source_head),
        "prologue": f"Prologue::{step.prologue.name}",
        "split": (step.in_features or 0) // 2 if step.prologue is Prologue.CONCAT else 0,
        "head": head,
        "weights": f"Weights::{step.weights.name}",
        "weights_lane": weights_lane,
        "in_tiles": layout.in_tiles(step) if step.op is Op.ENGINE else 1,
        "out_tiles": layout.out_tiles(step) if step.op is Op.ENGINE else 1,
        "epilogue": f"Epilogue::{step.epilogue.name}",
        "dest": f"Buffer::{_memory(step.dest)}",
        "dest_lane": layout.first_lane(step.dest, dest_head),
        "pool": "true" if step.pool else "false",
        "shift": score_shift(step),
        "norm_shift": f.RECIPROCAL_BITS - step.input_bits,
        "epsilon": step.epsilon,
        "residual_shift": residual_shift(step),
        "second_shift": second_shift(step),
        "frac_bits": step.source_bits if step.op is Op.DECIDE else 0,
        "aux_frac_bits": step.branch_bits,
        "threshold": step.threshold,
        "next_engine": design.program.next_engine(design.program.steps.index(step)),
    }
    return tuple(str(values[field]) for field in STEP_FIELDS)


def score_shift(step: Step) -> int:
    """What an accumulator drops to become a score, beyond MIN_SHIFT."""
    drop = step.input_bits + step.weight_bits - step.output_bits
    return drop - MIN_SHIFT if step.epilogue is Epilogue.SCORES else 0


def residual_shift(step: Step) -> int:
    """How far the residual is moved, to the guard bits below the result."""
    up = step.output_bits - step.residual_bits + RESIDUAL_GUARD_BITS
    return up if step.epilogue is Epilogue.RESIDUAL else 0


def second_shift(step: Step) -> int:
    """Bits dropped after the epilogue's multiplier."""
    if step.epilogue is Epilogue.GELU:
        return f.GELU_FRAC_BITS - step.output_bits
    if step.epilogue is Epilogue.CONTEXT:
        return f.divide_frac_bits() - (step.output_bits - step.weight_bits)
    return MIN_SECOND_SHIFT


def _memory(buffer: Buffer) -> str:
    return buffer.name if buffer in (Buffer.X, Buffer.V) else "WORK"


def _kernels(design: Design) -> list[tuple[str, list[range]]]:
    found: dict[str, list[range]] = {}
    for unit, _, span in design.program.units():
        found.setdefault(_camel(unit), []).append(span)
    return list(found.items())


def _constants() -> list[tuple[str, int, str]]:
    return [
        ("kMinShift", MIN_SHIFT, "of an accumulator; kShiftBits choose what more is dropped"),
        ("kShiftBits", SHIFT_BITS, ""),
        ("kResidualGuardBits", RESIDUAL_GUARD_BITS, "of the sum with the residual, below the result"),
        ("kMinSecondShift", MIN_SECOND_SHIFT, "after the lanes' multipliers"),
        ("kSecondShiftBits", SECOND_SHIFT_BITS, ""),
        ("kMinNormShift", f.RECIPROCAL_BITS - MAX_FRAC_BITS, "after LayerNorm's"),
        ("kExpFracBits", f.EXP_MAX_FRAC_BITS, "fraction bits of the scores, at most"),
        ("kExpGuardBits", f.EXP_GUARD_BITS, "of the table below Q0.15"),
        ("kGeluMaxFracBits", f.GELU_MAX_FRAC_BITS, ""),
        ("kGeluSegmentBits", f.GELU_SEGMENT_BITS, "segments per unit, as a power of two"),
        ("kGeluLimit", f.GELU_LIMIT, "GELU(x) is max(x, 0) from here on"),
        ("kGeluTableFracBits", f.GELU_TABLE_FRAC_BITS, ""),
        ("kMantissaBits", f.MANTISSA_BITS, "of what reciprocals are taken"),
        ("kReciprocalBits", f.RECIPROCAL_BITS, "of their results"),
        ("kReciprocalSegmentBits", f.RECIPROCAL_SEGMENT_BITS, ""),
        ("kRsqrtSegmentBits", f.RSQRT_SEGMENT_BITS, "per octave"),
        ("kReciprocalGuardBits", f.RECIPROCAL_GUARD_BITS, "of the tables below the results"),
        ("kMaxDividendBits", f.MAX_DIVIDEND_BITS, "a DSP48E2's wide factor"),
        ("kDividendGuardBits", f.DIVIDEND_GUARD_BITS, "of a dividend below the quotient"),
        ("kSigmoidMaxFracBits", f.SIGMOID_MAX_FRAC_BITS, ""),
        ("kSigmoidSegmentBits", f.SIGMOID_SEGMENT_BITS, ""),
        ("kSigmoidLimit", f.SIGMOID_LIMIT, "sigmoid(-x) is 0 from here on"),
        ("kProbabilityBits", f.PROBABILITY_BITS, "fraction bits of scores and probabilities"),
        ("kHeadWeightBits", f.HEAD_WEIGHT_BITS, ""),
    ]


def _tables() -> list[tuple[str, list[int]]]:
    tables: Mapping[str, f.Table] = {
        "Gelu": f.gelu_table(),
        "Reciprocal": f.reciprocal_table(),
        "Rsqrt": f.rsqrt_table(),
        "Sigmoid": f.sigmoid_table(),
    }
    return [("kExp", f.exp2_table().tolist())] + [
        (f"k{name}{part.capitalize()}", getattr(table, part).tolist())
        for name, table in tables.items()
        for part in ("base", "slope")
    ]


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


assert PORT_LANES * ACTIVATION_BITS == 128
