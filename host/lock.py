"""One process at a time has the accelerator: a lock on a file that is there for as long as it is held."""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from pathlib import Path

from spvit.errors import DeviceBusyError, DeviceError


class Lock:
    """Of the device `tag`, held until `release`, or the process ends."""

    def __init__(self, tag: str) -> None:
        """Raises DeviceBusyError where another one holds it."""
        path = Path(tempfile.gettempdir()) / f"spvit-{tag}.lock"
        self._release = weakref.finalize(self, _unlock, path, _locked(path), os.getpid())

    def release(self) -> None:
        """Let the next one have it. Does nothing the second time."""
        self._release()


def _locked(path: Path) -> int:
    """A descriptor of the file that lies at `path`, locked. Who released it meanwhile took the file away: once more."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise DeviceError(f"{path}: cannot be opened ({error.strerror}); run as root") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            who = "this process already" if owner == str(os.getpid()) else f"process {owner}"
            raise DeviceBusyError(f"{who} uses the accelerator ({path}); close it there first") from None
        if _lies_at(path, descriptor):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
            return descriptor
        os.close(descriptor)


def _unlock(path: Path, descriptor: int, owner: int) -> None:
    """The file goes while the lock is held, so that nobody else's goes."""
    if os.getpid() == owner and _lies_at(path, descriptor):
        path.unlink(missing_ok=True)
    os.close(descriptor)


def _lies_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
