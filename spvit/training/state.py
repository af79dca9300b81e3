"""Where a training stands, on disk, so that it goes on exactly there: `Journal`.

Enters: what each finished phase leaves for the next, and the running one's model, optimizer, schedule, running mean and
position. Leaves: one file, written whole or not at all; until it is, the one before stays.
"""

import fcntl
import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from spvit import distributed
from spvit.checkpoint_files import read_torch
from spvit.errors import CheckpointError, ConfigError
from spvit.files import check_writable_file, write_whole

State = dict[str, Any]
VERSION = 1
OUT_FOLDER = Path("build/train")  # where weights go unless OUT= says otherwise


class Lock:
    """What one process at a time holds beside a file; the kernel frees it, however the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where another process holds it."""
        self.path = path.with_name(f".{path.name}.lock")
        self.made = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(self.file, 20).decode(errors="replace")
                os.close(self.file)
                raise ConfigError(
                    f"{path}: process {holder} trains there; wait for its end, or choose another OUT="
                ) from None
            if self.path.exists() and self.path.stat().st_ino == os.fstat(self.file).st_ino:
                break
            os.close(self.file)  # its last holder has removed it since
        os.ftruncate(self.file, 0)
        os.write(self.file, f"{os.getpid()}".encode())

    def release(self) -> None:
        """Leaves neither the file nor an empty folder behind."""
        self.path.unlink(missing_ok=True)
        os.close(self.file)
        with suppress(OSError):
            for folder in self.made:
                folder.rmdir()


class Journal:
    """What is done, by name, and the phase that runs; a file of it, unless `path` is None.

    identity  what was asked for; a file that was begun with something else is refused
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Mapping[str, Any]]) -> None:
        self.path = path
        self.identity = {section: dict(values) for section, values in identity.items()}
        self.done: State = {}
        self.running: tuple[str, State] | None = None
        self.lock: Lock | None = None  # held from `beside` to the end of a `with`

    @classmethod
    def beside(cls, out: Path, resume: Path | None, identity: Mapping[str, Mapping[str, Any]]) -> "Journal":
        """The journal of a training that will write the weights `out`: `resume`'s, or a new one, OUT.state.

        Raises CheckpointError, ConfigError.
        """
        if out.suffix != ".safetensors":
            raise CheckpointError(f"{out}: checkpoints are written as .safetensors; choose a name that ends so")
        check_writable_file(out, CheckpointError)
        path = out.with_suffix(".state") if resume is None else resume
        if resume is not None and not resume.is_file():
            _read(resume)  # refused
        lock = Lock(path) if distributed.is_first() else None
        try:
            if resume is None and path.exists():
                raise ConfigError(
                    f"{path}: a training stands there unfinished; go on with RESUME={path}, choose another OUT=, or "
                    "delete it"
                )
            if out.exists() and (resume is None or resume != out.with_suffix(".state")):  # not this training's own
                raise ConfigError(f"{out}: is there already and would be lost; choose another OUT=, or remove it first")
            journal = cls(path, identity) if resume is None else cls.resume(resume, identity)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        journal.lock = lock
        return journal

    @classmethod
    def resume(cls, path: Path, identity: Mapping[str, Mapping[str, Any]]) -> "Journal":
        """The journal in a file. Raises CheckpointError for one that cannot be read, ConfigError for another's."""
        content = _read(path)
        for section, values in identity.items():
            for name, value in values.items():
                begun = content["identity"].get(section, {}).get(name)
                if _plain(value) != begun:
                    raise ConfigError(
                        f"{path}: was begun with {name}={begun}, but {name}={_plain(value)} is asked for now; "
                        f"resume with {name}={begun}, or begin anew without RESUME="
                    )
        journal = cls(path, identity)
        journal.done, journal.running = content["done"], content["running"]
        return journal

    def progress_of(self, phase: str) -> State | None:
        """Where this phase was left; None: it has not begun."""
        return self.running[1] if self.running is not None and self.running[0] == phase else None

    def save(self, phase: str, state: State) -> None:
        """The running phase stands here. Raises CheckpointError when the file cannot be written; the last one stays."""
        self.running = (phase, state)
        self._write()

    def finish(self, name: str, state: State) -> None:
        """A phase is done and leaves `state`; nothing runs."""
        self.done[name] = state
        self.running = None
        self._write()

    def remove(self) -> None:
        """The training is over: its weights are written, and its state is of no more use."""
        if self.path is not None and distributed.is_first():
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        """Another process may have the file now."""
        if self.lock is not None:
            self.lock.release()
        self.lock = None

    def _write(self) -> None:
        if self.path is None or not distributed.is_first():
            return
        identity = {name: {key: _plain(value) for key, value in part.items()} for name, part in self.identity.items()}
        content = {"version": VERSION, "identity": identity, "done": self.done, "running": self.running}
        memory = io.BytesIO()  # torch's own writer turns a full disk into an error of its own
        torch.save(content, memory)
        write_whole(self.path, memory.getvalue(), CheckpointError)


def _read(path: Path) -> State:
    broken = f"{path}: not the state of a training, or cut short; begin anew without RESUME="
    content = read_torch(path, broken, "RESUME= takes the .state file of a training")
    if not isinstance(content, Mapping) or content.get("version") != VERSION:
        raise CheckpointError(broken)
    if not {"identity", "done", "running"} <= set(content):
        raise CheckpointError(broken)
    return dict(content)


def _plain(value: Any) -> Any:
    """Tuples as lists, which is how they come back from a file, too."""
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value
