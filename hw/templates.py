"""What renders every template, and the escapes by which no text of a person's becomes code of the file that it is in.

Enters: a template's path and its values. Leaves: the text. A name that is not given is an error. Each value that is
printed passes the escape of its language, which the template's name tells (`top.cpp.j2`); what the project itself
writes passes unchanged, since it has none of the letters that mean something. A comment may hold more: `x | comment`.
HTML and SVG are escaped by Jinja's own means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

Escape = Callable[[str], str]


class _Written(str):
    """In the file's language already."""

    __slots__ = ()


def _cpp(text: str) -> str:
    """For code as for a comment: names, numbers and lists of them. Others can only show; none of them acts."""
    return re.sub(r"[^A-Za-z0-9_ .,:+-]|(?<=-)-|(?<=\+)\+", "_", text)


def _tcl(text: str) -> str:
    """As one word, bare or in quotation marks."""
    return re.sub(r"[^A-Za-z0-9_.,:/+*%-]", lambda match: _tcl_letter(match[0]), text) or "{}"


def _tcl_letter(letter: str) -> str:
    return f"\\{letter}" if letter.isprintable() and letter.isascii() else f"\\U{ord(letter):08x}"


def _cfg(text: str) -> str:
    """A value of `key=value`: what would begin a comment, a section or a line only shows."""
    return re.sub(r"[^A-Za-z0-9_ .,:/+*%()-]", "_", text)


def _markdown(text: str) -> str:
    """As text, not as a heading, a link or HTML."""
    return re.sub(r"[\\`*\[\]<>#|!~&{}$]", lambda match: f"\\{match[0]}", _on_one_line(text))


def _comment(text: str) -> _Written:
    """For a comment to the end of the line, in each of the languages: it ends there, and hides no other's start."""
    return _Written(re.sub(r"[\\{}\[\]$\"]|\*(?=/)|/(?=[*])|\?(?=\?)", "_", _on_one_line(text)))


def _new_line(columns: int) -> _Written:
    """Where a template's line becomes too long."""
    return _Written("\n" + " " * columns)


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


ESCAPES: Mapping[str, Escape | None] = {
    ".cpp": _cpp,
    ".hpp": _cpp,
    ".tcl": _tcl,
    ".cfg": _cfg,
    ".md": _markdown,
    ".html": None,  # Jinja's autoescape
    ".svg": None,
}


def render(template: Path, values: Mapping[str, Any]) -> str:
    """The text of a template, `<name>.<language>.j2`."""
    environment = _environment(template.parent, Path(template.stem).suffix)
    return environment.get_template(template.name).render(values)


@cache
def _environment(folder: Path, language: str) -> Environment:
    escape = ESCAPES[language]

    def finalize(value: object) -> object:
        if escape is None or isinstance(value, (int, float, _Written)):
            return value
        return escape(str(value))

    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=escape is None,
    )
    environment.filters["comment"] = _comment
    environment.globals["new_line"] = _new_line
    return environment
