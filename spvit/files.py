"""The one place that reads files and the one that writes them.

Enters: a path that a person gave, or one of ours. Leaves: its content, after its kind, size, encoding, syntax and
nesting were looked at; or, on disk, a file or folder that is whole or not there at all.
What goes wrong ends in one sentence with the path. The board has this module too: no more than the standard library,
of Python 3.10.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from spvit.errors import FileError, UserError

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}  # by their byte order marks
MOST_TEXT_BYTES = 1 << 18  # of a description that a person writes; tomllib takes its time on hostile ones
MOST_JSON_BYTES = 1 << 28  # of one that we write
CHUNK_BYTES = 1 << 20
PROBE_BYTES = 1 << 16
DIGESTS = "sha256.json"  # of a folder: path -> digest of each file in it


@contextmanager
def opened(path: Path, way_out: str, error: type[UserError] = FileError) -> Iterator[BinaryIO]:
    """A regular file, to be read. Raises `error`, also for what goes wrong in the block; never waits for a pipe.

    way_out  what to do where there is no such file, as the end of the sentence
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            raise error(f"{path}: is {KINDS.get(kind, 'no file')}, and a file is wanted; {way_out}")
        # below /proc, regular files too may have their reader wait
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            yield file
    except FileNotFoundError:
        raise error(f"{path}: there is no such file; {way_out}") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror}); {way_out}") from None
    except ValueError:  # a NUL in the name
        raise error(f"{str(path)!r}: is no path; {way_out}") from None


def read_bytes(path: Path, way_out: str, error: type[UserError] = FileError, most_bytes: int | None = None) -> bytes:
    """The content of a regular file. Raises `error`.

    most_bytes  a longer file is refused before it is read
    """
    with opened(path, way_out, error) as file:
        if most_bytes is None:
            return file.read()
        size = os.fstat(file.fileno()).st_size
        content = file.read(most_bytes + 1) if size <= most_bytes else b""
    if size > most_bytes or len(content) > most_bytes:
        raise error(f"{path}: has more than {most_bytes:,} bytes, the most for such a file; {way_out}")
    return content


def read_text(
    path: Path, way_out: str, error: type[UserError] = FileError, most_bytes: int | None = MOST_TEXT_BYTES
) -> str:
    """The text of a UTF-8 file, without its byte order mark. Raises `error`."""
    content = read_bytes(path, way_out, error, most_bytes)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        is_ = f"is {ENCODINGS[content[:2]]}" if content[:2] in ENCODINGS else "is no UTF-8"
        line = content[: problem.start].count(b"\n") + 1
        raise error(f"{path}: cannot be read as text (line {line} {is_}); save it as UTF-8") from None


def read_toml(path: Path, way_out: str, error: type[UserError] = FileError) -> dict[str, Any]:
    """The document in a TOML file. Raises `error`."""
    import tomllib  # only here: the board's Python may be older than 3.11, and has no TOML to read

    text = read_text(path, way_out, error)
    with _syntax(path, "TOML", error, "mend it there"):
        return tomllib.loads(text)


def read_json(path: Path, way_out: str, error: type[UserError] = FileError) -> dict[str, Any]:
    """The object in a JSON file. Raises `error`."""
    text = read_text(path, way_out, error, MOST_JSON_BYTES)
    with _syntax(path, "JSON", error, way_out):
        document = json.loads(text)
    if not isinstance(document, dict):
        raise error(f"{path}: not valid JSON: a {type(document).__name__} in place of an object; {way_out}")
    return document


@contextmanager
def _syntax(path: Path, language: str, error: type[UserError], way_out: str) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise error(f"{path}: not valid {language}: its brackets are nested too deep; {way_out}") from None
    except ValueError as problem:
        # Python's own sentence on a number of thousands of digits speaks of Python's settings
        reason = "a number has too many digits" if "integer string conversion" in str(problem) else problem
        raise error(f"{path}: not valid {language}: {reason}; {way_out}") from None


def write_whole(path: Path, content: bytes | str, error: type[UserError] = FileError) -> None:
    """Write a file and its folder, or leave what is there. A text becomes UTF-8. Raises `error`."""
    with whole_file(path, error) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, document: Any, error: type[UserError] = FileError) -> None:
    """Write a document as people and `read_json` can read it. Raises `error`."""
    write_whole(path, json.dumps(document, indent=1) + "\n", error)


@contextmanager
def whole_file(path: Path, error: type[UserError] = FileError) -> Iterator[Path]:
    """A path to write, whose file takes the place of `path` when the block ends; nothing is left if it fails.

    For what others write; see `write_whole`. Raises `error`.
    """
    with _as_sentence(path, error):
        partial = path.with_name(f".{secrets.token_hex(4)}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _flush(partial)
            partial.replace(path)
            _flush(path.parent)
        finally:
            with suppress(OSError):
                partial.unlink()


@contextmanager
def whole_folder(folder: Path, error: type[UserError] = FileError) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` when the block ends, with the digests of its files in it.

    Raises `error`.
    """
    with staged(folder.parent, error) as place:
        fresh = place / folder.name
        fresh.mkdir()
        yield fresh
        write_json(fresh / DIGESTS, {name: sha256(fresh / name) for name in _files(fresh)})


@contextmanager
def staged(folder: Path, error: type[UserError] = FileError) -> Iterator[Path]:
    """A place to fill. When the block ends, what stands there takes the places of its namesakes in `folder`.

    Files go first and come last: while one of them is there, what it describes is, too. Raises `error`.
    """
    with _as_sentence(folder, error):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
            fresh, old = Path(scratch) / "fresh", Path(scratch) / "old"
            fresh.mkdir()
            old.mkdir()
            yield fresh
            for path in fresh.rglob("*"):
                _flush(path)
            ready = sorted(fresh.iterdir(), key=Path.is_file)
            for path in reversed(ready):
                if _is_there(folder / path.name):
                    (folder / path.name).rename(old / path.name)
            for path in ready:
                path.rename(folder / path.name)
            _flush(folder)


def seal(path: Path) -> None:
    """Leave the digest of a file beside it, as sha256sum does. Raises FileError."""
    write_whole(_seal_of(path), f"{sha256(path)}  {path.name}\n")


def is_sealed(path: Path) -> bool:
    """Whether a file is as it was when it was sealed."""
    try:
        return read_text(_seal_of(path), "make it again") == f"{sha256(path)}  {path.name}\n"
    except FileError:
        return False


def _seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def is_whole(folder: Path) -> bool:
    """Whether a folder is as `whole_folder` left it: each of its files there, with its digest, and no other."""
    try:
        digests = read_json(folder / DIGESTS, "make it again")
        return digests == {name: sha256(folder / name) for name in _files(folder)}
    except FileError:
        return False


def sha256(path: Path, way_out: str = "make it again", error: type[UserError] = FileError) -> str:
    """Of a file's content, in hexadecimal digits. Raises `error`."""
    digest = hashlib.sha256()
    with opened(path, way_out, error) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_writable(folder: Path, error: type[UserError] = FileError) -> None:
    """Raise `error` unless files can be written below `folder`, which need not be there yet. Leaves nothing behind.

    For the start of a command: what takes minutes must not end at a disk that was full before.
    """
    with _as_sentence(folder, error):
        place = folder
        while not _is_there(place):
            place = place.parent
        if not place.is_dir():
            raise error(f"{place}: is a file where a folder is wanted; remove it, or choose another place")
    with _as_sentence(place, error), tempfile.TemporaryFile(dir=place) as probe:
        probe.write(bytes(PROBE_BYTES))
        probe.flush()
        os.fsync(probe.fileno())


def check_writable_file(path: Path, error: type[UserError] = FileError) -> None:
    """Raise `error` unless a file of that name can be written. Leaves nothing behind."""
    check_writable(path.parent, error)
    with _as_sentence(path, error):
        if _is_there(path) and path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")


@contextmanager
def _as_sentence(path: Path, error: type[UserError]) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise _unwritable(path, problem, error) from None
    except ValueError:  # a NUL in the name
        raise error(f"{str(path)!r}: is no path; choose another") from None


def _unwritable(path: Path, problem: OSError, error: type[UserError]) -> UserError:
    if problem.errno == errno.EISDIR:
        return error(f"{path}: is a folder in the place of a file; remove it, or choose another place")
    if problem.errno in (errno.EEXIST, errno.ENOTDIR):
        return error(f"{path}: cannot be written (a part of its path is a file); choose another place")
    kept = "; what was saved before is still there" if os.path.isfile(path) else ""  # noqa: PTH113 - Path's raises for a long name
    way_out = "make room" if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "choose another place"
    return error(f"{path}: cannot be written ({problem.strerror}){kept}; {way_out}")


def _is_there(path: Path) -> bool:
    """Also where it is a broken link. Raises OSError or ValueError for a name that cannot be."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _files(folder: Path) -> list[str]:
    """Every file below, but that of the digests."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return [name for name in (path.relative_to(folder).as_posix() for path in paths) if name != DIGESTS]


def _flush(path: Path) -> None:
    """Onto the disk, so that a power cut leaves the old or the new, not a file of zeros."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
