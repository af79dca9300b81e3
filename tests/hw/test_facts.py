"""What pragmas make of loops, arrays and streams."""

from __future__ import annotations

import pytest

from hw.facts import DEFAULT_PORTS, Partition, Ports, read_facts, read_top, top_sources
from hw.generate import make_project, write_project
from hw.target import resolve_target
from spvit.errors import BuildError
from tests.sim.networks import design_of, micro

KERNEL = """\
constexpr int kDistance = 8;
struct Arch { static constexpr int kBanks = 4; };
template <class A>
void run() {
#pragma HLS ARRAY_PARTITION variable = memory.x cyclic factor = A::kBanks dim = 2
#pragma HLS ARRAY_PARTITION variable = memory.x complete
#pragma HLS ARRAY_PARTITION variable = taps block factor = 2
#pragma HLS AGGREGATE variable = memory.x compact = bit
#pragma HLS BIND_STORAGE variable = memory.x type = ram_t2p impl = bram
#pragma HLS DEPENDENCE variable = taps inter false
FIRST:
    while (true) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory.x inter true distance = kDistance
#pragma HLS DEPENDENCE variable = taps intra false
    }
SECOND:
    while (true) {
#pragma HLS PIPELINE II = kDistance
    }
THIRD:
    while (true) {
#pragma HLS PIPELINE off
    }
}
void top() {
#pragma HLS DATAFLOW
#pragma HLS STREAM variable = fifo depth = 16
#pragma HLS STREAM variable = shallow
}
"""


def facts_of(old: str = "", new: str = ""):
    assert KERNEL.count(old) == 1 or not old
    return read_facts({"kernel.cpp": KERNEL.replace(old, new) if old else KERNEL})


def test_facts_by_name():
    facts = facts_of()
    assert facts.loops == {"FIRST": 1, "SECOND": 8}
    assert facts.partitions == {
        "x": (Partition("cyclic", 4, 2), Partition("complete", 0, 1)),
        "taps": (Partition("block", 2, 1),),
    }
    assert facts.aggregated == {"x"}
    assert facts.ports == {"x": Ports(2, 2, 2)}
    assert facts.ports_of("x") == Ports(2, 2, 2) and facts.ports_of("taps") == DEFAULT_PORTS == Ports(1, 1, 2)
    assert facts.streams == {"fifo": 16, "shallow": 2}
    assert facts.constants.value("kDistance") == 8


def test_a_dependence_of_a_function_speaks_of_all_its_loops():
    assert facts_of().dependences == {
        ("FIRST", "x"): 8, ("FIRST", "taps"): None, ("SECOND", "taps"): None, ("THIRD", "taps"): None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("#pragma HLS DATAFLOW", "", "kernel.cpp:28: top has stream fifo and no DATAFLOW pragma: its processes would run one "),
        ("ram_t2p", "ram_3p", "kernel.cpp:9: storage type ram_3p is unknown; known are ram_1p, "),
        ("SECOND:", "FIRST:", "kernel.cpp:19: the II of loop FIRST is 8 here and 1 elsewhere; one name, one fact"),
        ("variable = shallow", "variable = fifo", "kernel.cpp:29: the depth of stream fifo is 2 here and 16 elsewhere; "),
        ("variable = memory.x compact = bit", "compact = bit", "kernel.cpp:8: AGGREGATE names no variable; add variable = ..."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(old, new, sentence):
    with pytest.raises(BuildError) as refused:
        facts_of(old, new)
    assert str(refused.value).startswith(sentence)


def test_a_build_has_its_own_for_each_top(tmp_path):
    design = design_of(micro())
    write_project(make_project(design, resolve_target("zcu102")), tmp_path)
    whole, unit = read_top(tmp_path / "src"), read_top(tmp_path / "src", "mlp_block")
    assert set(whole.streams) == {"stripes", "arriving", "weights", "pixels", "checksum"}
    assert unit.streams == {name: whole.streams[name] for name in ("stripes", "weights")}
    assert whole.loops == dict.fromkeys(whole.loops, 1) and "ENGINE" in whole.loops
    assert [name for name in top_sources(tmp_path / "src") if name.endswith(".cpp")] == ["top.cpp"]
