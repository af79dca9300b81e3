"""One kernel at a time: each top of its own, fed with what the golden brings to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.layout import Design
from hw.program import Buffer, Epilogue, Op
from sim.bridge import Accelerator, UnitResult
from sim.compare import Comparison, Mismatch, compare_taps
from sim.golden import GoldenResult


@dataclass(frozen=True)
class Entry:
    """What a kernel finds when its turn comes.

    x             int16 [num_tokens, C], the residual stream
    num_packages  of its last rows
    selection     int32 [num_tokens, 2] keep, probability, as the selector before left them
    """

    unit: str
    index: int
    x: NDArray[np.int16]
    num_packages: int
    selection: NDArray[np.int32]


def entries(design: Design, golden: GoldenResult, image: int = 0) -> Iterator[Entry]:
    """Every kernel of the program in order, with its entry. `golden` must have its taps."""
    prefix = design.network.model.num_prefix_tokens
    x = design.network.position.astype(np.int32)
    packages = 0
    selection = np.zeros((len(x), 2), np.int32)
    for unit, index, span in design.program.units():
        yield Entry(unit, index, x.astype(np.int16), packages, selection)
        for step in (design.program.steps[i] for i in span):
            tap = golden.taps[step.name][image]
            if step.op is Op.DECIDE:
                selection = np.zeros((len(x), 2), np.int32)
                selection[prefix : prefix + len(tap)] = tap
            elif step.op is Op.PACKAGE:
                patches_left = int(selection[:, 0].sum())
                x, packages = tap, len(tap) - prefix - patches_left
            elif step.dest is Buffer.X and step.epilogue is Epilogue.RESIDUAL:
                x = np.concatenate([x[: len(x) - len(tap)], tap])


def compare_unit(accelerator: Accelerator, unit: str, golden: GoldenResult, image: int = 0) -> Comparison:
    """Run each of the model's kernels called `unit` alone; compare its taps, and what it hands on."""
    design = accelerator.design
    taps, values, mismatches = 0, 0, list[Mismatch]()
    found = list(entries(design, golden, image))
    for position, entry in enumerate(found):
        if entry.unit != unit:
            continue
        given = entry.selection if unit == "token_packager" else None
        result = accelerator.run_unit(unit, entry.index, entry.x, entry.num_packages, given)
        comparison = compare_taps(design, result.trace, golden, image)
        taps, values = taps + comparison.taps + 1, values + comparison.values
        mismatches += [*comparison.mismatches, *_handed_on(result, entry, found[position + 1])]
    return Comparison(taps, values, tuple(mismatches))


def _handed_on(result: UnitResult, entry: Entry, following: Entry) -> Iterator[Mismatch]:
    """The residual stream and token counts always; keep and probability where the selector wrote them."""
    name = f"{entry.unit}.{entry.index}"
    for what, csim, golden in (
        ("tokens", result.num_tokens, len(following.x)),
        ("packages", result.num_packages, following.num_packages),
    ):
        if csim != golden:
            yield Mismatch(f"{name}.{what}", (0, 0), csim, golden, 1)
    vectors: list[tuple[str, NDArray[Any], NDArray[Any]]] = []
    if len(result.x) == len(following.x):
        vectors.append(("x", result.x, following.x))
    if entry.unit == "token_selector":
        vectors.append(("selection", result.selection, following.selection))
    for what, ours, expected in vectors:
        different = np.argwhere(ours != expected)
        if len(different):
            row, column = (int(i) for i in different[0])
            yield Mismatch(
                f"{name}.{what}", (row, column), int(ours[row, column]), int(expected[row, column]), len(different)
            )
