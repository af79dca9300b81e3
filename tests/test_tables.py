"""What commands print as tables: at 80 columns each name stands whole in it, on a terminal and redirected."""

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from hw.architecture import INNER_PRODUCTS, Architecture
from hw.layout import Layout
from hw.model import estimate, explore, means
from hw.model.estimate import make_estimate
from hw.model.resources import estimate_resources
from hw.schedule import report as schedule
from hw.schedule.delays import MODELS
from hw.schedule.solve import Result
from hw.target import resolve_target, target_names
from hw.vendor import synth
from hw.vendor.reports import Figures
from quant import finetune
from quant.network import activation_names
from quant.report import Report, TensorReport
from sim import bench, cpu_latency, csim, timed_csim
from sim.evaluation import ClassReport, Outcomes, classes_table, models_table, report, tokens_table
from sim.timed.timing import Timing
from spvit import cost
from spvit.config import registry, resolve_model
from spvit.console import Console, Table
from spvit.training.measure import Kept, Part
from spvit.training.measure import Result as Trained

ROOT = Path(__file__).parents[1]
WIDTH = 80
LONGEST_MODEL = max(registry(), key=len)
SPEC = resolve_model(LONGEST_MODEL)
IMAGE = "validation/a_class_with_a_long_name/ILSVRC2012_val_00012345_a_photograph_with_a_name_of_its_own.JPEG"


def printed(show, terminal=True):
    """Lines of what `show(console)` prints, or of a table."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, force_terminal=terminal, color_system=None)
    if isinstance(show, Table):
        console.print(show)
    else:
        show(console)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def assert_whole(show, names):
    """Each name in one line, redirected and on a terminal, where no line is wider unless a name or a path is."""
    names = [str(name) for name in names]
    assert names
    for terminal in (True, False):
        lines = printed(show, terminal)
        for name in names:
            assert any(re.search(rf"(?<!\S){re.escape(name)}(?!\S)", line) for line in lines), (name, lines)
        assert not any("…" in line for line in lines)
    too_long = [line for line in printed(show) if cell_len(line) > WIDTH]
    assert all(" " not in line.strip() or any(line == name for name in names) for line in too_long), too_long


# --- the tables themselves ---

CELL = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12)
NAME = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=130)


@given(st.lists(st.tuples(NAME, CELL, CELL, CELL), min_size=1, max_size=5), st.booleans())
def test_no_name_and_no_cell_is_cut_or_broken(rows, terminal):
    table = Table("a title", "name", ("one", ("two", "units"), "three"), left=[1])
    for row in rows:
        table.add_row(*row)
    lines = printed(table, terminal)
    for name, *cells in rows:
        assert any(name in line for line in lines) and all(any(cell in line for line in lines) for cell in cells)
    heights = len(rows) if len(lines) == 4 + len(rows) else 2 * len(rows)
    assert len(lines) == 4 + heights  # title, two of headings, a rule
    assert len({cell_len(line) for line in lines[:1]}) == 1


def test_names_that_leave_no_room_stand_above_their_figures():
    table = Table("", "image", ("tokens", ("error", "logits")))
    table.add_row("short.jpg", "12", "0.5")
    assert printed(table) == [
        "                    error",
        "image      tokens  logits",
        "─" * 25,
        "short.jpg      12     0.5",
    ]
    table.add_row("a" * 100, "123", "0.25")
    assert printed(table) == [
        "         error",
        "tokens  logits",
        "─" * 14,
        "short.jpg",
        "    12     0.5",
        "a" * 100,
        "   123    0.25",
    ]
    assert max(map(len, printed(table, terminal=False))) > 100


def test_one_table_style_for_all_commands():
    found = [
        path
        for room in ("spvit", "quant", "hw", "sim", "host")
        for path in (ROOT / room).rglob("*.py")
        if re.search(
            r"^(from|import) (rich\.(table|progress|status|live)|tqdm)", path.read_text(encoding="utf-8"), re.M
        )
    ]
    assert found == [ROOT / "spvit" / "console.py"]


# --- each command's, with the longest names that there are ---


def test_estimate():
    for target, inner_product in (
        (resolve_target(max(target_names(), key=len)), "direct"),
        (resolve_target("zcu102"), "fast"),
    ):
        spec = replace(SPEC, engine={"tile_in": 64, "tile_out": 64, "inner_product": inner_product})
        one = make_estimate(spec, target)
        assert_whole(lambda console, one=one: estimate.show(one, console), one.cycles.by_pass())


def test_explore():
    target = resolve_target("u50")
    points = []
    for number, uram in enumerate([(), ("work",), explore.URAM_MEMORIES]):
        for inner_product in INNER_PRODUCTS:
            engine = Architecture(64, 64, inner_product, 4, 32768, uram)
            resources = estimate_resources(Layout(SPEC.model, engine))
            points.append(explore.Point(engine, target, 1000.123 + number, resources))
    front = explore.pareto_front(points)
    names = [explore.engine_name(one.architecture) for one in front]
    assert_whole(lambda console: explore.show(points, front, front[0], console, f"{LONGEST_MODEL} on u50"), names)
    assert_whole(
        lambda console: explore.show(points, front, front[0], console, "t"), front[0].architecture.uram or names
    )


def test_schedule():
    names = sorted(
        set(
            re.findall(
                r"^\s*([A-Z][A-Z_0-9]+):\s*$",
                "\n".join(path.read_text() for path in (ROOT / "hls_templates").glob("*.hpp")),
                re.M,
            )
        )
    )
    assert "ENGINE" in names and "WRITE_PACKAGE" in names
    result = Result(ii=12, period_ns=12.34, depth=123, critical=(), reason="")
    loops = tuple(
        schedule.LoopSchedule(
            name, f"{name}:1", {m.name: result for m in MODELS}, {m.name: ("x",) * 9 for m in MODELS}, ()
        )
        for name in names
    )
    one = schedule.Schedule(LONGEST_MODEL, "ultra96v2", "64x64 direct", "the accelerator", 299.97, loops)
    assert_whole(lambda console: schedule.show(one, console), names)


def test_means():
    one = make_estimate(SPEC, resolve_target("zcu102"))
    names = ["packed by a width for each column of a tile", "FIFO of 32,768 words", "as it is"]
    found = [means.Means(name, 4.632, "1024 BRAM36, 112%: tight; latency doubles") for name in names]
    assert_whole(lambda console: means.show(one, found, console), names)


def test_synthesis_beside_the_estimate():
    project, target = SimpleNamespace(top="token_packager_top"), SimpleNamespace(name="ultra96v2")
    request = SimpleNamespace(project=project, target=target)
    figures = Figures("estimate", 2354, 503.0, 0, 170958, 361298, 199.98, 926441, 926441, constrained_mhz=200.0)
    stages = [replace(figures, stage=stage, lut=270958, cycles_max=1926441) for stage in ("csynth", "cosim", "vivado")]
    assert_whole(
        lambda console: console.print(synth.comparison(request, figures, stages)), [name for name, _, _ in synth.ROWS]
    )


def test_quantization():
    tensors = tuple(
        TensorReport(name, 123.456, 12, 10_000, 1, 65.4) for name in activation_names(SPEC.model, SPEC.pruning)
    )
    one = Report(1, 0.1, None, 1.0, 1.0, 1, 0, 0.0, (), (), 0, tensors)
    assert_whole(one.table(), [tensor.name for tensor in tensors])


def test_c_simulation():
    table = csim.images_table(csim.CsimReport(LONGEST_MODEL, "ultra96v2", "spvit"))
    for name in (IMAGE, "digits/test/0021"):
        table.add_row(name, "577 → 489 → 396 → 249", "320", "13,031,546", "21,842", "21,842", "0.0042", "123.45")
    assert_whole(table, [IMAGE, "digits/test/0021"])


def test_timed_c_simulation(monkeypatch):
    one = make_estimate(SPEC, resolve_target("zcu102"))
    names = list(one.cycles.by_pass())
    step = SimpleNamespace(**dict.fromkeys(timed_csim.PARTS, 1_000_000))
    monkeypatch.setattr(timed_csim, "_estimate", lambda *arguments: one.cycles)
    monkeypatch.setattr(timed_csim, "by_class", lambda timing: {name: [step] for name in names})
    assert_whole(lambda console: timed_csim.show(None, None, Timing, [], console), names)


def test_evaluation():
    model, pruning = SPEC.model, SPEC.pruning
    outcomes = Outcomes()
    kept = np.array([[model.num_patches] * pruning.num_selectors])
    outcomes.add(np.zeros((1, model.num_classes)), kept, 0.001)
    one = report(model, pruning, outcomes, [0], ["class"], outcomes)
    reports = {name: replace(one, images=1_281_167) for name in ("float", "brevitas", "integer", "csim")}
    assert_whole(models_table(reports, 1.0, f"{LONGEST_MODEL} on 50000 images of {IMAGE}"), reports)
    assert_whole(tokens_table(one, pruning.locations, "integer"), [0, *pruning.locations])
    classes = ("n02123045 tabby, tabby cat, and what else a folder of images may be called by its owner", "n01440764")
    reports = {name: replace(one, per_class=tuple(ClassReport(c, 50, 0.5) for c in classes)) for name in reports}
    assert_whole(classes_table(reports, 10), classes)


def test_benchmarks():
    names = ["integer golden, deit_t_distilled, batch of 8, cuda", "C-simulation, deit_t_distilled"]
    figures = [
        bench.Figure(name, 123.4, "images/s", "float64 products alone", 456.7, ">= 6 images/s on two cores")
        for name in names
    ]
    assert_whole(lambda console: bench.show(figures, console), [*names, "float64 products alone"])


def test_latency_on_the_cpu():
    latency = dict.fromkeys(cpu_latency.LATENCY_CELLS, 1234.56)
    content = {
        "model": LONGEST_MODEL, "cpu": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "cores": 224, "gmacs": 2.64,
        "unpruned_gmacs": 4.6, "runs": 30, "weights": "seeded random",
        "latencies": [{"runtime": name, "threads": 224, "ratio": 0.612, **latency} for name in ("ONNX Runtime", "PyTorch")],
    }  # fmt: skip
    assert_whole(lambda console: cpu_latency.show(content, console), ["ONNX Runtime", "PyTorch"])


def test_training():
    kept = Kept(*[(0.5,) * SPEC.pruning.num_selectors] * 4)
    part = Part(512, 0.98, 0.97, 1e9, 123456.789, kept)
    one = Trained(
        LONGEST_MODEL, SPEC.pruning.locations, (0.5,), "Mcycles", 1.0, 0.01, 2e9, {"training": part, "test": part}
    )
    reached, kept_table = one.tables()
    assert_whole(reached, ["training", "test"])
    assert_whole(kept_table, SPEC.pruning.locations)
    assert_whole(lambda console: finetune.show((0.9, 0.9), (0.9, 0.9), 512, console), ["before", "after"])


@pytest.mark.parametrize("name", ["deit_b", "deit_digits", LONGEST_MODEL])
def test_cost(name):
    spec = resolve_model(name)
    lines = printed(lambda console: cost.show(spec.model, spec.pruning, console))
    assert_whole(lambda console: cost.show(spec.model, spec.pruning, console), ["patch_embed", "selector", "total"])
    assert ("MMACs" if name == "deit_digits" else "GMACs") in lines[-1]
