"""make synth, cosim and bitstream against stand-ins for the tools on PATH."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hw.generate import make_project, write_project
from hw.model.latency import pipeline_cycles
from hw.options import VendorOptions
from hw.target import resolve_target
from hw.vendor import synth
from hw.vendor.tools import find_hls
from spvit.errors import BuildError, ConfigError
from spvit_fpga.cli import spoken
from tests.options import read
from tests.sim.networks import design_of, micro

STANDIN = Path(__file__).with_name("standin.py")
ARGUMENTS = ("--model", "micro", "--target", "zcu102")
ALL = ("vitis-run", "v++", "vitis_hls", "vivado")
NO_HLS = "make {} needs Vitis HLS 2022.2 or later, and none of vitis-run, v++ and vitis_hls is on PATH: install AMD Vitis and source its settings64.sh"
NO_VIVADO = "make bitstream needs Vivado 2022.2 or later, and vivado is not on PATH: install AMD Vivado (Vitis brings it) and source its settings64.sh"
# 8x16, as the registry's micro is built for a zcu102
PROJECT = make_project(design_of(micro()), resolve_target("zcu102"))


class Workplace:
    """A working folder with a build in it, and a PATH with what is installed."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.build = folder / "build" / "micro-zcu102"
        self.record = folder / "record.jsonl"
        write_project(PROJECT, self.build)
        for top in ("spvit_top", "mlp_block_top"):
            (self.build / "tb" / top / "0").mkdir(parents=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("STANDIN_RECORD", str(self.record))
        for variable in ("STANDIN_FAIL", "STANDIN_WNS", "STANDIN_DEPTH", "SPVIT_TOP", "SPVIT_STEPS"):
            monkeypatch.delenv(variable, raising=False)
        self.install()

    def install(self, *tools):
        """These tools on PATH, and no others."""
        bin_folder = self.folder / f"bin-{'-'.join(tools)}"
        bin_folder.mkdir(exist_ok=True)
        for tool in tools:
            script = bin_folder / tool
            script.write_text(f'#!/bin/sh\nSTANDIN_TOOL={tool} exec {sys.executable} {STANDIN} "$@"\n')
            script.chmod(0o755)
        self.monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")

    def run(self, stage, *options):
        """A stage whose testbench has its vectors already."""
        asked = read(VendorOptions, *ARGUMENTS, *options)
        return (synth.check(stage, asked) and 0) if asked.check else synth.run(stage, asked)

    def calls(self):
        """[tool, arguments, SPVIT_ settings] of each call so far."""
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []

    def reports(self, name="reports.json"):
        return json.loads((self.build / name).read_text())


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    return Workplace(tmp_path, monkeypatch)


# --- finding the tools ---


@pytest.mark.parametrize("stage", synth.STAGES)
def test_without_tools_it_names_what_to_install(workplace, stage):
    for options in ((), ("--check",)):
        with pytest.raises(BuildError) as error:
            workplace.run(stage, *options)
        assert str(error.value) == NO_HLS.format(stage)


def test_that_is_one_sentence_and_status_2(workplace):
    run = subprocess.run(
        [sys.executable, "-m", "spvit_fpga", "synth", *ARGUMENTS, "--check"],
        env=os.environ | {"PYTHONPATH": str(STANDIN.parents[3])}, capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (2, "", f"error: {spoken(NO_HLS.format('synth'))}\n")


def test_a_bitstream_needs_vivado_too(workplace):
    workplace.install("vitis_hls")
    with pytest.raises(BuildError) as error:
        workplace.run("bitstream", "--check")
    assert str(error.value) == NO_VIVADO
    assert workplace.run("synth", "--check") == 0
    assert workplace.calls() == []


def test_the_form_that_is_there_is_driven(workplace):
    for installed, form in (
        (("vitis_hls",), "vitis_hls"),
        (("vitis_hls", "v++"), "vitis_hls"),  # v++ alone cannot simulate
        (("vitis_hls", "v++", "vitis-run"), "vitis-run"),
        (("vitis-run",), "vitis-run"),
    ):
        workplace.install(*installed)
        assert find_hls("synth") == form
    workplace.install("v++", "vitis-run")
    assert find_hls("synth", "v++") == "v++"
    with pytest.raises(BuildError) as error:
        find_hls("synth", "vitis_hls")
    assert str(error.value) == NO_HLS.format("synth").replace(
        "none of vitis-run, v++ and vitis_hls is on PATH", "vitis_hls, which HLS= asks for, is not on PATH"
    )
    with pytest.raises(
        BuildError, match="HLS=hls4ml is no form of Vitis HLS; choose from vitis-run, v\\+\\+, vitis_hls"
    ):
        find_hls("synth", "hls4ml")


# --- what they are asked to do ---


@pytest.mark.parametrize(
    ("form", "options"), [("vitis-run", ["--mode", "hls", "--tcl", "hls.tcl"]), ("vitis_hls", ["-f", "hls.tcl"])]
)
def test_synth_by_tcl(workplace, form, options):
    workplace.install(form)
    assert workplace.run("synth") == 0
    settings = {"SPVIT_TOP": "spvit_top", "SPVIT_STEPS": "csim csynth export"}
    assert workplace.calls() == [[form, options, settings]]
    log = (workplace.build / "logs" / "synth-spvit_top.log").read_text()
    assert log.startswith(f"$ {form} {' '.join(options)}\nspvit: csim of spvit_top\n") and "[HLS 200-10] export" in log


def test_synth_and_cosim_by_configuration_file(workplace):
    workplace.install("v++", "vitis-run")
    assert workplace.run("cosim", "--hls", "v++") == 0
    work = ["--config", "hls_config.cfg", "--work_dir", "../hls/spvit_top"]
    assert [call[:2] for call in workplace.calls()] == [
        ["vitis-run", ["--mode", "hls", "--csim", *work]],
        ["v++", ["-c", "--mode", "hls", *work]],
        ["vitis-run", ["--mode", "hls", "--package", *work]],
        ["vitis-run", ["--mode", "hls", "--cosim", *work]],
    ]
    log = (workplace.build / "logs" / "synth-spvit_top.log").read_text()
    assert [line[:9] for line in log.splitlines() if line.startswith("$")] == ["$ vitis-r", "$ v++ -c ", "$ vitis-r"]


def test_a_kernel_alone(workplace):
    workplace.install("v++", "vitis-run")
    for form, tcl in (("v++", False), ("vitis-run", True)):
        assert workplace.run("synth", "--top", "mlp_block", "--hls", form) == 0
        assert workplace.calls()[-1][2].get("SPVIT_TOP") == ("mlp_block_top" if tcl else None)
    assert "hls_config-mlp_block.cfg" in workplace.calls()[0][1]
    assert workplace.reports("reports-mlp_block.json")["top"] == "mlp_block_top"
    assert not (workplace.build / "reports.json").exists()


def test_cosim_and_bitstream_synthesize_only_when_they_must(workplace):
    workplace.install(*ALL)

    def steps():
        found = [settings.get("SPVIT_STEPS", tool) for tool, _, settings in workplace.calls()]
        workplace.record.unlink()
        return found

    assert workplace.run("bitstream") == 0
    assert steps() == ["csim csynth export", "vivado"]
    assert workplace.run("bitstream") == 0
    assert steps() == ["vivado"]
    assert workplace.run("cosim") == 0
    assert steps() == ["cosim"]
    newer = time.time_ns() + 10**9
    os.utime(workplace.build / "design.json", ns=(newer, newer))
    assert workplace.run("cosim") == 0
    assert steps() == ["csim csynth export", "cosim"]


def test_bitstream_calls_vivado_in_the_build_folder(workplace):
    workplace.install(*ALL)
    assert workplace.run("bitstream") == 0
    assert workplace.calls()[-1][:2] == [
        "vivado", ["-mode", "batch", "-nojournal", "-nolog", "-source", "tcl/vivado.tcl"],
    ]  # fmt: skip
    assert (workplace.build / "bitstream" / "spvit.bit").exists()


# --- what is reported ---


def test_figures_stand_beside_the_estimate_with_the_difference(workplace, capsys):
    workplace.install(*ALL)
    (workplace.build / "estimate.json").write_text('{"cycles": 900000.4}')
    assert workplace.run("cosim") == 0
    capsys.readouterr()
    assert workplace.run("bitstream") == 0
    shown = capsys.readouterr().out
    found = workplace.reports()
    assert found["csynth"]["dsp"] == 142 and found["vivado"]["lut"] == 198765
    assert found["cosim"] == {"stage": "cosim", "cycles_min": 912345, "cycles_max": 923456}
    assert found["estimate"]["cycles_max"] == 900000
    assert "cycles_min" not in found["csynth"]  # undef is no number
    assert found["digest"] == json.loads((workplace.build / "design.json").read_text())["digest"]
    difference = 142 / found["estimate"]["dsp"] - 1
    row = next(line for line in shown.splitlines() if line.startswith("DSP "))
    cells = re.split("  +", row)
    assert cells[1:3] == [f"{found['estimate']['dsp']:,.0f}", f"142 ({difference:+.1%})"]
    assert " 900,000  " in shown and "912,345 (+1.4%)" in shown and "923,456 (+2.6%)" in shown
    assert "as planned pre-adders: 64 products take one of their sums in the DSP" in shown
    assert [finding["ok"] for finding in found["findings"]] == [True] * 11


def test_missed_timing_is_said_and_fails(workplace, capsys, monkeypatch):
    workplace.install(*ALL)
    monkeypatch.setenv("STANDIN_WNS", "-0.250")
    assert workplace.run("bitstream") == 1
    assert (
        "timing is missed by 0.250 ns: this bitstream is good for 190.5 MHz, not for its 200.0; give a target file "
        "with that clock_mhz, TARGET=my.toml"
    ) in capsys.readouterr().out
    assert workplace.reports()["vivado"]["wns_ns"] == -0.25


def test_a_broken_estimate_is_an_error(workplace):
    workplace.install("vitis_hls")
    (workplace.build / "estimate.json").write_text("{}")
    with pytest.raises(BuildError, match=r"estimate.json: has no cycles; remove it, or run make estimate again"):
        workplace.run("synth")


@pytest.mark.parametrize("stage", ["synth", "cosim", "bitstream"])
def test_a_deeper_engine_is_an_error_before_more_is_spent_on_it(workplace, monkeypatch, stage):
    workplace.install(*ALL)
    held = pipeline_cycles(design_of(micro()).architecture)
    monkeypatch.setenv("STANDIN_DEPTH", str(held + 1))
    with pytest.raises(BuildError) as error:
        workplace.run(stage)
    assert re.fullmatch(
        rf"build/micro-zcu102/hls/spvit_top/solution1/syn/report/csynth.rpt: ENGINE is {held + 1} cycles deep and kPipelineCycles is "
        rf"{held}, so the hardware would compute wrong values: set MARGIN in hw/model/latency.py to [\d.]+ or more, then make "
        r"hls and synthesize again",
        str(error.value),
    )
    assert [settings.get("SPVIT_STEPS", tool) for tool, _, settings in workplace.calls()] == ["csim csynth export"]
    assert (workplace.build / "reports.json").exists() == (stage == "synth")


# --- failures ---


@pytest.mark.parametrize("form", ["vitis_hls", "vitis-run", "v++"])
@pytest.mark.parametrize(
    ("step", "name", "first"),
    [
        ("csim", "C-simulation", "MISMATCH logits[3] of case 0: 17, golden 18"),
        ("csynth", "C synthesis", "ERROR: [HLS 207-3777] use of undeclared identifier 'x': top.cpp:7"),
        ("export", "IP export", "ERROR: [IMPL 213-28] Failed to generate IP."),
        ("cosim", "RTL co-simulation", "ERROR: [COSIM 212-361] C TB post check failed, nonzero return value '1'."),
    ],
)
def test_a_failed_step_names_tool_step_log_and_first_error(workplace, monkeypatch, form, step, name, first):
    workplace.install(*ALL)
    monkeypatch.setenv("STANDIN_FAIL", step)
    with pytest.raises(BuildError) as error:
        workplace.run("cosim", "--hls", form)
    tool = form if form != "v++" or step == "csynth" else "vitis-run"
    log = f"build/micro-zcu102/logs/{'cosim' if step == 'cosim' else 'synth'}-spvit_top.log"
    assert str(error.value) == f"{tool} failed at {name}: it ended with exit status 1; first error: {first} ({log})"
    assert first in Path(log).read_text()
    assert not (workplace.build / "reports.json").exists()


def test_vivado_that_fails(workplace, monkeypatch):
    workplace.install(*ALL)
    monkeypatch.setenv("STANDIN_FAIL", "bitstream")
    with pytest.raises(BuildError) as error:
        workplace.run("bitstream")
    assert str(error.value) == (
        "vivado failed at block design and bitstream: it ended with exit status 1; first error: ERROR: [Place 30-640] "
        "Place Check : this design requires more LUT cells (build/micro-zcu102/logs/bitstream-spvit_top.log)"
    )


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("silently", "it ended with exit status 1; no error in its log, which ends with: INFO: [HLS 200-10] csynth"),
        ("killed", "it was killed by signal 9; no error in its log, which ends with: INFO: [HLS 200-10] csynth"),
    ],
)
def test_a_tool_that_dies_without_a_word(workplace, monkeypatch, how, what):
    workplace.install("vitis_hls")
    monkeypatch.setenv("STANDIN_FAIL", f"csynth:{how}")
    with pytest.raises(BuildError) as error:
        workplace.run("synth")
    assert str(error.value).startswith(f"vitis_hls failed at C synthesis: {what} (")


def test_results_of_an_earlier_run_are_not_taken_for_this_ones(workplace, monkeypatch):
    workplace.install("vitis_hls")
    assert workplace.run("synth") == 0
    monkeypatch.setenv("STANDIN_FAIL", "csynth:quietly")
    with pytest.raises(
        BuildError, match=r"it left no build/micro-zcu102/hls/spvit_top/solution1/syn/report/spvit_top_csynth.xml"
    ):
        workplace.run("synth")


def test_an_interrupt_takes_the_tool_with_it(workplace, monkeypatch):
    workplace.install("vitis_hls")
    monkeypatch.setenv("STANDIN_FAIL", "csynth:slowly")

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 2)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            workplace.run("synth")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert time.monotonic() - start < 30  # not the stand-in's minute


# --- requests that cannot be ---


def test_a_project_and_its_vectors_must_be_there(workplace):
    workplace.install("vitis_hls")
    (workplace.build / "tb" / "spvit_top" / "0").rmdir()
    with pytest.raises(
        BuildError, match=r"micro-zcu102/tb/spvit_top has no vectors for the testbench: make synth writes them"
    ):
        workplace.run("synth")
    (workplace.build / "design.json").unlink()
    with pytest.raises(BuildError, match=r"micro-zcu102 has no design.json: run make hls first"):
        workplace.run("synth")


def test_no_bitstream_of_a_kernel_or_for_a_card(workplace):
    workplace.install(*ALL)
    with pytest.raises(ConfigError, match="TOP=mlp_block: a kernel alone has no bitstream"):
        workplace.run("bitstream", "--top", "mlp_block")
    with pytest.raises(ConfigError, match="TARGET=u50 has no processor on its chip"):
        synth.check("bitstream", read(VendorOptions, "--model", "micro", "--target", "u50"))
