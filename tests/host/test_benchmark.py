"""The command line, on the emulated device: what it prints, what latency.json holds, and that no time is made up."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import host.benchmark
from host.accelerator import Accelerator
from host.measure import (
    LABELS,
    MOST_BINS,
    RANDOM,
    Summary,
    _by_tokens,
    image_list,
    latency_report,
    measure,
    summary_table,
    tokens_table,
)
from host.power import PowerMeter
from host.result import ImageResult, Timing
from hw.generate import make_project, write_project
from hw.target import resolve_target
from sim.device.emulated import NEVER, Fault
from spvit.errors import BundleError, ConfigError, DeviceTimeoutError, ImageError
from tests.sim.networks import design_of, micro

ROOT = Path(__file__).parents[2]
CLOCK_MHZ = 199.998


def cycles(tokens):
    return 1000 * sum(tokens)


@pytest.fixture
def images(build, tmp_path):
    """Files whose centre crop is the build's pixels."""
    folder = tmp_path / "images"
    folder.mkdir()
    margin = (build.packed.preprocessing.resize_to - build.pixels.shape[1]) // 2
    for i, pixels in enumerate(build.pixels):
        framed = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)))
        Image.fromarray(framed).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def emulated(build, monkeypatch):
    """Makes --emulated open devices with these options."""

    def use(**options):
        monkeypatch.setattr("sim.device.emulated.emulate", lambda bundle: build.device(**options))

    return use


def command(*arguments, folder=ROOT):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-m", "host.benchmark", *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, env=environment,
    )  # fmt: skip


# --- as a person runs it ---


def test_the_command_line(build, images, tmp_path, emulated, capsys):
    emulated(cycles=cycles)
    out = tmp_path / "latency.json"
    host.benchmark.main([str(build.folder), str(images), "--emulated", "--out", str(out)])
    printed = capsys.readouterr().out
    assert printed.startswith(LABELS["estimate"])
    report = json.loads(out.read_text())
    own = report["measurement"]
    assert own["tokens"] == build.tokens
    assert own["classes"] == build.golden.logits.argmax(axis=1).tolist()
    expected = [cycles(tokens) / CLOCK_MHZ / 1e3 for tokens in build.tokens]
    assert own["latency_ms"]["median"] == pytest.approx(np.median(expected))
    assert own["latency_ms"]["p99"] == pytest.approx(np.percentile(expected, 99))
    assert own["throughput"] == pytest.approx(1e3 / np.mean(expected))
    assert own["kind"] == "estimate"
    assert report["label"] == f"{LABELS['estimate']}; {RANDOM}"
    assert (own["end_to_end_ms"], own["shares"], own["power_w"], own["warm_up"]) == (None, None, None, 0)
    by_tokens = {tuple(entry["tokens"]): entry["latency_ms"] for entry in own["by_tokens"]}
    assert by_tokens == {tuple(t): pytest.approx(cycles(t) / CLOCK_MHZ / 1e3) for t in build.tokens}
    for tokens in build.tokens:
        assert re.search(rf"^{' '.join(map(str, tokens))} +\d+ +{cycles(tokens) / CLOCK_MHZ / 1e3:.3f}$", printed, re.M)


def test_as_a_process(build, images, tmp_path):
    run = command(build.folder, images, "--emulated", "--out", tmp_path / "latency.json")
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads((tmp_path / "latency.json").read_text())["measurement"]["tokens"] == build.tokens


def test_without_a_cycle_model_no_time_is_given(build, images, tmp_path, emulated, capsys):
    emulated()
    out = tmp_path / "latency.json"
    host.benchmark.main([str(build.folder), str(images), "--emulated", "--out", str(out)])
    printed = capsys.readouterr().out
    assert printed.startswith(LABELS["none"])
    assert not re.search(r"\d\.\d{3}", printed)
    own = json.loads(out.read_text())["measurement"]
    assert own["kind"] == "none"
    assert [own[name] for name in ("latency_ms", "end_to_end_ms", "throughput", "shares", "power_w")] == [None] * 5
    assert {entry["latency_ms"] for entry in own["by_tokens"]} == {None}


def test_a_baseline_stands_beside_it_on_the_same_bitstream(build, unpruned, images, tmp_path, monkeypatch, capsys):
    devices = []
    monkeypatch.setattr(
        "sim.device.emulated.emulate", lambda _: devices.append(build.device(cycles=cycles)) or devices[0]
    )
    out = tmp_path / "latency.json"
    arguments = [str(build.folder), str(images), "--emulated", "--out", str(out), "--baseline", str(unpruned.folder)]
    host.benchmark.main(arguments)
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    own, baseline, switch = (report[name] for name in ("measurement", "baseline", "switch"))
    assert [device.downloads for device in devices] == [1]
    assert (own["tokens"], baseline["tokens"]) == (build.tokens, unpruned.tokens)
    assert baseline["classes"] == unpruned.golden.logits.argmax(axis=1).tolist()
    assert (own["digest"], own["network"]) == (build.bundle.digest, build.packed.digest)
    assert (baseline["digest"], baseline["network"]) == (own["digest"], unpruned.design.network.digest)
    assert re.search(r"^ +micro +unpruned$", printed, re.M)
    # the host's own time, said as what it is, and with a bound that only a copy of weights or a reload would break
    assert switch["is_emulated"] and "EMULATED" in switch["label"] and switch["label"] in printed
    assert 0 < switch["host_ms"]["median"] < 1000


def test_a_baseline_of_another_design_is_refused(build, images, tmp_path, emulated):
    emulated()
    other = tmp_path / "other"
    write_project(make_project(design_of(micro(), tile_in=8, tile_out=16), resolve_target("zcu102")), other)
    with pytest.raises(
        BundleError, match=r"^.*/network.json: packed for design [0-9a-f]{12}, and .* is design [0-9a-f]{12};"
    ):
        host.benchmark.main([str(build.folder), str(images), "--emulated", "--baseline", str(other)])


# --- as it is on a board: the same code with measured times ---


def test_on_a_board_times_are_measured(build, images):
    device = build.device(cycles=cycles)
    device.is_emulated = False
    with Accelerator(build.folder, device) as accelerator:
        names, files = image_list(images, accelerator.network)
        own, results = measure(accelerator.network, files, warm_up=3, repeats=2)
    count = len(build.pixels)
    assert names == tuple(f"{i}.png" for i in range(count))
    assert device.kernel.runs == 3 + 2 * count + 2 * count  # warm-up, one by one, pipelined
    assert (own.kind, own.images, own.runs, own.warm_up) == ("board", count, 2 * count, 3)
    assert len(results) == count
    assert own.tokens == build.tokens
    assert own.latency_ms.median == pytest.approx(np.median([cycles(t) / CLOCK_MHZ / 1e3 for t in build.tokens]))
    assert own.end_to_end_ms.median > 0
    assert own.throughput > 0
    assert own.shares.keys() == {"preprocess", "transfer", "compute"}
    assert sum(own.shares.values()) == pytest.approx(1)
    text = summary_table(own)
    assert text.startswith(LABELS["board"])
    assert "an image's time: preprocess " in text


def test_power_is_the_mean_of_the_rails_that_have_a_sensor(monkeypatch):
    class Sensor:
        def __init__(self, *values):
            self.values = list(values)

        @property
        def value(self):
            return self.values.pop(0) if len(self.values) > 1 else self.values[0]

    class Rail:
        def __init__(self, power):
            self.power = power

    sensors = {"VCCINT": Rail(Sensor(3.0)), "VCC1V8": Rail(None), "VCCBRAM": Rail(Sensor(0.5))}
    monkeypatch.setattr("pynq.get_rails", lambda: sensors)
    with PowerMeter(is_emulated=False) as meter:
        pass
    assert meter.mean_w == {"VCCINT": 3.0, "VCCBRAM": 0.5}
    with PowerMeter(is_emulated=True) as meter:
        pass
    assert meter.mean_w is None
    monkeypatch.setattr("pynq.get_rails", dict)
    with PowerMeter(is_emulated=False) as meter:
        pass
    assert meter.mean_w is None


def test_the_paper_stands_beside_its_models(build):
    with Accelerator(build.folder, build.device(cycles=cycles)) as accelerator:
        own, _ = measure(accelerator.network, list(build.pixels))
    assert latency_report(own, None)["paper_table_4_ms"] is None
    deit_s = replace(own, model="deit_s")
    assert latency_report(deit_s, None)["paper_table_4_ms"] == {"unpruned": 22.31, "pruned": 13.23}
    assert summary_table(deit_s).endswith(
        "paper, Table 4, measured on its ZCU102: 13.23 ms at 2.64 GMACs, unpruned 22.31 ms at 4.60"
    )
    assert tokens_table(own).count("\n") == len(own.by_tokens)


@pytest.mark.parametrize("span", [1, 5, 12, 13, 40, 400])
def test_many_numbers_of_tokens_are_binned(build, span):
    """A few rows, each image in one of them, in order, each row's latencies its own images'."""
    rng = np.random.default_rng(span)
    tokens = [(int(total), 40, 30) for total in rng.integers(100, 100 + span, 500)]
    no_patches = np.zeros(0, np.int64)
    results = [
        ImageResult(np.zeros(4, np.int16), one, (no_patches,) * 3, Timing(None, None, float(sum(one)), None))
        for one in tokens
    ]
    rows = _by_tokens(results)
    assert len(rows) == min(len(set(tokens)), MOST_BINS) or 1 < len(rows) <= MOST_BINS < len(set(tokens))
    assert sum(row["images"] for row in rows) == 500
    assert rows[0]["least"] == min(map(sum, tokens)) and rows[-1]["most"] == max(map(sum, tokens))
    for row, after in itertools.pairwise(rows):
        assert row["most"] < after["least"]
    for row in rows:
        own = [sum(one) for one in tokens if row["least"] <= sum(one) <= row["most"]]
        assert row["images"] == len(own) and row["latency_ms"] == np.median(own)
        assert sum(row["tokens"]) == pytest.approx(np.mean(own))
    with Accelerator(build.folder, build.device(cycles=cycles)) as accelerator:
        own, _ = measure(accelerator.network, list(build.pixels))
    table = tokens_table(replace(own, by_tokens=rows))
    assert table.startswith("mean tokens after each" if len(set(tokens)) > MOST_BINS else "tokens after each")
    assert table.count("\n") == len(rows)


def test_summaries():
    values = list(range(1, 101))
    summary = Summary.of(values)
    assert (summary.median, summary.mean, summary.min, summary.max) == (50.5, 50.5, 1, 100)
    assert (summary.p95, summary.p99) == (pytest.approx(95.05), pytest.approx(99.01))
    assert Summary.of([None, None]) is None
    assert Summary.of([None, 2.0]).median == 2.0


# --- what goes wrong ---


def test_errors_are_one_sentence_and_status_2(build, images, tmp_path):
    for arguments, sentence in (
        ((tmp_path, images, "--emulated"), f"{tmp_path}: no design.json in there; .*"),
        ((build.folder, tmp_path / "x", "--emulated"), f"{tmp_path}/x: no such file or folder; .*"),
        ((build.folder, images), "PYNQ finds no board here; .*"),
    ):
        run = command(*arguments, "--out", tmp_path / "latency.json")
        assert (run.returncode, run.stdout) == (2, "")
        assert re.fullmatch(f"error: {sentence}\n", run.stderr)
    assert not (tmp_path / "latency.json").exists()


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (["--repeats", "0"], ConfigError, "--repeats 0 must be a whole number from 1 to 1,000,000; .*"),
        (["--warm-up", "-1"], ConfigError, "--warm-up -1 must be a whole number from 0 to 1,000,000; .*"),
        (["--baseline", "nowhere"], BundleError, "nowhere: no network.json in there; .*"),
        (["--network", "nowhere"], BundleError, "nowhere: no network.json in there; .*"),
    ],
)
def test_wrong_arguments(build, images, tmp_path, emulated, arguments, kind, sentence):
    emulated()
    with pytest.raises(kind, match=f"^{sentence}$"):
        host.benchmark.main(
            [str(build.folder), str(images), "--emulated", "--out", str(tmp_path / "l.json"), *arguments]
        )
    assert not (tmp_path / "l.json").exists()


def test_a_kernel_that_does_not_finish(build, images, tmp_path, monkeypatch):
    def never_done(bundle):
        device = build.device()
        device.faults = [Fault(delay_s=NEVER)]
        return device

    monkeypatch.setattr("sim.device.emulated.emulate", never_done)
    with pytest.raises(DeviceTimeoutError, match=r"^.*: no result after 0\.2 s; "):
        host.benchmark.main(
            [str(build.folder), str(images), "--emulated", "--out", str(tmp_path / "l.json"), "--timeout", "0.2"]
        )
    assert not (tmp_path / "l.json").exists()


def test_a_broken_image_is_named(build, images, emulated):
    (images / "9.png").write_bytes(b"no image")
    emulated()
    with pytest.raises(ImageError, match=r"^.*/9.png: not an image; replace it or leave it out$"):
        host.benchmark.main([str(build.folder), str(images), "--emulated"])
