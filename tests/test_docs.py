"""The pages of docs/ say what the code does: keys, defaults and ranges, options, fields of files."""

import inspect
import io
import json
import re
import tomllib
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from host.measure import Measurement, Summary, Switch, _by_tokens, latency_report
from host.result import ImageResult
from hw.architecture import Architecture
from hw.generate import make_design, make_project
from hw.hardware import Capacities
from hw.layout import Layout
from hw.model import explore
from hw.model.cycles import StepCycles
from hw.model.estimate import make_estimate
from hw.model.latency import assumptions
from hw.model.resources import estimate_resources
from hw.schedule.delays import MODELS
from hw.schedule.report import LoopSchedule, Schedule
from hw.schedule.solve import Result
from hw.target import Target, resolve_target, target_names
from hw.vendor.findings import Finding
from hw.vendor.reports import Figures
from quant.build import refuse_what_has_no_unit
from quant.inputs import Inputs
from quant.network import _header
from quant.report import Report as QuantizationReport
from quant.report import TensorReport
from sim import bench, cpu_latency, evaluate, timed_csim
from sim.csim import CsimReport, images_table
from sim.evaluation import Outcomes
from sim.options import EvalOptions
from sim.readme_pictures import MOST_BYTES
from sim.samples import Samples
from sim.timed.timing import Timing
from spvit import ablation, visualize
from spvit.config import ModelConfig, PruningConfig, registry, resolve_model
from spvit.console import Console
from spvit.cost import count_macs, count_parameters
from spvit.errors import ConfigError
from spvit.initialisation import seeded
from spvit.schema import kinds
from spvit.training.measure import Kept, Part
from spvit.training.measure import Result as Trained
from spvit.training.progressive import Step
from spvit.training.recipe import Recipe
from spvit_fpga.cli import parser_of
from spvit_fpga.commands import COMMANDS
from spvit_fpga.reference import page
from tests.sim.networks import quantized
from tests.spvit.training.tiny import SPEC, few_digits

MICRO, ZCU102 = resolve_model("micro"), resolve_target("zcu102")
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]


def sections(page):
    """Heading -> its text."""
    parts = re.split(r"^##+ (.*)$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text):
    """First cell without backticks -> the others, of the tables in a text."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if cells and cells[0].startswith("`"):
            assert cells[0] not in found, line
            found[cells[0].strip("`")] = cells[1:]
    return found


def test_the_backbones_are_counted():
    written = rows(sections("backbones.md")["The models"])
    assert set(written) - {"MODEL="} == {name for name in registry() if re.match(r"(lvvit|pit)_(?!digits)", name)}
    for name, cells in written.items():
        if name == "MODEL=":
            continue
        spec, unpruned = resolve_model(name), resolve_model(name, "none")
        stages = spec.model.stages
        assert cells == [
            *(", ".join(str(getattr(one, part)) for one in stages)
              for part in ("embed_dim", "depth", "num_heads", "grid_size")),
            f"{count_parameters(unpruned.model, unpruned.pruning).total:,}",
            f"{count_macs(unpruned.model, unpruned.pruning).total / 1e9:.3f}",
            ", ".join(map(str, spec.pruning.locations)),
            f"{count_macs(spec.model, spec.pruning).total / 1e9:.2f}",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("`[model]`", ModelConfig),
        ("`[pruning]`", PruningConfig),
        ("`[engine]`", Architecture),
        ("A design", Capacities),
        ("A board", Target),
        ("A recipe", Recipe),
    ],
)
def test_every_key_with_its_values_and_its_default(heading, table):
    written = rows(sections("configuration.md")[heading])
    assert list(written) == [item.name for item in fields(table)]
    for item in fields(table):
        values, default, meaning = written[item.name]
        assert values == kinds(table)[item.name].wanted, item.name
        if item.default is not MISSING:
            assert default == f"`{json.dumps(item.default)}`", item.name
        else:
            assert default in ("must be given", "the file's name", "as said"), item.name
        assert len(meaning) > 5, item.name


# --- commands ---


def test_every_command_and_every_option():
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == page(), "run .venv/bin/python -m spvit_fpga.reference"
    for command in COMMANDS.values():
        (section,) = re.findall(rf"^### {command.name}$(.*?)(?=^##)", f"{page()}\n## ", re.MULTILINE | re.DOTALL)
        flags = {flag for action in parser_of(command)._actions for flag in action.option_strings} - {"-h", "--help"}
        assert {f"--{name}" for name in re.findall(r"`--([a-z-]+)`", section)} >= {
            flag for flag in flags if not flag.startswith("--no-")
        }


# --- files ---


def leaves(value, documented, path=""):
    """The paths of a document's values, in the page's words: what the page has as a whole is not gone into."""
    if path in documented:
        return {path}
    if value is None and any(name.startswith((f"{path}.", f"{path}[]")) for name in documented):
        return set()  # null stands for the whole of it
    if isinstance(value, dict):
        found = set()
        for key, inner in value.items():
            own = f"{path}.{key}".lstrip(".")
            known = any(name == own or name.startswith((f"{own}.", f"{own}[]")) for name in documented)
            anything = f"{path}.*".lstrip(".")
            if not known and any(
                name == anything or name.startswith((f"{anything}.", f"{anything}[]")) for name in documented
            ):
                own = anything
            found |= leaves(inner, documented, own)
        return found
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return {leaf for item in value for leaf in leaves(item, documented, f"{path}[]")}
    return {path}


def network_documents():
    _, network = quantized(MICRO.model, MICRO.pruning)
    return json.loads(_header(network)) | {"sha256": "0"}


def packed():
    _, network = quantized(MICRO.model, MICRO.pruning)
    return make_project(make_design(network, Architecture(16, 16, "fast", 2)), ZCU102)


def quantization_report():
    tensor = TensorReport("head", 1.0, 2, 0, 4, None)
    return json.loads(QuantizationReport(1, 0.1, 0.1, 1.0, 1.0, 1, 0, 0.0, (), (), 0, (tensor,)).to_json())


def csim_document():
    return asdict(CsimReport("micro", "zcu102", "spvit", saturations={"head": 1}, constructed={"all dropped": [17]}))


def schedule_document():
    result = Result(1, 2.0, 3, ())
    loop = LoopSchedule("ENGINE", "engine.hpp:1", {m.name: result for m in MODELS}, {m.name: () for m in MODELS}, ())
    return Schedule("micro", "zcu102", "16x16 fast", "the accelerator", 200, (loop,)).document()


def explore_document():
    engine = Architecture(16, 16, weight_ports=1)
    point = explore.Point(engine, ZCU102, 1.0, estimate_resources(Layout(MICRO.model, engine)))
    return explore.document(MICRO, (1, 1, 1), [point], [point], point, (0.5,))


def timing_document(monkeypatch):
    _, network = quantized(MICRO.model, MICRO.pruning)
    design = make_design(network, Architecture(16, 16, "fast", 2))
    one = make_estimate(MICRO, ZCU102)
    monkeypatch.setattr(timed_csim, "disagreements", lambda *arguments: ())
    timing = Timing((StepCycles("head", 0, 0, 0, 0, 0),))
    assumed = assumptions(design.layout.architecture, ZCU102)
    return timed_csim.document(design, ZCU102, assumed, timing, one.kept, 0.1)


def evaluation(tmp_path):
    model, pruning = MICRO.model, MICRO.pruning
    outcomes = Outcomes()
    outcomes.add(np.zeros((2, model.num_classes)), np.full((2, pruning.num_selectors), 4), 0.1)
    names = tuple(map(str, range(model.num_classes)))
    samples = Samples(names, ("a.png", "b.png"), (0, 1), lambda position: None)
    found = evaluate.Evaluated({"float": outcomes}, [0, 1], {"c.png": "broken"})
    args = EvalOptions(model="micro", out=tmp_path)
    evaluate.tell(MICRO, args, found, samples, "photos", torch.device("cpu"), Console(file=io.StringIO()))
    return json.loads((tmp_path / "eval.json").read_text())


def cpu_document():
    latency = cpu_latency.Latency("PyTorch", 1, 2.0, 2.0, 1.0, 1.0)
    return cpu_latency.document(seeded(MICRO.model, MICRO.pruning), (4, 3, 2), 30, [latency], "random")


def vendor_document():
    figures = Figures("csynth", **{item.name: 1 for item in fields(Figures) if item.name != "stage"}).to_json()
    return {"top": "", "digest": "", "csynth": figures, "findings": [asdict(Finding("depth", True, ""))]}


def board_document():
    summary = Summary(1, 1, 1, 1, 1, 1)
    result = ImageResult(np.zeros(2), (3,), (), SimpleNamespace(compute_ms=1.0))
    one = Measurement(
        "board", "deit_s", "zcu102", "", "", 200, 200, 1, 0, 1, True, 197, summary, summary, 1.0, {"compute": 1.0}, [[3]], [0],
        _by_tokens([result]), {"int": 1.0},
    )  # fmt: skip
    return latency_report(one, None, Switch(9, summary, True))


def training_document():
    kept = Kept((0.5,), (0.1,), (0.1,), (0.9,))
    parts = {name: Part(1, 0.9, 0.9, 1.0, 1.0, kept) for name in ("training", "test")}
    result = Trained("micro", (1,), (0.5,), "MACs", 1.0, 0.01, 2.0, parts).as_json
    return result | {"progressive": [asdict(Step(1, 0.5, 0.9))], "similarity": [0.5]}


def ablation_document():
    row = ablation.Row((0.9,), (0.1,), (0.5,), 7)
    one = ablation.Ablation(MICRO, Recipe(), "digits", 1, Path("x"), False, torch.device("cpu"))
    return ablation.document(one, {"heads": [("as it is", row)]})


def tradeoff(monkeypatch):
    monkeypatch.setattr(visualize, "POWERS", (1.0,))
    return visualize.sweep(seeded(SPEC.model, SPEC.pruning), few_digits(16))


def bench_document():
    figure = bench.Figure("a", 1.0, "s", "b", 2.0, "<= 2 s")
    return [asdict(figure) | {"ratio": figure.ratio}]


DOCUMENTS = {
    "network/network.json": network_documents,
    "network/report.json": quantization_report,
    "network/inputs.json": lambda: asdict(Inputs("", "", "", "", "", "")),
    "design.json": lambda: json.loads(packed().files["design.json"]),
    "weights/network.json": lambda: json.loads(packed().network),
    "csim.json": csim_document,
    "estimate.json": lambda: make_estimate(MICRO, ZCU102).document(),
    "schedule.json": schedule_document,
    "explore.json": explore_document,
    "timing.json": timing_document,
    "eval.json": evaluation,
    "latency-cpu.json": cpu_document,
    "reports.json": vendor_document,
    "latency.json": board_document,
    "<weights>.json": training_document,
    "ablation.json": ablation_document,
    "tradeoff.json": tradeoff,
    "bench.json": bench_document,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_field_of_every_file(name, monkeypatch, tmp_path):
    documented = {
        path.replace("<stage>", "csynth"): cells for path, cells in rows(sections("files.md")[f"`{name}`"]).items()
    }
    make = DOCUMENTS[name]
    given = {"monkeypatch": monkeypatch, "tmp_path": tmp_path}
    written = make(**{key: given[key] for key in inspect.signature(make).parameters})
    assert leaves(written, set(documented)) == set(documented)
    assert all(len(cells) == 1 and cells[0] for cells in documented.values())


def test_every_file_has_its_section():
    """What write_json is given a name for, and what is written with the networks and designs."""
    named = set()
    for room in ("spvit", "quant", "hw", "sim", "host"):
        for path in (ROOT / room).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            named |= (
                set(re.findall(r'"([a-z-]+\.json)"', text)) if "write_json" in text or "write_whole" in text else set()
            )
    internal = {"sha256.json", "mapped.json", "stat.json"}  # a folder's digests, and what yosys hands over
    ours = {name.rpartition("/")[2] for name in DOCUMENTS}
    assert named - internal <= ours
    assert set(sections("files.md")) == {f"`{name}`" for name in DOCUMENTS}


# --- the README and its like ---


def test_the_readmes_lines_are_short():
    too_long = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if len(line) >= 100]
    assert too_long == []


def test_the_readmes_models_are_the_registrys():
    written = rows((ROOT / "README.md").read_text(encoding="utf-8").partition("## Models")[2].partition("## ")[0])
    assert len(written) >= 15
    for name, cells in written.items():
        spec = resolve_model(name)
        unpruned, pruned = (count_macs(spec.model, one).total / 1e9 for one in (spec.pruning.without(), spec.pruning))
        parameters = count_parameters(spec.model, spec.pruning.without()).total / 1e6
        try:
            refuse_what_has_no_unit(spec, name)
            has_hardware = "yes"
        except ConfigError:
            has_hardware = "no"
        assert cells == [f"{parameters:#.3g}", f"{unpruned:#.3g}", f"{pruned:#.3g}", has_hardware], name


def test_the_readmes_csim_is_what_the_command_prints():
    """Its heading; the figures are of a run."""
    text = io.StringIO()
    Console(file=text).print(csim_table("deit_s"))
    title, *headings = (line.split() for line in text.getvalue().splitlines() if line.strip("─ \n"))
    shown = [line.split() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]
    assert all(line in shown for line in (title, *headings))


def csim_table(model):
    table = images_table(CsimReport(model, "zcu102", "spvit"))
    table.add_row("", *("" for _ in table.headings))
    return table


def test_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (first, *_) = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    (cited,) = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert project["version"] == first == cited


def test_pictures_are_small():
    pictures = [path for path in DOCS.iterdir() if path.suffix in (".png", ".jpg")]
    assert len(pictures) == 2 and all(path.stat().st_size <= MOST_BYTES for path in pictures)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    text = path.read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text) + [
        (src, "") for src in re.findall(r'src(?:set)?="([^"]*)"', text)
    ]
    for target, anchor in linked:
        if target.startswith("http"):
            continue
        place = path.parent / target if target else path
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, anchor


def test_the_boards_page_has_each_boards_figures():
    written = rows((DOCS / "boards.md").read_text(encoding="utf-8"))
    assert sorted(written) == sorted(target_names())
    for name, cells in written.items():
        target = resolve_target(name)
        figures = [f"{value:,}" for value in (target.dsp, target.bram36, target.uram)]
        assert cells[1:] == [*figures, f"{target.clock_mhz:g}", f"{target.memory_gbps:g}"], name
