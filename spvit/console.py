"""Where commands print: rich's console, to which what it is given is text.

Names of files, models and images stand in what commands say, and `[x]` in one of them is no style. What has a colour
says so with `styled`.
"""

from typing import Any

import rich.console
from rich.text import Text


class Console(rich.console.Console):
    """Without markup, and without colours that it thinks up itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line of parts, with a style each or none: `styled(("NOT bit-exact", "red"), ": 3 values")`."""
    return Text.assemble(*parts)
