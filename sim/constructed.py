"""Inputs that no photograph brings: weights at the ends of int16, equal scores, nothing dropped, everything dropped.

Enters: a network. Leaves: networks of the same sizes and formats, which its compiled design runs as it stands, since
weights are data. Each layer's tensors and each selector's decision are drawn anew, so that a few cases reach every
saturating place, every tie and the least token counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.program import Op, Program, Step
from hw.weights import shifts
from quant.functions import sigmoid
from quant.network import QuantizedLinear, QuantizedNetwork
from spvit.config import ModelConfig
from spvit.errors import NetworkError

LEAST, LARGEST = -(2**15), 2**15 - 1
ENDS = np.array([LEAST, LEAST + 1, LARGEST, LARGEST, -1, 0, 1], np.int16)
Tensor = NDArray[np.int16]
Draw = Callable[[np.random.Generator, Tensor], Tensor]
DRAWS: tuple[Draw, ...] = (
    lambda rng, tensor: tensor,
    lambda rng, tensor: rng.permutation(tensor.reshape(-1)).reshape(tensor.shape),
    lambda rng, tensor: rng.choice(ENDS, tensor.shape),
    lambda rng, tensor: np.full_like(tensor, rng.choice(ENDS)),  # constant rows: no variance, equal scores
)
"""What takes a tensor's place."""
SCORES = (None, LARGEST, LEAST)
"""Of every token of a selector: as the network has them, none dropped, all dropped."""


@dataclass(frozen=True)
class Case:
    """pixels  uint8 [S, S, in_chans]"""

    name: str
    network: QuantizedNetwork
    pixels: NDArray[np.uint8]


def cases(network: QuantizedNetwork, program: Program, count: int) -> Iterator[Case]:
    """`count` of them; the first are the plainest."""
    plain = [
        ("ends of int16", with_drawn_tensors(network, program, 0, (DRAWS[2],))),
        ("all dropped", deciding(with_drawn_tensors(network, program, 1, (DRAWS[1],)), 0, LEAST)),
        ("all equal", with_drawn_tensors(network, program, 2, (DRAWS[3],))),
        ("just kept", at_thresholds(with_drawn_tensors(network, program, 3, (DRAWS[1],)), kept=True)),
        ("just dropped", at_thresholds(with_drawn_tensors(network, program, 4, (DRAWS[1],)), kept=False)),
    ]
    if not network.pruning.num_selectors:
        plain = [(name, one) for name, one in plain if name in ("ends of int16", "all equal")]
    images = [
        random_image(network.model, 0),
        *(np.full_like(random_image(network.model, 0), value) for value in (0, 255)),
    ]
    for number in range(count):
        if number < len(plain):
            yield Case(*plain[number], images[number % len(images)])
        else:
            yield Case(f"seed {number}", mixed(network, program, number), random_image(network.model, number))


def random_image(model: ModelConfig, seed: int) -> NDArray[np.uint8]:
    """[S, S, in_chans]"""
    shape = (model.img_size, model.img_size, model.in_chans)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def mixed(network: QuantizedNetwork, program: Program, seed: int) -> QuantizedNetwork:
    """Each layer's tensors and each selector's scores drawn from all that there are."""
    rng = np.random.default_rng(seed)
    network = with_drawn_tensors(network, program, seed, DRAWS)
    for selector in range(network.pruning.num_selectors):
        score = SCORES[rng.integers(len(SCORES))]
        if score is not None:
            network = deciding(network, selector, score)
    return network


def with_drawn_tensors(
    network: QuantizedNetwork, program: Program, seed: int, draws: tuple[Draw, ...]
) -> QuantizedNetwork:
    """Weights, biases and position of the same sizes; a layer whose sums the engine could not hold stays as it is."""
    rng = np.random.default_rng(seed)
    steps = {step.linear: step for step in program.steps if step.op is Op.ENGINE and step.linear}
    for name, linear in network.linears.items():
        weight, bias = (draws[rng.integers(len(draws))](rng, tensor) for tensor in (linear.weight, linear.bias))
        drawn = replace(linear, weight=weight, bias=bias)
        if name in steps and _fits(steps[name], drawn):
            network = replace(network, linears={**network.linears, name: drawn})
    return replace(network, position=draws[rng.integers(len(draws))](rng, network.position))


def _fits(step: Step, linear: QuantizedLinear) -> bool:
    try:
        shifts(step, linear)
    except NetworkError:
        return False
    return True


def with_linear(network: QuantizedNetwork, name: str, **fields: Any) -> QuantizedNetwork:
    """The network with one layer's weight or bias replaced."""
    return replace(network, linears={**network.linears, name: replace(network.linears[name], **fields)})


def deciding(network: QuantizedNetwork, selector: int, scores: int) -> QuantizedNetwork:
    """The network with every token of one selector given the same scores, int16: all stay, or all go."""
    for name, linear in network.linears.items():
        if name.startswith(f"selectors.{selector}.scorers.") and name.endswith(".fc3"):
            network = with_linear(network, name, **_constant(network, f"selectors.{selector}.fc3", linear, scores))
    return network


def at_thresholds(network: QuantizedNetwork, kept: bool) -> QuantizedNetwork:
    """The network with every token's scores the nearest to the threshold that keep it, equal to it where there is such
    a score; or that drop it."""
    for selector, threshold in enumerate(network.thresholds):
        every = np.arange(LEAST, LARGEST + 1)
        probability = sigmoid(every.astype(np.float64), network.frac_bits[f"selectors.{selector}.fc3"])
        found = every[(probability >= threshold) == kept]
        if len(found):
            network = deciding(network, selector, int(found.min() if kept else found.max()))
    return network


def _constant(network: QuantizedNetwork, result: str, linear: QuantizedLinear, value: int) -> dict[str, Any]:
    """The fields of a layer that gives `value` in its result's format, whatever enters."""
    return {
        "weight": np.zeros_like(linear.weight),
        "bias": np.full_like(linear.bias, value),
        "bias_frac_bits": min(linear.bias_frac_bits, network.frac_bits[result]),
    }
