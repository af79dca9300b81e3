"""The engine's sizes: what is accepted, and the sentences for what is not."""

import itertools
import json
from dataclasses import asdict, replace

import pytest

from hw.architecture import TILE_SIZES, Architecture
from hw.target import resolve_target
from spvit.errors import ConfigError
from spvit.schema import from_table

ZCU102 = resolve_target("zcu102")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tile_in": 48}, "[engine] tile_in=48 must be one of 8, 16, 32, 64, 128"),
        ({"tile_out": 0}, "[engine] tile_out=0 must be one of 8, 16, 32, 64, 128"),
        ({"inner_product": "quick"}, "[engine] inner_product='quick' must be one of fast, direct"),
        (
            {"tile_in": 16},
            "[engine] 4 ports bring 32 weights per cycle, which must divide tile_in=16 and 4 * tile_out=64; use fewer ports",
        ),
        (
            {"weight_ports": 0},
            "[engine] weight_ports=0 must be a whole number from 1 to 64",
        ),
        (
            {"tile_out": 8, "weight_ports": 8},
            "[engine] 8 ports bring 64 weights per cycle, which must divide tile_in=64 and 4 * tile_out=8; use fewer ports",
        ),
        (
            {"fill_lanes": 16},
            "[engine] fill_lanes=16 must be a multiple of the 32 weights that 4 ports bring, and divide tile_in=64 and "
            "4 * tile_out=64; leave it out",
        ),
        (
            {"port_bits": 64},
            "[engine] port_bits=64 must be one of 128, 256, 512",
        ),
        (
            {"fifo_words": 1000},
            "[engine] fifo_words=1000 must be one of 512, 1024, 2048, 4096, 8192, 16384, 32768",
        ),
        (
            {"uram": ("x", "v")},
            "[engine] uram='v' must be one of x, work, weights",
        ),
    ],
)
def test_impossible_engines_are_one_sentence(fields, sentence):
    with pytest.raises(ConfigError) as refused:
        Architecture(**fields)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ({"tile_in": "64"}, "tile_in='64' must be one of 8, 16, 32, 64, 128"),
        ({"tile_out": 8.0}, "tile_out=8.0 must be one of 8, 16, 32, 64, 128"),
        ({"inner_product": 1}, "inner_product=1 must be one of fast, direct"),
        ({"fifo_words": "4096"}, "fifo_words='4096' must be one of 512, 1024, 2048, 4096, 8192, 16384, 32768"),
        ({"weight_ports": 2.0}, "weight_ports=2.0 must be a whole number from 1 to 64"),
        ({"uram": 1}, "uram=1 must be a list of at most 3 memories"),
        ({"uram": ["x", 1]}, "uram=1 must be one of x, work, weights"),
        ({"uram": {}}, "uram={} must be a list of at most 3 memories"),
        (
            {"weight_ports": 10**5000},
            "weight_ports=a number of thousands of digits must be a whole number from 1 to 64",
        ),
    ],
)
def test_wrong_types_of_a_toml_are_one_sentence(engine, sentence):
    with pytest.raises(ConfigError) as refused:
        Architecture.for_target(ZCU102, engine)
    assert str(refused.value) == f"[engine] {sentence}"


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ({"weight_ports": 8}, "[engine] weight_ports=8 is more than zcu102 has: 4"),
        ({"uram": "x"}, "[engine] uram='x': zcu102 has no UltraRAM; leave it out"),
    ],
)
def test_what_the_board_has_not_is_one_sentence(engine, sentence):
    with pytest.raises(ConfigError) as refused:
        Architecture.for_target(ZCU102, engine)
    assert str(refused.value) == sentence


def test_everything_can_be_asked_for():
    asked = {"tile_in": 32, "tile_out": 32, "weight_ports": 2, "fifo_words": 8192, "uram": "weights, x"}
    asked |= {"port_bits": 128, "fill_lanes": 16}
    engine = Architecture.for_target(resolve_target("kv260"), asked)
    assert engine == Architecture(32, 32, "fast", 2, 8192, ("x", "weights"), 128, 16)
    assert (engine.port_lanes, engine.stripe_lanes, engine.beats_per_word) == (8, 8, 1)
    assert from_table(Architecture, json.loads(json.dumps(asdict(engine))), "engine") == engine


def test_the_default_is_64_by_64_fast_on_all_four_ports():
    engine = Architecture.for_target(ZCU102, {})
    assert engine == Architecture(64, 64, "fast", 4, port_bits=256, fill_lanes=64)
    sizes = (engine.multipliers, engine.fill_lanes, engine.word, engine.group, engine.is_fast)
    assert sizes == (2048, 64, 64, 64, True)


def test_ports_are_no_wider_than_the_memory_needs():
    def ports(target, **engine):
        chosen = Architecture.for_target(target, engine)
        return chosen.weight_ports, chosen.port_bits, chosen.beats_per_word

    assert ports(ZCU102) == (4, 256, 1)  # four of 128 bits at 200 MHz carry 10.9 of 12.8 GB/s
    assert ports(replace(ZCU102, clock_mhz=300)) == (4, 128, 2)
    assert ports(replace(ZCU102, memory_gbps=8)) == (4, 128, 2)
    assert ports(ZCU102, weight_ports=2) == (2, 512, 1)
    assert ports(ZCU102, port_bits=128) == (4, 128, 2)
    assert ports(ZCU102, fill_lanes=32) == (4, 128, 1)  # two of 256 bring no more
    assert ports(resolve_target("u50")) == (8, 128, 1)


def test_direct_takes_twice_the_multipliers():
    assert Architecture(32, 64, "direct").multipliers == Architecture(64, 64, "fast").multipliers == 2048
    assert not Architecture(32, 64, "direct").is_fast


@pytest.mark.parametrize("ports", [1, 2, 3, 4, 8])
def test_every_size_gets_the_most_ports_that_serve_it(ports):
    for tile_in, tile_out in itertools.product(TILE_SIZES, repeat=2):
        target = replace(
            ZCU102, ports=ports, port_bits=1024, controller_ports=(), controller_port_gbps=0, memory_gbps=1e4
        )
        got = Architecture.for_target(target, {"tile_in": tile_in, "tile_out": tile_out})
        lanes = [lanes for lanes in (8, 16, 32, 64) if tile_in % lanes == 0 and 4 * tile_out % lanes == 0]
        assert got.fill_lanes == max(lanes)
        assert got.weight_ports == max(p for p in range(1, ports + 1) if got.fill_lanes % (p * got.port_lanes) == 0)
        brought = [p * bits for p in range(1, ports + 1) for bits in (8, 16, 32) if got.fill_lanes % (p * bits) == 0]
        assert got.weight_ports * got.port_lanes == max(brought)
        assert (got.word, got.group) == (max(tile_in, tile_out), min(tile_in, tile_out))
