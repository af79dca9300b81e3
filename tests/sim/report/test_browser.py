"""The report and the drawings in a browser: at a desk and on a telephone, light and dark, nothing is cut or unreadable."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hw.architecture import Architecture
from hw.layout import Layout
from hw.model.estimate import make_estimate
from hw.model.explore import Point
from hw.model.explore_plot import draw_front
from hw.model.resources import estimate_resources
from hw.target import resolve_target
from hw.vendor.reports import Figures
from sim.report.evidence import Evidence
from sim.report.page import render
from spvit.config import resolve_model
from spvit_fpga.cli import run
from tests.sim.report.test_page import BOARD, CSIM, NOTHING, SCHEDULE, TIMING

pytestmark = pytest.mark.needs("chromium")
DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def browser():
    from tests.browser import chromium

    with chromium() as started:
        yield started


def seen(browser, path, **at):
    from tests.browser import faults

    return faults(browser, path, **at)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """As the command leaves it, of a build with random weights."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "network").mkdir()
    (folder / "network" / "inputs.json").write_text(json.dumps({"weights": "seed 0"}))
    (folder / "csim.json").write_text(json.dumps(CSIM))
    (folder / "timing.json").write_text(json.dumps(TIMING))
    run("report", ["--model", "micro", "--out", str(folder)])
    return folder / "report.html"


def test_a_report_can_be_read(browser, page):
    assert seen(browser, page) == []


def test_a_report_with_all_that_can_be_run_can_be_read(browser, tmp_path):
    """A large model, hundreds of images, and what the vendor's tools and the board would say."""
    estimate = make_estimate(resolve_model("deit_s"), resolve_target("zcu102"))
    figures = {"dsp": 2400.0, "bram36": 510.0, "lut": 201_000.0, "ff": 360_000.0, "clock_mhz": 199.98}
    stages = {"csynth": Figures("csynth", **figures), "cosim": Figures("cosim", cycles_max=940_000)}
    csim = CSIM | {"images": 200, "tokens": [[197 - i % 90, 120 - i % 90, 100 - i % 90] for i in range(200)]}
    loops = [{"name": f"A_LOOP_WITH_A_LONG_NAME_{i}", **SCHEDULE["loops"][0]} for i in range(12)]
    evidence = Evidence(csim, TIMING, stages, BOARD, SCHEDULE | {"loops": loops}, "random weights (seed 0)")
    path = tmp_path / "report.html"
    path.write_text(render(estimate, evidence))
    assert seen(browser, path) == []


def test_a_report_of_short_times_can_be_read(browser, tmp_path):
    """Figures with three decimals at the axes."""
    path = tmp_path / "report.html"
    path.write_text(render(make_estimate(resolve_model("deit_digits"), resolve_target("zcu102")), NOTHING))
    assert seen(browser, path) == []


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.svg")))
def test_a_drawing_can_be_read(browser, name):
    """Each where it is shown: there is one for a telephone beside each for a desk."""
    assert seen(browser, DOCS / name, widths=["phone" if "-phone" in name else "desk"]) == []
    assert (DOCS / f"{Path(name).stem.removesuffix('-phone')}-phone.svg").exists()


def test_the_plot_of_explored_engines_can_be_read(browser, tmp_path):
    spec, target = resolve_model("deit_s"), resolve_target("zcu102")
    points = []
    for size in (8, 16, 32, 64):
        engine = Architecture(size, 64, weight_ports=1)
        resources = estimate_resources(Layout(spec.model, engine))
        points.append(Point(engine, target, 4.6 * 64 / size, resources))
    path = tmp_path / "explore.svg"
    path.write_text(draw_front(points, points[1:], points[-1], "DeiT-S on zcu102: estimate"))
    assert seen(browser, path, widths=["desk"]) == []


BREAKS = {
    "overlap": lambda text: re.sub(r"(<text[^>]*>)[\d.]+(?=</text>)", r"\g<0></text>\1again", text, count=99),
    "is cut": lambda text: re.sub(r'(<text [^>]*?) x="[\d.]*"([^>]*>)ms<', r'\1 x="4000"\2ms<', text),
    "contrast": lambda text: text.replace("--grey: #57606a", "--grey: #c0c4c8"),
    "too small": lambda text: text.replace(".card small, figcaption, .note {", ".note { font-size: 8px !important } .card small, figcaption, .note {"),
    "the page is": lambda text: text.replace("<main>", '<main><div style="width: 2000px; height: 1px"></div>'),
    "in no box that scrolls": lambda text: text.replace('<div class="scroll"', '<div class="noscroll"'),
    "cut, or over its neighbour": lambda text: text.replace("dd { margin: 0; overflow-wrap: anywhere }", "dd { margin: 0; white-space: nowrap }"),
    "shows nothing, or two": lambda text: text.replace("  .desk { display: none }", ""),
    "Content Security Policy": lambda text: text.replace("</main>", '<img src="https://example.org/a.png" alt=""></main>'),
}  # fmt: skip


@pytest.mark.parametrize("word", BREAKS)
def test_the_browser_would_complain(browser, page, tmp_path, word):
    """That each check above can fail."""
    text = page.read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(BREAKS[word](text))
    assert broken.read_text() != text
    found = seen(browser, broken, widths=["phone"], schemes=["light"])
    assert any(word in fault for fault in found), found
