"""This design beside SPViT's Table 4: only where the same model and the same workload are compared.

Enters: a `ModelSpec` and a `Target`. Leaves: the paper's rows, each with our estimate or with why there is none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from host.measure import PAPER_TABLE_4_MS
from hw.target import Target
from sim.report.data import DIRECT, with_engine
from spvit.config import ModelConfig, ModelSpec, resolve_model
from spvit.cost import count_macs

NO_WORK = {"name", "mean", "std", "crop", "layer_norm_eps"}
"""The fields of a model that its work does not follow from."""


@dataclass(frozen=True)
class PaperRow:
    """One of the paper's rows beside ours.

    ours_ms    on this page's engine; None where the row is of another model than the page
    direct_ms  on the engine without Winograd's product; None also where that does not fit the board
    """

    model: str
    gmacs: float
    paper_ms: float
    ours_ms: float | None = None
    direct_ms: float | None = None


def is_same_model(a: ModelConfig, b: ModelConfig) -> bool:
    """Whether they do the same work, whatever they are called and however their images are prepared."""
    return all(getattr(a, one.name) == getattr(b, one.name) for one in fields(a) if one.name not in NO_WORK)


def paper_specs() -> list[tuple[ModelSpec, float]]:
    """The paper's rows: model and workload, and ms per image as measured on its ZCU102."""
    return [
        (resolve_model(name, keep), ms)
        for name, both in PAPER_TABLE_4_MS.items()
        for keep, ms in zip(("none", None), both, strict=True)
    ]


def paper_ms(spec: ModelSpec) -> float | None:
    """What the paper measured for this very model and workload."""
    for one, ms in paper_specs():
        pruning = (spec.pruning.num_selectors, one.pruning.num_selectors)
        same_work = not any(pruning) or (
            all(pruning)
            and (spec.pruning.locations, spec.pruning.keep) == (one.pruning.locations, one.pruning.keep)
            and spec.pruning.package == one.pruning.package
        )
        if same_work and is_same_model(spec.model, one.model):
            return ms
    return None


def paper_rows(spec: ModelSpec, target: Target) -> list[PaperRow]:
    """The paper's rows; those of this model, with estimates on this engine and board, come first."""
    rows = []
    for one, ms in paper_specs():
        name = one.model.name if one.pruning.num_selectors else f"{one.model.name}, unpruned"
        gmacs = count_macs(one.model, one.pruning).total / 1e9
        if not is_same_model(spec.model, one.model):
            rows.append(PaperRow(name, gmacs, ms))
            continue
        ours, direct = with_engine(one, target, dict(spec.engine)), with_engine(one, target, DIRECT)
        direct_ms = direct.latency_ms if direct.resources.fits(target) else None
        rows.append(PaperRow(name, ours.macs / 1e9, ms, ours.latency_ms, direct_ms))
    return sorted(rows, key=lambda row: row.ours_ms is None)
