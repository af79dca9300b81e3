"""The parsers on reports in the tools' own formats, and what is found in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hls4ml.report.vivado_report import parse_vivado_report
from jinja2 import Template

from hw.architecture import Architecture
from hw.layout import Layout
from hw.model.latency import engine_depth, pipeline_cycles
from hw.model.resources import estimate_resources
from hw.pragmas import read_pragmas
from hw.vendor.findings import adders_of_three, findings, lines
from hw.vendor.reports import (
    Figures,
    Loop,
    ReportError,
    Storage,
    read_bindings,
    read_cosim,
    read_csynth,
    read_implementation,
    read_timing,
    read_utilization,
)
from spvit.config import resolve_model
from tests.hw.vendor import samples

KERNELS = Path(__file__).parents[3] / "hls_templates"
PART = "xczu9eg-ffvb1156-2-e"
LOG = "INFO: [HLS 200-10] csynth\nWARNING: [HLS 207-5292] unused parameter"
LAYOUT = Layout(resolve_model("deit_s").model, Architecture())


PRAGMAS = read_pragmas(
    {"engine_pragmas.hpp": Template((KERNELS / "engine_pragmas.j2").read_text()).render(architecture=LAYOUT.architecture),
     "functions.hpp": (KERNELS / "functions.hpp").read_text()}
)  # fmt: skip


def written(tmp_path, text, name="report"):
    path = tmp_path / name
    path.write_text(text)
    return path


# --- csynth ---


@pytest.mark.parametrize("old", [False, True])
def test_csynth_with_undefined_latency(tmp_path, old):
    figures = read_csynth(written(tmp_path, samples.csynth_xml(old=old)), "spvit_top", PART)
    assert figures == Figures(
        "csynth", dsp=2381, bram36=430.5, uram=None if old else 0, lut=243210, ff=291234, clock_mhz=1000 / 3.65
    )


def test_csynth_with_a_known_latency(tmp_path):
    figures = read_csynth(written(tmp_path, samples.csynth_xml(best="401", worst="2770")), "spvit_top", PART)
    assert (figures.cycles_min, figures.cycles_max) == (401, 2770)


def test_csynth_says_what_hls4mls_parser_says(tmp_path):
    """On the same file in hls4ml's own project layout."""
    reports = tmp_path / "spvit_top_prj" / "solution1" / "syn" / "report"
    reports.mkdir(parents=True)
    (tmp_path / "project.tcl").write_text('variable project_name\nset project_name "spvit_top"\nset backend "vitis"\n')
    (tmp_path / "spvit_top_prj" / "hls.app").write_text(
        '<project xmlns="com.autoesl.autopilot.project"><solutions><solution name="solution1"/></solutions></project>'
    )
    path = reports / "spvit_top_csynth.xml"
    path.write_text(samples.csynth_xml(best="7", worst="9"))
    (tmp_path / "vivado_synth.rpt").write_text(samples.utilization_rpt())
    parsed = parse_vivado_report(str(tmp_path))
    ours, theirs = read_csynth(path, "spvit_top", PART), parsed["CSynthesisReport"]
    assert [ours.dsp, 2 * ours.bram36, ours.uram, ours.lut, ours.ff] == [
        float(theirs[key]) for key in ("DSP", "BRAM_18K", "URAM", "LUT", "FF")
    ]
    assert [ours.cycles_min, ours.cycles_max] == [int(theirs["BestLatency"]), int(theirs["WorstLatency"])]
    assert ours.clock_mhz == 1000 / float(theirs["EstimatedClockPeriod"])
    implemented, theirs = read_utilization(tmp_path / "vivado_synth.rpt"), parsed["VivadoSynthReport"]
    # it looks for DSPs where they stand before placement, so it finds none here
    assert [implemented.lut, implemented.ff] == [float(theirs[key]) for key in ("LUT", "FF")]


def test_a_report_of_another_design_is_refused(tmp_path):
    path = written(tmp_path, samples.csynth_xml(top="myproject"))
    with pytest.raises(ReportError) as error:
        read_csynth(path, "spvit_top", PART)
    assert str(error.value) == (
        f"{path}: this is a report of myproject on {PART}, not of spvit_top on {PART}; remove it, run make synth"
    )
    path = written(tmp_path, samples.csynth_xml(part="xc7z020clg484-1"))
    with pytest.raises(ReportError, match="a report of spvit_top on xc7z020clg484-1, not of"):
        read_csynth(path, "spvit_top", PART)


def test_a_report_that_is_none_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"nowhere: there is no such file; run the step that writes it again"):
        read_csynth(tmp_path / "nowhere", "spvit_top", PART)
    with pytest.raises(ReportError, match="not a synthesis report"):
        read_csynth(written(tmp_path, samples.csynth_xml()[:300]), "spvit_top", PART)
    start, _, rest = samples.csynth_xml().partition("<AreaEstimates>")
    with pytest.raises(ReportError, match="has no AreaEstimates"):
        read_csynth(written(tmp_path, start + rest.partition("</AreaEstimates>")[2]), "spvit_top", PART)
    with pytest.raises(ReportError, match="has no Bind Op Report"):
        read_bindings(written(tmp_path, samples.cosim_rpt()))
    with pytest.raises(ReportError, match="no result of a co-simulation"):
        read_cosim(written(tmp_path, samples.csynth_rpt()))
    with pytest.raises(ReportError, match="no row of CLB LUTs"):
        read_utilization(written(tmp_path, samples.timing_rpt()))
    with pytest.raises(
        ReportError, match=r"no worst negative slack of clk_out1_spvit_clk_wiz_0_0 in its Intra Clock Tab"
    ):
        read_timing(written(tmp_path, samples.timing_rpt("NA")))
    with pytest.raises(ReportError, match=r"its Clock Summary has no clock, and neither clk_out1_\* nor clk_pl_0"):
        read_timing(written(tmp_path, samples.utilization_rpt()))
    with pytest.raises(
        ReportError, match=r"its Clock Summary has only pl0, sys_clk, and neither clk_out1_\* nor clk_pl_0"
    ):
        read_timing(written(tmp_path, samples.timing_rpt(clock="sys_clk").replace("clk_pl_0", "pl0")))


def test_bindings_are_counted_by_instance(tmp_path):
    bindings = read_bindings(written(tmp_path, samples.csynth_rpt(fused=6, chained=2, plain=3, banks=4, threes=2)))
    assert [operator.name.split("_")[0] for operator in bindings.operators] == ["ama"] * 2 + ["am"] * 4 + [
        "mul"
    ] * 3 + ["add"] * 3
    assert [operator.impl for operator in bindings.operators[-4:]] == ["auto", "tadder", "tadder", "fabric"]
    assert sum(operator.dsp for operator in bindings.operators) == 9
    assert {operator.module for operator in bindings.operators} == {"spvit_top_engine_pass"}
    assert bindings.storages == (
        *(Storage(f"engine_memory_v_{i}", "spvit_top", 1, "ram_s2p", "auto", 16) for i in range(4)),
        Storage("engine_memory_x_0", "spvit_top", 8, "ram_s2p", "auto", 1024),
        *(Storage(f"engine_memory_work_{i}", "spvit_top", 8, "ram_s2p", "auto", 256) for i in range(16)),
        Storage("kGeluBase", "spvit_top", 64, "rom_np", "auto", 19),
        Storage("kExp", "spvit_top", 32, "rom_np", "auto", 18),
    )
    assert bindings.loops == (Loop("ENGINE", 1, True, 61), Loop("DECIDE", 1, True, 14), Loop("PROGRAM", None, False))


def test_the_storage_report_of_2022_2_has_other_columns(tmp_path):
    text = samples.csynth_rpt(banks=2).replace("== Storage Report", "== Bind Storage Report")
    assert len(read_bindings(written(tmp_path, text)).storages) == 2 + 1 + 16 + 2


# --- co-simulation and Vivado ---


def test_cosim(tmp_path):
    assert read_cosim(written(tmp_path, samples.cosim_rpt(fewest=10, most=12))) == Figures(
        "cosim", cycles_min=10, cycles_max=12
    )
    path = written(tmp_path, samples.cosim_rpt("Fail"))
    with pytest.raises(ReportError) as error:
        read_cosim(path)
    assert str(error.value) == f"{path}: co-simulation says Fail, so the RTL differs from the golden"


def test_implementation(tmp_path):
    written(tmp_path, samples.utilization_rpt(), "utilization.rpt")
    written(tmp_path, samples.timing_rpt("-0.250"), "timing.rpt")
    figures = read_implementation(tmp_path, 200)
    assert figures == Figures(
        "vivado", dsp=2377, bram36=455.5, lut=198765, ff=301234, wns_ns=-0.25,
        clock_mhz=pytest.approx(1000 / (1000 / 199.98 + 0.25)), constrained_mhz=pytest.approx(199.98),
    )  # fmt: skip
    assert Figures.from_json(json.loads(json.dumps(figures.to_json()))) == figures


def test_timing_that_is_met_allows_more(tmp_path):
    """By the generated clock's own period, 5.0005 ns here, and its own slack."""
    timing = read_timing(written(tmp_path, samples.timing_rpt("1.000")))
    assert (timing.clock, timing.wns_ns) == ("clk_out1_spvit_clk_wiz_0_0", 1.0)
    assert timing.period_ns == pytest.approx(1000 / 199.98)
    assert timing.reached_mhz == pytest.approx(1000 / (1000 / 199.98 - 1))


def test_timing_of_pl0_itself(tmp_path):
    text = samples.timing_rpt(pl0="187.481").replace("clk_out1_spvit_clk_wiz_0_0", "other_clock")
    timing = read_timing(written(tmp_path, text))
    assert (timing.clock, timing.constrained_mhz, timing.wns_ns) == ("clk_pl_0", pytest.approx(187.481), -9.0)


def test_a_timing_report_for_another_clock_is_refused(tmp_path):
    written(tmp_path, samples.utilization_rpt(), "utilization.rpt")
    written(tmp_path, samples.timing_rpt(), "timing.rpt")
    with pytest.raises(ReportError) as error:
        read_implementation(tmp_path, 150)
    assert str(error.value) == (
        f"{tmp_path}/timing.rpt: clk_out1_spvit_clk_wiz_0_0 is constrained to 199.98 MHz, and the design is for 150; "
        f"remove {tmp_path}, run make bitstream"
    )


# --- what was hoped for ---


def look_up(tmp_path, layout=LAYOUT, dsp=None, log=LOG, **report):
    """Each finding's verdict and text by name."""
    figures = Figures("csynth", dsp=estimate_resources(layout).dsp if dsp is None else dsp)
    bindings = read_bindings(written(tmp_path, samples.csynth_rpt(**report)))
    found = findings(layout, figures, bindings, PRAGMAS, log)
    return {finding.name: (finding.ok, finding.text) for finding in found}


def test_everything_as_planned(tmp_path):
    found = look_up(tmp_path)
    assert {name: ok for name, (ok, _) in found.items()} == {
        "the engine's depth": True,
        "nothing ignored": True,
        "X and WORK by banks": True,
        "memories as they were bound": True,
        "every loop starts an iteration per cycle": True,
        "pre-adders": True,
        "products in pairs": True,
        "adders of three": True,
        "tables in block RAM": True,
        "lanes share their multiplier": True,
        "V by columns": True,
    }


def test_a_deeper_engine_would_compute_wrong_values(tmp_path):
    """The last iteration that may be under way when a pass ends is kPipelineCycles old."""
    told, expected = pipeline_cycles(LAYOUT.architecture), engine_depth(LAYOUT.architecture)
    assert look_up(tmp_path, depth=told)["the engine's depth"] == (
        True, f"{told} cycles, kPipelineCycles allows {told}, {expected} expected",
    )  # fmt: skip
    ok, text = look_up(tmp_path, depth=told + 9)["the engine's depth"]
    assert not ok
    assert text.startswith(
        f"ENGINE is {told + 9} cycles deep and kPipelineCycles is {told}, so the hardware would comp"
    )
    margin = float(re.search(r"set MARGIN in hw/model/latency.py to ([\d.]+) or more", text)[1])
    assert -(-expected * margin // 8) * 8 >= told + 9  # as pipeline_cycles takes it
    assert look_up(tmp_path, depth="-")["the engine's depth"][0] is None


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("ERROR: [HLS 214-177] unsupported memory access on variable 'memory.x'", "a pointer is chosen at run time"),
        ("WARNING: [HLS 200-880] The II Violation in module 'engine' (loop 'ENGINE'): Unable to enforce a carried dependence constraint (II = 1, distance = 1, offset = 1)", "a carried dependence does not fit the interval"),
        ("WARNING: [HLS 200-885] The II Violation in module 'engine' (loop 'ENGINE'): Unable to schedule 'load' operation due to limited memory ports (II = 1)", "a memory has too few ports for the interval"),
        ("WARNING: [HLS 200-871] Estimated clock period (4.512 ns) exceeds the target", "the clock is missed by the tool's own estimate"),
        ("WARNING: [HLS 207-5556] Only for-loops and functions support the pragma, it is ignored: engine.hpp:12", "a pragma is ignored"),
        ("WARNING: [HLS 214-237] The INTERFACE pragma could not be applied? Directive is not supported here", "a pragma is ignored"),
    ],
)  # fmt: skip
def test_warnings_that_mean_a_loss(tmp_path, line, meaning):
    ok, text = look_up(tmp_path, log=f"{LOG}\n{line}\nINFO: done\n{line}\n")["nothing ignored"]
    assert (ok, text) == (False, f"lost: {meaning}, 2 times, first: {line}")
    assert look_up(tmp_path, log="")["nothing ignored"][0] is None


def test_partitions_and_aggregates_that_were_not_applied(tmp_path):
    name = "X and WORK by banks"
    assert look_up(tmp_path)[name] == (True, "17 banks")
    assert look_up(tmp_path, work=(4, 256))[name] == (
        False, "lost: memory_work in 4 banks in place of 16: a partition was not applied",
    )  # fmt: skip
    assert look_up(tmp_path, x=(1, 16))[name] == (
        False, "lost: memory_x 16 bits wide in place of 1024: an aggregate was not applied",
    )  # fmt: skip
    assert look_up(tmp_path, x=(0, 0), work=(0, 0))[name][0] is None


def test_memories_of_another_kind(tmp_path):
    name = "memories as they were bound"
    assert look_up(tmp_path)[name] == (True, "83 memories")
    ok, text = look_up(tmp_path, held="ram_t2p", banks=1, x=(0, 0), work=(0, 0))[name]
    assert (ok, text) == (False, "lost: engine_memory_v_0 is ram_t2p auto in place of ram_s2p bram")
    found = findings(LAYOUT, Figures("csynth"), read_bindings(written(tmp_path, samples.csynth_rpt())))
    assert [one.ok for one in found if one.name == name] == [None]  # no pragmas, nothing to compare


def test_lost_pre_adders(tmp_path):
    found = look_up(tmp_path, fused=1024, chained=1024, plain=1024)
    assert found["pre-adders"] == (
        False, "lost: 1,024 of 2,048 products sum both operands in fabric, some 17,408 LUTs",
    )  # fmt: skip
    assert found["products in pairs"][0]


def test_lost_pairs(tmp_path):
    found = look_up(tmp_path, chained=24)
    assert found["products in pairs"] == (False, "lost: 1,000 of 1,024 pairs are added in fabric, some 18,000 LUTs")
    assert found["pre-adders"][0]


def test_lost_adders_of_three(tmp_path):
    """64 trees of 16 terms: five and two of three, then one of two."""
    assert [adders_of_three(terms) for terms in (1, 2, 3, 4, 8, 16, 32)] == [0, 0, 1, 1, 3, 7, 14]
    assert look_up(tmp_path, threes=400)["adders of three"] == (
        False, "lost: 48 of 448 are two adders, some 1,776 LUTs",
    )  # fmt: skip
    assert look_up(tmp_path, threes=0)["adders of three"] == (
        None, "not to be told from csynth: without them, some 16,576 LUTs more",
    )  # fmt: skip


def test_tables_in_luts(tmp_path):
    assert look_up(tmp_path, exp=0)["tables in block RAM"] == (False, "lost: kExp in LUTs, some 21,120 of them")
    text = samples.csynth_rpt().replace("kExp", "table").replace("kGelu", "table")
    found = findings(LAYOUT, Figures("csynth", dsp=1), read_bindings(written(tmp_path, text)))
    assert [finding.ok for finding in found if finding.name == "tables in block RAM"] == [None]


def test_the_lanes_own_multiply_and_add_is_no_pair(tmp_path):
    text = samples.csynth_rpt(chained=1000).replace(
        "ama_addmuladd_16s_16s_17s_48s_48_4_1_U1 ", "mac_muladd_23s_18s_47s_48_4_1_U1 "
    )
    assert "mac_muladd_23s" in text
    found = findings(LAYOUT, Figures("csynth", dsp=1), read_bindings(written(tmp_path, text)))
    assert "lost: 25 of 1,024 pairs" in next(one.text for one in found if one.name == "products in pairs")


def test_lanes_with_multipliers_of_their_own(tmp_path):
    expected = estimate_resources(LAYOUT).dsp
    for extra, ok in ((0, True), (32, True), (33, False), (128, False)):
        assert look_up(tmp_path, dsp=expected + extra)["lanes share their multiplier"][0] is ok
    assert look_up(tmp_path, dsp=expected + 128)["lanes share their multiplier"][1] == (
        f"lost: {expected - 2048 + 128:,} DSPs beside the array in place of {expected - 2048:,}"
    )


def test_values_by_rows(tmp_path):
    found = look_up(tmp_path, banks=16)["V by columns"]
    assert found == (False, "lost: 16 banks in place of 64; filling by rows costs some 65,536 LUTs")
    assert look_up(tmp_path, named="values")["V by columns"][0] is None


def test_a_loop_that_is_too_slow(tmp_path):
    name = "every loop starts an iteration per cycle"
    assert look_up(tmp_path, engine_interval=2)[name] == (False, "lost: ENGINE every 2 cycles")
    text = samples.csynth_rpt().replace("o ENGINE", "o OTHER ")
    found = findings(LAYOUT, Figures("csynth", dsp=1), read_bindings(written(tmp_path, text)))
    assert found[1].text == "lost: the loop ENGINE is not pipelined"


def test_the_direct_product_needs_no_pre_adders(tmp_path):
    layout = Layout(LAYOUT.model, Architecture(32, 64, "direct", 4))
    names = look_up(tmp_path, layout)
    assert "pre-adders" not in names and names["products in pairs"][0] is False
    text = samples.csynth_rpt().replace("ama_addmuladd_16s_16s_17s_48s", "mac_muladd_16s_16s_34s")
    found = findings(layout, Figures("csynth", dsp=1), read_bindings(written(tmp_path, text)))
    assert next(one for one in found if one.name == "products in pairs").ok


def test_each_finding_is_a_line(tmp_path):
    found = findings(LAYOUT, Figures("csynth"), read_bindings(written(tmp_path, samples.csynth_rpt(chained=0))))
    texts = [line for line, _ in lines(found)]
    assert texts[1] == "as planned every loop starts an iteration per cycle: II = 1 in 2 loops"
    assert texts[4].startswith("LOST       products in pairs: lost: 1,024 of 1,024")
    assert texts[6] == "unknown    lanes share their multiplier: not to be told: csynth counts no DSPs"
