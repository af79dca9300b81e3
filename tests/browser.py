"""Pages as people see them: opened in Chromium at the widths of a desk and a telephone, in both colour schemes.

Enters: files. Leaves: what is wrong with each, a sentence a fault: labels that overlap or are cut, text too small or too
pale to be read, what hangs over its place without a scroll bar, what the console says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.tools import find

WIDTHS = {"desk": 1280, "phone": 390}
SCHEMES = ("light", "dark")
FAULTS = (Path(__file__).with_name("browser.js")).read_text()


@contextmanager
def chromium() -> Iterator[Browser]:
    """One start for any number of pages."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find("chromium"), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def faults(
    browser: Browser, path: Path, widths: Sequence[str] = tuple(WIDTHS), schemes: Sequence[str] = SCHEMES
) -> list[str]:
    """What is wrong with a page or a drawing, each with where it was seen."""
    page = browser.new_page(viewport={"width": WIDTHS[widths[0]], "height": 900}, color_scheme=schemes[0])
    console: list[str] = []
    page.on("console", lambda message: console.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: console.append(f"console: {error}"))
    page.goto(path.as_uri())
    found = []
    for scheme, width in product(schemes, widths):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": WIDTHS[width], "height": 900})
        found += [f"{scheme}, {width}: {fault}" for fault in page.evaluate(FAULTS)]
    page.close()
    return found + console
