"""Reading looks before it opens; writing leaves what was there, or the whole of what is new."""

import errno
import os
import re
import signal
import socket
import stat
import threading
from pathlib import Path

import pytest

from spvit import files
from spvit.errors import ConfigError, FileError
from spvit.files import (
    check_writable,
    check_writable_file,
    is_sealed,
    is_whole,
    read_bytes,
    read_json,
    read_text,
    read_toml,
    seal,
    sha256,
    staged,
    whole_file,
    whole_folder,
    write_json,
    write_whole,
)

WAY_OUT = "give another"


@pytest.fixture(autouse=True)
def no_hang():
    """What waits for a pipe or a device fails here instead."""

    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(read, path, **options):
    with pytest.raises(ConfigError) as error:
        read(path, WAY_OUT, ConfigError, **options)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "F")


def listed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- reading ---


@pytest.mark.parametrize("read", [read_bytes, read_text, read_toml, read_json])
def test_what_is_no_file_is_refused_at_once(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    kinds = {tmp_path / "pipe": "a named pipe", tmp_path: "a folder", Path("/dev/zero"): "a device"}
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        kinds[tmp_path / "s"] = "a socket"
        for path, kind in kinds.items():
            assert refusal(read, path) == f"F: is {kind}, and a file is wanted; give another"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gone", "F: there is no such file; give another"),
        ("a" * 300, "F: cannot be read (File name too long); give another"),
        ("file/below", "F: cannot be read (Not a directory); give another"),
        ("loop", "F: cannot be read (Too many levels of symbolic links); give another"),
    ],
)
def test_what_is_not_there(name, sentence, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(read_text, tmp_path / name) == sentence


def test_a_nul_in_a_name_is_no_path():
    with pytest.raises(ConfigError, match=r"^'a\\x00b': is no path; give another$"):
        read_text(Path("a\0b"), WAY_OUT, ConfigError)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """Root may read everything, so the system's answer is given here."""
    (tmp_path / "mine").write_text("")

    def denied(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "open", denied)
    assert refusal(read_text, tmp_path / "mine") == "F: cannot be read (Permission denied); give another"


def test_size_is_looked_at_before_reading(tmp_path):
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert refusal(read_toml, path) == "F: has more than 262,144 bytes, the most for such a file; give another"
    (tmp_path / "fits").write_bytes(b"12345")
    assert read_bytes(tmp_path / "fits", WAY_OUT, most_bytes=5) == b"12345"
    assert "more than 4 bytes" in refusal(read_bytes, tmp_path / "fits", most_bytes=4)
    assert "more than 4 bytes" in refusal(read_bytes, Path("/proc/self/maps"), most_bytes=4)  # says that it has none


def test_a_byte_order_mark_is_taken_off(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"\xef\xbb\xbfname = 'a'\n")
    assert read_toml(path, WAY_OUT) == {"name": "a"}
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(path, WAY_OUT) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a = 1\n".encode("utf-16"), "line 1 is UTF-16"),
        (b"\xfe\xff\0a", "line 1 is UTF-16"),
        (b"a = 1\nb = '\xe4'\n", "line 2 is no UTF-8"),
    ],
)
def test_other_encodings_are_named(content, reason, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(content)
    assert refusal(read_toml, path) == f"F: cannot be read as text ({reason}); save it as UTF-8"


@pytest.mark.parametrize(
    ("read", "content", "sentence"),
    [
        (read_toml, "a =", "F: not valid TOML: Invalid value (at end of document); mend it there"),
        (read_toml, "a = " + "9" * 5000, "F: not valid TOML: a number has too many digits; mend it there"),
        (read_toml, "a = " + "[" * 100_000, "F: not valid TOML: its brackets are nested too deep; mend it there"),
        (read_toml, "a = " + "{a=" * 50_000, "F: not valid TOML: its brackets are nested too deep; mend it there"),
        (read_json, "{", "F: not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1); give another"),
        (read_json, '{"a": ' + "9" * 5000, "F: not valid JSON: a number has too many digits; give another"),
        (read_json, '{"a": ' + "[" * 100_000, "F: not valid JSON: its brackets are nested too deep; give another"),
        (read_json, "[1]", "F: not valid JSON: a list in place of an object; give another"),
    ],
)  # fmt: skip
def test_syntax(read, content, sentence, tmp_path):
    path = tmp_path / "f"
    path.write_text(content)
    assert refusal(read, path) == sentence


# --- writing ---


def test_a_file_is_written_with_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    write_json(path, {"ä": [1]})
    assert read_json(path, WAY_OUT) == {"ä": [1]}
    write_whole(path, "ü")
    assert path.read_bytes() == "ü".encode()
    write_whole(path, b"\0")
    assert path.read_bytes() == b"\0"
    assert listed(tmp_path) == ["a", "a/b", "a/b/c.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_long_name_is_written(tmp_path):
    write_whole(tmp_path / ("a" * 255), "")
    assert listed(tmp_path) == ["a" * 255]


def test_what_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_whole(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ConfigError) as error:
        write_whole(path, "new", ConfigError)
    assert str(error.value) == (
        f"{path}: cannot be written (No space left on device); what was saved before is still there; make room"
    )
    assert (listed(tmp_path), path.read_text()) == (["f"], "old")


@pytest.mark.parametrize("problem", [KeyboardInterrupt, AssertionError, ConfigError])
def test_an_end_half_way_leaves_what_was_there(problem, tmp_path):
    write_whole(tmp_path / "f", "old")
    with whole_folder(tmp_path / "d") as fresh:
        write_whole(fresh / "f", "old")
    before = listed(tmp_path)

    def write_file():
        with whole_file(tmp_path / "f") as partial:
            partial.write_text("new")
            raise problem

    def write_folder():
        with whole_folder(tmp_path / "d") as fresh:
            write_whole(fresh / "f", "new")
            raise problem

    for write in (write_file, write_folder):
        with pytest.raises(problem):
            write()
    assert listed(tmp_path) == before
    assert (tmp_path / "f").read_text() == (tmp_path / "d" / "f").read_text() == "old"


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "file" / "f", "cannot be written (a part of its path is a file); choose another place"),
        (tmp_path / "folder", "is a folder in the place of a file; remove it, or choose another place"),
        (tmp_path / ("a" * 256), "cannot be written (File name too long); choose another place"),
    ):
        with pytest.raises(ConfigError) as error:
            write_whole(path, "", ConfigError)
        assert str(error.value) == f"{path}: {reason}"
    assert listed(tmp_path) == ["file", "folder"]


def test_two_writers_do_not_meet(tmp_path):
    """Each has a partial file of its own; the last one to end stays, whole."""
    with whole_file(tmp_path / "f") as one, whole_file(tmp_path / "f") as two:
        assert one != two
        one.write_text("one")
        two.write_text("two")
    assert (listed(tmp_path), (tmp_path / "f").read_text()) == (["f"], "one")


# --- folders ---


@pytest.fixture
def whole(tmp_path):
    folder = tmp_path / "d"
    with whole_folder(folder) as fresh:
        write_whole(fresh / "a", "a")
        write_whole(fresh / "b" / "c", "c")
    assert listed(folder) == ["a", "b", "b/c", "sha256.json"]
    assert is_whole(folder)
    return folder


def _flip(folder):
    (folder / "b" / "c").write_text("d")


def _remove(folder):
    (folder / "a").unlink()


def _add(folder):
    (folder / "new").write_text("")


def _folder_in_place(folder):
    _remove(folder)
    (folder / "a").mkdir()


def _pipe_in_place(folder):
    _remove(folder)
    os.mkfifo(folder / "a")


def _break_digests(folder):
    (folder / "sha256.json").write_text("[" * 100_000)


@pytest.mark.parametrize("damage", [_flip, _remove, _add, _folder_in_place, _pipe_in_place, _break_digests])
def test_damage_to_a_folder_is_seen_and_made_good(damage, whole, tmp_path):
    damage(whole)
    assert not is_whole(whole)
    with whole_folder(whole) as fresh:
        write_whole(fresh / "a", "A")
    assert is_whole(whole)
    assert listed(tmp_path) == ["d", "d/a", "d/sha256.json"]


@pytest.mark.parametrize("in_place", ["file", "link", "nothing"])
def test_a_folder_takes_the_place_of_anything(in_place, tmp_path):
    if in_place == "file":
        (tmp_path / "d").write_text("")
    elif in_place == "link":
        (tmp_path / "d").symlink_to("nowhere")
    with whole_folder(tmp_path / "d") as fresh:
        write_whole(fresh / "a", "a")
    assert listed(tmp_path) == ["d", "d/a", "d/sha256.json"]


def test_a_staged_file_is_there_only_with_its_folders(tmp_path, monkeypatch):
    """A crash at any of the renames leaves no manifest beside folders that it does not describe."""

    def write(text):
        with staged(tmp_path) as place:
            for name in ("a/f", "z/f", "manifest"):
                write_whole(place / name, text)

    write("old")
    rename = Path.rename
    for crash in range(6):
        count = iter(range(6))

        def failing(path, target, count=count, crash=crash):
            if next(count) == crash:
                raise RuntimeError("the power fails")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", failing)
        with pytest.raises(RuntimeError):
            write("new")
        monkeypatch.setattr(Path, "rename", rename)
        if (tmp_path / "manifest").exists():
            assert {(tmp_path / name).read_text() for name in ("a/f", "z/f", "manifest")} == {"old"}
        write("old")


def test_a_seal_breaks_with_its_file(tmp_path):
    path = tmp_path / "x.so"
    assert not is_sealed(path)
    path.write_bytes(b"code")
    assert not is_sealed(path)
    seal(path)
    assert is_sealed(path)
    assert re.fullmatch(r"[0-9a-f]{64}  x\.so\n", (tmp_path / "x.so.sha256").read_text())
    path.write_bytes(b"cod")
    assert not is_sealed(path)
    path.unlink()
    path.mkdir()
    assert not is_sealed(path)


def test_the_digest_is_that_of_the_content(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(FileError, match="there is no such file; make it again"):
        sha256(tmp_path / "g")


# --- before the work ---


def test_a_place_that_can_be_written_stays_as_it_was(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    check_writable(tmp_path)
    assert listed(tmp_path) == []


def test_a_full_disk_is_seen_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ConfigError) as error:
        check_writable(tmp_path / "new", ConfigError)
    assert str(error.value) == f"{tmp_path}: cannot be written (No space left on device); make room"


def test_places_that_cannot_be_are_seen_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for path, start in (
        (tmp_path / "file" / "new", f"{tmp_path}/file: is a file where a folder is wanted; "),
        (Path("/proc/new"), "/proc: cannot be written ("),
        (Path("a\0b"), "'a\\x00b': is no path; "),
        (tmp_path / ("a" * 256), f"{tmp_path}/{'a' * 256}: cannot be written (File name too long)"),
    ):
        with pytest.raises(ConfigError) as error:
            check_writable(path, ConfigError)
        assert str(error.value).startswith(start)


def test_writers_of_one_folder_at_once_leave_one_whole(tmp_path):
    def write(text):
        for _ in range(20):
            try:
                with whole_folder(tmp_path / "d") as fresh:
                    write_whole(fresh / "a", text)
            except FileError:
                pass  # the other one was faster

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert is_whole(tmp_path / "d")
    assert listed(tmp_path) == ["d", "d/a", "d/sha256.json"]


def test_a_file_that_cannot_be_is_seen_before_the_work(tmp_path):
    check_writable_file(tmp_path / "new" / "x.json")
    (tmp_path / "x.json").mkdir()
    for path, sentence in (
        (tmp_path / "x.json", "is a folder in the place of a file; remove it, or choose another place"),
        (tmp_path / ("a" * 256), "cannot be written (File name too long); choose another place"),
    ):
        with pytest.raises(ConfigError) as error:
            check_writable_file(path, ConfigError)
        assert str(error.value) == f"{path}: {sentence}"
    assert listed(tmp_path) == ["x.json"]
