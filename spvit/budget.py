"""Keep ratios that meet a limit of cost: MACs, milliseconds, whatever can be told from how many patches are kept.

Enters: a model, where its selectors sit, a cost, a limit. Leaves: keep ratios. They fall by the same factor from each
selector to the next, as the registry's do, and are the largest for which the cost stays within the limit (the paper's
Eq. 10, met to the patch).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

from spvit.config import ModelConfig, PruningConfig
from spvit.cost import num_units
from spvit.errors import ConfigError

Cost = Callable[[Sequence[int]], float]
"""Of the patches kept after each selector, non-increasing; grows with them."""


def solve_keep(
    model: ModelConfig, pruning: PruningConfig, cost: Cost, limit: float, unit: str = ""
) -> tuple[float, ...]:
    """The largest geometric keep ratios, one per selector, whose cost is within the limit; () without selectors.

    cost   of one image
    limit  in the cost's unit; `unit` names it in messages
    Raises ConfigError, with the least possible cost, where the limit can't be met.
    """
    units = num_units(model, pruning)
    chain = geometric_counts(units, _powers(model, pruning))
    least = cost(chain[0])
    if not least <= limit:
        fewest = "with one patch left after each selector" if pruning.num_selectors else "without selectors"
        raise ConfigError(
            f"{model.name}: a budget of {_amount(limit, unit)} cannot be met, {fewest} it still takes "
            f"{_amount(least, unit)}; allow at least that, or choose a smaller model"
        )
    within, beyond = 0, len(chain)
    while beyond - within > 1:
        middle = (within + beyond) // 2
        within, beyond = (middle, beyond) if cost(chain[middle]) <= limit else (within, middle)
    keep = keep_ratios(chain[within], units)
    # roundings of a coarser grid may seem to keep more than those of the finer one before
    return tuple(accumulate(keep, min)) if pruning.after_pooling == "carry" else keep


def _powers(model: ModelConfig, pruning: PruningConfig) -> list[int]:
    """How many selectors have thinned the tokens behind each; where all live again behind a pooling, of its stage."""
    stages = [model.stage_of(location).index for location in pruning.locations]
    if pruning.after_pooling == "carry":
        stages = [0] * len(stages)
    return [stages[: place + 1].count(stage) for place, stage in enumerate(stages)]


def geometric_counts(units: Sequence[int], powers: Sequence[int]) -> list[tuple[int, ...]]:
    """Every rounding of N rho, N rho^2, ... for rho from where one patch is left to 1, increasing.

    units   N of each selector
    powers  of rho, likewise
    """
    if not units:
        return [()]
    each = list(zip(units, powers, strict=True))
    # between two of these no count changes
    borders = sorted({((count + 0.5) / number) ** (1 / power) for number, power in each for count in range(number)})
    middles = [(a + b) / 2 for a, b in zip(borders, (*borders[1:], 1.0), strict=True)]
    return sorted({tuple(max(1, round(number * rho**power)) for number, power in each) for rho in middles})


def keep_ratios(kept: Sequence[int], units: Sequence[int]) -> tuple[float, ...]:
    """Fractions of each selector's N, with as many digits as it takes to round to these counts again."""
    return tuple(round(count / number, len(str(number))) for count, number in zip(kept, units, strict=True))


def _amount(value: float, unit: str) -> str:
    return f"{value:.5g} {unit}".strip()
