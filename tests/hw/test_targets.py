"""The boards: what each file says, and what a wrong one is told."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hw.target import TARGETS, resolve_target, target_names, with_clock
from spvit.errors import ConfigError

WHOLE = (TARGETS / "zcu102.toml").read_text()

# Device -> DSP48E2, BRAM36, URAM, LUTs, flip-flops: AMD's product tables
DEVICES = {
    "xczu9eg": (2520, 912, 0, 274080, 548160),
    "xczu7ev": (1728, 312, 96, 230400, 460800),
    "xck26": (1248, 144, 64, 117120, 234240),
    "xczu3eg": (360, 216, 0, 70560, 141120),
    "xcu50": (5952, 1344, 640, 871680, 1743360),
}


def test_the_boards():
    assert target_names() == ("kv260", "u50", "ultra96v2", "zcu102", "zcu104")


@pytest.mark.parametrize("name", target_names())
def test_each_board_has_its_device(name):
    target = resolve_target(name)
    assert target.name == name
    assert (target.dsp, target.bram36, target.uram, target.lut, target.ff) == DEVICES[target.part.split("-")[0]]
    # a LUT has two flip-flops beside it in all of these
    assert target.ff == 2 * target.lut
    assert re.fullmatch(r"[\w.]+:\w+:part0:\d+\.\d+", target.board_part)


@pytest.mark.parametrize("name", target_names())
def test_no_board_is_planned_with_more_than_its_ports_carry(name):
    target = resolve_target(name)
    carried_gbps = target.ports * target.port_bits / 8 * target.port_mhz / 1000
    assert 0.1 * carried_gbps < target.bandwidth_gbps <= 0.85 * carried_gbps
    assert target.bandwidth_gbps <= 0.75 * target.memory_gbps


def test_a_controllers_port_for_each_port(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(WHOLE.replace("controller_ports = [3, 4, 4, 5]", "controller_ports = [3, 4]"))
    with pytest.raises(ConfigError) as error:
        resolve_target(str(path))
    assert str(error.value) == (f"{path}: controller_ports=[3, 4] must say one for each of ports=4, or be left out")


def test_the_plan_is_the_least_of_memory_ports_and_the_controllers_own():
    zcu102 = resolve_target("zcu102")
    assert zcu102.bandwidth_gbps == pytest.approx(12.80, abs=0.01)  # the memory: 75% of 17.07
    # four ports of 128 bits at the accelerator's clock
    assert replace(zcu102, port_mhz=200).bandwidth_gbps == pytest.approx(0.85 * 4 * 16 * 0.19998)
    assert replace(zcu102, clock_source="pl0", clock_mhz=187.5).bandwidth_gbps == pytest.approx(0.85 * 4 * 16 * 0.1875)
    # stripes are equal: of ports that share one of the controller's, none gets more than its part of it
    assert replace(zcu102, memory_gbps=100).limits_gbps["the controller's ports"] == pytest.approx(0.85 * 4 * 8.53 / 2)
    alone = replace(zcu102, memory_gbps=100, controller_ports=(3, 4, 5, 6))
    assert alone.limits_gbps["the controller's ports"] == pytest.approx(0.85 * 4 * 8.53)
    assert "the controller's ports" not in resolve_target("u50").limits_gbps


@pytest.mark.parametrize("name", target_names())
def test_every_figure_has_its_source(name):
    target = resolve_target(name)
    assert set(target.sources) == {"part", "clock", "resources", "memory"}
    for key in ("part", "resources", "memory"):
        assert re.search(r"\b(DS|UG|PG)\d{3,4}\b|data sheet|user's guide", target.sources[key]), key
    assert "GB/s in theory" in target.sources["memory"] and "planned" in target.sources["memory"]


def test_who_has_a_processor():
    assert {name for name in target_names() if not resolve_target(name).has_processing_system} == {"u50"}


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(WHOLE.replace("clock_mhz = 200", "clock_mhz = 187.5").replace('name = "zcu102"', 'name = "mine"'))
    target = resolve_target(str(path))
    assert (target.name, target.clock_mhz, target.dsp) == ("mine", 187.5, 2520)


def test_a_file_that_does_not_say_how_its_clock_is_made(tmp_path):
    """A Clocking Wizard behind the usual IOPLL, and on a card its shell."""
    path = tmp_path / "mine.toml"
    path.write_text(re.sub(r"\[clocking\]\n(.*\n)*?\n", "", WHOLE))
    target = resolve_target(str(path))
    assert (target.clock_source, target.clock_source_mhz, target.clock.mhz) == ("wizard", 1499.985, 199.998)
    card = (TARGETS / "u50.toml").read_text()
    path.write_text(re.sub(r"\[clocking\]\n(.*\n)*?\n", "", card))
    target = resolve_target(str(path))
    assert (target.clock_source, target.clock_source_mhz, target.clock.mhz) == ("shell", 500, 300)


def test_another_clock():
    zcu102, pl0 = resolve_target("zcu102"), replace(resolve_target("zcu102"), clock_source="pl0", clock_mhz=150)
    assert with_clock(zcu102, None) is zcu102
    assert with_clock(zcu102, 150).clock.mhz == 149.985
    for target, mhz, sentence in (
        (zcu102, 900, "the MMCM of a Clocking Wizard makes 10 to 775 MHz on speed grade -2"),
        (pl0, 200, "PL0 divides the IOPLL's 1499.85 MHz by a whole number; the nearest are 187.48 (by 8) and 214.26 (by 7)"),
        (resolve_target("u50"), 600, "the card's platform scales its kernel clock up to 500 MHz"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as error:
            with_clock(target, mhz)
        assert str(error.value) == f"--clock {mhz} on {target.name}: cannot be made: {sentence}"


# --- wrong files ---


def refusal(path):
    with pytest.raises(ConfigError) as error:
        resolve_target(str(path))
    return str(error.value)


def test_an_unknown_name():
    assert refusal("zcu999") == "TARGET=zcu999 is unknown; choose one of kv260, u50, ultra96v2, zcu102, zcu104"
    assert refusal("boards/none.toml") == (
        "boards/none.toml: there is no such file; TARGET= takes its path, or one of kv260, u50, ultra96v2, zcu102, zcu104"
    )


FIELDS = re.findall(r"^(\w+) = ", WHOLE.partition("[sources]")[0], flags=re.MULTILINE)
OPTIONAL = {"clock_source", "clock_source_mhz", "controller_ports", "controller_port_gbps"}


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in OPTIONAL])
def test_a_missing_field(tmp_path, field):
    path = tmp_path / "board.toml"
    path.write_text(re.sub(rf"^{field} = .*\n", "", WHOLE, count=1, flags=re.MULTILINE))
    assert refusal(path) == f"{path}: field {field} is missing"


@pytest.mark.parametrize("table", ["", "[resources]\n", "[memory]\n"])
def test_an_unknown_field(tmp_path, table):
    path = tmp_path / "board.toml"
    path.write_text("dsps = 5\n" + WHOLE if not table else WHOLE.replace(table, table + "dsps = 5\n"))
    assert refusal(path).startswith(
        f"{path}: has no dsps; did you mean dsp? it knows name, board_part, part, processor, clock_mhz"
    )


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("dsp = 2520", 'dsp = "many"', "dsp='many' must be a whole number from 1 to 100,000"),
        ("dsp = 2520", "dsp = 2520.5", "dsp=2520.5 must be a whole number from 1 to 100,000"),
        ("dsp = 2520", "dsp = true", "dsp=True must be a whole number from 1 to 100,000"),
        ("lut = 274080", "lut = 0", "lut=0 must be a whole number from 1 to 100,000,000"),
        ("uram = 0", "uram = -1", "uram=-1 must be a whole number from 0 to 100,000"),
        ("clock_mhz = 200", "clock_mhz = 0", "clock_mhz=0 must be a number from 1 to 1,000"),
        ("clock_mhz = 200", "clock_mhz = nan", "clock_mhz=nan must be a number from 1 to 1,000"),
        (
            'name = "zcu102"',
            "name = 102",
            "name=102 must be a name for folders: letters, digits, _, - and ., a letter or digit first, of at most 64 characters",
        ),
        ('"zynq_ultra_ps_e"', '"microblaze"', "processor='microblaze' must be one of zynq_ultra_ps_e, none"),
        (
            '"wizard"',
            '"pl0"',
            "clock_mhz=200: cannot be made: PL0 divides the IOPLL's 1499.85 MHz by a whole number; the nearest are 187.48 "
            "(by 8) and 214.26 (by 7)",
        ),
        ('"wizard"', '"rpll"', "clock_source='rpll' must be one of wizard, pl0, shell"),
        (
            '"wizard"',
            '"shell"',
            "clock_source='shell' goes with another processor than 'zynq_ultra_ps_e'; a processing system has wizard or "
            "pl0, a card without one shell",
        ),
        ("= 1499.85", "= 0", "clock_source_mhz=0 must be a number from 1 to 10,000"),
        (
            "[resources]",
            "[resource]",
            "has no resource; did you mean sources? it knows name, board_part, part, processor, clock_mhz, ",
        ),
    ],
)
def test_a_wrong_value(tmp_path, right, wrong, sentence):
    path = tmp_path / "board.toml"
    assert right in WHOLE
    path.write_text(WHOLE.replace(right, wrong))
    assert refusal(path).startswith(f"{path}: {sentence}")


def test_sources_are_texts(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text(WHOLE.partition("[sources]")[0] + '[sources]\npart = ""\n')
    assert refusal(path).startswith(
        f"{path}: sources={{'part': ''}} must be a table of at most 16 texts, part, clock, "
    )
    path.write_text(WHOLE.replace('clock = "', 'clock = "\\u0007'))
    assert re.fullmatch(rf"{path}: sources.clock=.* must be a line of text, of at most 1,000 characters", refusal(path))
    path.write_text("memory = 3\n" + re.sub(r"\[memory\]\n(.*\n)*?\n", "", WHOLE))
    assert refusal(path) == f"{path}: memory=3 must be a table, [memory]"


def test_what_is_no_toml(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text("name = \n")
    assert refusal(path).startswith(f"{path}: not valid TOML: ")
    path.write_bytes(b"\xff\xfe")
    assert refusal(path) == f"{path}: cannot be read as text (line 1 is UTF-16); save it as UTF-8"
    path.unlink()
    path.mkdir()
    assert refusal(path).startswith(f"{path}: is a folder, and a file is wanted; TARGET= takes its path, or one of ")
