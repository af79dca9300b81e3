"""The console script: what it prints, how it ends, in whose words."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from spvit.errors import ConfigError
from spvit_fpga.cli import completion, in_console_words, overview, spoken
from spvit_fpga.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def spvit(*words):
    run = subprocess.run(
        [sys.executable, "-m", "spvit_fpga", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return run.returncode, run.stdout, run.stderr


def test_without_a_command_it_lists_them(capsys):
    for words in ([], ["--help"], ["-h"], ["help"]):
        assert in_console_words(words) == 0
        assert capsys.readouterr().out == overview() + "\n"
    assert re.findall(r"^  ([a-z-]+) ", overview(), flags=re.MULTILINE) == list(COMMANDS)
    assert max(map(len, overview().splitlines())) <= 80


def test_a_command_from_end_to_end(tmp_path):
    code, out, err = spvit("estimate", "--model", "micro", "--out", str(tmp_path / "build"))
    assert (code, err) == (0, "") and (tmp_path / "build" / "estimate.json").exists() and "latency" in out


def test_help_ends_with_0():
    code, out, err = spvit("csim", "--help")
    assert (code, err) == (0, "") and "examples:\n  spvit csim --model deit_s --target zcu102\n" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["csmi"], "csmi: there is no such command; did you mean csim?"),
        (["xyz"], "xyz: there is no such command; spvit --help lists them"),
        (["hls"], "--model must be given; spvit hls --help lists what can be given"),
        (["hls", "--model", "m", "--modle"], "--modle: there is no such argument; did you mean --model?"),
        (["estimate", "--model", "micro", "--clock", "x"], "--clock x must be a number from 1 to 1,000; spvit estimate --help lists what can be given"),
        (["estimate", "--model", "deit_x"], "--model deit_x is neither the path of a .toml file nor one of "),
        (["hls", "--model", "micro", "--keep", "none", "--threshold", "1"], "--threshold 1: --keep none leaves no selectors that could decide by it; leave --threshold out"),
        (["completion", "fish"], "shell fish is unknown; choose from bash, zsh, tcsh"),
    ],
)  # fmt: skip
def test_one_sentence_in_its_own_words(words, sentence):
    with pytest.raises(ConfigError) as refused:
        in_console_words(words)
    assert str(refused.value).startswith(sentence)


def test_a_mistake_ends_with_2_and_nothing_else():
    assert spvit("hls", "--model", "micro", "--check", "--target", "x") == (
        2,
        "",
        "error: --target x is unknown; choose one of kv260, u50, ultra96v2, zcu102, zcu104\n",
    )


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("give KEEP= with a fraction", "give --keep with a fraction"),
        ("TARGET=my.toml: run `make hls` again", "--target my.toml: run `spvit hls` again"),
        ("LATENCY_MS=5 and KEEP=none", "--latency-ms 5 and --keep none"),
        ("keep=[0.5] must have", "keep=[0.5] must have"),
        ("make test, MY_KEEP=1, --model", "make test, MY_KEEP=1, --model"),
        ("RECIPE= takes the path", "--recipe takes the path"),
    ],
)
def test_makes_words_become_the_consoles(made, said):
    assert spoken(made) == said


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell):
    text = completion([shell])
    assert all(
        word in text for word in ("csim", "estimate", "--at-keep-ratios" if shell != "tcsh" else "at-keep-ratios")
    )


def test_bash_completes(tmp_path):
    """What bash itself offers after `spvit csim --to` and `spvit es`."""
    script = tmp_path / "try.sh"
    script.write_text(
        completion(["bash"])
        + '\ntry() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_spvit; echo "${COMPREPLY[@]}"; }\n'
        "try spvit es\ntry spvit csim --to\ntry spvit csim --top m\n"
    )
    run = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert run.stdout.splitlines() == ["estimate", "--top", "mlp_block msa_block"], run.stderr
