"""Figures on disk."""

from pathlib import Path

from matplotlib.figure import Figure

from spvit.files import whole_file


def write_figure(path: Path, figure: Figure) -> None:
    """As PNG, whole or not at all. Raises FileError."""
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=150, format="png")
