"""What an evaluation has done so far, on disk: killed and started again, it goes on there, to the same figures.

Enters: batch by batch, the outcomes of each model. Leaves: `eval.journal` in the build folder, a line of JSON per batch
behind one that says what is evaluated; a line that was cut short does not count. It is removed at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sim.evaluation import Outcomes
from spvit.errors import FileError
from spvit.files import read_bytes, write_whole


class Journal:
    """The batches that are done.

    identity  everything that decides the outcomes, as JSON can hold it; what was begun with another is begun anew
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self.identity = path, json.loads(json.dumps(identity))
        self.outcomes: dict[str, Outcomes] = {}
        self.done, self.skipped = list[int](), dict[str, str]()
        lines = self._whole_lines()
        if lines and lines[0] == self.identity:
            for line in lines[1:]:
                self._take(line)
            self._rewrite(lines)  # without a line that was cut short
        else:
            self._rewrite([self.identity])

    def add(self, done: list[int], skipped: Mapping[str, str], outcomes: Mapping[str, Outcomes]) -> None:
        """A batch is done: the positions of its images, why others could not be read, each model's outcomes."""
        line = {
            "done": done, "skipped": dict(skipped), "outcomes": {name: asdict(one) for name, one in outcomes.items()},
        }  # fmt: skip
        self._take(line)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(
                f"{self.path}: cannot be written ({error.strerror}); make room, and start it again"
            ) from None

    def remove(self) -> None:
        """The evaluation is over."""
        self.path.unlink(missing_ok=True)

    def _take(self, line: Mapping[str, Any]) -> None:
        self.done += line["done"]
        self.skipped |= line["skipped"]
        for name, values in line["outcomes"].items():
            one = self.outcomes.setdefault(name, Outcomes())
            for item in fields(Outcomes):
                setattr(one, item.name, getattr(one, item.name) + values[item.name])

    def _whole_lines(self) -> list[Any]:
        if not self.path.exists():
            return []
        lines = []
        for line in read_bytes(self.path, "delete it, and start again").split(b"\n")[:-1]:
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines

    def _rewrite(self, lines: list[Any]) -> None:
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in lines))
