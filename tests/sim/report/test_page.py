"""The page: its figures held to the estimate, its labels to where each figure comes from."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

import sim.report.page
from hw.model.cycles import PARTS
from hw.model.estimate import make_estimate
from hw.target import resolve_target
from hw.vendor.reports import Figures
from sim.options import DrawingOptions
from sim.report.data import (
    by_pass,
    by_stage,
    key_tile_steps,
    latency_against_tokens,
    roofline,
    step_macs,
    tokens_by_block,
)
from sim.report.evidence import Evidence, read_evidence
from sim.report.page import headlines, part_rows, render
from sim.report.paper import paper_ms, paper_rows
from spvit.config import resolve_model
from spvit.cost import count_macs
from spvit.errors import BuildError, ConfigError
from spvit_fpga.cli import run as run_command

main = partial(run_command, "report")

ZCU102 = resolve_target("zcu102")
DEIT_S = make_estimate(resolve_model("deit_s"), ZCU102)
MICRO = make_estimate(resolve_model("micro"), ZCU102)
NOTHING = Evidence(None, None, {}, None)
CSIM = {
    "model": "micro", "target": "zcu102", "images": 2, "tokens": [[14, 10, 8], [13, 9, 4]], "mismatches": 0,
    "values_compared": 12345,
}  # fmt: skip
TIMING = {
    "model": "micro", "target": "zcu102", "engine": "8x16 fast", "clock_mhz": 200, "tokens": [17, 14, 10, 8],
    "latency_ms": 0.25,
}  # fmt: skip
ONE = {"ii": 1, "period_ns": 2.5, "depth": 35, "margin_ns": 1.15, "recurrence": ["at.fill tile.hpp:54"], "reason": ""}
NEVER = {"ii": None, "period_ns": None, "depth": None, "margin_ns": None, "recurrence": [], "reason": "too long"}
SCHEDULE = {
    "kind": "schedule (open model)", "model": "micro", "target": "zcu102", "engine": "8x16 fast", "clock_mhz": 200,
    "usable_ns": 3.65, "models": ["nominal", "fifo_behind_predicate"], "loops": [
        {"name": "ENGINE", "nominal": ONE, "fifo_behind_predicate": NEVER}
    ], "all_ii_1": {"nominal": True, "fifo_behind_predicate": False},
}  # fmt: skip
BOARD = {"kind": "board", "runs": 100, "latency_ms": {"median": 0.3}}
STAGES = {"csynth": Figures("csynth", dsp=120, lut=90_000), "cosim": Figures("cosim", cycles_max=52_000)}


@pytest.fixture(scope="module")
def curve():
    return latency_against_tokens(DEIT_S.spec, ZCU102, DEIT_S.layout.architecture)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "csim.json").write_text(json.dumps(CSIM))
    (folder / "timing.json").write_text(json.dumps(TIMING))
    main(["--model", "micro", "--out", str(folder)])
    return folder / "report.html"


@pytest.fixture
def words(monkeypatch):
    """Pages without their charts, which take most of the time."""
    monkeypatch.setattr(sim.report.page, "pictures", lambda *_: [])


def test_it_is_self_contained(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!#)', text)
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    names = re.findall(r'\bid="([^"]*)"', text)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', text)) <= set(names)


def test_every_figure_says_where_it_comes_from(page):
    text = page.read_text()
    cards = re.findall(r'<div class="card"><span class="kind (\w+)">\1</span><b>(.*?)</b>', text)
    assert cards[0] == ("csim", "0.250 ms") and ("csim", "bit-exact") in cards
    assert ("estimate", f"{MICRO.latency_ms:.3f} ms") in cards
    kinds = re.findall(r'<h3>(.*?)</h3><span class="kind (\w+)">', text)
    assert dict(kinds)["Tokens along the depth"] == "csim"
    assert {kind for heading, kind in kinds if not heading.startswith("Tokens")} == {"estimate"}
    assert "No synthesis and no board has seen this design yet." in text


def test_harder_evidence_comes_first_and_only_where_it_is(words):
    kinds = [one.kind for one in headlines(MICRO, Evidence(CSIM, TIMING, STAGES, BOARD))]
    assert kinds[:4] == ["board", "cosim", "csim", "estimate"]
    assert {one.kind for one in headlines(MICRO, NOTHING)} == {"estimate"}
    wrong = headlines(MICRO, replace(NOTHING, csim=CSIM | {"mismatches": 3}))
    assert [one.value for one in wrong if one.kind == "csim"] == ["NOT exact"]
    text = render(MICRO, Evidence(CSIM, TIMING, STAGES, BOARD))
    assert "No synthesis" not in text and "csynth</th>" in text


def test_the_papers_figures_stand_beside_ours():
    rows = paper_rows(resolve_model("deit_s"), ZCU102)
    assert [(row.model, row.paper_ms) for row in rows] == [
        ("deit_s, unpruned", 22.31), ("deit_s", 13.23), ("deit_t, unpruned", 8.81), ("deit_t", 5.60),
    ]  # fmt: skip
    assert rows[1].ours_ms == DEIT_S.latency_ms
    assert [round(row.gmacs, 2) for row in rows] == [4.60, 2.64, 1.25, 0.90]
    assert all(row.paper_ms / row.ours_ms > 2 and row.direct_ms > row.ours_ms for row in rows[:2])
    assert all(row.ours_ms is None and row.direct_ms is None for row in rows[2:])


def test_another_model_than_the_papers_is_not_compared_and_the_row_says_why(words):
    assert all(row.ours_ms is None for row in paper_rows(resolve_model("deit_digits"), ZCU102))
    text = render(make_estimate(resolve_model("deit_digits"), ZCU102), NOTHING)
    assert text.count("not compared: another model than deit_digits") == 4
    assert "×</td>" not in text and "This model in the paper" not in text
    assert not [one for one in headlines(MICRO, NOTHING) if one.kind == "paper"]


def test_the_same_model_under_another_name_is_compared():
    spec = resolve_model("deit_s")
    own = replace(spec, model=replace(spec.model, name="mine", crop=0.9))
    assert [row.ours_ms is None for row in paper_rows(own, ZCU102)] == [False, False, True, True]


@pytest.mark.parametrize(("keep", "ms"), [(None, 13.23), ("none", 22.31), ("0.88,0.774,0.681", None)])
def test_the_papers_figure_heads_the_page_for_its_own_workload_alone(keep, ms):
    spec = resolve_model("deit_s", keep)
    assert paper_ms(spec) == ms
    found = [one.value for one in headlines(make_estimate(spec, ZCU102), NOTHING) if one.kind == "paper"]
    assert found == ([] if ms is None else [f"{ms:.2f} ms"])


def test_an_engine_that_does_not_fit_the_board_is_no_rival(words):
    kv260 = resolve_target("kv260")
    spec = replace(resolve_model("deit_s"), engine={"tile_in": 32, "tile_out": 32})
    assert [row.direct_ms for row in paper_rows(spec, kv260)[:2]] == [None, None]
    assert "does not fit" in render(make_estimate(spec, kv260), NOTHING)


def test_random_weights_are_marked_on_whatever_depends_on_them(page):
    """The page of the fixture has no network: nothing is known. A network of a checkpoint is no random one."""
    mark = '<span class="kind random">random weights</span>'
    assert mark not in page.read_text() and "no network is quantized here yet" in page.read_text()
    text = render(MICRO, Evidence(CSIM, TIMING, STAGES, BOARD, weights="random weights (seed 3)"))
    cards = re.findall(r'<div class="card"><span class="kind (\w+)">\w+</span>(.*?)<b>(.*?)</b>', text)
    assert [(kind, mark in marks) for kind, marks, _ in cards[:4]] == [
        ("board", True), ("cosim", True), ("csim", True), ("estimate", False),
    ]  # fmt: skip
    assert [marks for _, marks, value in cards if value == "bit-exact"] == [""]
    assert f'<h3>Tokens along the depth</h3><span class="kind csim">csim</span> {mark}' in text
    assert text.count("random weights, not a trained model's") == 2  # within the figure, in both widths
    assert "The weights are not trained" in text and "random weights (seed 3)" in text
    trained = render(MICRO, Evidence(CSIM, TIMING, STAGES, BOARD, weights="a checkpoint, SHA-256 0123456789ab…"))
    assert mark not in trained and "are not trained" not in trained


def test_the_drawing_of_the_flow_has_this_designs_engine(words):
    text = render(MICRO, NOTHING)
    assert re.findall(r">(\d+ × \d+) array<", text) == ["8 × 16"] * 2  # at a desk and on a telephone
    assert "64 × 64" not in text and "2,048 multipliers" not in text
    assert f">{MICRO.layout.architecture.multipliers} multipliers, one" in text


def test_the_committed_drawings_of_the_flow_are_not_stale(tmp_path):
    drawing = DrawingOptions().out
    run_command("flow-plot", ["--out", str(tmp_path / drawing.name)])
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (drawing.parent / path.name).read_bytes(), "run make flow-plot"


def test_the_parts_and_memories_add_up_to_the_whole():
    rows = part_rows(DEIT_S)
    sums = [sum(column) for column in zip(*(counts for _, counts in rows[:-1]), strict=True)]
    used = DEIT_S.resources.used()
    assert rows[-1][1] == [used[kind] for kind in ("lut", "ff", "dsp", "bram36", "uram")]
    assert sums == pytest.approx(rows[-1][1], abs=1)
    assert dict(rows)["memory: work"][3] > 100


# --- the numbers behind the figures ---


@pytest.mark.parametrize("group", [by_pass, by_stage])
def test_groups_add_up_to_the_whole(group):
    for part in PARTS:
        whole = sum(getattr(step, part) for step in DEIT_S.cycles.steps)
        assert sum(getattr(one.cycles, part) for one in group(DEIT_S)) == pytest.approx(whole)


def test_stages_are_named_after_their_blocks_and_tokens():
    assert [one.name for one in by_stage(DEIT_S)] == [
        "load, patches", "blocks 0–2, 197 tokens", "selector 1", "blocks 3–5, 125 tokens", "selector 2",
        "blocks 6–8, 81 tokens", "selector 3", "blocks 9–11, 53 tokens", "head, store",
    ]  # fmt: skip


def test_the_roofline_has_the_models_macs():
    stage, total = 0, 0
    for step in DEIT_S.program.steps:
        if step.unit == "token_packager":
            stage = step.index + 1
        elif step.unit != "token_selector":
            total += step_macs(DEIT_S, step, stage)
    macs = count_macs(DEIT_S.spec.model, DEIT_S.spec.pruning)
    assert total == macs.total - macs.selector


def test_roofline_points_lie_below_the_roofs_and_at_half_their_tokens():
    points = roofline(DEIT_S)
    peak = 64 * 64 * 0.2
    assert all(0 < point.gmacs_per_s <= peak * 1000 for point in points)
    mlp = [point for point in points if point.name == "MLP"]
    assert [point.macs_per_byte for point in mlp] == [tokens / 2 for tokens in (197, 125, 81, 53)]
    assert {point.name for point in points if point.macs_per_byte is None} == {"attention"}
    starved = mlp[-1]
    assert starved.gmacs_per_s <= 1.1 * starved.macs_per_byte * ZCU102.bandwidth_gbps


def test_latency_grows_with_tokens_and_is_never_below_the_arrays_work(curve):
    assert curve.latency[0][0] == 1 and curve.latency[-1][0] == 197
    unpruned = make_estimate(resolve_model("deit_s", "none"), ZCU102)
    assert curve.latency[-1][1] == unpruned.latency_ms
    assert all(working <= latency for (_, latency), (_, working) in zip(curve.latency, curve.working, strict=True))
    assert all(a[1] < b[1] for a, b in pairwise(curve.working))


def test_key_tiles_make_the_steps_of_the_curve(curve):
    steps = key_tile_steps(DEIT_S)
    assert steps == [65, 129, 193]
    working = [value for _, value in curve.working]
    rises = {tokens + 2: b - a for tokens, (a, b) in enumerate(pairwise(working))}
    assert sorted(sorted(rises, key=rises.__getitem__)[-3:]) == steps


def test_tokens_by_block():
    assert tokens_by_block(DEIT_S.spec, [125, 81, 53]) == [197] * 3 + [125] * 3 + [81] * 3 + [53] * 3


# --- the command ---


def test_a_report_from_another_design_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "csim.json").write_text(json.dumps(CSIM | {"target": "kv260"}))
    with pytest.raises(BuildError, match="model is micro on kv260, this design's is micro on zcu102"):
        main(["--model", "micro", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["csim.json"]


def test_a_design_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="ultra96v2"):
        main(["--model", "deit_b", "--target", "ultra96v2", "--out", str(tmp_path)])


def test_an_unpruned_model_has_a_page_too():
    text = render(make_estimate(resolve_model("micro", "none"), ZCU102), NOTHING)
    assert "blocks 0–3, 17 tokens" in text


def test_the_schedule_has_its_table_and_its_word(words):
    page = render(MICRO, replace(NOTHING, schedule=SCHEDULE))
    row = re.search(r"<tr><th>ENGINE</th>(.*?)</tr>", page)
    assert row and re.findall(r">([^<]+)</td>", row[1]) == ["1", "2.50", "35", "–", "–", "–"]
    assert "of 3.65 ns usable at 200 MHz" in page and "schedule (open model)" in page
    assert "Can the loops be scheduled?" not in render(MICRO, NOTHING)


def test_a_schedule_of_another_engine_is_refused(tmp_path):
    (tmp_path / "schedule.json").write_text(json.dumps(SCHEDULE))
    read_evidence(tmp_path, "micro", "zcu102", "8x16 fast")
    with pytest.raises(BuildError, match=r"schedule\.json: engine is .*run make schedule again"):
        read_evidence(tmp_path, "micro", "zcu102", "16x16 fast")
