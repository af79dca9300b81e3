"""Training's speed, as a ratio to the plain transformer's."""

from spvit.training.throughput import training_throughput
from tests.spvit.training.tiny import SPEC


def test_steps_are_timed_beside_the_plain_transformers():
    pruned, plain = training_throughput(SPEC, batch=64)
    assert pruned > 0 and plain > 0  # by how much, a busy machine does not tell: make bench does
