"""What is committed: sources alone, nothing of one machine, and an environment that is pinned whole."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from spvit_fpga.cli import parser_of
from spvit_fpga.commands import COMMANDS
from spvit_fpga.makefile import idle, refusal

ROOT = Path(__file__).parents[1]
# Absolute paths of one person's or one machine's folders; PYNQ's own /home/xilinx is a fact about the board.
MACHINE_PATH = re.compile(rb"(?<![\w.~-])/(work|root|home/(?!xilinx\b)\w+|Users/\w+)/")
LARGEST_BYTES = 5_000_000
uses_git = pytest.mark.needs("git")


def git_ls_files(*options):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    output = subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name.decode() for name in output.split(b"\0") if name]


def pins(path):
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


@uses_git
def test_nothing_that_is_built_is_committed():
    assert git_ls_files("--cached", "--ignored", "--exclude-standard") == []


@uses_git
def test_no_committed_file_is_huge():
    sizes = {path: path.stat().st_size for path in git_ls_files() if path.exists()}
    assert len(sizes) > 10
    assert {path: size for path, size in sizes.items() if size > LARGEST_BYTES} == {}


@uses_git
def test_no_committed_file_names_a_machines_paths():
    found = {
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in git_ls_files()
        if path.is_file()
        for match in MACHINE_PATH.finditer(path.read_bytes())
    }
    assert found == set()


def test_the_pattern_for_machine_paths():
    for folder in ("work", "root", "home/me", "Users/me"):
        for text in (f'"/{folder}/x"', f"--ckpt=/{folder}/x", f"(/{folder}/x)"):
            assert MACHINE_PATH.search(text.encode()), text
    for text in ("/home/xilinx/jupyter_notebooks", "net/work/x", "../work/x", "/tmp/x", "https://a.b/home/"):
        assert not MACHINE_PATH.search(text.encode()), text


def test_every_requirement_is_pinned_and_the_environment_has_it():
    pinned = pins(ROOT / "requirements.txt")
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)
    assert set(pins(ROOT / "requirements.in")) | set(pins(ROOT / "requirements-dev.in")) <= set(pinned)
    for line in pinned:
        name, wanted = line.split("==")
        assert version(name).split("+")[0] == wanted, name


DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_the_documents_can_be_typed_as_it_stands(document):
    """In a checkout, without anything activated; with options that the command has."""
    text = document.read_text()
    assert not re.findall(r"(?:^|`)(?:python3?|torchrun) .*", text, flags=re.MULTILINE)
    for line in re.findall(r"\.venv/bin/(?:python|torchrun)[^`#\n]*", text):
        module, words = re.search(r"-m ([\w.]+) ?(.*)", line).groups()
        assert module == "spvit_fpga" or "__main__" in (ROOT / f"{module.replace('.', '/')}.py").read_text(), line
        if module == "spvit_fpga":
            check_console(words)
    for words in re.findall(r"(?:^|`)(?:\.venv/bin/)?spvit ([^`#\n]*)", text, flags=re.MULTILINE):
        check_console(words)
    for goal, words in re.findall(r"(?:^|`)make ([a-z-]+)((?: [A-Z_]+=[^ `#\n]*)*)", text, flags=re.MULTILINE):
        given = dict(word.split("=", 1) for word in words.split() if not word.endswith("="))
        if goal in COMMANDS:
            assert not idle([goal], given), (goal, words)
        else:
            assert f"\n{goal}:" in (ROOT / "Makefile").read_text(), goal
        unknown = refusal([goal], {"MODEL": "m", "FORMAT": "onnx"} | given, {})
        assert unknown is None, unknown


def check_console(words):
    name, *given = words.replace("…", "x").split() or ["--help"]
    if name in COMMANDS:
        options = {flag for action in parser_of(COMMANDS[name])._actions for flag in action.option_strings}
        assert {word for word in given if word.startswith("--")} <= options, words
    else:
        assert name in ("--help", "completion", "COMMAND"), words
