"""The scripts, really interpreted, with every vendor command recorded; the testbenches, really compiled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from hw import interface as names
from hw.clock import UNCERTAINTY
from hw.generate import make_project, write_project
from hw.manifest import read_design
from hw.target import resolve_target
from hw.vendor.scripts import memory_ports, render_scripts
from hw.vendor.tools import FORMS, HlsProject, bitstream_step
from sim.build import header_folder
from sim.vectors import accelerator_cases, unit_cases, write_cases
from tests.sim.networks import design_of, micro, random_images

VENDOR = Path(__file__).with_name("vendor.tcl")
UNITS = ("msa_block", "mlp_block", "token_selector", "token_packager")
PS = "zynq_ultra_ps_e_0"
KERNEL = names.KERNEL_CELL
DESIGN = design_of(micro(), tile_in=16, tile_out=16)  # two weight ports
TARGET = resolve_target("zcu102")
slow = pytest.mark.slow
uses_tclsh = pytest.mark.needs("tclsh")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A build folder as `make hls` leaves it, with an exported IP."""
    folder = tmp_path_factory.mktemp("micro-zcu102")
    write_project(make_project(DESIGN, TARGET), folder)
    for root in ("solution1", "hls"):
        export_ip(folder, root)
    return folder


def export_ip(folder, root):
    ip = folder / "hls" / names.TOP / root / "impl" / "ip"
    ip.mkdir(parents=True)
    (ip / "component.xml").touch()


def own_interface(folder):
    return read_design(folder).interface


def run_tcl(script, folder, **environment):
    """Interpret a script with the recorder. Returns the run, and each vendor command as a list of words."""
    record = folder / "record.tsv"
    record.unlink(missing_ok=True)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SPVIT_")}
    clean |= {"RECORD": str(record), "PROJECT": str(folder / "vivado")}
    run = subprocess.run(
        ["tclsh", str(VENDOR), str(script)], env=clean | environment, capture_output=True, text=True, timeout=60
    )
    lines = record.read_text().splitlines() if record.exists() else []
    return run, [line.split("\t") for line in lines]


# --- Vitis HLS by Tcl ---


@uses_tclsh
def test_hls_simulates_synthesizes_and_exports_the_accelerator(build):
    run, calls = run_tcl(build / "tcl" / "hls.tcl", build)
    assert (run.returncode, run.stderr) == (0, "")
    flags = "-std=c++14 -DSPVIT_EXACT_WIDTHS -Wno-unknown-pragmas"
    assert calls == [
        ["open_project", "-reset", "spvit_top"],
        ["set_top", "spvit_top"],
        ["add_files", "../src/top.cpp", "-cflags", flags],
        ["add_files", "-tb", "../tb/spvit_top.cpp", "-cflags", flags],
        ["open_solution", "-reset", "solution1", "-flow_target", "vivado"],
        ["set_part", "xczu9eg-ffvb1156-2-e"],
        ["create_clock", "-period", "5.000", "-name", "default"],
        ["set_clock_uncertainty", "27%"],
        ["config_compile", "-pipeline_style", "frp"],
        ["config_interface", "-m_axi_addr64"],
        [
            "config_export", "-format", "ip_catalog", "-rtl", "verilog",
            "-vendor", "xilinx.com", "-library", "hls", "-ipname", "spvit_top", "-version", "1.0",
        ],
        ["csim_design", "-O"],
        ["csynth_design"],
        ["export_design"],
    ]  # fmt: skip
    assert names.KERNEL_VLNV == "xilinx.com:hls:spvit_top:1.0"
    added = [word for call in calls if call[0] == "add_files" for word in call if word.endswith("cpp")]
    assert all((build / "hls" / word).exists() for word in added) and len(added) == 2


@uses_tclsh
@pytest.mark.parametrize("unit", UNITS)
def test_hls_takes_each_kernel_as_a_top_of_its_own(build, unit):
    run, calls = run_tcl(build / "tcl" / "hls.tcl", build, SPVIT_TOP=f"{unit}_top", SPVIT_STEPS="csynth")
    assert run.returncode == 0
    assert ["set_top", f"{unit}_top"] in calls
    added = [call for call in calls if call[0] == "add_files"]
    assert added[0][1] == f"../src/{unit}.cpp" and added[1][2] == f"../tb/{unit}_top.cpp"
    assert calls[-1] == ["csynth_design"]


@uses_tclsh
def test_cosim_continues_what_synthesis_left(build):
    run, calls = run_tcl(build / "tcl" / "hls.tcl", build, SPVIT_STEPS="cosim")
    assert run.returncode == 0
    assert calls == [
        ["open_project", "spvit_top"],
        ["open_solution", "solution1"],
        ["cosim_design", "-O", "-rtl", "verilog"],
    ]


@uses_tclsh
@pytest.mark.parametrize("failing", ["csim_design", "csynth_design", "export_design", "set_part"])
def test_hls_stops_at_the_step_that_fails(build, failing):
    run, calls = run_tcl(build / "tcl" / "hls.tcl", build, FAIL=failing)
    assert run.returncode == 1
    assert run.stderr == f"ERROR: '{failing}' failed\n"
    assert calls[-1][0] == failing


@uses_tclsh
@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("SPVIT_TOP", "mlp", "SPVIT_TOP=mlp is unknown; choose from mlp_block_top, msa_block_top, spvit_top, token_packager_top, token_selector_top"),
        ("SPVIT_STEPS", "csim synth", "SPVIT_STEPS=synth is unknown; choose from csim, csynth, export, cosim"),
    ],
)  # fmt: skip
def test_hls_refuses_what_it_does_not_know(build, variable, value, sentence):
    run, calls = run_tcl(build / "tcl" / "hls.tcl", build, **{variable: value})
    assert (run.returncode, run.stderr, calls) == (1, f"ERROR: {sentence}\n", [])


@uses_tclsh
def test_a_space_in_the_builds_path_stays_one_word(build, tmp_path):
    """To Vitis HLS no path goes that has one: its commands take lists. Vivado's property of paths is a list, too."""
    folder = tmp_path / "my builds {1}"
    shutil.copytree(build, folder)
    run, calls = run_tcl(folder / "tcl" / "hls.tcl", folder)
    assert (run.returncode, run.stderr) == (0, "")
    assert not [word for call in calls for word in call if str(tmp_path) in word]
    run, calls = run_tcl(folder / "tcl" / "vivado.tcl", folder)
    assert (run.returncode, run.stderr) == (0, "")
    assert ["create_project", "-force", "spvit", f"{folder}/vivado", "-part", TARGET.part] in calls
    (repositories,) = [call[2] for call in calls if call[:2] == ["set_property", "ip_repo_paths"]]
    split = subprocess.run(["tclsh"], input=f"puts [lindex {{{repositories}}} 0]", capture_output=True, text=True)
    assert split.stdout.strip() == f"{folder}/hls/spvit_top/solution1/impl/ip"


@pytest.mark.parametrize("form", FORMS)
def test_no_command_line_carries_the_builds_path(tmp_path, form):
    for unit in (None, "mlp_block"):
        project = HlsProject(tmp_path / "my builds", unit, form)
        for step in (*project.synthesis_steps(), *project.cosim_steps()):
            assert not [word for word in step.command if str(tmp_path) in word], step.command
            if "--work_dir" in step.command:
                work = step.folder / step.command[step.command.index("--work_dir") + 1]
                assert os.path.normpath(work) == str(project.folder)
    assert not [word for word in bitstream_step(tmp_path / "my builds", ()).command if str(tmp_path) in word]


@uses_tclsh
@pytest.mark.parametrize(
    ("script", "right", "wrong"),
    [
        ("hls.tcl", "csynth_design", "csynth_desing"),
        ("hls.tcl", "-flow_target", "-flow_targett"),
        ("hls.tcl", "set_part xczu9eg-ffvb1156-2-e", "set_part"),
        ("vivado.tcl", "connect_bd_intf_net", "conect_bd_intf_net"),
        ("vivado.tcl", "$::kernel/ap_clk", "$::kernal/ap_clk"),
        ("vivado.tcl", "-target_address_space", "-target_adress_space"),
    ],
)
def test_a_typo_in_a_script_fails_here(build, tmp_path, script, right, wrong):
    text = (build / "tcl" / script).read_text()
    assert right in text
    (tmp_path / "tcl").mkdir()
    (tmp_path / "tcl" / script).write_text(text.replace(right, wrong))
    for root in ("src", "tb"):
        (tmp_path / root).symlink_to(build / root)
    export_ip(tmp_path, "solution1")
    run, _ = run_tcl(tmp_path / "tcl" / script, tmp_path)
    assert run.returncode == 1 and run.stderr.startswith("ERROR: ")


# --- Vitis HLS by configuration file ---


def config(path):
    """{key: [values]}; keys of [hls] as they are, those before it with a leading slash."""
    values, section = {}, "/"
    for line in path.read_text().splitlines():
        if line == "[hls]":
            section = ""
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            values.setdefault(section + key, []).append(value)
    return values


@uses_tclsh
@pytest.mark.parametrize("unit", [None, *UNITS])
def test_the_configuration_file_says_what_the_tcl_says(build, unit):
    name, top = ("hls_config.cfg", "spvit_top") if unit is None else (f"hls_config-{unit}.cfg", f"{unit}_top")
    values = config(build / "tcl" / name)
    _, calls = run_tcl(build / "tcl" / "hls.tcl", build, SPVIT_TOP=top)
    said = {(call[0], "-tb" in call): call for call in calls}
    added = [said["add_files", False], said["add_files", True]]
    for key, call, position in (("syn", added[0], 1), ("tb", added[1], 2)):
        assert values[f"{key}.file"] == [call[position]] and (build / "tcl" / call[position]).exists()
        assert values[f"{key}.cflags"] == [call[call.index("-cflags") + 1]]
    export = said["config_export", False]
    assert {key: values[key] for key in values if key not in ("syn.file", "syn.cflags", "tb.file", "tb.cflags")} == {
        "/part": [said["set_part", False][1]],
        "flow_target": [said["open_solution", False][-1]],
        "clock": [said["create_clock", False][2] + "ns"],
        "clock_uncertainty": [said["set_clock_uncertainty", False][1]],
        "syn.top": [top],
        "syn.compile.pipeline_style": [said["config_compile", False][2]],
        "syn.interface.m_axi_addr64": ["true"],
        "csim.O": ["true"],
        "cosim.O": ["true"],
        "cosim.rtl": ["verilog"],
        "package.output.format": ["ip_catalog"],
        "package.output.syn": ["false"],
        **{f"package.ip.{key}": [export[export.index(f"-{option}") + 1]]
           for key, option in (("vendor", "vendor"), ("library", "library"), ("name", "ipname"), ("version", "version"))},
    }  # fmt: skip


# --- the block design ---


@dataclass
class BlockDesign:
    """What a run of vivado.tcl made, from its recorded calls."""

    cells: dict[str, str] = field(default_factory=dict)
    properties: dict[str, dict[str, str]] = field(default_factory=dict)
    nets: list[list[str]] = field(default_factory=list)
    buses: list[tuple[str, str]] = field(default_factory=list)
    assigned: list[dict[str, str]] = field(default_factory=list)
    excluded: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def of(cls, calls):
        design = cls()
        for command, *words in calls:
            if command == "create_bd_cell":
                design.cells[words[-1]] = words[words.index("-vlnv") + 1]
            elif command == "set_property" and words[-1] in design.cells:
                pairs = tcl_list(words[1]) if words[0] == "-dict" else words[:2]
                found = design.properties.setdefault(words[-1], {})
                found |= dict(zip(pairs[::2], pairs[1::2], strict=True))
            elif command == "connect_bd_net":
                design.nets.append(words)
            elif command == "connect_bd_intf_net":
                design.buses.append(tuple(words))
            elif command == "assign_bd_address":
                options = {
                    w: words[i + 1] for i, w in enumerate(words) if w in ("-offset", "-range", "-target_address_space")
                }
                segment = next(w for i, w in enumerate(words) if not w.startswith("-") and words[i - 1] not in options)
                design.assigned.append(options | {"segment": segment})
            elif command == "exclude_bd_addr_seg":
                design.excluded.append((words[1], words[2]))
        return design

    def pins(self, own):
        """Every pin that must be connected, of all cells: wires, and buses."""
        wires, buses = [], []
        for cell, vlnv in self.cells.items():
            kind, configured = vlnv.split(":")[2], self.properties.get(cell, {})
            if kind == "zynq_ultra_ps_e":
                ports = [i for i in range(4) if configured.get(f"CONFIG.PSU__USE__S_AXI_GP{i + 2}") == "1"]
                wires += [f"{cell}/{pin}" for pin in ("pl_clk0", "pl_resetn0", "maxihpm0_fpd_aclk", "pl_ps_irq0")]
                wires += [f"{cell}/saxihp{i}_fpd_aclk" for i in ports]
                buses += [f"{cell}/M_AXI_HPM0_FPD", *(f"{cell}/S_AXI_HP{i}_FPD" for i in ports)]
            elif kind == "smartconnect":
                wires += [f"{cell}/aclk", f"{cell}/aresetn"]
                wires += [f"{cell}/aclk{i}" for i in range(1, int(configured["CONFIG.NUM_CLKS"]))]
                for side, letter in (("NUM_SI", "S"), ("NUM_MI", "M")):
                    buses += [f"{cell}/{letter}{i:02d}_AXI" for i in range(int(configured[f"CONFIG.{side}"]))]
            elif kind == "proc_sys_reset":
                wires += [f"{cell}/{pin}" for pin in ("slowest_sync_clk", "ext_reset_in", "peripheral_aresetn")]
                wires += [f"{cell}/dcm_locked"] * any("clk_wiz" in vlnv for vlnv in self.cells.values())
            elif kind == "clk_wiz":
                wires += [f"{cell}/{pin}" for pin in ("clk_in1", "resetn", "locked", "clk_out1")]
                wires += [f"{cell}/clk_out2"] * (configured.get("CONFIG.CLKOUT2_USED") == "true")
            elif kind == "axi_intc":
                wires += [f"{cell}/{pin}" for pin in ("s_axi_aclk", "s_axi_aresetn", "intr", "irq")]
                buses.append(f"{cell}/s_axi")
            elif kind == "axi_timer":
                wires += [f"{cell}/{pin}" for pin in ("s_axi_aclk", "s_axi_aresetn", "capturetrig0")]
                buses.append(f"{cell}/S_AXI")
            else:
                assert vlnv == names.KERNEL_VLNV
                wires += [f"{cell}/{pin}" for pin in ("ap_clk", "ap_rst_n", names.INTERRUPT_PIN)]
                buses += [f"{cell}/s_axi_control", *(f"{cell}/m_axi_{bundle}" for bundle in own.bundles)]
        return wires, buses

    def net_of(self, pin):
        return next(net for net in self.nets if pin in net)

    def memory_port(self, bundle):
        """The HP port that a bundle of the kernel reaches, through its SmartConnect."""
        (arrives,) = [end for start, end in self.buses if start == f"{KERNEL}/m_axi_{bundle}"]
        switch = arrives.split("/")[0]
        (port,) = [end for start, end in self.buses if start == f"{switch}/M00_AXI"]
        return int(re.fullmatch(rf"{PS}/S_AXI_HP(\d)_FPD", port)[1])


def tcl_list(text):
    words = text.replace("{", "").replace("}", "").split()
    assert len(words) % 2 == 0
    return words


@pytest.fixture(scope="module")
def board(build):
    run, calls = run_tcl(build / "tcl" / "vivado.tcl", build)
    assert (run.returncode, run.stderr) == (0, "")
    return calls


@pytest.fixture(scope="module")
def block_design(board):
    return BlockDesign.of(board)


@uses_tclsh
def test_every_port_is_connected_once(build, block_design):
    wires, buses = block_design.pins(own_interface(build))
    assert Counter(pin for net in block_design.nets for pin in net) == Counter(wires)
    assert Counter(pin for bus in block_design.buses for pin in bus) == Counter(buses)


@uses_tclsh
def test_one_clock_and_one_reset_reach_every_cell(block_design):
    check_clock_and_reset(block_design, "clk_wiz_0/clk_out1", "clk_wiz_0/clk_out2")


@uses_tclsh
def test_the_memory_ports_have_the_clock_that_their_plan_counts_on(block_design, build):
    wizard = block_design.properties["clk_wiz_0"]
    assert wizard["CONFIG.CLKOUT2_REQUESTED_OUT_FREQ"] == "299.970000" and TARGET.made_port_mhz == 299.97
    assert 99.99 * float(wizard["CONFIG.MMCM_CLKFBOUT_MULT_F"]) / int(wizard["CONFIG.MMCM_CLKOUT1_DIVIDE"]) == (
        pytest.approx(299.97)
    )
    crossing = [cell for cell, own in block_design.properties.items() if own.get("CONFIG.NUM_CLKS") == "2"]
    assert sorted(crossing) == [f"hp{port}_interconnect" for port in range(4)]
    run, _ = run_tcl(build / "tcl" / "vivado.tcl", build, PORT_DIVIDE="6")
    assert (run.returncode, run.stderr.partition(" MHz, ")[0]) == (1, "ERROR: the memory ports' clock runs at 199.98")


@uses_tclsh
def test_ports_that_are_no_faster_than_the_accelerator_have_its_clock(tmp_path):
    target = replace(TARGET, port_mhz=200)
    write_project(make_project(DESIGN, target), tmp_path)
    export_ip(tmp_path, "hls")
    run, calls = run_tcl(tmp_path / "tcl" / "vivado.tcl", tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    design = BlockDesign.of(calls)
    check_clock_and_reset(design, "clk_wiz_0/clk_out1")
    assert "CONFIG.CLKOUT2_USED" not in design.properties["clk_wiz_0"]


def check_clock_and_reset(design, source, of_ports=None):
    """The clock from `source` reaches every clock pin but the wizard's own and those of the memory ports, where these have
    `of_ports`; one reset reaches every reset pin."""
    reset = set(design.net_of("proc_sys_reset_0/peripheral_aresetn"))
    pins = {pin for net in design.nets for pin in net}
    before = {f"{PS}/pl_clk0", "clk_wiz_0/clk_in1"} - {source}
    clocked = {pin for pin in pins if re.search(r"clk\d?$", pin)}
    if of_ports is not None:
        ports = {pin for pin in clocked if re.search(r"saxihp\d_fpd_aclk$|/aclk1$", pin)}
        assert set(design.net_of(of_ports)) - {of_ports} == ports and ports
        clocked -= ports
    assert set(design.net_of(source)) - {source} == clocked - before - {source}
    assert reset - {"proc_sys_reset_0/peripheral_aresetn"} == {
        pin for pin in pins if re.search(r"(aresetn|ap_rst_n)$", pin) and not pin.startswith("proc_sys_reset_0")
    }
    assert f"{PS}/pl_resetn0" in design.net_of("proc_sys_reset_0/ext_reset_in")


@uses_tclsh
def test_the_clock_comes_from_a_wizard_whose_lock_holds_the_reset(block_design):
    """200 MHz is no whole fraction of the board's IOPLL, so PL0 alone cannot make it."""
    assert block_design.cells["clk_wiz_0"] == "xilinx.com:ip:clk_wiz"
    assert block_design.net_of("clk_wiz_0/clk_in1") == [f"{PS}/pl_clk0", "clk_wiz_0/clk_in1"]
    assert block_design.net_of("clk_wiz_0/locked") == ["clk_wiz_0/locked", "proc_sys_reset_0/dcm_locked"]
    assert block_design.net_of("clk_wiz_0/resetn")[0] == f"{PS}/pl_resetn0"
    wizard, ps = block_design.properties["clk_wiz_0"], block_design.properties[PS]
    assert (ps["CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"], ps["CONFIG.PSU__CRL_APB__PL0_REF_CTRL__SRCSEL"]) == (
        "99.990000", "IOPLL",
    )  # fmt: skip
    assert {key: wizard[f"CONFIG.{key}"] for key in ("OVERRIDE_MMCM", "USE_LOCKED", "RESET_TYPE")} == {
        "OVERRIDE_MMCM": "true", "USE_LOCKED": "true", "RESET_TYPE": "ACTIVE_LOW",
    }  # fmt: skip
    factors = [float(wizard[f"CONFIG.MMCM_{key}"]) for key in ("CLKFBOUT_MULT_F", "DIVCLK_DIVIDE", "CLKOUT0_DIVIDE_F")]
    assert 99.99 * factors[0] / factors[1] / factors[2] == pytest.approx(199.98)


@pytest.mark.parametrize(
    ("source", "mhz", "pl0"),
    [("wizard", 200, "99.990000"), ("wizard", 150, "99.990000"), ("wizard", 187.5, "99.990000"), ("pl0", 187.5, "187.481250")],
)  # fmt: skip
@uses_tclsh
def test_the_clock_is_the_targets(tmp_path, source, mhz, pl0):
    target = replace(TARGET, clock_mhz=mhz, clock_source=source)
    scripts = render_scripts(DESIGN.layout, target, "micro")
    path = tmp_path / "tcl" / "vivado.tcl"
    path.parent.mkdir()
    path.write_text(scripts["tcl/vivado.tcl"])
    export_ip(tmp_path, "hls")
    run, calls = run_tcl(path, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    design = BlockDesign.of(calls)
    assert design.properties[PS]["CONFIG.PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"] == pl0
    assert ("clk_wiz_0" in design.cells) == (source == "wizard")
    if source == "wizard":
        check_clock_and_reset(design, "clk_wiz_0/clk_out1", "clk_wiz_0/clk_out2")
    else:
        check_clock_and_reset(design, f"{PS}/pl_clk0")
    assert f"create_clock -period {1000 / mhz:.3f} " in scripts["tcl/hls.tcl"]
    assert f"clock={1000 / mhz:.3f}ns" in scripts["tcl/hls_config.cfg"].splitlines()
    assert f"set_clock_uncertainty {100 * UNCERTAINTY:g}%" in scripts["tcl/hls.tcl"]


@uses_tclsh
def test_another_pl0_than_the_manifests_stops_vivado(build):
    run, calls = run_tcl(build / "tcl" / "vivado.tcl", build, PL0_MHZ="107.132")
    assert run.returncode == 1
    assert run.stderr == (
        "ERROR: PL0 runs at 107.132 MHz, the manifest counts on 99.990000: give clock_source_mhz, the IOPLL of this "
        "board's preset, in the target's file\n"
    )
    assert calls[-1][0] == "get_property"


@uses_tclsh
def test_each_hp_port_is_used_once_and_is_as_wide_as_the_target_says(block_design):
    used = [re.fullmatch(rf"{PS}/S_AXI_HP(\d)_FPD", end) for _, end in block_design.buses]
    ports = sorted(int(match[1]) for match in used if match)
    assert ports == [0, 1, 2, 3]  # two of weights, image, result
    for port in ports:
        assert block_design.properties[PS][f"CONFIG.PSU__SAXIGP{port + 2}__DATA_WIDTH"] == str(TARGET.port_bits)


def test_memory_ports_share_only_when_they_must():
    assert [port.masters for port in memory_ports(("w0", "image", "result"), 4)] == [("w0",), ("image",), ("result",)]
    four = ("weights_0", "weights_1", "weights_2", "weights_3", "image", "result")
    assert [port.masters for port in memory_ports(four, 4)] == [
        ("weights_0", "image"), ("weights_1", "result"), ("weights_2",), ("weights_3",),
    ]  # fmt: skip
    assert memory_ports(four, 1)[0].masters == four


@uses_tclsh
def test_every_master_reaches_ddr_through_the_port_that_it_is_wired_to(build, block_design):
    for bundle in own_interface(build).bundles:
        port = block_design.memory_port(bundle)
        space = f"{KERNEL}/Data_m_axi_{bundle}"
        segments = [found["segment"] for found in block_design.assigned if found["-target_address_space"] == space]
        base = f"{PS}/SAXIGP{port + 2}/HP{port}"
        assert segments == [f"{base}_DDR_LOW", f"{base}_DDR_HIGH"]
        excluded = [segment for where, segment in block_design.excluded if where == space]
        assert excluded == [f"{base}_QSPI", f"{base}_LPS_OCM", f"{base}_PCIE_LOW"]


@uses_tclsh
def test_a_board_without_upper_ddr_maps_the_lower_alone(build):
    run, calls = run_tcl(build / "tcl" / "vivado.tcl", build, NO_DDR_HIGH="1")
    assert run.returncode == 0
    assert not [found for found in BlockDesign.of(calls).assigned if "HIGH" in found["segment"]]


@uses_tclsh
def test_registers_lie_where_the_host_looks_for_them(block_design):
    found = {
        one["segment"]: (int(one["-offset"], 16), int(one["-range"], 16))
        for one in block_design.assigned
        if one["-target_address_space"] == f"{PS}/Data"
    }
    assert found == {
        f"{KERNEL}/s_axi_control/Reg": (names.KERNEL_ADDRESS, names.ADDRESS_RANGE),
        f"{names.INTERRUPT_CELL}/S_AXI/Reg": (names.INTERRUPT_ADDRESS, names.ADDRESS_RANGE),
        f"{names.TIMER_CELL}/S_AXI/Reg": (names.TIMER_ADDRESS, names.ADDRESS_RANGE),
    }


@uses_tclsh
def test_the_interrupt_reaches_the_processor_and_the_timer(block_design):
    assert set(block_design.net_of(f"{KERNEL}/{names.INTERRUPT_PIN}")) == {
        f"{KERNEL}/{names.INTERRUPT_PIN}",
        f"{names.INTERRUPT_CELL}/intr",
        f"{names.TIMER_CELL}/capturetrig0",
    }
    assert set(block_design.net_of(f"{names.INTERRUPT_CELL}/irq")) == {
        f"{names.INTERRUPT_CELL}/irq",
        f"{PS}/pl_ps_irq0",
    }
    assert block_design.properties[PS]["CONFIG.PSU__USE__IRQ0"] == "1"
    assert block_design.cells[names.TIMER_CELL] == names.TIMER_VLNV


@uses_tclsh
def test_from_the_newest_board_files_to_bit_hwh_and_xsa(build, board):
    order = [call[0] for call in board]
    steps = [
        "create_project", "create_bd_design", "validate_bd_design", "make_wrapper", "launch_runs", "wait_on_run",
        "open_run", "report_utilization", "report_timing_summary", "write_hw_platform",
    ]  # fmt: skip
    assert [step for step in order if step in steps] == steps
    assert ["set_property", "board_part", "xilinx.com:zcu102:part0:3.10", "current_project"] in board
    assert ["create_project", "-force", "spvit", f"{build}/vivado", "-part", TARGET.part] in board
    assert next(call for call in board if call[0] == "launch_runs")[2:] == ["-to_step", "write_bitstream", "-jobs", "4"]
    assert ["set_property", "ip_repo_paths", f"{build}/hls/spvit_top/solution1/impl/ip", "current_project"] in board
    assert board[-1][-1] == f"{build}/bitstream/spvit.xsa"
    assert {path.name for path in (build / "bitstream").iterdir()} == {"spvit.bit", "spvit.hwh"}


@uses_tclsh
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"NO_BOARD": "1"}, "Vivado has no board files of zcu102 (xilinx.com:zcu102:part0:*): install them from the Vivado Store"),
        ({"STOPPED": "1"}, "implementation stopped: route_design ERROR"),
        ({"FAIL": "validate_bd_design"}, "'validate_bd_design' failed"),
    ],
)  # fmt: skip
def test_vivado_stops_with_a_sentence(build, environment, sentence):
    run, calls = run_tcl(build / "tcl" / "vivado.tcl", build, **environment)
    assert (run.returncode, run.stderr) == (1, f"ERROR: {sentence}\n")
    assert "write_hw_platform" not in [call[0] for call in calls]


@uses_tclsh
def test_vivado_asks_for_synthesis_first(build, tmp_path):
    (tmp_path / "tcl").mkdir()
    shutil.copy(build / "tcl" / "vivado.tcl", tmp_path / "tcl")
    run, _ = run_tcl(tmp_path / "tcl" / "vivado.tcl", tmp_path)
    assert run.returncode == 1
    assert run.stderr == f"ERROR: no exported IP under {tmp_path}/hls/spvit_top: run make synth first\n"


@uses_tclsh
@pytest.mark.parametrize("name", ["zcu104", "kv260", "ultra96v2"])
def test_the_other_boards_with_a_processor_have_a_block_design(tmp_path, name):
    target = resolve_target(name)
    write_project(make_project(DESIGN, target), tmp_path)
    export_ip(tmp_path, "solution1")
    run, calls = run_tcl(tmp_path / "tcl" / "vivado.tcl", tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    design = BlockDesign.of(calls)
    used = [end for _, end in design.buses if re.fullmatch(rf"{PS}/S_AXI_HP\d_FPD", end)]
    assert len(used) == len(set(used)) == min(target.ports, 4)
    wires, buses = design.pins(own_interface(tmp_path))
    assert Counter(pin for net in design.nets for pin in net) == Counter(wires)
    assert Counter(pin for bus in design.buses for pin in bus) == Counter(buses)


def test_a_card_without_a_processor_has_none():
    scripts = render_scripts(DESIGN.layout, resolve_target("u50"), "micro")
    assert "tcl/vivado.tcl" not in scripts and "set_part xcu50-fsvh2104-2-e" in scripts["tcl/hls.tcl"]


# --- testbenches ---


@pytest.fixture(scope="module")
def vectors(build):
    """The golden's files, two images."""
    cases = accelerator_cases(DESIGN, random_images(DESIGN.network.model, 2))
    assert write_cases(cases, 2, build / "tb" / names.TOP) == 2
    return build / "tb" / names.TOP


@pytest.fixture(scope="module")
def testbench(build, tmp_path_factory):
    return compile_testbench(build, names.TOP, "top.cpp", tmp_path_factory.mktemp("testbench"))


def compile_testbench(build, top, source, folder):
    """With the flags of the scripts."""
    flags = config(build / "tcl" / f"hls_config{'' if top == names.TOP else '-' + top.removesuffix('_top')}.cfg")
    command = ["g++", *flags["tb.cflags"][0].split(), "-Wall", "-Wextra", "-Wno-unused-label", "-Wno-uninitialized"]
    command += ["-isystem", str(header_folder()), f"../tb/{top}.cpp", f"../src/{source}", "-o", str(folder / top)]
    run = subprocess.run(command, cwd=build / "tcl", capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    return folder / top


def run_testbench(program, *arguments, cwd):
    return subprocess.run([program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_testbench_passes_on_the_goldens_vectors(testbench, vectors, tmp_path):
    run = run_testbench(testbench, vectors, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (0, "PASS: spvit_top, 2 calls, 0 values differ from the golden\n")


def test_the_testbench_finds_its_vectors_from_where_the_tools_run_it(testbench, vectors, build):
    for folder in (
        "hls/spvit_top/solution1/csim/build",
        "hls/spvit_top/solution1/sim/wrapc",
        "hls/spvit_top/hls/csim/build",
    ):
        (build / folder).mkdir(parents=True, exist_ok=True)
        assert run_testbench(testbench, cwd=build / folder).returncode == 0


@pytest.mark.parametrize(
    ("file", "position", "named"),
    [
        ("0/logits.bin", 0, "logits[0] of case 0"),
        ("1/logits.bin", -1, f"logits[{DESIGN.network.model.num_classes - 1}] of case 1"),
        ("0/status.bin", names.STATUS_HEADER, f"status[{names.STATUS_HEADER}] of case 0"),
        ("1/weights_0.bin", 500, "of case 1"),
        ("0/weights_1.bin", -3, "of case 0"),
        ("0/image.bin", 40, "logits"),
    ],
)
def test_the_testbench_fails_when_one_value_differs(testbench, vectors, tmp_path, file, position, named):
    shutil.copytree(vectors, tmp_path / "changed")
    dtype = np.uint8 if "image" in file else np.int32 if "status" in file else np.int16
    values = np.fromfile(tmp_path / "changed" / file, dtype)
    values[position] ^= 64
    values.tofile(tmp_path / "changed" / file)
    run = run_testbench(testbench, tmp_path / "changed", cwd=tmp_path)
    assert run.returncode == 1
    assert "MISMATCH" in run.stdout and named in run.stdout and "FAIL: spvit_top, 2 calls" in run.stdout


def test_the_testbench_refuses_missing_and_cut_vectors(testbench, vectors, tmp_path):
    run = run_testbench(testbench, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("ERROR: no folder tb/spvit_top with vectors at or above the working folder")
    shutil.copytree(vectors, tmp_path / "cut")
    whole = (tmp_path / "cut" / "0" / "logits.bin").read_bytes()
    (tmp_path / "cut" / "0" / "logits.bin").write_bytes(whole[:-1])
    run = run_testbench(testbench, tmp_path / "cut", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr == f"ERROR: {tmp_path}/cut/0/logits.bin has {len(whole) - 1} bytes and should have {len(whole)}\n"
    (tmp_path / "cut" / "0" / "logits.bin").unlink()
    run = run_testbench(testbench, tmp_path / "cut", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (2, f"ERROR: {tmp_path}/cut/0/logits.bin is missing\n")


@slow
@pytest.mark.parametrize("unit", UNITS)
def test_a_kernels_own_testbench_passes_and_fails(build, tmp_path, unit):
    top = f"{unit}_top"
    count = write_cases(unit_cases(DESIGN, unit, random_images(DESIGN.network.model, 1)), 9, build / "tb" / top)
    assert count == sum(found == unit for found, _, _ in DESIGN.program.units())
    program = compile_testbench(build, top, f"{unit}.cpp", tmp_path)
    run = run_testbench(program, build / "tb" / top, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (0, f"PASS: {top}, {count} calls, 0 values differ from the golden\n")
    for name, dtype in (("x", np.int16), ("tokens", np.int32), ("selection", np.int32)):
        shutil.copytree(build / "tb" / top, tmp_path / name)
        values = np.fromfile(tmp_path / name / "0" / f"{name}.bin", dtype)
        values[-1] += 1
        values.tofile(tmp_path / name / "0" / f"{name}.bin")
        run = run_testbench(program, tmp_path / name, cwd=tmp_path)
        assert run.returncode == 1 and f"MISMATCH {name}[" in run.stdout
