"""No text becomes code of the file that it is rendered into: in each language, for each field of each TOML."""

import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from hw.deploy import _readme
from hw.generate import make_project
from hw.model.estimate import make_estimate
from hw.target import TARGETS, Target, resolve_target
from hw.templates import ESCAPES, render
from sim.report.evidence import Evidence
from sim.report.page import render as render_page
from spvit.config import ModelConfig, PruningConfig, resolve_model
from spvit.errors import ConfigError
from spvit.schema import Choice, Text, kinds
from tests.sim.networks import design_of, micro

MARK = "OWNED"
HOSTILE = [
    f"x\n{MARK}", f"x\r{MARK}", f"x\r\n#define {MARK}", f"x\\\n{MARK}", f"x */ {MARK} /*", f"x ??/\n{MARK}", f'x" {MARK} "',
    f"x'; {MARK}", f"x]; {MARK} [", f"[{MARK}]", f"$::{MARK}", f"${{{MARK}}}", f"[exec {MARK}]", "{", "}", "x}", "\\", "x\\",
    f"{{{{ {MARK} }}}}", f"{{% {MARK} %}}", f"x\x00{MARK}", f"x\u2028{MARK}", f"x\x85{MARK}", f"<script>{MARK}</script>",
    f"](javascript:{MARK})", f"`{MARK}`", f"x; {MARK}()", f"# {MARK}", f"x // {MARK}", f"-config {MARK}", f"x {MARK} y", "",
    f"&lt;{MARK}", f"x=1\n[{MARK}]", "é→", "\ud800",
]  # fmt: skip
TARGET = (TARGETS / "zcu102.toml").read_text()


def rendered(language, text, tmp_path, template="{{ text }}"):
    path = tmp_path / f"file{language}.j2"
    path.write_text(template)
    return render(path, {"text": text})


@pytest.fixture(autouse=True)
def fresh_environments():
    from hw import templates

    templates._environment.cache_clear()
    yield
    templates._environment.cache_clear()


# --- each language ---


@pytest.mark.parametrize("text", HOSTILE)
def test_in_cpp_only_names_numbers_and_lists_are_left(text, tmp_path):
    out = rendered(".cpp", text, tmp_path)
    assert re.fullmatch(r"[A-Za-z0-9_ .,:+-]*", out) and "--" not in out and "++" not in out
    comment = rendered(".hpp", text, tmp_path, "// {{ text | comment }}\n/* {{ text | comment }} */ int x;\n")
    assert comment.count("\n") == 2 and "??" not in comment and "\\" not in comment
    assert comment.count("*/") == comment.count("/*") == 1 and comment.endswith("*/ int x;\n")


@pytest.mark.needs("tclsh")
@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\ud800"])
def test_in_tcl_a_text_is_one_word_that_does_nothing(text, tmp_path):
    """Tcl itself reads it: as a word, in quotation marks, and behind a comment's mark."""
    lines = (
        "# {{ text | comment }}\n# {{ text }}\nset a {{ text }}\nset b \"<{{ text }}>\"\n"
        'fconfigure stdout -encoding utf-8 -translation lf\nputs -nonewline "$a|$b"\n'
    )  # fmt: skip
    script = tmp_path / "x.tcl"
    script.write_text(
        f"proc {MARK} args {{ puts {MARK}; exit 3 }}\n" + rendered(".tcl", text, tmp_path, lines), "utf-8"
    )
    done = subprocess.run(["tclsh", str(script)], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{text}|<{text if text else '{}'}>"


@pytest.mark.parametrize("text", HOSTILE)
def test_in_a_cfg_a_text_stays_in_its_line(text, tmp_path):
    out = rendered(".cfg", text, tmp_path, "# {{ text | comment }}\nkey={{ text }}\n")
    assert out.count("\n") == 2 and len(out.splitlines()) == 2
    assert not re.search(r"[;#\[\]]", out.splitlines()[1])


@pytest.mark.parametrize("text", HOSTILE)
def test_in_markdown_a_text_is_text(text, tmp_path):
    out = rendered(".md", text, tmp_path)
    assert len(out.splitlines()) <= 1
    assert not re.search(r"(?<!\\)[`*\[\]<>#|!~&{}$]", out.replace(r"\\", ""))


@pytest.mark.parametrize("text", [text for text in HOSTILE if text not in ("\ud800", "x\x00OWNED")])
def test_in_html_a_text_is_text(text, tmp_path):
    class Reader(HTMLParser):
        tags: list[str] = []  # noqa: RUF012
        text = ""

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)

        def handle_data(self, data):
            self.text += data

    reader = Reader()
    reader.tags = []
    reader.feed(f"<p>{rendered('.html', text, tmp_path)}</p>")
    reader.close()
    assert reader.tags == ["p"]
    assert reader.text == text


@pytest.mark.parametrize("language", [language for language in ESCAPES if language != ".html"])
def test_what_the_project_writes_itself_passes_unchanged(language, tmp_path):
    for text in ("deit_s", "spvit_top_0", "0x1234ABCDU" if language != ".tcl" else "5.000", 7, 2.5, True):
        assert rendered(language, text, tmp_path) == str(text)


def test_a_name_that_is_not_given_is_an_error_and_a_language_that_is_not_known_too(tmp_path):
    for language in ESCAPES:
        (tmp_path / f"x{language}.j2").write_text("{{ nobody }}")
        with pytest.raises(UndefinedError, match="'nobody' is undefined"):
            render(tmp_path / f"x{language}.j2", {})
    (tmp_path / "x.sh.j2").write_text("")
    with pytest.raises(KeyError):
        render(tmp_path / "x.sh.j2", {})


def test_every_template_is_rendered_here_and_none_is_safe_by_word():
    """`| safe` is for the report's drawings alone, and nobody makes an environment of his own."""
    root = Path(__file__).parents[2]
    for path in (*root.glob("hls_templates/*.j2"), *root.glob("host/**/*.j2"), *root.glob("sim/**/*.j2")):
        if path.name not in ("banner.j2", "engine_pragmas.j2"):  # included by others, in their language
            assert Path(path.stem).suffix in ESCAPES, path
        safe = re.findall(r"\{\{ ([\w.]+) \| safe \}\}", path.read_text())
        assert set(safe) <= {"flow.desk", "flow.phone", "one.html", "paper_chart", "dark_rules"}, path
        assert path.read_text().count("| safe") == len(safe), path
    for room in ("hw", "sim", "host", "quant", "spvit"):
        for path in (root / room).rglob("*.py"):
            assert path.name == "templates.py" or "jinja2" not in path.read_text(), path


# --- each field of each TOML ---


def texts_of(table):
    return [
        name
        for name, kind in kinds(table).items()
        if isinstance(kind, Text) or (isinstance(kind, Choice) and isinstance(kind.choices[0], str))
    ]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", texts_of(Target))
def test_a_target_s_text_is_checked_where_it_enters(field, text, tmp_path):
    path = tmp_path / "board.toml"
    quoted = "".join(f"\\U{ord(letter):08x}" for letter in text.replace("\ud800", "\ue000"))
    path.write_text(
        re.sub(rf'^{field} = ".*"$', lambda _: f'{field} = "{quoted}"', TARGET, count=1, flags=re.MULTILINE)
    )
    with pytest.raises(ConfigError, match=f"^{path}: {field}=.* must be ") as error:
        resolve_target(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("table", [ModelConfig, PruningConfig])
def test_a_model_s_text_is_checked_where_it_enters(table, text):
    for field in texts_of(table):
        if text != "x":
            with pytest.raises(ConfigError, match=f"^{field}="):
                table(**{"name": "x", field: text} if table is ModelConfig else {field: text})


def unchecked(config, **fields):
    """The same configuration with texts that nobody would have let in."""
    copy = replace(config)
    for name, text in fields.items():
        object.__setattr__(copy, name, text)
    return copy


@pytest.mark.parametrize("text", [f"x\n{MARK}", f"x */ {MARK} \\", f"x]; [exec {MARK}] $ {{", f"`<b>{MARK}"])
def test_and_escaped_where_it_leaves(text):
    """Were a check forgotten, still each line of each file is what it was, but for the text's own place."""
    network = micro()
    plain_target = resolve_target("kv260")
    hostile = unchecked(network, model=unchecked(network.model, name=text))
    target = unchecked(plain_target, name=text, part=text, board_part=text)
    plain, ours = (
        make_project(design_of(network), plain_target, "micro"),
        make_project(design_of(hostile), target, "micro"),  # a name of its own is checked where it enters
    )
    files = {**ours.files, "README.md": _readme(ours, Path("x"), True, text).decode()}
    expected = {**plain.files, "README.md": _readme(plain, Path("x"), True, "x").decode()}
    for path, content in files.items():
        if path == "design.json":
            continue  # json.dumps
        assert len(content.splitlines()) == len(expected[path].splitlines()), path
        for line in content.splitlines():
            assert not line.lstrip().startswith(MARK), (path, line)
            if MARK in line and path.endswith((".cpp", ".hpp")):
                assert line.startswith(("//", "# ")) or "//" in line.partition(MARK)[0], (path, line)


def test_the_page_shows_a_hostile_source_as_text():
    target = resolve_target("zcu102")
    hostile = replace(target, sources={**target.sources, "part": f"<script>{MARK}</script>"})
    page = render_page(make_estimate(resolve_model("micro"), hostile, None), Evidence(None, None, {}, None))
    assert f"&lt;script&gt;{MARK}&lt;/script&gt;" in page and f"<script>{MARK}" not in page
