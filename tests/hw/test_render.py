"""What is rendered: whole, in the same bytes each time, with nothing left open."""

import re
from dataclasses import replace

import pytest

from hw.architecture import Architecture
from hw.generate import make_design, make_project
from hw.model.latency import pipeline_cycles
from hw.program import Op
from hw.render import IDLE, STEP_FIELDS, design_digest, kernel_sources, render_sources, step_fields
from hw.target import resolve_target
from tests.sim.networks import MICRO, design_of, micro, quantized

ZCU102 = resolve_target("zcu102")
CONFIG = """\
namespace spvit {

struct Arch {
    // the engine
    static constexpr int kTileIn = 8;
    static constexpr int kTileOut = 16;
    static constexpr bool kFast = true;  // inner product: Winograd's or direct
    static constexpr int kWeightPorts = 1;
    static constexpr int kFillLanes = 8;  // weights per cycle
    static constexpr int kPipelineCycles = CYCLES;  // at least what synthesis reports as the depth of ENGINE
    static constexpr int kWord = 16;  // lanes of a memory word
    static constexpr int kGroup = 8;  // lanes of its unit of access
"""
MODEL = """\
    // the model
    static constexpr int kImgSize = 16;
    static constexpr int kPatchSize = 4;
    static constexpr int kInChans = 3;
    static constexpr int kPrefix = 1;  // class token
    static constexpr int kEmbedDim = 32;
    static constexpr int kHeads = 2;
    static constexpr int kHeadDim = 16;
    static constexpr int kNumClasses = 7;
    static constexpr int kScoreFracBits = 10;  // of all scores
    static constexpr int kGeluInputFracBits = 12;  // of all that enters a GELU
    static constexpr int kSelectors = 3;
    static constexpr Package kPackage = Package::APPEND;

    // the memories
    static constexpr int kRows = 17;  // most tokens
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
    assert MODEL in text
    conditions = re.findall(r"^static_assert\((.*), \"(.*)\"\);$", text, flags=re.MULTILINE)
    assert len(conditions) >= 6 and all(len(sentence.split()) > 4 for _, sentence in conditions)


def test_equal_designs_render_equal_bytes(project):
    again = make_project(design_of(micro()), ZCU102)
    assert again.files == project.files
    assert (again.stripes == project.stripes).all()


def test_every_rendered_file_opens_with_the_banner(design, project):
    """It names the configuration and its digest. The kernels' headers are sources, not renderings."""
    digest = design_digest(design, project.stripes.shape[1])
    for path, text in project.files.items():
        name = path.rpartition("/")[2]
        if path == "manifest.json" or name in kernel_sources():
            continue
        start = text.removeprefix("#!").splitlines()[:3]
        assert re.match(r"(//|#) Generated for micro on zcu102; do not edit: `make hls` writes it again\.", start[0]), (
            path
        )
        if path.startswith("src/"):
            assert start[1] == f"// Digest of network, architecture and kernels: {digest}", path


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


def rows_of(text):
    table = text.partition("static const Step kSteps[kNumSteps + 1] = {\n")[2].partition("        };")[0]
    return [line.strip() for line in table.splitlines()]


def test_the_program_s_table_has_a_row_for_each_step(design, project):
    text = project.files["src/program.hpp"]
    rows = rows_of(text)
    steps = design.program.steps
    assert len(rows) == len(steps) + 1 and f"constexpr int kNumSteps = {len(steps)};" in text
    assert rows[-1] == f"{{{', '.join(IDLE)}}},  // {len(steps)} idle"
    for index, (row, step) in enumerate(zip(rows[:-1], steps, strict=True)):
        values, _, comment = row.partition("},  // ")
        assert comment == f"{index} {step.name}"
        assert values.strip("{ ").split(", ") == list(step_fields(design, step))
    assert f"// {', '.join(STEP_FIELDS)}" in text


def test_the_table_s_columns_are_the_struct_s_fields():
    """In the same order: the rows are aggregates."""
    header = kernel_sources()["step.hpp"]
    struct = header.partition("struct Step {\n")[2].partition("};")[0]
    fields = re.findall(r"^    [\w:]+ (\w+);", struct, flags=re.MULTILINE)
    assert tuple(fields) == STEP_FIELDS
    assert len(IDLE) == len(STEP_FIELDS)


def test_rows_by_hand(design):
    rows = {step.name: dict(zip(STEP_FIELDS, step_fields(design, step), strict=True)) for step in design.program.steps}
    bits = design.network.frac_bits
    scores = rows["blocks.1.attn.scores.1"]
    assert (scores["source"], scores["source_lane"]) == ("Buffer::WORK", "16")  # Q's second head
    assert (scores["weights"], scores["weights_lane"]) == ("Weights::K", "16")
    assert (scores["in_tiles"], scores["out_tiles"], scores["dest_lane"]) == ("2", "0", "64")
    attn = "blocks.1.attn"
    assert scores["shift"] == str(bits[f"{attn}.q"] + bits[f"{attn}.k"] - bits[f"{attn}.scores"] - 8)
    context = rows["blocks.1.attn.context.1"]
    assert (context["source_lane"], context["dest_lane"], context["weights"]) == ("64", "16", "Weights::V")
    assert context["second_shift"] == str(23 - (bits[f"{attn}.context"] - bits[f"{attn}.v"]))
    fc1 = rows["blocks.2.mlp.fc1"]
    assert (fc1["in_tiles"], fc1["out_tiles"]) == ("4", "8")
    assert fc1["norm_shift"] == str(17 - bits["blocks.2.norm2"])
    assert fc1["second_shift"] == str(29 - bits["blocks.2.mlp.fc1.gelu"])
    proj = rows["blocks.1.attn.proj"]
    assert proj["residual_shift"] == str(bits[f"{attn}.proj"] - bits["blocks.0.mlp.fc2"] + 6)
    concat = rows["selectors.0.fc1.1"]
    assert (concat["prologue"], concat["split"], concat["rows"]) == ("Prologue::CONCAT", "8", "Rows::CANDIDATES")
    assert rows["selectors.0.keep"]["threshold"] == str(design.network.thresholds[0])
    assert rows["selectors.0.embed.1"]["pool"] == "true" and rows["selectors.0.embed.1"]["source_lane"] == "16"


def test_kernels_are_ranges_of_the_table(design, project):
    text = project.files["src/program.hpp"]
    for unit, name in [("msa_block", "MsaBlock"), ("token_selector", "TokenSelector"), ("head", "Head")]:
        spans = re.search(rf"^constexpr Span k{name}\[\] = \{{(.*)\}};$", text, flags=re.MULTILINE)
        expected = [(span.start, span.stop) for found, _, span in design.program.units() if found == unit]
        assert [tuple(map(int, pair)) for pair in re.findall(r"\{(\d+), (\d+)\}", spans[1])] == expected


def test_each_kernel_that_the_model_has_gets_a_top():
    pruned = set(render_sources(design_of(micro()), "t", 1))
    unpruned = set(render_sources(design_of(micro(locations=(), keep=())), "t", 1))
    assert pruned - unpruned == {"token_selector.cpp", "token_packager.cpp"}


def test_the_digest_depends_on_all_that_is_rendered(design):
    digests = {design_digest(design, 7), design_digest(design, 8)}
    digests.add(design_digest(make_design(design.network, replace(design.architecture, inner_product="direct")), 7))
    digests.add(design_digest(make_design(quantized(MICRO.model, MICRO.pruning, 1)[1], design.architecture), 7))
    step = next(step for step in design.program.steps if step.op is Op.DECIDE)
    thresholds = (step.threshold + 1, *design.network.thresholds[1:])
    digests.add(design_digest(design_of(replace(design.network, thresholds=thresholds)), 7))
    assert len(digests) == 5
    assert design_digest(design_of(micro()), 7) in digests


def test_ultraram_and_the_fifos_depth_are_said_to_synthesis(design):
    asked = replace(design.architecture, fifo_words=512, uram=("work", "weights"))
    sources = render_sources(make_design(design.network, asked), "t", 7)
    for name in ("top.cpp", "msa_block.cpp"):
        pragmas = set(re.findall(r"#pragma HLS BIND_STORAGE (.*)", sources[name]))
        assert {pragma for pragma in pragmas if "impl = uram" in pragma} == {
            "variable = memory.work type = ram_s2p impl = uram",
            "variable = weights type = fifo impl = uram",
        }
        assert "variable = memory.x type = ram_s2p impl = bram" in pragmas
        assert "#pragma HLS STREAM variable = weights depth = 512\n" in sources[name]
    assert not any("impl = uram" in text for text in render_sources(design, "t", 7).values())
