"""Keep ratios that meet a limit of cost: MACs, milliseconds, whatever can be told from how many patches are kept.

Enters: a model, where its selectors sit, a cost, a limit. Leaves: keep ratios. They fall by the same factor from each
selector to the next, as the registry's do, and are the largest for which the cost stays within the limit (the paper's
Eq. 10, met to the patch).
"""

from collections.abc import Callable, Sequence

from spvit.config import ModelConfig, PruningConfig
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
    chain = geometric_counts(model.num_patches, pruning.num_selectors)
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
    return keep_ratios(chain[within], model.num_patches)


def geometric_counts(num_patches: int, selectors: int) -> list[tuple[int, ...]]:
    """Every rounding of N rho, N rho^2, ... for rho from where one patch is left to 1, increasing."""
    if selectors == 0:
        return [()]
    powers = range(1, selectors + 1)
    # between two of these no count changes
    borders = sorted({((count + 0.5) / num_patches) ** (1 / power) for power in powers for count in range(num_patches)})
    middles = [(a + b) / 2 for a, b in zip(borders, (*borders[1:], 1.0), strict=True)]
    return sorted({tuple(max(1, round(num_patches * rho**power)) for power in powers) for rho in middles})


def keep_ratios(kept: Sequence[int], num_patches: int) -> tuple[float, ...]:
    """Fractions, with as many digits as it takes to round to these counts again."""
    return tuple(round(count / num_patches, len(str(num_patches))) for count in kept)


def _amount(value: float, unit: str) -> str:
    return f"{value:.5g} {unit}".strip()
