"""What a user's error looks like from outside."""

import pytest

from spvit import errors
from spvit.errors import UserError, exit_on_user_error


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


def test_an_interrupt_is_silent_and_status_130(capsys):
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("status", [None, 0, 3])
def test_success_keeps_its_status(status):
    assert run(lambda: status) == status


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(AssertionError, match="ours"):
        exit_on_user_error(raising(AssertionError("ours")))


def test_every_error_is_a_user_error():
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) == 15
    assert all(issubclass(kind, UserError) for kind in kinds)
