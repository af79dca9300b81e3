"""`make estimate`: the contract's keys, figures that belong together, and refusals in a sentence."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from hw.architecture import Architecture
from hw.generate import make_design
from hw.model.estimate import make_estimate, parse_kept, stream_words
from hw.program import Sizes, build_program
from hw.target import resolve_target
from hw.weights import weight_stream
from spvit.config import resolve_model
from spvit.cost import count_macs
from spvit.errors import ConfigError
from spvit_fpga.cli import run as run_command
from tests.sim.networks import random_network

main = partial(run_command, "estimate")

CONTRACT = {
    "clock_mhz", "macs", "cycles", "latency_ms", "mac_efficiency", "weight_bytes", "ddr_gbps", "dsp", "bram36", "lut",
    "ff", "fits", "by_pass",
}  # fmt: skip
ZCU102 = resolve_target("zcu102")


def document(tmp_path, *arguments: str) -> dict:
    main(["--out", str(tmp_path), *arguments])
    return json.loads((tmp_path / "estimate.json").read_text())


def test_the_contract_and_its_arithmetic(tmp_path):
    found = document(tmp_path, "--model", "deit_s")
    assert set(found) >= CONTRACT
    assert found["kind"] == "estimate"
    assert found["latency_ms"] == pytest.approx(found["cycles"] / 200e3)
    assert found["cycles"] == pytest.approx(sum(one["cycles"] for one in found["by_pass"].values()), abs=20)
    assert found["ddr_gbps"] == pytest.approx(found["weight_bytes"] / (found["latency_ms"] / 1e3) / 1e9)
    assert found["mac_efficiency"] == pytest.approx(found["macs"] / found["cycles"] / 4096)
    assert found["tokens"] == [197, 125, 81, 53]
    assert found["macs"] == pytest.approx(2.64e9, rel=0.002)
    for one in found["by_pass"].values():
        assert one["cycles"] == pytest.approx(sum(value for key, value in one.items() if key != "cycles"), abs=3)


@pytest.mark.parametrize(
    ("model", "keep", "fast_ms", "direct_ms"),
    [
        ("deit_s", "none", 6.1, 12.0),
        ("deit_s", None, 4.7, 7.1),
        ("deit_t", "none", 1.8, 3.4),
        ("deit_t", None, 1.4, 2.4),
    ],
)
def test_the_engine_is_at_its_floor(model, keep, fast_ms, direct_ms):
    """At 200 MHz, with at most 2,048 multipliers in the array; the floors are 5.8, 4.5, 1.6 and 1.25 ms."""
    for engine, bound in (((64, 64, "fast"), fast_ms), ((32, 64, "direct"), direct_ms)):
        spec = resolve_model(model, keep)
        wishes = dict(zip(("tile_in", "tile_out", "inner_product"), engine, strict=True))
        estimate = make_estimate(replace(spec, engine=wishes), ZCU102)
        assert estimate.layout.architecture.multipliers <= 2048
        assert estimate.latency_ms <= bound


@pytest.mark.parametrize("model", ["micro", "deit_digits", "deit_160", "deit_t_distilled"])
def test_the_stream_is_as_long_as_the_one_that_is_made(model):
    spec = resolve_model(model)
    network = random_network(np.random.default_rng(0), spec.model, spec.pruning)
    design = make_design(network, Architecture.for_target(ZCU102, spec.engine))
    program = build_program(Sizes(spec.model, spec.pruning))
    assert stream_words(program, design.layout) == len(weight_stream(design)[0])


def test_an_images_own_counts(tmp_path):
    asked = document(tmp_path, "--model", "deit_s", "--kept", "100,50,0")
    assert asked["tokens"] == [197, 102, 53, 4]
    spec = resolve_model("deit_s")
    assert asked["macs"] == count_macs(spec.model, spec.pruning, (100, 50, 0)).total
    everything = document(tmp_path, "--model", "deit_s", "--kept", "196,196,196")
    assert everything["tokens"] == [197] * 4
    assert everything["cycles"] > asked["cycles"]


def test_latency_grows_with_each_token():
    """No padding of tokens: each costs a cycle in each tile. Only attention's keys come in tiles, of 64."""
    spec = resolve_model("deit_t")
    estimates = [make_estimate(spec, ZCU102, (kept, kept, kept)) for kept in range(196)]
    steps = np.diff([estimate.latency_ms for estimate in estimates])
    tiles = np.diff([-(-estimate.cycles.tokens[0] // 64) for estimate in estimates])
    assert np.all(steps >= -1e-3)  # a burst more or less, where the stream is the limit
    whole = estimates[-1].latency_ms - estimates[0].latency_ms
    assert steps[tiles == 0].max() < 0.015 * whole
    assert steps[tiles == 1].max() < 0.13 * whole


def test_ultraram_is_counted_where_there_is_some(tmp_path, capsys):
    toml = tmp_path / "mine.toml"
    toml.write_text('[model]\nembed_dim = 192\nnum_heads = 3\n[engine]\ntile_in = 32\ntile_out = 32\nuram = "work"\n')
    found = document(tmp_path, "--model", str(toml), "--target", "kv260")
    assert found["uram"] > 0 and f"{found['uram']} of 64 URAM" in capsys.readouterr().out
    assert document(tmp_path, "--model", "deit_t")["uram"] == 0
    assert "URAM" not in capsys.readouterr().out


def test_a_slower_clock_takes_longer_and_says_so(tmp_path):
    fast, slow = (document(tmp_path, "--model", "deit_t", "--clock", mhz) for mhz in ("200", "150"))
    assert slow["clock_mhz"] == 150
    assert 1 < slow["latency_ms"] / fast["latency_ms"] <= 200 / 150 + 1e-3


def test_sensitivity_is_on_the_slow_side(tmp_path):
    found = document(tmp_path, "--model", "deit_s")
    assert all(value > found["latency_ms"] for value in found["sensitivity_ms"].values())


def test_it_takes_no_time(tmp_path):
    start = time.monotonic()
    make_estimate(resolve_model("deit_s"), ZCU102)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2", "--kept 1,2 has 2 numbers; deit_s has 3 selectors: give one each"),
        ("a,b,c", "--kept a,b,c must be whole numbers with commas between, as 123,78,49"),
        ("50,60,10", "--kept 50,60,10 must not increase, from 196 patches down to 0 at least"),
        ("197,6,1", "--kept 197,6,1 must not increase, from 196 patches down to 0 at least"),
        ("5,4,-1", "--kept 5,4,-1 must not increase, from 196 patches down to 0 at least"),
    ],
)
def test_counts_that_cannot_be_are_refused(text, sentence):
    with pytest.raises(ConfigError) as caught:
        parse_kept(text, resolve_model("deit_s"))
    assert str(caught.value) == sentence


def test_a_clock_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^--clock -5 must be a number from 1 to 1,000; "):
        main(["--model", "deit_t", "--clock", "-5", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_a_model_without_keep_ratios_needs_counts(tmp_path):
    toml = tmp_path / "mine.toml"
    toml.write_text("[model]\nembed_dim = 192\nnum_heads = 3\n[pruning]\nlocations = [3, 6]\n")
    with pytest.raises(ConfigError, match="keep is not set"):
        main(["--model", str(toml), "--out", str(tmp_path / "build")])
    main(["--model", str(toml), "--kept", "90,30", "--out", str(tmp_path / "build")])
    assert (tmp_path / "build" / "estimate.json").exists()
