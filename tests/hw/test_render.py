"""What is rendered: whole, in the same bytes each time, with nothing left open."""

import re
from dataclasses import replace

import pytest

from hw.architecture import Architecture
from hw.generate import make_design, make_project
from hw.manifest import DESIGN
from hw.model.latency import pipeline_cycles
from hw.program import Op
from hw.records import program_table, step_values
from hw.render import UNITS, design_digest, kernel_sources, render_sources
from hw.step_table import HEADER, STEP
from hw.steps import Memory, Package, Prologue, Rows, Weights
from hw.target import resolve_target
from tests.sim.networks import MICRO, design_of, micro, narrowed, quantized

ZCU102 = resolve_target("zcu102")
CONFIG = """\
namespace spvit {

struct Arch {
    // the engine
    static constexpr int kTileIn = 8;
    static constexpr int kTileOut = 16;
    static constexpr bool kFast = true;  // inner product: Winograd's or direct
    static constexpr int kWeightPorts = 1;
    static constexpr int kPortLanes = 8;  // int16 of a port's beat
    static constexpr int kFillLanes = 8;  // weights per cycle, and of a word of their stream
    static constexpr int kPipelineCycles = CYCLES;  // at least what synthesis reports as the depth of ENGINE
    static constexpr int kWord = 16;  // lanes of a memory word
    static constexpr int kGroup = 8;  // lanes of its unit of access
"""
CAPACITIES = """\
    // the capacities: what a network may be at most
    static constexpr int kMaxSteps = 256;  // of the program
    static constexpr int kRows = 17;  // tokens
    static constexpr int kChannels = 32;  // of a token
    static constexpr int kHeads = 2;
    static constexpr int kNumClasses = 7;
    static constexpr int kSelectors = 4;

    // the memories, as they follow from them
    static constexpr int kHeadLanes = 16;  // a head, padded to whole words
    static constexpr int kEmbedLanes = 32;
    static constexpr int kBankLanes = 32;
    static constexpr int kImageLanes = 4;  // pixels per word of the image port
};
"""


@pytest.fixture(scope="module")
def design():
    return design_of(micro())


@pytest.fixture(scope="module")
def project(design):
    return make_project(design, ZCU102)


def test_the_configuration_of_micro(project):
    text = project.files["src/config.hpp"]
    cycles = pipeline_cycles(make_design(micro(), Architecture(8, 16, weight_ports=1)).architecture)
    assert CONFIG.replace("CYCLES", str(cycles)) in text
    assert CAPACITIES in text
    conditions = re.findall(r"^static_assert\((.*), \"(.*)\"\);$", text, flags=re.MULTILINE)
    assert len(conditions) >= 6 and all(len(sentence.split()) > 4 for _, sentence in conditions)


def test_equal_designs_render_equal_bytes(project):
    again = make_project(design_of(micro()), ZCU102)
    assert again.files == project.files
    assert (again.stripes == project.stripes).all()


def test_every_rendered_file_opens_with_the_banner(design, project):
    """It names the configuration and its digest. The kernels' headers are sources, not renderings."""
    digest = design_digest(design.layout)
    for path, text in project.files.items():
        name = path.rpartition("/")[2]
        if path == DESIGN or name in kernel_sources():
            continue
        start = text.removeprefix("#!").splitlines()[:3]
        assert re.match(r"(//|#) Generated for micro on zcu102; do not edit: `make hls` writes it again\.", start[0]), (
            path
        )
        if path.startswith("src/"):
            assert start[1] == f"// Digest of sizes, architecture and kernels: {digest}", path


def test_kernels_are_copied_as_they_are(project):
    sources = kernel_sources()
    assert "engine.hpp" in sources and "config.hpp" not in sources
    for name, text in sources.items():
        assert project.files[f"src/{name}"] == text


def test_each_include_is_there(project):
    found = {path.removeprefix("src/") for path in project.files if path.startswith("src/")}
    for path, text in project.files.items():
        if path.startswith("src/"):
            wanted = set(re.findall(r'^#include "([^"]+)"', text, flags=re.MULTILINE))
            assert wanted - found <= {"ap_int.h", "hls_stream.h", "timed.hpp"}, path


def test_no_template_syntax_is_left(project):
    for path, text in project.files.items():
        assert not re.search(r"\{%|%\}|\{#|#\}|\{\{ [a-z]|[a-z] \}\}", text), path


@pytest.fixture(scope="module")
def records(design):
    steps = design.program.steps
    return {step.name: step_values(design, i, range(len(steps))) for i, step in enumerate(steps)}


def test_the_table_has_a_record_for_each_step(design, records):
    table = program_table(design, 17, num_words=77)
    header = HEADER.unpack(table[0])
    steps = design.program.steps
    assert header["num_steps"] == len(steps) == len(table) - 1 and header["num_words"] == 77
    assert header["num_classes"] == 7 and header["digest"] == int(design.network.digest[:8], 16)
    assert (header["num_rows"], header["num_prefix"], header["num_heads"]) == (17, 1, 2)
    assert header["package"] is Package.APPEND
    assert (header["grid"], header["patch_lines"], header["line_words"]) == (4, 4, 3)
    for record, step in zip(table[1:], steps, strict=True):
        assert STEP.unpack(record) == records[step.name]


def test_records_by_hand(design, records):
    bits = design.network.frac_bits
    scores = records["blocks.1.attn.scores.1"]
    assert (scores["source"], scores["source_lane"]) == (Memory.WORK, 16)  # Q's second head
    assert (scores["weights"], scores["weights_lane"]) == (Weights.K, 16)
    assert (scores["in_tiles"], scores["out_tiles"], scores["dest_lane"]) == (2, 0, 64)
    attn = "blocks.1.attn"
    assert scores["shift"] == bits[f"{attn}.q"] + bits[f"{attn}.k"] - bits[f"{attn}.scores"] - 8
    context = records["blocks.1.attn.context.1"]
    assert (context["source_lane"], context["dest_lane"], context["weights"]) == (64, 16, Weights.V)
    assert context["second_shift"] == 23 - (bits[f"{attn}.context"] - bits[f"{attn}.v"])
    assert context["frac_bits"] == bits[f"{attn}.scores"]
    fc1 = records["blocks.2.mlp.fc1"]
    assert (fc1["in_tiles"], fc1["out_tiles"]) == (4, 8)
    assert fc1["norm_shift"] == 17 - bits["blocks.2.norm2"]
    assert fc1["second_shift"] == 29 - bits["blocks.2.mlp.fc1.gelu"]
    assert fc1["frac_bits"] == bits["blocks.2.mlp.fc1"]
    proj = records["blocks.1.attn.proj"]
    assert proj["residual_shift"] == bits[f"{attn}.proj"] - bits["blocks.0.mlp.fc2"] + 6
    assert fc1["norm_channels"] == 32 and records["selectors.0.embed.1"]["norm_channels"] == 16
    assert records["selectors.0.pool.0"]["split"] == 16
    concat = records["selectors.0.fc1.1"]
    assert (concat["prologue"], concat["split"], concat["rows"]) == (Prologue.CONCAT, 8, Rows.CANDIDATES)
    keep = records["selectors.0.keep"]
    assert keep["threshold"] == design.network.thresholds[0]
    assert keep["frac_bits"] == bits["selectors.0.fc3"] and keep["aux_frac_bits"] == bits["selectors.0.head_branch.fc2"]
    assert records["selectors.0.embed.1"]["pool"] is True and records["selectors.0.embed.1"]["source_lane"] == 16


def test_a_kernel_s_table_counts_its_steps_from_zero(design):
    steps = design.program.steps
    span = design.program.unit("token_selector", 1)
    table = program_table(design, 9, span)
    assert len(table) == 1 + len(span) and HEADER.unpack(table[0])["num_steps"] == len(span)
    for place, i in enumerate(span):
        record = STEP.unpack(table[1 + place])
        following = next((j for j in span[place + 1 :] if steps[j].op is Op.ENGINE), span.stop)
        assert record["next_engine"] == following - span.start
        assert record["op"] is steps[i].op


def test_each_kernel_gets_a_top_whatever_network_is_to_run(design):
    assert {f"{unit}.cpp" for unit in UNITS} <= set(render_sources(design.layout, "t"))


def test_the_digest_is_the_design_s_alone(design):
    """Another engine or another size is another design. Another checkpoint, calibration, threshold, width of the weights or package
    policy, more or fewer selectors, a smaller model in the same capacities: none."""
    digest, room = design_digest(design.layout), design.layout.capacities
    others = [
        make_design(design.network, replace(design.architecture, inner_product="direct")),
        design_of(quantized(replace(MICRO.model, num_classes=9), MICRO.pruning, 0)[1]),
        make_design(design.network, design.architecture, replace(room, num_tokens=18)),
    ]
    digests = {design_digest(other.layout) for other in others}
    assert len(digests | {digest}) == 1 + len(others)
    step = next(step for step in design.program.steps if step.op is Op.DECIDE)
    thresholds = (step.threshold + 1, *design.network.thresholds[1:])
    for network in (
        quantized(MICRO.model, MICRO.pruning, 1)[1],
        replace(design.network, thresholds=thresholds),
        micro(package="add"),
        micro(locations=(), keep=()),
        narrowed(design.network),
    ):
        same = make_design(network, design.architecture)
        assert same.network.digest != design.network.digest
        assert design_digest(same.layout) == digest
        assert render_sources(same.layout, "t") == render_sources(design.layout, "t")
    smaller = quantized(replace(MICRO.model, num_classes=3, img_size=8), MICRO.pruning, 0)[1]
    assert design_digest(make_design(smaller, design.architecture, room).layout) == digest


def test_ultraram_and_the_fifos_depth_are_said_to_synthesis(design):
    asked = replace(design.architecture, fifo_words=512, uram=("work", "weights"))
    sources = render_sources(make_design(design.network, asked).layout, "t")
    for name in ("top.cpp", "msa_block.cpp"):
        pragmas = set(re.findall(r"#pragma HLS BIND_STORAGE (.*)", sources[name]))
        assert {pragma for pragma in pragmas if "impl = uram" in pragma} == {
            "variable = memory.work type = ram_s2p impl = uram",
            "variable = weights type = fifo impl = uram",
        }
        assert "variable = memory.x type = ram_s2p impl = bram" in pragmas
        assert "#pragma HLS STREAM variable = weights depth = 512\n" in sources[name]
    assert not any("impl = uram" in text for text in render_sources(design.layout, "t").values())
