"""The benchmarks run, and compare like with like; what they find is for `make bench` to say."""

from __future__ import annotations

import pytest

from quant.options import BuildOptions
from quant.quantize import ensure_network
from sim.bench import bench_estimate, bench_explore, bench_timed_csim, bench_training


@pytest.mark.parametrize("bench", [bench_estimate, bench_explore])
def test_the_closed_forms(bench):
    figure = bench("micro")
    assert figure.unit == "s" and figure.goal.startswith("<= ")
    assert figure.value > figure.yardstick_value > 0  # the whole is more than its part


@pytest.mark.slow
def test_the_timed_c_simulation(tmp_path):
    options = BuildOptions(model="micro", out=tmp_path)
    ensure_network(options)
    figure = bench_timed_csim(options)
    assert figure.ratio > 1  # counting costs time


def test_training():
    figure = bench_training("micro")
    assert figure.unit == "images/s"
    assert figure.ratio > 0  # how much, a busy machine does not tell
