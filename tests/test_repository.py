"""What is committed: sources alone, nothing of one machine, and an environment that is pinned whole."""

import re
import subprocess
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest

from spvit.training.recipe import Recipe

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


def test_every_command_of_the_documents_can_be_typed_as_it_stands():
    """In a checkout, without anything activated; with options that the command has."""
    found = 0
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = document.read_text()
        assert not re.findall(r"(?:^|`)(?:python3?|torchrun) .*", text, flags=re.MULTILINE), document
        for line in re.findall(r"\.venv/bin/(?:python|torchrun)[^`#\n]*", text):
            (module,) = re.findall(r"-m ([\w.]+)", line)
            place = ROOT / module.replace(".", "/")
            source = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            assert source.name == "__main__.py" or "__main__" in source.read_text(), line
            own = line.partition(f"-m {module}")[2]
            texts = "".join(
                path.read_text() for path in (source, ROOT / "quant" / "build.py", ROOT / "hw" / "target.py")
            )
            for option in re.findall(r"--[a-z-]+", own):
                of_recipe = option.removeprefix("--").replace("-", "_") in {item.name for item in fields(Recipe)}
                assert option == "--help" or of_recipe or f'"{option}"' in texts, (document.name, line)
            found += 1
        for variables in re.findall(r"^make [a-z-]+ ([^#\n]*)", text, flags=re.MULTILINE):
            for name in re.findall(r"\b([A-Z_]+)=", variables):
                assert f"{name}=" in (ROOT / "Makefile").read_text(), (document.name, variables)
    assert found >= 5
