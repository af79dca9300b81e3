"""The engine's sizes: what is accepted, and the sentences for what is not."""

import itertools
import json
from dataclasses import asdict, replace

import pytest

from hw.architecture import TILE_SIZES, Architecture
from hw.target import resolve_target
from spvit.errors import ConfigError

ZCU102 = resolve_target("zcu102")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tile_in": 48}, "[engine] tile_in=48 is no size of the engine; choose one of 8, 16, 32, 64, 128"),
        ({"tile_out": 0}, "[engine] tile_out=0 is no size of the engine; choose one of 8, 16, 32, 64, 128"),
        ({"inner_product": "quick"}, "[engine] inner_product='quick' is unknown; choose fast or direct"),
        (
            {"tile_in": 16},
            "[engine] 4 ports bring 32 weights per cycle, which must divide tile_in=16 and 4 * tile_out=64; use fewer ports",
        ),
        (
            {"weight_ports": 0},
            "[engine] 0 ports bring 0 weights per cycle, which must divide tile_in=64 and 4 * tile_out=64; use fewer ports",
        ),
        (
            {"tile_out": 8, "weight_ports": 8},
            "[engine] 8 ports bring 64 weights per cycle, which must divide tile_in=64 and 4 * tile_out=8; use fewer ports",
        ),
        (
            {"fifo_words": 1000},
            "[engine] fifo_words=1000 is no depth of the weight FIFO; choose one of 512, 1024, 2048, 4096, 8192, 16384, 32768",
        ),
        (
            {"uram": ("x", "v")},
            "[engine] uram='v' is no memory that UltraRAM can hold; choose of x, work, weights",
        ),
    ],
)
def test_impossible_engines_are_one_sentence(fields, sentence):
    with pytest.raises(ConfigError) as refused:
        Architecture(**fields)
    assert str(refused.value) == sentence


@pytest.mark.parametrize("engine", [{"tile_in": "64"}, {"tile_out": 8.0}, {"inner_product": 1}])
def test_wrong_types_of_a_toml_are_one_sentence(engine):
    with pytest.raises(ConfigError) as refused:
        Architecture.for_target(ZCU102, engine)
    assert str(refused.value) == f"[engine] {engine}: tile_in and tile_out are numbers, inner_product is a word"


@pytest.mark.parametrize("engine", [{"fifo_words": "4096"}, {"weight_ports": 2.0}, {"uram": 1}])
def test_wrong_types_of_the_other_fields_are_one_sentence(engine):
    with pytest.raises(ConfigError) as refused:
        Architecture.for_target(ZCU102, engine)
    assert str(refused.value) == (
        f'[engine] {engine}: fifo_words and weight_ports are numbers, uram is names with commas, "x,work"'
    )


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
    engine = Architecture.for_target(resolve_target("kv260"), asked)
    assert engine == Architecture(32, 32, "fast", 2, 8192, ("x", "weights"))
    assert Architecture(**json.loads(json.dumps(asdict(engine)))) == engine


def test_the_default_is_64_by_64_fast_on_all_four_ports():
    engine = Architecture.for_target(ZCU102, {})
    assert engine == Architecture(64, 64, "fast", 4)
    assert (engine.multipliers, engine.fill_lanes, engine.word, engine.group, engine.is_fast) == (
        2048,
        32,
        64,
        64,
        True,
    )


def test_direct_takes_twice_the_multipliers():
    assert Architecture(32, 64, "direct").multipliers == Architecture(64, 64, "fast").multipliers == 2048
    assert not Architecture(32, 64, "direct").is_fast


@pytest.mark.parametrize("ports", [1, 2, 3, 4, 8])
def test_every_size_gets_the_most_ports_that_serve_it(ports):
    for tile_in, tile_out in itertools.product(TILE_SIZES, repeat=2):
        target = replace(ZCU102, ports=ports)
        got = Architecture.for_target(target, {"tile_in": tile_in, "tile_out": tile_out})
        fitting = [p for p in range(1, ports + 1) if tile_in % (8 * p) == 0 and 4 * tile_out % (8 * p) == 0]
        assert got.weight_ports == max(fitting)
        assert (got.word, got.group) == (max(tile_in, tile_out), min(tile_in, tile_out))
