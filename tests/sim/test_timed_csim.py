"""The command that counts cycles, on the smallest model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import hw.model.cycles
from host.measure import PAPER_TABLE_4_MS
from hw.model.cycles import Pass, Walk
from hw.model.estimate import make_estimate
from hw.program import build_program
from hw.target import resolve_target, with_clock
from sim.bridge import CsimError
from sim.constructed import deciding
from sim.timed.timing import TimedAccelerator
from sim.timed_csim import at_keep_ratios, parse_engine
from spvit.config import resolve_model
from spvit.cost import count_macs, kept_patches, tokens_per_stage
from spvit.errors import BuildError, ConfigError, NetworkError
from spvit_fpga.cli import run as run_command
from tests.sim.conftest import golden_of
from tests.sim.networks import MICRO, design_of, micro, random_images

main = partial(run_command, "timed")

ROOT = Path(__file__).parents[2]


def test_thresholds_can_be_moved_so_that_an_image_keeps_what_was_asked():
    pixels = random_images(MICRO.model, 1, seed=3)
    network = at_keep_ratios(micro(), pixels[0])
    golden = golden_of(design_of(network), pixels)
    kept = [int(golden.taps[f"selectors.{selector}.keep"][0][:, 0].sum()) for selector in range(3)]
    assert tuple(kept) == kept_patches(MICRO.model, MICRO.pruning)
    assert [stage[0] for stage in golden.tokens] == list(tokens_per_stage(MICRO.model, MICRO.pruning))[1:]
    assert build_program(network).steps[0] == build_program(micro()).steps[0]


def test_equal_scores_cannot_be_parted():
    with pytest.raises(NetworkError, match=r"^selector 0: tokens 12 and 13 of this image have equal scores"):
        at_keep_ratios(deciding(micro(), 0, 500), random_images(MICRO.model, 1)[0])


def test_the_command(tmp_path, capsys):
    arguments = ["--model", "micro", "--out", str(tmp_path), "--at-keep-ratios"]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "timing.json").read_text())
    assert report["kind"] == "csim"
    assert report["tokens"] == list(tokens_per_stage(MICRO.model, MICRO.pruning))
    assert report["cycles"] == sum(sum(step.values()) for step in report["steps"].values())
    assert report["latency_ms"] == pytest.approx(report["cycles"] / 200e3)
    assert report["estimated_cycles"] == pytest.approx(report["cycles"], rel=0.01)
    assert report["disagreements"] == []
    assert f"{report['cycles']:,} cycles" in capsys.readouterr().out
    assert main([*arguments, "--engine", "16x16-direct", "--clock", "150"]) == 0
    assert json.loads((tmp_path / "timing.json").read_text()) == report
    other = json.loads((tmp_path / "timing-16x16-direct-150mhz.json").read_text())
    assert (other["engine"], other["clock_mhz"]) == ("16x16 direct", 150)
    assert not np.isclose(other["cycles"], report["cycles"])


def test_a_closed_form_that_counts_otherwise_ends_with_1(tmp_path, monkeypatch, capsys):
    class Forgetful(Walk):
        """Forgets that a pass's last tile waits for its results."""

        def tile(self, one: Pass, words: int, streams: bool, count: int, least: int, front: int = 0) -> None:
            super().tile(one, words, streams, count, min(least, self.least), front)

    monkeypatch.setattr(hw.model.cycles, "Walk", Forgetful)
    assert main(["--model", "micro", "--out", str(tmp_path)]) == 1
    report = json.loads((tmp_path / "timing.json").read_text())
    assert "blocks.attn.k" in [sentence.partition(":")[0] for sentence in report["disagreements"]]
    assert report["disagreements"][-1].startswith(f"all: {report['estimated_cycles']:,} cycles estimated, ")
    printed = capsys.readouterr().out
    assert all(f"the closed form DISAGREES {sentence}" in printed for sentence in report["disagreements"])


def test_a_depth_that_the_kernels_do_not_hold_is_one_sentence_and_leaves_no_report(tmp_path, capsys):
    """What a schedule or a csynth report says of ENGINE, told to the clock."""
    arguments = ["--model", "micro", "--out", str(tmp_path), "--depth"]
    with pytest.raises(BuildError) as caught:
        main([*arguments, "500"])
    assert re.fullmatch(
        r"the timed C-simulation of micro stopped: loop ENGINE is 500 cycles deep, kPipelineCycles is \d+: a pass would read "
        r"what the one before it has not written yet; raise it \(hw/model/latency.py\)",
        str(caught.value),
    )
    assert list(tmp_path.glob("timing*.json")) == []
    assert main([*arguments, "40"]) == 0
    assert json.loads((tmp_path / "timing-depth-40.json").read_text())["engine_depth"] == 40


def test_a_deadlock_is_one_sentence_and_leaves_no_report(tmp_path, monkeypatch):
    """That a deadlock is found, and named with both ends, is test_timing's to show."""
    sentence = "deadlock: reader reads b, which is empty; writer writes a, which is full at 2 words"

    def stop(self: TimedAccelerator, pixels: np.ndarray) -> None:
        raise CsimError(sentence)

    monkeypatch.setattr(TimedAccelerator, "run", stop)
    with pytest.raises(BuildError) as caught:
        main(["--model", "micro", "--out", str(tmp_path)])
    assert str(caught.value) == f"the timed C-simulation of micro stopped: {sentence}"
    assert not (tmp_path / "timing.json").exists()


@pytest.mark.parametrize("text", ["64", "64x64", "64x64fast", "ax8-fast"])
def test_an_engine_that_cannot_be_read_is_refused(text):
    with pytest.raises(ConfigError, match=rf"^--engine {text} must be tile_in x tile_out and the inner product"):
        parse_engine(text)


def test_the_readmes_figures_are_still_the_designs():
    """Counted by the timed C-simulation; the closed form, which agrees with it within 1%, would show a change."""
    rows = re.findall(r"^\| DeiT-([ST])(, unpruned)? \|(.*)\|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert len(rows) == 4
    direct = {"tile_in": 32, "tile_out": 64, "inner_product": "direct"}
    for size, unpruned, cells in rows:
        gmacs, paper, *figures = map(float, cells.split("|"))
        spec = resolve_model(f"deit_{size.lower()}", "none" if unpruned else None)
        assert paper == PAPER_TABLE_4_MS[spec.model.name][0 if unpruned else 1]
        assert round(count_macs(spec.model, spec.pruning).total / 1e9, 2) == gmacs
        for (engine, mhz), found in zip(((e, c) for e in ({}, direct) for c in (200, 150)), figures, strict=True):
            estimate = make_estimate(replace(spec, engine=engine), with_clock(resolve_target("zcu102"), mhz))
            assert estimate.latency_ms == pytest.approx(found, rel=0.01), (size, unpruned, engine, mhz)
