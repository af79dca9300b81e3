"""Hostile inputs, seeded: each file kind mutated, each option given what nobody would give.

`attempt` runs one of them as the command would and says what is wrong with how it ended: a traceback, a hang, an exit
status other than 0 and 2, a sentence that is none. None: all is well.
"""

from __future__ import annotations

import contextlib
import errno
import io
import random
import re
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from spvit.errors import OF_THE_MACHINE, UserError

SECONDS = 30  # that an input may take; the machine may be busy
MOST_LETTERS = 1500  # of a sentence
HOSTILE_LITERALS = [
    "9" * 5000, "-" + "9" * 5000, "1e400", "1e308", "-1e308", "5e-324", "nan", "inf", "-inf", "0", "-1", "-0.0", "1.5", "true",
    "9223372036854775808", "4294967296", "1000000", "0x7fffffff", '""', '"x\\ny"', '"\\u0000"', '"' + "a" * 300 + '"', '"../../x"',
    '"$(reboot)"', '"[exec x]"', '"*/ int x; /*"', '"{{ 7 * 7 }}"', "[]", "[[]]", "[" * 3000 + "]" * 3000, "{}", "{ a = 1 }",
    "[1, 'a']", "[nan]", "[0.5, 0.5, 0.5]", "[1e-320]", "2026-11-25", "''", '"é→𝄞"', '"\\U0010FFFF"', "[inf, inf, inf]", "none",
]  # fmt: skip
HOSTILE_TEXTS = [
    "", " ", "\n", "a\nb", "a" * 300, "a" * 100_000, "-1", "0", "1e9", "inf", "nan", "-inf", "1e400", "9" * 5000, "1e-320", "0x10", "½",
    "²", "1_000", "../../../etc/passwd", "/dev/null", "/dev/zero", "/dev/stdin", "/proc/self/mem", "/", ".", "..", "~", "gone",
    "gone.toml", "gone.pth", "$(reboot)", "`x`", "; x", "[/bold]", "[red]x", "[exec x]", "{{ x }}", "%s%n", "é→𝄞", "\x1b[31m", "\u2028",
    "\ud800", "none", "None", "true", ",", ",,,", "1,2,3", "0.5,0.4,0.3", "1,nan", "0.5," * 500, "zcu102", "deit_digits", "micro",
    "digits:test", "digits:x", "cpu", "cuda:99", "a:b:c", ".py:f", ":", "=", "--help", "-", "--",
]  # fmt: skip
HOSTILE_BYTES = [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\x80",
    b"\n",
    b'"',
    b"]",
    b"[" * 2000,
    b"9" * 5000,
    b"-",
    b"NaN",
    b"null",
]


class Hang(BaseException):
    """What took too long; not an Exception, so that nobody catches it."""


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(run: Callable[[], object]) -> str | None:
    """What is wrong with how `run` ends, and the place; None: nothing."""
    output = io.StringIO()
    try:
        with (
            time_limit(SECONDS),
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            status = run()
    except UserError as error:
        return _problem_of(str(error))
    except SystemExit as stopped:
        return None if stopped.code in (0, 2, None) else f"exit status {stopped.code}"
    except OSError as error:
        if error.errno in OF_THE_MACHINE and error.errno != errno.EMFILE:
            return None  # a sentence by `exit_on_user_error`
        return _last_place(error)
    except Hang as error:
        return "hang: " + _last_place(error)
    except BaseException as error:  # noqa: BLE001 - what comes is what is sought
        return _last_place(error)
    return f"status {status}" if isinstance(status, int) and status not in (0, 2) else None


def _problem_of(sentence: str) -> str | None:
    if not sentence.isprintable():
        return f"a sentence of several lines, or with letters that steer a terminal: {sentence[:300]!r}"
    if len(sentence) > MOST_LETTERS:
        return f"a sentence of {len(sentence)} letters: {sentence[:200]}"
    if re.search(r"object at 0x|Traceback", sentence):
        return f"a sentence of Python's: {sentence[:300]}"
    return None


def _last_place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed((ours or frames)[-3:]))
    return f"{type(error).__name__} at {places}: {str(error)[:200]!r}"


# --- mutations ---


def mutated_table(text: str, chance: random.Random) -> bytes:
    """A TOML or JSON whose values, keys and letters are changed here and there."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        match chance.randrange(8):
            case 0 | 1 | 2 | 3:
                lines[at] = re.sub(
                    r"([=:]\s*).*?(,?)$", lambda found: found[1] + chance.choice(HOSTILE_LITERALS) + found[2], lines[at]
                )
            case 4:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 5:
                del lines[at]
            case 6:
                lines.insert(at, f"{chance.choice(['x', 'depth', 'a.b.c', '[model]', '[x]', '[[model]]', '#'])} = 1")
            case 7:
                lines[at] = chance.choice(HOSTILE_TEXTS) + lines[at]
        text = "\n".join(lines) or "x"
    content = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(content, chance) if chance.random() < 0.15 else content


def mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    """Flipped, cut, inserted or repeated."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at:]
            case 2:
                data[at:at] = chance.choice(HOSTILE_BYTES)
            case 3:
                del data[at : at + chance.randrange(1, 64)]
            case 4:
                data[at : at + 4] = chance.randbytes(4)
            case 5:
                data[at:at] = data[at : at + 64]
    return bytes(data)


def in_the_place_of(path: Path, kind: str) -> None:
    """Something that is no file, where one is wanted."""
    import os

    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "nothing":
        pass


PLACES = ("folder", "pipe", "loop", "device", "nothing")


def fuzz(count: int, seed: int, make: Callable[[random.Random, int], Callable[[], object]]) -> str:
    """Each problem of `count` inputs that `make` makes, with the first input that has it."""
    found: dict[str, str] = {}
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        run = make(chance, number)
        problem = attempt(run)
        if problem is not None:
            found.setdefault(re.sub(r"/tmp/\S*", "TMP", problem), f"input {number}")
    assert threading.active_count() < 50
    return "\n".join(f"{where}: {problem}" for problem, where in found.items())
