"""The Verilog lanes whose LUTs are counted compute what the kernels do: in Verilator, against Python.

Each lane's inputs stand still until its registers have settled: pipeline depths are not what is compared.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from hw.model.measure import LANES
from quant import functions as f
from quant.formats import MAX_SHIFT, MIN_SECOND_SHIFT, MIN_SHIFT, RESIDUAL_GUARD_BITS, requantize

pytestmark = [pytest.mark.slow, pytest.mark.needs("verilator")]
VALUE, SQUARE, Z, P, FAST, DIRECT, TOTAL, LARGEST = range(8)
LANE = 37  # of exp_lane.v
MODULES = ("epilogue_lane", "norm_lane", "exp_lane", "column", "sum_tree", "max_tree", "adder3", "adder", "cut",
           "round_half_even", "saturate", "requantize")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(vectors) -> what comes out [n, 8], for each line of inputs."""
    folder = tmp_path_factory.mktemp("lanes")
    bench = Path(__file__).with_name("lanes.sv")
    sources = [str(bench), *(str(LANES / f"{name}.v") for name in MODULES)]
    subprocess.run(
        ["verilator", "--binary", "--timing", "-Wno-fatal", "-Wno-lint", "-O1", "--top-module", "bench", "-o", "bench",
         "--Mdir", str(folder), *sources],
        check=True, capture_output=True,
    )  # fmt: skip
    gelu = f.gelu_table()
    for name, table, bits in (
        ("gelu_base", gelu.base, 19),
        ("gelu_slope", gelu.slope, 15),
        ("exp", f.exp2_table(), 18),
    ):
        assert np.all((table >= -(1 << (bits - 1))) & (table < 1 << bits))
        words = [int(value) & ((1 << bits) - 1) for value in table]
        depth = 1024 if name == "exp" else 256
        (folder / f"{name}.hex").write_text("".join(f"{word:x}\n" for word in words + [0] * (depth - len(words))))

    def call(vectors):
        lines = [" ".join(map(str, (len(vector), *(int(value) for value in vector)))) for vector in vectors]
        (folder / "vectors.txt").write_text("\n".join([*lines, "0"]) + "\n")
        out = subprocess.run([str(folder / "bench")], cwd=folder, check=True, capture_output=True, text=True).stdout
        rows = [list(map(int, line[1:].split())) for line in out.splitlines() if line.startswith("=")]
        assert len(rows) == len(vectors)
        return np.array(rows)

    return call


def accumulators(rng, n):
    return rng.integers(-(2**46), 2**46, n) >> rng.integers(0, 44, n)


def test_epilogue_lane(run):
    rng = np.random.default_rng(0)
    n = 400
    sums, shift = accumulators(rng, n), rng.integers(MIN_SHIFT, MAX_SHIFT + 1, n)
    ties = rng.random(n) < 0.4
    sums = np.where(ties, ((sums >> shift) << shift) + (1 << (shift - 1)) + rng.integers(-1, 2, n), sums)
    residual, left = rng.integers(-32768, 32768, n), rng.integers(0, 8, n)
    drop = rng.integers(MIN_SECOND_SHIFT, MIN_SECOND_SHIFT + 8, n)
    acc, gelu_bits = sums.astype(float), rng.integers(0, f.GELU_MAX_FRAC_BITS + 1, n)

    def inputs(gelu=0, context=0, is_residual=0, mantissa=0, sums=sums, shift=shift):
        columns = (
            gelu,
            context,
            is_residual,
            sums,
            residual,
            shift - MIN_SHIFT,
            left,
            drop - MIN_SECOND_SHIFT,
            mantissa,
            f.GELU_MAX_FRAC_BITS - gelu_bits,
        )
        return np.stack(np.broadcast_arrays(*columns), axis=1)

    rounded = requantize(acc, shift)
    assert np.array_equal(run(inputs())[:, VALUE], rounded)
    got = run(inputs(is_residual=1))
    expected = requantize(acc + residual * 2.0 ** (shift + left - RESIDUAL_GUARD_BITS), shift)
    assert np.array_equal(got[:, VALUE], expected) and np.array_equal(got[:, SQUARE], expected * expected)
    exact = np.array([f.gelu(one, int(bits)) for one, bits in zip(rounded, gelu_bits, strict=True)])
    assert np.array_equal(run(inputs(gelu=1))[:, VALUE], requantize(exact, drop))

    total = rng.integers(f.EXP_ONE, f.EXP_ONE * 1023, n)
    weighted = (rng.uniform(-1, 32767 / 32768, n) * total * 2**15).astype(np.int64)
    exponent = np.floor(np.log2(total)).astype(int)
    ratio = f.divide(weighted[:, None].astype(float), total[:, None].astype(float))[:, 0]
    cut = requantize(weighted.astype(float), exponent + 17 - f.dividend_bits(), f.dividend_bits())
    mantissa = np.where(cut != 0, ratio / np.where(cut != 0, cut, 1), 0)
    context = inputs(context=1, mantissa=mantissa, sums=weighted, shift=exponent + 17 - f.dividend_bits())
    assert np.array_equal(run(context)[:, VALUE], requantize(ratio, drop))


def test_norm_lane(run):
    rng = np.random.default_rng(1)
    n = 400
    channels, x = rng.integers(1, 1024, n), rng.choice([-32768, 32767, -1, 0, 5, 1234, -20000], n)
    total = (x + rng.integers(-65535, 65536, n)).clip(-32768, 32767) * (channels - 1) + x
    mantissa, shift = rng.integers(2**16, 2**17, n), rng.integers(3, 45, n)
    got = run(np.stack([channels, x, total, mantissa, shift - 3], axis=1))
    assert np.array_equal(got[:, Z], requantize((channels * x - total).astype(float) * mantissa, shift))


def test_exp_lane(run):
    rng = np.random.default_rng(2)
    n = 600
    score = rng.integers(-32768, 32768, n)
    largest = np.minimum(score + (rng.integers(0, 2**16, n) >> rng.integers(0, 16, n)), 32767)
    tile, tokens = rng.integers(0, 16, n), rng.integers(1, 1024, n)
    bits = rng.integers(0, f.EXP_MAX_FRAC_BITS + 1, n)
    got = run(np.stack([tile, tokens, largest, score, f.EXP_MAX_FRAC_BITS - bits], axis=1))
    distances = (largest - score).astype(float)
    expected = np.array([f.exp2_negative(t, int(b)) for t, b in zip(distances, bits, strict=True)])
    assert np.array_equal(got[:, P], np.where(64 * tile + LANE < tokens, expected, 0))


def test_columns_and_trees(run):
    rng = np.random.default_rng(3)
    n = 300
    ends = rng.choice([-32768, 32767, 0, -1], (n, 32))
    lanes = np.where(rng.random((n, 1)) < 0.3, ends, rng.integers(-32768, 32768, (n, 32)))
    a, w = lanes[:, :16], lanes[:, 16:]
    first, bias, before = rng.integers(0, 2, n), accumulators(rng, n), accumulators(rng, n)
    tile, tokens = first, rng.integers(0, 40, n)  # the largest of the tile's tokens
    half = (a[:, :8] * a[:, 8:]).sum(axis=1) + (w[:, :8] * w[:, 8:]).sum(axis=1)
    gathered = np.where(first, 0, before) + bias + (a * w).sum(axis=1)
    got = run(np.column_stack([first, half, bias, before, a, w]))
    assert np.array_equal(got[:, FAST], gathered)
    assert np.array_equal(got[:, DIRECT], gathered - half)
    assert np.array_equal(got[:, TOTAL], a.sum(axis=1))

    got = run(np.column_stack([tile, tokens, bias, before, a, w]))
    valid = 16 * tile[:, None] + np.arange(16) < tokens[:, None]
    assert np.array_equal(got[:, LARGEST], np.where(valid, a, -32768).max(axis=1))
