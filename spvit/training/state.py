"""Where a training stands, on disk, so that it goes on exactly there: `Journal`.

Enters: what each finished phase leaves for the next, and the running one's model, optimizer, schedule, running mean and
position. Leaves: one file, written whole or not at all; until it is, the one before stays.
"""

import io
from collections.abc import Mapping
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


class Journal:
    """What is done, by name, and the phase that runs; a file of it, unless `path` is None.

    identity  what was asked for; a file that was begun with something else is refused
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Mapping[str, Any]]) -> None:
        self.path = path
        self.identity = {section: dict(values) for section, values in identity.items()}
        self.done: State = {}
        self.running: tuple[str, State] | None = None

    @classmethod
    def beside(cls, out: Path, resume: Path | None, identity: Mapping[str, Mapping[str, Any]]) -> "Journal":
        """The journal of a training that will write the weights `out`: `resume`'s, or a new one, OUT.state.

        Raises CheckpointError, ConfigError.
        """
        if out.suffix != ".safetensors":
            raise CheckpointError(f"{out}: checkpoints are written as .safetensors; choose a name that ends so")
        check_writable_file(out, CheckpointError)
        if resume is not None:
            return cls.resume(resume, identity)
        path = out.with_suffix(".state")
        if path.exists():
            raise ConfigError(
                f"{path}: a training stands there unfinished; go on with RESUME={path}, choose another OUT=, or "
                "delete it"
            )
        return cls(path, identity)

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
