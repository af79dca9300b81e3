"""Training's speed, as a ratio to the plain transformer's."""

from spvit.training.throughput import training_throughput
from tests.spvit.training.tiny import SPEC


def test_a_step_with_selectors_and_teacher_costs_more_than_a_plain_one():
    pruned, plain = training_throughput(SPEC, batch=64)
    assert 0.05 < pruned / plain < 1
