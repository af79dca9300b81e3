"""Figures as SVG text: one style, no file, equal inputs give equal bytes.

Each is accessible (role="img", a title), its text stays text, in whatever sans-serif is there, and has a dark twin of
each colour: `DARK_RULES`, which a page holds once and `standalone` puts into a file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072b2", "#d55e00", "#009e73", "#b2182b", "#8b5aa8", "#56b4e9", "#e69f00",
)  # fmt: skip
"""After Okabe and Ito: told apart by the colour-blind too."""
INK, GREY, LIGHT, GRID, PAPER = "#24292f", "#6a737d", "#d0d7de", "#eaeef2", "#ffffff"
DARK = {
    BLUE: "#3f97dd", ORANGE: "#f0883e", GREEN: "#34c199", RED: "#ff7b72", PURPLE: "#bb91da", SKY: "#a5d8f8",
    YELLOW: "#f2c14e", INK: "#e6edf3", GREY: "#9da7b3", LIGHT: "#454d57", GRID: "#282e36", PAPER: "#161b22",
}  # fmt: skip
"""What each colour becomes where the reader's scheme is dark."""
DARK_RULES = "@media (prefers-color-scheme: dark) {{ {} }}".format(
    " ".join(
        f'svg [style*="{what}: {light}"] {{ {what}: {dark} !important }}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
)
SMALL = 8.5
"""Points, of labels and legends."""
WIDE, NARROW = 5.6, 3.5
"""Inches, of a figure on a page: for a column of a desk's screen, and for a telephone."""
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
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "grid.color": GRID,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
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
    drawn.svg = _accessible(text.getvalue(), title, width)


def standalone(svg: str) -> str:
    """A figure as a file of its own: as large as it was drawn, where there is room, and dark where that is wanted."""
    left, top, width, height = (float(one) for one in svg.partition('viewBox="')[2].partition('"')[0].split())
    size = f'width="{width - left:g}pt" height="{height - top:g}pt"'
    head, end, body = svg.partition("</title>")
    return f"{head.replace('<svg ', f'<svg {size} ', 1)}{end}\n<style>{DARK_RULES}</style>{body}"


def mark_decades(axis: Axis, low: float, high: float) -> None:
    """Ticks and figures of a logarithmic axis: 1, 2, 5, 10, or decades alone where there are many; none between."""
    axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter("{x:,g}")


def for_phones(path: Path) -> Path:
    """Where a drawing's narrow twin lies: beside it."""
    return path.with_name(f"{path.stem}-phone{path.suffix}")


def in_both_widths(draw: Callable[[float], str]) -> str:
    """HTML of one figure drawn for a desk's screen and for a telephone, of which a page's style shows one.

    draw  the figure of a width in inches
    """
    return "".join(f'<div class="{name}">{draw(width)}</div>' for name, width in (("desk", WIDE), ("phone", NARROW)))


def _accessible(text: str, title: str, width: float) -> str:
    """Without the prologue, with the title, as wide as its place; names made unique."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = body.replace("'DejaVu Sans', sans-serif", "Helvetica, Arial, 'DejaVu Sans', sans-serif")
    body = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg xmlns="http://www.w3.org/2000/svg" '
                  r'xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="\1" role="img">' "\n"
                  f"<title>{escape(title)}</title>", body, count=1)  # fmt: skip
    prefix = "c" + re.sub(r"\W+", "-", f"{title.lower()} {round(72 * width)}")
    body = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}-\1"', body)
    return re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", body)
