"""Figures as text: the same bytes each time, well-formed, told to those who can't see them, apart from one another."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from hw.model.charts import BLUE, DARK, chart, in_both_widths, standalone

SVG = "{http://www.w3.org/2000/svg}"
ROOT = Path(__file__).parents[3]
AGAIN = f"import runpy; print(runpy.run_path({__file__!r})['draw']('Once & again'), end='')"


def draw(title: str) -> str:
    with chart(title) as drawn:
        drawn.axes.plot([1, 2, 3], [3, 1, 2], "o-", color=BLUE, label="a < b")
        drawn.axes.set_xlim(1, 2)  # what is beyond is clipped: by a name
        drawn.axes.legend()
    return drawn.svg


def test_equal_figures_are_equal_bytes_in_another_process_too():
    text = draw("Once & again")
    assert text == draw("Once & again")
    other = subprocess.run([sys.executable, "-c", AGAIN], cwd=ROOT, capture_output=True, text=True)
    assert (other.stdout, other.stderr) == (text, "")


def test_it_is_an_image_with_a_title_and_its_texts_are_text():
    root = ElementTree.fromstring(draw("Once & again"))
    assert (root.tag, root.attrib["role"]) == (f"{SVG}svg", "img")
    assert (root[0].tag, root[0].text) == (f"{SVG}title", "Once & again")
    assert "a < b" in [text.text for text in root.iter(f"{SVG}text")]
    assert "width" not in root.attrib and root.attrib["viewBox"].startswith("0 0 ")


def test_names_are_its_own_and_lead_somewhere():
    texts = [draw("First"), draw("Second")]
    names = [set(re.findall(r'\bid="([^"]*)"', text)) for text in texts]
    assert names[0] and not names[0] & names[1]
    for text, own in zip(texts, names, strict=True):
        used = set(re.findall(r'(?:url\(|href=")#([^")]*)', text))
        assert used and used <= own


def test_nothing_tells_when_or_where_it_was_drawn():
    text = draw("Once & again")
    assert "metadata" not in text and "www.matplotlib.org" not in text and "<?xml" not in text


def test_each_colour_of_it_has_a_dark_twin():
    colours = set(re.findall(r"(?:fill|stroke): (#\w+)", draw("Once & again")))
    assert colours and colours <= set(DARK)
    assert len(set(DARK.values())) == len(DARK)


def test_a_file_of_its_own_is_as_large_as_it_was_drawn_and_brings_its_dark_colours():
    text = standalone(draw("Once & again"))
    root = ElementTree.fromstring(text)
    assert (root.attrib["width"], root.attrib["height"]) == ("518.4pt", "259.2pt")
    style = root.find(f"{SVG}style")
    assert style is not None and f"fill: {DARK[BLUE]}" in style.text and "prefers-color-scheme: dark" in style.text


def test_both_widths_of_a_figure_stand_on_one_page():
    def narrow(width: float) -> str:
        with chart("Once & again", width) as drawn:
            drawn.axes.plot([1, 2], [1, 2])
        return drawn.svg

    names = re.findall(r'\bid="([^"]*)"', in_both_widths(narrow))
    assert names and len(names) == len(set(names))
