"""From a design to its Vitis HLS project: `{path: text}`, nothing written.

The kernels are headers in `hls_templates/`, copied as they are. What is rendered holds values: the configuration, the
tables, the records' fields, the ports. No arithmetic, no loop bodies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from hw.hardware import Hardware
from hw.interface import Interface
from hw.model.latency import pipeline_cycles
from hw.options import UNITS
from hw.step_table import ENUMERATIONS, HEADER, STEP, VERSION, Field
from hw.steps import Memory
from hw.templates import render
from quant import functions as f
from quant.formats import (
    MAX_FRAC_BITS,
    MIN_SECOND_SHIFT,
    MIN_SHIFT,
    RESIDUAL_GUARD_BITS,
    SECOND_SHIFT_BITS,
    SHIFT_BITS,
)

TEMPLATES = Path(__file__).parent.parent / "hls_templates"


def kernel_sources() -> dict[str, str]:
    """The headers that need no rendering."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(TEMPLATES.glob("*.hpp"))}


@cache
def _template_texts() -> list[str]:
    """Read once, so that one process speaks of one state of them."""
    return [
        f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in sorted(TEMPLATES.iterdir()) if path.is_file()
    ]


def design_digest(hardware: Hardware) -> str:
    """SHA-256 of what decides the generated sources: capacities, engine, kernels. Nothing of a network."""
    parts = [repr(hardware.capacities), repr(hardware.architecture), str(VERSION), *_template_texts()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def design_interface(hardware: Hardware) -> Interface:
    """Registers and buffers of the accelerator."""
    room = hardware.capacities
    return Interface(
        digest=int(design_digest(hardware)[:8], 16),
        weight_ports=hardware.architecture.weight_ports,
        port_words=hardware.most_words,
        stripe_lanes=hardware.architecture.stripe_lanes,
        image_lanes=hardware.image_lanes,
        image_words=room.image_dim // hardware.image_lanes,
        num_classes=room.num_classes,
        num_stages=room.num_selectors,
        rows=hardware.rows,
    )


def render_sources(hardware: Hardware, title: str) -> dict[str, str]:
    """Every C++ file under `src/`."""
    architecture, interface = hardware.architecture, design_interface(hardware)
    context: dict[str, Any] = {
        "title": title,
        "digest": design_digest(hardware),
        "architecture": architecture,
        "layout": hardware,
        "capacities": hardware.capacities,
        "ports": range(architecture.weight_ports),
        "port_words": interface.port_words,
        "port_beats": interface.port_words * architecture.beats_per_word,
        "image_words": interface.image_words,
        "interface": interface,
        "fifo_words": architecture.fifo_words,
        "pipeline_cycles": pipeline_cycles(architecture),
        "units": UNITS,
        "table": _table(),
        "constants": _constants(),
        "tables": _tables(),
    }
    sources = kernel_sources()
    for name in ("config.hpp", "tables.hpp", "step.hpp", "top.hpp", "top.cpp"):
        sources[name] = render(TEMPLATES / f"{name}.j2", context)
    for unit, description in context["units"].items():
        own = {"name": unit, "description": description}
        sources[f"{unit}.cpp"] = render(TEMPLATES / "unit.cpp.j2", context | own)
    return sources


def _table() -> dict[str, Any]:
    """What the template of step.hpp says of `hw.step_table`."""
    return {
        "version": VERSION,
        "enumerations": [(_cpp_name(choices), [choice.name for choice in choices]) for choices in ENUMERATIONS],
        "records": [
            {
                "name": record.name.capitalize(),
                "members": [
                    {
                        "type": _cpp_type(field),
                        "name": field.name,
                        "meaning": field.meaning,
                        "first": record.first_bit(field.name),
                        "bits": field.bits,
                    }
                    for field in record.fields
                ],
            }
            for record in (HEADER, STEP)
        ],
    }


def _cpp_name(choices: type[Enum]) -> str:
    return "Buffer" if choices is Memory else choices.__name__


def _cpp_type(field: Field) -> str:
    if field.choices is not None:
        return _cpp_name(field.choices)
    return "bool" if field.is_flag else "number"


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
