"""What lies in a build folder: taken where it is this design's, refused in a sentence where it isn't."""

from __future__ import annotations

import json

import pytest

from hw.architecture import Architecture
from hw.target import resolve_target
from hw.vendor.reports import Figures
from sim.report.evidence import read_evidence, timing_name
from spvit.errors import BuildError

CSIM = {"model": "micro", "target": "zcu102", "images": 1, "tokens": [[9, 8, 7]]}
TIMING = {"model": "micro", "target": "zcu102", "engine": "8x16 fast"}
REPORTS = {"top": "spvit_top", "digest": "a" * 64, "csynth": {"stage": "csynth", "dsp": 99.0}, "findings": []}


def lay(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def lay_network(folder, digest):
    (folder / "weights").mkdir()
    lay(folder / "weights", network={"digest": digest})


def refusal(folder):
    with pytest.raises(BuildError) as caught:
        read_evidence(folder, "micro", "zcu102", "8x16 fast")
    return str(caught.value)


def test_nothing_was_run(tmp_path):
    found = read_evidence(tmp_path / "none", "micro", "zcu102", "8x16 fast")
    assert (found.csim, found.timing, found.stages, found.board) == (None, None, {}, None)


def test_everything_was_run(tmp_path):
    measured = {"kind": "board", "digest": "a" * 64, "network": "c" * 64, "latency_ms": {"median": 1.5}}
    lay(
        tmp_path,
        csim=CSIM,
        timing=TIMING,
        reports=REPORTS,
        design={"digest": "a" * 64},
        latency={"measurement": measured},
    )
    lay_network(tmp_path, "c" * 64)
    found = read_evidence(tmp_path, "micro", "zcu102", "8x16 fast")
    assert (found.csim, found.timing) == (CSIM, TIMING)
    assert found.stages == {"csynth": Figures("csynth", dsp=99.0)}
    assert found.board == measured


@pytest.mark.parametrize("kind", ["estimate", "none"])
def test_the_emulated_devices_times_are_not_the_boards(tmp_path, kind):
    lay(tmp_path, latency={"measurement": {"kind": kind}})
    assert read_evidence(tmp_path, "micro", "zcu102", "8x16 fast").board is None


@pytest.mark.parametrize(("name", "command"), [("csim", "make csim"), ("timing", "make timed")])
def test_another_models_c_simulation_is_refused(tmp_path, name, command):
    lay(tmp_path, **{name: CSIM | {"model": "deit_s"}})
    assert refusal(tmp_path) == (
        f"{tmp_path / name}.json: model is deit_s on zcu102, this design's is micro on zcu102; "
        f"remove the file, or run {command} again"
    )


def test_another_engines_timing_is_refused(tmp_path):
    lay(tmp_path, timing=TIMING | {"engine": "64x64 fast"})
    assert refusal(tmp_path) == (
        f"{tmp_path}/timing.json: engine is 64x64 fast, this design's is 8x16 fast; "
        "remove the file, or run make timed again"
    )


def test_timings_on_other_engines_and_clocks_have_names_of_their_own():
    own, board = Architecture(8, 16, weight_ports=1), resolve_target("zcu102")
    names = [timing_name(own, board, engine, mhz) for engine in (own, Architecture()) for mhz in (200, 187.5)]
    assert names == [
        "timing.json", "timing-8x16-fast-187.5mhz.json", "timing-64x64-fast-200mhz.json",
        "timing-64x64-fast-187.5mhz.json",
    ]  # fmt: skip


def test_another_designs_synthesis_is_refused(tmp_path):
    lay(tmp_path, reports=REPORTS, design={"digest": "b" * 64})
    assert refusal(tmp_path) == (
        f"{tmp_path}/reports.json: digest is aaaaaaaaaaaa, this design's is bbbbbbbbbbbb; "
        "remove the file, or run make synth again"
    )


def test_another_designs_board_is_refused(tmp_path):
    lay(tmp_path, latency={"measurement": {"kind": "board", "digest": "a" * 64}}, design={"digest": "b" * 64})
    assert refusal(tmp_path).endswith("remove the file, or run the notebook on the board again")


def test_another_networks_board_is_refused(tmp_path):
    """On the same design."""
    measured = {"kind": "board", "digest": "a" * 64, "network": "c" * 64}
    lay(tmp_path, latency={"measurement": measured}, design={"digest": "a" * 64})
    assert "latency.json: there is no weights/network.json beside it to tell which network it is of" in refusal(
        tmp_path
    )
    lay_network(tmp_path, "d" * 64)
    assert "latency.json: network is cccccccccccc, this design's is dddddddddddd; remove" in refusal(tmp_path)


def test_a_synthesis_without_its_design_is_refused(tmp_path):
    lay(tmp_path, reports=REPORTS)
    assert refusal(tmp_path) == (
        f"{tmp_path}/reports.json: there is no design.json beside it to tell which design it is of; run make hls"
    )


@pytest.mark.parametrize(
    ("text", "why"), [("{", "not valid JSON: Expecting"), ("[1]", "not valid JSON: a list in place of an object")]
)
def test_what_is_no_report_is_refused(tmp_path, text, why):
    lay(tmp_path, csim=text)
    assert refusal(tmp_path).startswith(f"{tmp_path}/csim.json: {why}")
    assert refusal(tmp_path).endswith("remove it, or run make csim again")


@pytest.mark.parametrize(
    ("weights", "words", "random"),
    [("seed 7", "random weights (seed 7)", True), ("ab" * 32 + " ema", "a checkpoint, SHA-256 abababababab…", False)],
)
def test_the_network_says_what_its_weights_are(tmp_path, weights, words, random):
    (tmp_path / "network").mkdir()
    lay(tmp_path / "network", inputs={"weights": weights})
    found = read_evidence(tmp_path, "micro", "zcu102", "8x16 fast")
    assert (found.weights, found.is_random) == (words, random)
