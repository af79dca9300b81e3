"""The C++ compiler: what CXX= says, whether it works, and which machine it compiles for.

Enters: a command line such as `g++` or `ccache clang++`. Leaves: a `Compiler`, whose `identity` names version and CPU.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spvit.errors import BuildError

DEFAULT = "g++"
PROBE = "#include <string>\nint main(int, char** words) { return std::string(words[0]).empty(); }\n"
"""Needs the C++ library in compiling and in linking: gcc, say, does not link it."""


@dataclass(frozen=True)
class Compiler:
    """A compiler that is there."""

    words: tuple[str, ...]

    @classmethod
    def find(cls, command: str | None = None) -> Compiler:
        """What a command line names; None: what CXX says, or g++. Raises BuildError when there is no such program."""
        text = command or os.environ.get("CXX") or DEFAULT
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise BuildError(f"CXX={text}: is no command ({error}); choose {DEFAULT} or clang++") from None
        if not words:
            raise BuildError(f"CXX={text}: names no compiler; leave it away, or choose {DEFAULT} or clang++")
        if shutil.which(words[0]) is None:
            package = "clang" if "clang" in words[0] else "g++"
            raise BuildError(
                f"{words[0]} not found: install it (Debian: apt-get install {package}), or choose another compiler"
            )
        return cls(words)

    def __str__(self) -> str:
        return shlex.join(self.words)

    @property
    def is_clang(self) -> bool:
        return any("clang" in Path(word).name for word in self.words)

    def identity(self, flags: Sequence[str]) -> bytes:
        """Its version and, under -march=native, what this CPU can do: all that it defines before it reads a line."""
        return self._run([*flags, "-dM", "-E", "-x", "c++", os.devnull]).stdout

    def check(self) -> None:
        """Compile and link a few words of C++. Raises BuildError, before a long work that would end with it."""
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "probe.cpp"
            source.write_text(PROBE, encoding="utf-8")
            self._run(["-std=c++14", str(source), "-o", str(source.with_suffix(""))])

    def _run(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        run = subprocess.run([*self.words, *arguments], capture_output=True)
        if run.returncode != 0:
            said = [*run.stderr.decode(errors="replace").splitlines(), "without a word"]
            first = next((line for line in said if "error" in line or "undefined" in line), said[0])
            raise BuildError(
                f"CXX={self}: cannot compile and link C++ ({first.strip()}); name a C++ compiler, {DEFAULT} or clang++"
            )
        return run
