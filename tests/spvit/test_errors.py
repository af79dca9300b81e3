"""What a user's error looks like from outside."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spvit import errors
from spvit.errors import UserError, exit_on_user_error

ROOT = Path(__file__).parents[2]


def run(main):
    with pytest.raises(SystemExit) as stopped:
        exit_on_user_error(main)
    return stopped.value.code


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "kind",
    [
        "FileError",
        "ConfigError",
        "CheckpointError",
        "TrainingError",
        "ImageError",
        "NetworkError",
        "BuildError",
        "BundleError",
        "DeviceError",
        "DeviceBusyError",
        "DeviceMemoryError",
        "DeviceTimeoutError",
        "RefusedError",
        "WeightsChangedError",
    ],
)
def test_a_user_error_is_one_line_and_status_2(kind, capsys):
    assert run(raising(getattr(errors, kind)("deit.toml: depth=0 must be at least 1"))) == 2
    assert capsys.readouterr() == ("", "error: deit.toml: depth=0 must be at least 1\n")


def test_a_sentence_is_one_line_whatever_is_in_it():
    assert str(UserError("a\nb\x1b[31m\ud800é→: gone")) == r"a\nb\x1b[31m\ud800é→: gone"
    long = str(UserError("x" * 100_000 + ": there is no such file; give another"))
    assert len(long) < 700 and long.startswith("xxx") and long.endswith("x: there is no such file; give another")
    many = str(UserError("a b " * 10_000 + "; mend it"))
    assert len(many) < 1300 and many.endswith("; mend it")
    usual = "a" * 599 + " " + "b" * 599
    assert str(UserError(usual)) == usual


def test_an_interrupt_is_silent_and_status_130(capsys):
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("status", [None, 0, 3])
def test_success_keeps_its_status(status):
    assert run(lambda: status) == status


def command(body, output):
    code = f"import sys\nfrom spvit.errors import exit_on_user_error\ndef main():\n    {body}\nexit_on_user_error(main)"
    return subprocess.run([sys.executable, "-c", code], stdout=output, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("error", ["OSError(28, 'No space left on device', 'x/y')", "PermissionError(13, 'No', 'x/y')"])
def test_what_the_machine_refuses_is_a_sentence(error):
    done = command(f"raise {error}", subprocess.PIPE)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: x/y: cannot be used \((No space left on device|No)\); make room there, or choose another place\n",
        done.stderr,
    )


def test_an_output_that_is_full_is_a_sentence():
    with Path("/dev/full").open("w") as full:
        done = command("print('x')", full)
    assert (done.returncode, done.stderr) == (
        2, "error: the output: cannot be used (No space left on device); make room there, or choose another place\n"
    )  # fmt: skip


def test_a_reader_that_has_gone_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as gone:
        done = command("print('x' * 100_000)", gone)
    assert (done.returncode, done.stderr) == (141, "")


def test_our_own_mistakes_keep_their_traceback_and_are_no_verdict(capsys):
    """1 says that the C++ is not bit-exact."""
    assert run(raising(AssertionError("ours"))) == 70
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("Traceback (most recent call last)")
    assert printed.err.endswith(
        "AssertionError: ours\nerror: this is a mistake of the program, not of what it was given; please report it\n"
    )


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
def test_what_the_terminal_has_no_letter_for_is_spelt(encoding):
    code = (
        "from spvit.errors import ConfigError, exit_on_user_error\n"
        "def main():\n    print('197 → 169')\n    raise ConfigError('α.toml: “no”')\n"
        "exit_on_user_error(main)"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (2, b"197 -> 169\n", b"error: ?.toml: ?no?\n")


def test_every_error_is_a_user_error():
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) == 15
    assert all(issubclass(kind, UserError) for kind in kinds)
