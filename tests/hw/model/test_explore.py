"""The search for an engine: what it tries, what it prefers, what it writes and refuses."""

from __future__ import annotations

import json
import tomllib
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import pytest

from hw.architecture import FIFO_SIZES, TILE_SIZES, Architecture
from hw.model import explore_plot
from hw.model.charts import chart
from hw.model.estimate import make_estimate
from hw.model.explore import (
    Point,
    choose,
    choose_for_latency,
    engines,
    explore,
    pareto_front,
    place,
    placements,
    show,
    shown_of,
    tightness,
    toml_lines,
    variants,
)
from hw.model.resources import HEADROOM, Resources
from hw.target import resolve_target
from spvit.config import resolve_model
from spvit.console import Console
from spvit.cost import kept_patches
from spvit.errors import ConfigError
from spvit_fpga.cli import run as run_command

ZCU102, KV260 = resolve_target("zcu102"), resolve_target("kv260")
main = partial(run_command, "explore")
MICRO = resolve_model("micro")
KEPT = kept_patches(MICRO.model, MICRO.pruning)


class Sized(Resources):
    """Resources as given, without parts."""

    def __init__(self, dsp: int, bram36: float = 1, lut: int = 1) -> None:
        super().__init__((), bram36)
        object.__setattr__(self, "numbers", {"dsp": dsp, "bram36": bram36, "uram": 0, "lut": lut, "ff": 1})

    @property
    def dsp(self) -> int:
        return self.used()["dsp"]

    @property
    def lut(self) -> int:
        return self.used()["lut"]

    def used(self):
        return self.numbers


def point(latency_ms: float, dsp: int, bram36: float = 1, lut: int = 1, fifo_words: int = 4096) -> Point:
    return Point(Architecture(fifo_words=fifo_words), ZCU102, latency_ms, Sized(dsp, bram36, lut))


@pytest.fixture(scope="module")
def points():
    return explore(MICRO, ZCU102, KEPT)


# --- what is tried ---


def test_every_engine_is_tried_with_every_number_of_ports_that_serves_it():
    tried = engines(ZCU102)
    assert len(tried) == len(set(tried))
    assert {(one.tile_in, one.tile_out, one.inner_product) for one in tried} == {
        (tile_in, tile_out, product)
        for tile_in in TILE_SIZES
        for tile_out in TILE_SIZES
        for product in ("fast", "direct")
    }
    assert {one.weight_ports for one in tried if (one.tile_in, one.tile_out) == (64, 64)} == {1, 2, 4}
    assert {one.weight_ports for one in engines(resolve_target("u50")) if one.tile_in == 64} >= {1, 2, 4, 8}


def test_ultraram_is_only_tried_where_there_is_some():
    assert placements(ZCU102) == [()]
    assert placements(KV260)[0] == () and len(placements(KV260)) == 8


def test_memories_go_to_ultraram_only_as_far_as_they_must():
    deit_t = resolve_model("deit_t")
    small = Architecture(16, 16, weight_ports=2, fifo_words=4096)
    placed, resources = place(deit_t, small, KV260)
    assert placed.uram and tightness(resources, KV260) <= 1
    fewer = [replace(placed, uram=uram) for uram in placements(KV260) if len(uram) < len(placed.uram)]
    for engine in fewer:
        estimate = make_estimate(replace(deit_t, engine=dict(engine_of(engine))), KV260)
        assert tightness(estimate.resources, KV260) > 1
    assert place(MICRO, small, resolve_target("u50"))[0].uram == ()


def engine_of(engine: Architecture) -> dict:
    return tomllib.loads("\n".join(toml_lines(engine)))["engine"]


def test_the_fifo_is_tried_as_deep_as_the_board_allows():
    depths = [architecture.fifo_words for architecture, _ in variants(MICRO, Architecture(), ZCU102)]
    assert depths == list(FIFO_SIZES)
    tight = replace(ZCU102, bram36=200)
    depths = [architecture.fifo_words for architecture, _ in variants(MICRO, Architecture(), tight)]
    assert depths == list(FIFO_SIZES[: len(depths)]) and 0 < len(depths) < len(FIFO_SIZES)
    none = [architecture.fifo_words for architecture, _ in variants(MICRO, Architecture(), replace(ZCU102, bram36=1))]
    assert none == [4096]


# --- what is preferred ---


def test_points_have_the_estimates_figures(points):
    for one in points[:: len(points) // 10]:
        estimate = make_estimate(replace(MICRO, engine=engine_of(one.architecture)), ZCU102)
        assert estimate.layout.architecture == one.architecture
        assert (one.latency_ms, one.resources.used()) == (estimate.latency_ms, estimate.resources.used())


def test_the_front_is_what_nothing_beats(points):
    front = pareto_front(points)
    assert front[0] is points[0] and front[-1].dsp == min(one.dsp for one in points)
    for one in front:
        assert not any(other.rank < one.rank and other.dsp <= one.dsp for other in points)
    assert [one.latency_ms for one in front] == sorted(one.latency_ms for one in front)


def test_equally_fast_the_smaller_wins():
    assert pareto_front([point(1.0001, 100), point(1.0, 200)]) == [point(1.0001, 100)]
    assert min(point(1, 100, 50), point(1, 100, 40), key=lambda one: one.rank).resources.bram36 == 40


def test_head_room_comes_first_then_speed():
    roomy, tight, large = point(5, 1000), point(3, 2519), point(1, 3000)
    assert (roomy.has_headroom, tight.has_headroom, tight.fits, large.fits) == (True, False, True, False)
    assert choose([large, tight, roomy]) is roomy
    assert choose([large, tight]) is tight
    assert point(1, int(HEADROOM["dsp"] * 2520)).has_headroom and not point(1, 1, bram36=776).has_headroom


def test_what_fits_nowhere_is_refused_with_the_least():
    with pytest.raises(ConfigError) as caught:
        choose([point(1, 5000), point(2, 3024)])
    assert str(caught.value) == (
        "no engine of this model fits zcu102: 64x64 fast, the least of them, would take 120% of its DSP, 0% of its BRAM, "
        "0% of its LUT, 0% of its FF; choose a smaller model or a larger board"
    )


def test_a_latency_is_met_with_the_largest_keep_ratios(points):
    chosen = choose(points)
    assert chosen is points[0]
    limit = (make_at(chosen, KEPT) + make_at(chosen, (16, 16, 16))) / 2
    engine, keep = choose_for_latency(MICRO, ZCU102, points, limit)
    assert engine is chosen
    kept = tuple(round(one * 16) for one in keep)
    assert make_at(chosen, kept) <= limit
    assert kept >= KEPT


def make_at(one: Point, kept: tuple[int, ...]) -> float:
    return make_estimate(replace(MICRO, engine=engine_of(one.architecture)), ZCU102, kept).latency_ms


def test_a_latency_that_cannot_be_met_is_refused_with_the_least(points):
    with pytest.raises(ConfigError) as caught:
        choose_for_latency(MICRO, ZCU102, points, 0.001)
    least = min(make_at(one, (1, 1, 1)) for one in points if one.has_headroom)
    text = str(caught.value)
    assert text.startswith(
        f"micro: 0.001 ms cannot be met on zcu102 at 200 MHz: the least is {least:.3f} ms, with one patch"
    )
    assert text.endswith("; allow at least that, or choose a smaller model or a larger board")


# --- for people ---


def test_rows_differ_and_the_chosen_one_is_among_them():
    """Hardly fewer DSPs, or many times as slow, is nothing that one would choose."""
    front = [point(1, 2000), point(1.2, 1900), point(2, 1000), point(2.1, 990), point(2.2, 980), point(9, 10)]
    assert [one.dsp for one in shown_of(front, front[0])] == [2000, 1000]
    assert [one.dsp for one in shown_of(front, front[3])] == [2000, 1000, 990]
    assert [one.dsp for one in shown_of(front, front[5])] == [2000, 1000, 10]


def test_the_rest_of_the_front_is_only_counted(capsys):
    front = [point(1, 2000), point(2, 1000), point(1.2, 1900), point(207, 10)]
    front.sort(key=lambda one: one.rank)
    show(front, front, front[0], Console(), "title")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and lines[4].split()[-1] == "◄"
    assert lines[-1] == (
        "the front has 2 more, nearly the same ones or slower, down to 10 DSPs at 207.0 ms: explore.json"
    )


def test_the_legend_has_what_is_seen(monkeypatch):
    """Each entry's dots lie within the axes, in a colour that stands out from the paper (WCAG: 3 to 1)."""
    drawn = []

    @contextmanager
    def remembered(title):
        with chart(title) as one:
            yield one
            legend = one.axes.get_legend()
            drawn.append(([text.get_text() for text in legend.get_texts()], one.axes.collections, one.axes.get_xlim()))

    monkeypatch.setattr(explore_plot, "chart", remembered)
    far, near, tight, roomy = point(1, 5000), point(1, 2600), point(2, 2400), point(3, 1000)
    for points, wanted in (
        ([far, tight, roomy], ["fits without head-room", "fits with head-room"]),
        ([near, roomy], ["does not fit", "fits with head-room"]),
    ):
        explore_plot.draw_front(points, [roomy], roomy, "title")
        labels, dots, (least, most) = drawn.pop()
        assert labels == wanted
        for one in dots:
            assert ((one.get_offsets()[:, 0] >= least) & (one.get_offsets()[:, 0] <= most)).all()
            assert 1.05 / (luminance(one.get_edgecolor()[0]) + 0.05) >= 3


def luminance(colour):
    """Relative, of an sRGB colour, as WCAG has it."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --- the command ---


def test_the_command(tmp_path, capsys):
    main(["--model", "micro", "--target", "kv260", "--clock", "150", "--latency-ms", "0.2", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "explore.json").read_text())
    assert (report["kind"], report["model"], report["target"], report["clock_mhz"]) == (
        "estimate",
        "micro",
        "kv260",
        150,
    )
    lines = said[said.index("[engine]") : said.index("KEEP=")]
    assert tomllib.loads(lines)["engine"] == report["chosen"]["engine"]
    assert f"KEEP={','.join(map(str, report['keep']))}\n" in said
    assert report["chosen"]["headroom"] and report["chosen"] in report["front"]
    assert [one["latency_ms"] for one in report["front"]] == sorted(one["latency_ms"] for one in report["front"])
    svg = ElementTree.parse(tmp_path / "explore.svg").getroot()
    assert svg.attrib["role"] == "img" and "micro on kv260" in svg[0].text
    # the lines are a model's: with them, make estimate finds the same latency
    spec = replace(MICRO, engine=report["chosen"]["engine"])
    assert make_estimate(spec, replace(KV260, clock_mhz=150)).latency_ms == report["chosen"]["latency_ms"]


@pytest.mark.parametrize("ms", ["0", "-3", "nan"])
def test_a_latency_that_is_none_is_refused(tmp_path, ms):
    with pytest.raises(ConfigError, match=rf"^--latency-ms {ms} must be a number above 0 and at most 1,000,000; "):
        main(["--model", "micro", f"--latency-ms={ms}", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_what_fits_no_board_leaves_nothing_behind(tmp_path):
    with pytest.raises(ConfigError, match=r"^no engine of this model fits ultra96v2: "):
        main(["--model", "deit_b", "--target", "ultra96v2", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_without_keep_ratios_a_latency_still_finds_them(tmp_path, capsys):
    toml = tmp_path / "mine.toml"
    toml.write_text(
        "[model]\nimg_size = 16\npatch_size = 4\nembed_dim = 32\ndepth = 4\nnum_heads = 2\n[pruning]\nlocations = [1, 2]\n"
    )
    arguments = ["--model", str(toml), "--target", "ultra96v2", "--out", str(tmp_path / "build")]
    with pytest.raises(ConfigError, match="keep is not set"):
        main(arguments)
    main([*arguments, "--latency-ms", "100"])
    assert "KEEP=1.0,1.0\n" in capsys.readouterr().out
