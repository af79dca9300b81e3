"""Figures as SVG text: one style, no file, equal inputs give equal bytes.

Each is accessible (role="img", a title) and stands by itself: text stays text, in whatever sans-serif is there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072b2", "#d55e00", "#009e73", "#b2182b", "#8b5aa8", "#56b4e9", "#e69f00",
)  # fmt: skip
"""After Okabe and Ito: told apart by the colour-blind too."""
INK, GREY, LIGHT = "#24292f", "#6e7781", "#d0d7de"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LIGHT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eaeef2",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


class Chart:
    """A figure that is being drawn; `svg` is its text once it is done."""

    def __init__(self, axes: Axes) -> None:
        self.axes, self.svg = axes, ""


@contextmanager
def chart(title: str, width: float = 7.2, height: float = 3.6) -> Iterator[Chart]:
    """Axes to draw on.

    title          what a reader who can't see it is told; it also keeps the names inside apart from other figures'
    width, height  inches at 72 units each: the SVG scales to where it stands
    """
    # matplotlib warns of fonts that this machine lacks: the reader's is what counts
    with mpl.rc_context({**STYLE, "svg.hashsalt": title, "font.sans-serif": ["DejaVu Sans"]}):
        figure = Figure(figsize=(width, height))
        drawn = Chart(figure.add_subplot())
        yield drawn
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn.svg = _accessible(text.getvalue(), title)


def _accessible(text: str, title: str) -> str:
    """Without the prologue, with the title, as wide as its place; names made unique."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = body.replace("'DejaVu Sans'", "Helvetica, Arial, 'DejaVu Sans', sans-serif")
    body = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg xmlns="http://www.w3.org/2000/svg" '
                  r'xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img">' "\n"
                  f"<title>{escape(title)}</title>", body, count=1)  # fmt: skip
    prefix = "c" + re.sub(r"\W+", "-", title.lower())
    body = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', body)
    return re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", body)
