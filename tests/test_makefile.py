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

ROOT = Path(__file__).parents[1]
RECORDER = f"""#!{sys.executable} -I
import json, os, pathlib, sys
with pathlib.Path("commands.jsonl").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(int(os.environ.get("RECORDER_STATUS", "0")))
"""


def make(folder, *arguments, **environment):
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAKE") and name not in ("MFLAGS", "GNUMAKEFLAGS", "PYTHON", "MODEL", "TARGET")
    }
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


def targets():
    return re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


# --- help ---


def test_help_is_what_make_says_alone_and_lists_every_target(checkout):
    run = make(checkout)
    assert run.returncode == 0
    assert run.stdout == make(checkout, "help").stdout
    listed = re.findall(r"^  make (\S+) +\S", run.stdout, flags=re.MULTILINE)
    assert listed == targets()
    assert {"hls", "csim", "test", "test-slow", "check", "format", "bench", "clean", "help"} <= set(listed)


def test_help_says_for_each_target_which_variables_it_takes(checkout):
    """Those that it passes on, and every one of them is explained."""
    text = make(checkout, "help").stdout
    taken = dict(re.findall(r"^  make (\S+) .*\n {18}(\S.*)$", text, flags=re.MULTILINE))
    assert taken["csim"] == (
        "MODEL= TARGET= [CKPT=] [EMA=] [POS=] [CALIB=] [KEEP=] [THRESHOLD=] [IMAGES=] [TOP=] [CXX=]"
    )
    assert taken["finetune"] == (
        "MODEL= [DATA=] [CKPT=] [EMA=] [POS=] [KEEP=] [OUT=] [RESUME=] [RECIPE=] [EPOCHS=] [DEVICE=]"
    )
    explained = re.findall(r"^  ([A-Z_]+)= +\S", text, flags=re.MULTILINE)
    named = {name for line in taken.values() for name in re.findall(r"[A-Z_]+", line)}
    assert sorted(explained) == sorted(named | {"PYTHON"})
    for target, line in taken.items():
        given = [f"{name}={'1' if name in ('PROGRESSIVE', 'EMA') else 'x'}" for name in re.findall(r"[A-Z_]+", line)]
        run = make(checkout, target, *given)
        assert (run.returncode, run.stderr) == (0, "")
        passed = {part for command in commands(checkout) for part in command if part.startswith("--")} - {"--check"}
        options = {f"--{name.lower().replace('_', '-')}" for name in re.findall(r"[A-Z_]+", line)} - {"--cxx"}
        assert passed == options, target
        (checkout / "commands.jsonl").unlink()


def test_every_option_is_one_of_its_command(checkout):
    """What help promises, the commands take."""
    text = make(checkout, "help").stdout
    for target, line in re.findall(r"^  make (\S+) .*\n {18}(\S.*)$", text, flags=re.MULTILINE):
        given = [f"{name}=1" for name in re.findall(r"[A-Z_]+", line)]
        assert make(checkout, target, *given).returncode == 0
        for module, options in {(command[1], tuple(command[2:])) for command in commands(checkout)}:
            source = "".join((ROOT / path).read_text() for path in sources_of(module))
            for option in options:
                if option.startswith("--"):
                    assert f'"{option}"' in source, (target, module, option)
        (checkout / "commands.jsonl").unlink()


def sources_of(module):
    """Where the arguments of a command are defined."""
    place = ROOT / module.replace(".", "/")
    own = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    return [*own, "quant/build.py", "hw/target.py", "spvit/training/recipe.py", "spvit/checkpoint_options.py"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["estimate", "KEP=0.5"], "there is no variable KEP=; did you mean KEPT= or KEEP=?"),
        (["hls", "TARGET=zcu102", "model=deit_s"], "there is no variable model=; did you mean MODEL=?"),
        (["hls", "TARGET=zcu102", "MODEL=m", "CALB=x"], "there is no variable CALB=; did you mean CALIB=?"),
        (["test", "FOO_BAR='"], "there is no variable FOO_BAR=; make help lists them all."),
        (["train", "MODEL=m", "PROGRESSIVE=0"], "PROGRESSIVE=0 must be 1, or be left away."),
    ],
)
def test_a_variable_that_nobody_reads_is_refused(checkout, arguments, sentence):
    """It would be swallowed, and another design be built than the one that was asked for."""
    run = make(checkout, *arguments, f"PYTHON={sys.executable}")
    assert (run.returncode, run.stdout, commands(checkout)) == (2, "", [])
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {re.escape(sentence)}\.?  Stop\.\n", run.stderr), run.stderr


def test_a_variable_that_the_target_does_not_read_is_spoken_of(checkout):
    run = make(checkout, "hls", "TARGET=zcu102", "MODEL=m", "IMAGES=x", "TOP=y")
    assert run.returncode == 0 and "--images" not in str(commands(checkout)) and "--top" not in str(commands(checkout))
    assert re.fullmatch(
        r"Makefile:\d+: make hls takes no (IMAGES= and no TOP|TOP= and no IMAGES)=; make help says who takes what\n",
        run.stderr,
    ), run.stderr
    assert make(checkout, "hls", "csim", "TARGET=zcu102", "MODEL=m", "IMAGES=x").stderr == ""


def test_every_target_is_phony():
    rules = re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert rules == targets()


# --- the flow's commands ---


def test_hls_asks_whether_it_can_be_then_quantizes_and_generates(checkout):
    run = make(checkout, "hls", "TARGET=zcu102", "MODEL=deit_s")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    options = ["--model", "deit_s", "--target", "zcu102"]
    generate = ["-m", "hw.generate", *options]
    assert commands(checkout) == [[*generate, "--check"], ["-m", "quant.quantize", *options], generate]


def test_csim_is_one_command(checkout):
    assert make(checkout, "csim", "TARGET=zcu102", "MODEL=deit_s").returncode == 0
    assert commands(checkout) == [["-m", "sim.csim", "--model", "deit_s", "--target", "zcu102"]]


def test_options_arrive_as_they_were_given(checkout):
    given = {
        "MODEL": "my models/a.toml",
        "CKPT": "it's mine.pth",
        "CALIB": 'a "quoted" folder',
        "KEEP": "0.6,0.4,0.2",
        "IMAGES": "/photos of/*; echo $$HOME `id` \\n",
        "TOP": "msa_block",
    }
    arguments = [f"{name}={value}" for name, value in given.items()]
    assert make(checkout, "csim", "TARGET=zcu102", *arguments).returncode == 0
    (command,) = commands(checkout)
    expected = ["-m", "sim.csim", "--target", "zcu102"]
    expected += [part for name, value in given.items() for part in (f"--{name.lower()}", value.replace("$$", "$"))]
    assert sorted(command) == sorted(expected)
    for name, value in given.items():
        assert command[command.index(f"--{name.lower()}") + 1] == value.replace("$$", "$")


@pytest.mark.parametrize("target", ["synth", "cosim", "bitstream"])
def test_with_amds_tools_it_asks_for_them_before_the_long_work(checkout, target):
    assert make(checkout, target, "TARGET=zcu102", "MODEL=m", "TOP=mlp_block", "HLS=v++", "IMAGES=x").returncode == 0
    options = ["--model", "m", "--target", "zcu102", "--top", "mlp_block"]
    driver = ["-m", "hw.vendor.synth", target, *options, "--hls", "v++"]
    assert commands(checkout) == [[*driver, "--check"], ["-m", "sim.vectors", *options, "--images", "x"], driver]


@pytest.mark.parametrize(
    ("target", "module", "images"), [("deploy", "hw.deploy", []), ("notebook", "sim.notebook", ["--images", "photos"])]
)
def test_onto_the_board(checkout, target, module, images):
    assert make(checkout, target, "TARGET=zcu102", "MODEL=deit_s", "IMAGES=photos").returncode == 0
    assert commands(checkout) == [["-m", module, "--model", "deit_s", "--target", "zcu102", *images]]


def test_exploring_takes_a_latency_and_a_clock(checkout):
    make(checkout, "explore", "TARGET=kv260", "MODEL=deit_s", "LATENCY_MS=12", "CLOCK=150")
    options = ["--model", "deit_s", "--target", "kv260", "--latency-ms", "12", "--clock", "150"]
    assert commands(checkout) == [["-m", "hw.model.explore", *options]]


def test_the_report_is_one_command(checkout):
    make(checkout, "report", "TARGET=zcu102", "MODEL=deit_s", "KEEP=none", "CLOCK=150")
    options = ["--model", "deit_s", "--target", "zcu102", "--keep", "none", "--clock", "150"]
    assert commands(checkout) == [["-m", "sim.report.page", *options]]


def test_training_takes_a_budget(checkout):
    given = [
        "MODEL=deit_s",
        "DATA=imagenet",
        "CKPT=a.pth",
        "BUDGET=6ms",
        "TARGET=zcu102",
        "RECIPE=r.toml",
        "PROGRESSIVE=1",
    ]
    assert make(checkout, "train", *given).returncode == 0
    options = ["--model", "deit_s", "--data", "imagenet", "--ckpt", "a.pth", "--target", "zcu102", "--budget", "6ms"]
    assert commands(checkout) == [["-m", "spvit.train", *options, "--recipe", "r.toml", "--progressive"]]


def test_a_failing_step_ends_the_target_with_2(checkout):
    run = make(checkout, "hls", "TARGET=zcu102", "MODEL=deit_s", RECORDER_STATUS="2")
    assert run.returncode == 2
    assert [command[1] for command in commands(checkout)] == ["hw.generate"]


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (["hls"], "make hls needs TARGET= and MODEL="),
        (["hls", "TARGET=zcu102"], "make hls needs MODEL="),
        (["hls", "TARGET=zcu102", "MODEL="], "make hls needs MODEL="),
        (["csim", "MODEL=deit_s"], "make csim needs TARGET="),
        (["csim"], "make csim needs TARGET= and MODEL="),
        (["deploy", "TARGET=zcu102"], "make deploy needs MODEL="),
        (["explore", "MODEL=deit_s"], "make explore needs TARGET="),
        (["report"], "make report needs TARGET= and MODEL="),
        (["notebook"], "make notebook needs TARGET= and MODEL="),
        (["train"], "make train needs MODEL="),
        (["finetune", "EPOCHS=1"], "make finetune needs MODEL="),
        (["eval"], "make eval needs MODEL="),
        (["visualize"], "make visualize needs MODEL="),
    ],
)
def test_a_missing_model_or_target_is_one_sentence(tmp_path, arguments, missing):
    """Also before there is an environment: nothing is installed first."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    run = make(tmp_path, *arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    what = "TARGET=zcu102 MODEL=deit_s" if "TARGET=" in make(tmp_path, arguments[0]).stderr else "MODEL=deit_digits"
    example = f"for example: make {arguments[0]} {what}"
    assert re.fullmatch(rf"Makefile:\d+: \*\*\* {missing}, {example}\.  Stop\.\n", run.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]


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
    assert (
        f"error: Python 3.11 is needed and {python} is not it; name one: make PYTHON=/path/to/python3.11\n"
        in run.stderr
    )
    assert not (bare / ".venv").exists()
