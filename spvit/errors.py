"""What a user can cause, and how it is told: one sentence on stderr, exit status 2, no traceback.

Each message names the file, the field, the value and the way out.
Mistakes of our own are assertions and keep their tracebacks; a command that they end has a status of its own.
"""

import codecs
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

OF_THE_MACHINE = frozenset(
    {
        errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ELOOP, errno.EMFILE, errno.ENAMETOOLONG, errno.ENFILE,
        errno.ENOSPC, errno.EPERM, errno.EROFS, errno.ETXTBSY,
    }
)  # fmt: skip
"""What the machine refuses: a full disk, rights, limits."""
CRASHED = 70
"""Exit status after a mistake of our own, as sysexits.h has it; 1 is a verdict: `make csim` found a difference."""


SPELLINGS = {"→": "->", "◄": "<", "µ": "u", "×": "x", "±": "+-", "…": "...", "—": "-", "–": "-", "─": "-"}
"""How the letters of our own sentences are written where the output has no such letters."""

MOST_WORD, MOST_SENTENCE = 600, 1200  # characters


class UserError(Exception):
    """Something that a user can cause and mend; its text is one sentence.

    On one line, whatever the names in it: what is not printable is escaped, and what nobody would read to its end is
    shortened in its middle.
    """

    def __str__(self) -> str:
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in super().__str__()
        )
        text = re.sub(rf"\S{{{MOST_WORD},}}", lambda found: _shortened(found[0], MOST_WORD // 2), text)
        return text if len(text) <= MOST_SENTENCE else _shortened(text, MOST_SENTENCE - 100)


def _shortened(text: str, most: int) -> str:
    tail = most // 3
    return f"{text[: most - tail]}…({len(text):,} characters)…{text[-tail:]}"


class FileError(UserError):
    """A file or folder that cannot be read or written."""


class ConfigError(UserError):
    """A configuration that cannot be: an unknown name, a field out of range, sizes that do not fit each other."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, or that belongs to another model."""


class TrainingError(UserError):
    """A training that cannot go on: its loss is no number any more, or there is nothing that it could prune."""


class ImageError(UserError):
    """An image that is missing, cannot be decoded, or has the wrong shape."""


class NetworkError(UserError):
    """A quantized network that cannot be read, or does not match its description."""


class BuildError(UserError):
    """A build step that failed, or a tool that it needs and that is not there."""


class BundleError(UserError):
    """A bundle for the board that is incomplete or changed, or that belongs to something else."""


class DeviceError(UserError):
    """A board that cannot be used as it is: no bitstream, an overlay that does not fit, an answer without sense."""


class DeviceBusyError(DeviceError):
    """Another process, or another thread, has the accelerator."""


class DeviceMemoryError(DeviceError):
    """Not as much contiguous memory as the accelerator's buffers need."""


class DeviceTimeoutError(DeviceError):
    """The accelerator did not finish in time; the text says where it stood."""


class RefusedError(DeviceError):
    """The accelerator says that this host was made for another design."""


class WeightsChangedError(DeviceError):
    """The weights that reached the accelerator are not those that were sent."""


def spelt(error: UnicodeError) -> tuple[str, int]:
    """For `codecs`: letters that an encoding has not, in ASCII; a question mark for those that nobody spells."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(SPELLINGS.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


codecs.register_error(spelt.__name__, spelt)


def exit_on_user_error(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` and exit with its status; a user's error becomes one line on stderr and status 2.

    So does what the disk or the rights refuse. An interrupt from the keyboard exits with 130 and a reader of our output
    that has gone with 141, both silently, as shells expect; a mistake of ours with `CRASHED`, after its traceback. What
    the output's encoding has no letter for is spelt.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=spelt.__name__)
    try:
        status = main()
        sys.stdout.flush()
    except UserError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        _leave_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            _crash()
        if error.filename is None:
            _leave_output()
        place = "the output" if error.filename is None else error.filename
        _stop(f"{place}: cannot be used ({error.strerror}); make room there, or choose another place")
    except Exception:  # noqa: BLE001 - Python's own status for these is 1
        _crash()
    sys.exit(status)


def _stop(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def _crash() -> NoReturn:
    traceback.print_exc()
    print("error: this is a mistake of the program, not of what it was given; please report it", file=sys.stderr)
    sys.exit(CRASHED)


def _leave_output() -> None:
    """What could not be printed must not be tried again at the interpreter's end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
