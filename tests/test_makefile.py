"""The face: what each target runs, what it says when something is missing, and how it makes the environment.

Runs the Makefile in a folder of its own, with a recorder in place of Python where only the commands matter.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spvit_fpga.cli import parser_of
from spvit_fpga.commands import COMMANDS
from spvit_fpga.makefile import arguments, as_variables, idle, refusal

ROOT = Path(__file__).parents[1]
RECORDER = f"""#!{sys.executable}
import json, os, pathlib, sys
if sys.argv[1:3] == ["-m", "spvit_fpga.makefile"] and sys.argv[3] != "run":  # make itself asks
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
with pathlib.Path("commands.jsonl").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1:4] == ["-m", "spvit_fpga.makefile", "run"]:  # the command line that it would be
    from spvit_fpga.makefile import COMMANDS, arguments
    with pathlib.Path("arguments.jsonl").open("a") as file:
        file.write(json.dumps(arguments(COMMANDS[sys.argv[4]], os.environ)) + "\\n")
sys.exit(int(os.environ.get("RECORDER_STATUS", "0")))
"""


def make(folder, *arguments, **environment):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name not in ("MFLAGS", "GNUMAKEFLAGS", "PYTHON", "MODEL", "TARGET")
    }
    clean |= {"PYTHONPATH": str(ROOT)}  # the list of commands; beside the Makefile in a checkout
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def checkout(tmp_path):
    """The Makefile with an environment whose Python only notes down what it is asked to do."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(RECORDER)
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def commands(folder):
    file = folder / "commands.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def asked(folder):
    """The options of each command that was run."""
    return [json.loads(line) for line in (folder / "arguments.jsonl").read_text().splitlines()]


def own_targets():
    return re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


# --- help ---


def test_help_is_what_make_says_alone_and_lists_every_target(checkout):
    run = make(checkout)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == make(checkout, "help").stdout
    listed = re.findall(r"^  make (\S+) +\S", run.stdout, flags=re.MULTILINE)
    assert sorted(listed) == sorted([*COMMANDS, *own_targets()])
    assert {"hls", "csim", "test", "test-slow", "check", "format", "bench", "clean", "help"} <= set(listed)
    assert max(len(line) for line in run.stdout.splitlines()) <= 80


def test_help_needs_python_alone(tmp_path):
    """On a bare machine: no environment, nothing installed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    bare.chmod(0o755)
    run = make(tmp_path, "help", f"PYTHON={bare}")
    assert (run.returncode, run.stderr) == (0, "") and "make hls" in run.stdout
    assert not (tmp_path / ".venv").exists()


def test_help_says_for_each_target_which_variables_it_takes(checkout):
    """Those that it passes on, and every one of them is explained."""
    text = make(checkout, "help").stdout
    entries, _, explanations = text.partition("\nVariables; ")
    taken = {}
    for entry in re.split(r"^  make ", entries, flags=re.MULTILINE)[1:]:
        taken[entry.split()[0]] = re.findall(r"(?<![\w-])\[?([A-Z_]+)=\]?", entry)
    assert taken["csim"] == [
        *(
            "MODEL",
            "KEEP",
            "CKPT",
            "EMA",
            "POS",
            "THRESHOLD",
            "TARGET",
            "CALIB",
            "WEIGHT_BITS",
            "SEED",
            "OUT",
            "DESIGN",
        ),
        *("IMAGES", "TOP", "CXX", "EXACT"),
    ]
    explained = re.findall(r"^  ([A-Z_]+)= +\S", explanations, flags=re.MULTILINE)
    assert sorted(explained) == sorted({name for names in taken.values() for name in names} | {"PYTHON"})
    switches = {"PROGRESSIVE", "EMA", "QUICK", "CHECK", "EXACT", "AT_KEEP_RATIOS"}
    named = {name for target in COMMANDS for name in taken[target]}
    run = make(checkout, *COMMANDS, *(f"{name}={1 if name in switches else 'x'}" for name in named))
    assert (run.returncode, run.stderr) == (0, "")
    assert commands(checkout) == [["-m", "spvit_fpga.makefile", "run", target] for target in COMMANDS]
    for target, options in zip(COMMANDS, asked(checkout), strict=True):
        assert [word.split("=")[0] for word in options] == [
            f"--{name.lower().replace('_', '-')}" for name in taken[target]
        ], target


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["estimate", "KEP=0.5"], "there is no variable KEP=; did you mean KEPT= or KEEP=?"),
        (["hls", "TARGET=zcu102", "model=deit_s"], "there is no variable model=; did you mean MODEL=?"),
        (["hls", "TARGET=zcu102", "MODEL=m", "CALB=x"], "there is no variable CALB=; did you mean CALIB=?"),
        (["test", "FOO_BAR='"], "there is no variable FOO_BAR=; make help lists them all"),
        (["train", "MODEL=m", "PROGRESSIVE=0"], "PROGRESSIVE=0 must be 1, or be left away"),
    ],
)
def test_a_variable_that_nobody_reads_is_refused(checkout, arguments, sentence):
    """It would be swallowed, and another design be built than the one that was asked for."""
    run = make(checkout, *arguments, f"PYTHON={sys.executable}")
    assert (run.returncode, run.stdout, commands(checkout)) == (2, "", [])
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {re.escape(sentence)}\.?  Stop\.\n", run.stderr), run.stderr


def test_a_variable_that_the_target_does_not_read_is_spoken_of(checkout):
    run = make(checkout, "hls", "TARGET=zcu102", "MODEL=m", "IMAGES=x", "TOP=y")
    assert run.returncode == 0 and asked(checkout) == [["--model=m", "--target=zcu102"]]
    assert re.fullmatch(
        r"make hls takes no (IMAGES= and no TOP|TOP= and no IMAGES)=; make help says who takes what\n", run.stderr
    ), run.stderr
    assert make(checkout, "hls", "csim", "TARGET=zcu102", "MODEL=m", "IMAGES=x").stderr == ""


def test_every_target_is_phony():
    rules = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert rules == own_targets()
    assert "\n.PHONY: $(ANSWER)\n$(ANSWER): " in (ROOT / "Makefile").read_text()


# --- the flow's commands ---


def test_options_arrive_as_they_were_given(checkout):
    given = {
        "MODEL": "my models/a.toml",
        "KEEP": "0.6,0.4,0.2",
        "CKPT": "it's mine.pth",
        "CALIB": 'a "quoted" folder',
        "IMAGES": "/photos of/*; echo $$HOME `id` \\n",
        "TOP": "msa_block",
    }
    arguments = [f"{name}={value}" for name, value in given.items()]
    assert make(checkout, "csim", "TARGET=zcu102", *arguments).returncode == 0
    (options,) = asked(checkout)
    expected = [f"--{name.lower()}={value.replace('$$', '$')}" for name, value in given.items()]
    assert sorted(options) == sorted([*expected, "--target=zcu102"])


def test_from_the_environment_too(checkout):
    assert make(checkout, "csim", MODEL="m").returncode == 0
    assert asked(checkout) == [["--model=m"]]


def test_training_takes_a_budget(checkout):
    given = ["MODEL=deit_s", "DATA=imagenet", "CKPT=a.pth", "BUDGET=6ms", "TARGET=zcu102", "PROGRESSIVE=1"]
    assert make(checkout, "train", *given).returncode == 0
    (options,) = asked(checkout)
    assert set(options) == {
        *("--model=deit_s", "--data=imagenet", "--ckpt=a.pth", "--budget=6ms", "--target=zcu102", "--progressive")
    }


def test_a_failing_step_ends_the_target_with_2(checkout):
    run = make(checkout, "hls", "TARGET=zcu102", "MODEL=deit_s", RECORDER_STATUS="2")
    assert run.returncode == 2 and len(commands(checkout)) == 1


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["hls"], "make hls needs MODEL="),
        (["hls", "TARGET=zcu102", "MODEL="], "make hls needs MODEL="),
        (["csim", "TARGET=zcu102"], "make csim needs MODEL="),
        (["export"], "make export needs MODEL= and FORMAT="),
        (["export", "MODEL=m"], "make export needs FORMAT="),
        (["finetune", "EPOCHS=1"], "make finetune needs MODEL="),
    ],
)
def test_what_is_missing_is_one_sentence_with_an_example(tmp_path, arguments, missing):
    """Also before there is an environment: nothing is installed first."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    run = make(tmp_path, *arguments, f"PYTHON={sys.executable}")
    assert (run.returncode, run.stdout) == (2, "")
    example = as_variables(COMMANDS[arguments[0]].examples[0])
    sentence = f"{missing}, for example: make {arguments[0]} {example}"
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {re.escape(sentence)}\.  Stop\.\n", run.stderr), run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


def test_every_example_is_one_that_make_and_the_console_take():
    for command in COMMANDS.values():
        for example in command.examples:
            parser_of(command).parse_args(example.split())
            given = dict(word.split("=") for word in as_variables(example).split())
            assert refusal([command.name], given, {}) is None and idle([command.name], given) is None
            assert sorted(arguments(command, given)) == sorted(re.sub(r"(--\S+) (?!--)", r"\1=", example).split())


def test_clean_keeps_the_environment_and_the_sources(checkout):
    for name in ("build/m-zcu102/csim.json", ".mypy_cache/x", "spvit/__pycache__/x.pyc", "spvit/x.py", "bench.json"):
        path = checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (checkout / ".venv" / "__pycache__").mkdir()
    assert make(checkout, "clean").returncode == 0
    left = {path.name for path in checkout.iterdir()}
    assert left == {"Makefile", "requirements.txt", ".venv", "spvit"}
    assert [path.name for path in (checkout / "spvit").iterdir()] == ["x.py"]
    assert (checkout / ".venv" / "__pycache__").exists()


# --- the environment ---


@pytest.fixture
def bare(tmp_path):
    """A fresh clone whose environment needs no package, so that making it takes seconds."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").write_text("# nothing\n")
    return tmp_path


def install(folder, **environment):
    return make(folder, ".venv/.installed", f"PYTHON={sys.executable}", PIP_NO_INDEX="1", **environment)


def test_the_environment_is_made_once_and_survives_new_requirements(bare):
    assert install(bare).returncode == 0
    assert (bare / ".venv" / "bin" / "python").exists()
    (bare / ".venv" / "mine").touch()
    assert "Installing" not in install(bare).stdout
    later = (bare / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(bare / "requirements.txt", (later, later))
    assert "Installing" in install(bare).stdout
    assert (bare / ".venv" / "mine").exists()


def test_an_installation_that_was_killed_starts_afresh(bare):
    (bare / ".venv").mkdir()
    for name in (".installing", "half a package"):
        (bare / ".venv" / name).touch()
    assert install(bare).returncode == 0
    assert not (bare / ".venv" / "half a package").exists()
    assert not (bare / ".venv" / ".installing").exists()
    assert (bare / ".venv" / ".installed").exists()


def test_a_failed_installation_leaves_no_stamp(bare):
    (bare / "requirements.txt").write_text("surely-not-installed==1.0\n")
    run = install(bare)
    assert run.returncode == 2
    assert "error: the packages of requirements.txt were not installed; pip says why above\n" in run.stderr
    assert not (bare / ".venv" / ".installed").exists()
    (bare / "requirements.txt").write_text("# nothing\n")
    assert install(bare).returncode == 0


@pytest.mark.parametrize("python", ["false", "/nowhere/python"])
def test_another_python_is_refused(bare, python):
    run = make(bare, "check", f"PYTHON={python}")
    assert run.returncode == 2
    sentence = f"Python 3.11 is needed and {python} is not it; name one: make PYTHON=/path/to/python3.11."
    assert sentence in run.stderr
    assert not (bare / ".venv").exists()
