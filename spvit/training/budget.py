"""What a model may cost: BUDGET=2.64GMACs, BUDGET=6ms TARGET=zcu102, BUDGET=1.2Mcycles, or COST= for a cost of yours.

Enters: these texts and a model. Leaves: a `Budget`, a limit with the function that counts towards it. The accelerator's
costs come from the hardware half, which is asked for only here and by name: SPViT itself needs none of it.
"""

import importlib
import importlib.util
import math
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spvit.budget import Cost
from spvit.config import ModelConfig, ModelSpec, PruningConfig
from spvit.cost import count_macs
from spvit.errors import ConfigError
from spvit.schema import Number, shown, shown_text

DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
PREFIXES = {"MACs": DECIMAL, "ms": {"": 1.0}, "cycles": DECIMAL}
OF_THE_BOARD = {"ms": "hw.model.budget:latency_ms", "cycles": "hw.model.budget:cycles"}
UNITS = tuple(PREFIXES)

COST = Number(-1e30, 1e30)


@dataclass(frozen=True)
class Budget:
    """A limit of an image's mean cost, in `unit`; `cost` is that of the patches kept after each selector."""

    limit: float
    unit: str
    cost: Cost


CostOf = Callable[[ModelSpec], Cost]
"""The cost function of a model, whose selectors' places may still be sought."""


def parse_budget(text: str | None, cost: str | None, target: str | None) -> tuple[float, str, CostOf] | None:
    """Limit, unit and cost that the texts ask for; None: no budget was given. Raises ConfigError.

    text    a number and a unit; a number alone with `cost`
    cost    FILE.py:FUNCTION, called as function(model, pruning, kept)
    target  the board, for ms and cycles
    """
    if text is None:
        if cost is not None:
            raise ConfigError(
                f"COST={shown_text(cost)} says how to count, but not how much may be spent; give BUDGET=, too"
            )
        return None
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(\S*)\s*", text)
    if found and cost is not None and _is_positive(found[1]):
        return float(found[1]), found[2], _from_file(cost)
    unit = next((unit for unit in UNITS if found and found[2].endswith(unit)), "")
    prefix = found[2].removesuffix(unit) if found else ""
    if not found or not unit or prefix not in PREFIXES[unit] or not _is_positive(found[1]):
        raise ConfigError(
            f"BUDGET={shown_text(text)} must be a number with a unit, as 2.64GMACs, 6ms or 1.2Mcycles; "
            "with COST=FILE.py:FUNCTION its unit is yours"
        )
    limit = float(found[1]) * PREFIXES[unit][prefix]
    if unit in OF_THE_BOARD:
        if target is None:
            raise ConfigError(f"BUDGET={shown_text(text)} needs the board that it is counted on; add TARGET=zcu102")
        return limit, unit, _of_the_board(OF_THE_BOARD[unit], target)
    return limit, unit, _macs


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _macs(spec: ModelSpec) -> Cost:
    return lambda kept: count_macs(spec.model, spec.pruning, kept).total


def macs_budget(spec: ModelSpec) -> Budget:
    """What the configured keep ratios cost, in MACs."""
    return Budget(count_macs(spec.model, spec.pruning).total, "MACs", _macs(spec))


def _of_the_board(place: str, target: str) -> CostOf:
    module, name = place.split(":")
    resolved = importlib.import_module("hw.target").resolve_target(target)
    make = getattr(importlib.import_module(module), name)

    def cost_of(spec: ModelSpec) -> Cost:
        cost: Cost = make(spec, resolved)
        return cost

    return cost_of


def _place(error: BaseException, path: str) -> str:
    """What a user's file raised, and at which of its lines."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == Path(path).resolve()]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    where = "" if line is None else f" at line {line}"
    return f"{type(error).__name__}{where}: {shown_text(' '.join(str(error).split()))}"


def _from_file(text: str) -> CostOf:
    asked = f"COST={shown_text(text)}"
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ConfigError(f"{asked} must be FILE.py:FUNCTION, a function of model, pruning and kept patches")
    if not Path(path).is_file():
        raise ConfigError(f"{asked}: there is no file {path}")
    spec = importlib.util.spec_from_file_location("spvit_own_cost", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the file is the user's, and may raise anything
        raise ConfigError(f"{asked}: {path} cannot be run ({_place(error, path)}); mend it there") from None
    function: Callable[[ModelConfig, PruningConfig, Sequence[int]], Any] | None = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{asked}: {path} has no function {name}")

    def cost_of(spec: ModelSpec) -> Cost:
        def cost(kept: Sequence[int]) -> float:
            try:
                value = function(spec.model, spec.pruning, kept)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
                raise ConfigError(
                    f"{asked}: {name} stopped for kept={shown(list(kept))} ({_place(error, path)}); mend it there"
                ) from None
            if not COST.takes(value):
                raise ConfigError(
                    f"{asked}: {name} gave {shown(value)} for kept={shown(list(kept))}, but a cost must be "
                    f"{COST.wanted}"
                )
            return float(value)

        return cost

    return cost_of
