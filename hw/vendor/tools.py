"""Finding and driving the vendor's tools: Vitis HLS in whichever form is there, and Vivado.

Enters: a build folder with its scripts. Leaves: logs, and what the tools leave. A step that fails ends with a sentence
that names the tool, the step, the log and the first error in it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hw.vendor.scripts import config_name, top_name
from spvit.errors import BuildError

FORMS = ("vitis-run", "v++", "vitis_hls")
"""Vitis HLS since 2023.2 by Tcl or by configuration file, and before. Without HLS=, the first that is there."""
STEP_NAMES = {"csim": "C-simulation", "csynth": "C synthesis", "export": "IP export", "cosim": "RTL co-simulation"}
FIRST_ERROR = re.compile(
    r"^\s*(ERROR\b|FATAL\b|@E\b|MISMATCH\b|CRITICAL ERROR\b)|:\s*(fatal )?error:|\bSegmentation fault\b"
)
STEP_MARK = re.compile(r"^spvit: (\w+) of \w+$")


@dataclass(frozen=True)
class Step:
    """One call of a tool.

    name         what it does, in words
    results      files that must be there afterwards
    environment  in addition to ours
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    results: tuple[Path, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def tool(self) -> str:
        return Path(self.command[0]).name


@dataclass(frozen=True)
class HlsProject:
    """The HLS project of one top function, in the layout of the form that makes it."""

    build: Path
    unit: str | None
    form: str

    @property
    def top(self) -> str:
        return top_name(self.unit)

    @property
    def folder(self) -> Path:
        return self.build / "hls" / self.top

    @property
    def solution(self) -> Path:
        return self.folder / ("hls" if self.form == "v++" else "solution1")

    @property
    def csynth(self) -> Path:
        return self.solution / "syn" / "report" / f"{self.top}_csynth.xml"

    @property
    def summary(self) -> Path:
        return self.solution / "syn" / "report" / "csynth.rpt"

    @property
    def cosim(self) -> Path:
        return self.solution / "sim" / "report" / f"{self.top}_cosim.rpt"

    @property
    def exported_ip(self) -> Path:
        return self.solution / "impl" / "ip" / "component.xml"

    def synthesis_steps(self) -> tuple[Step, ...]:
        """C-simulation of the testbench, synthesis, IP export."""
        if self.form == "v++":
            return (self._v("csim"), self._v("csynth", self.csynth, self.summary), self._v("export", self.exported_ip))
        return (self._tcl("csim csynth export", self.csynth, self.summary, self.exported_ip),)

    def cosim_steps(self) -> tuple[Step, ...]:
        return (self._v("cosim", self.cosim),) if self.form == "v++" else (self._tcl("cosim", self.cosim),)

    def _tcl(self, steps: str, *results: Path) -> Step:
        options = ("--mode", "hls", "--tcl") if self.form == "vitis-run" else ("-f",)
        environment = {"SPVIT_TOP": self.top, "SPVIT_STEPS": steps}
        words = [STEP_NAMES[step] for step in steps.split()]
        return Step(", ".join(words), (self.form, *options, "hls.tcl"), self.build / "tcl", results, environment)

    def _v(self, step: str, *results: Path) -> Step:
        compile_ = step == "csynth"
        what = ("v++", "-c", "--mode", "hls") if compile_ else ("vitis-run", "--mode", "hls", _VITIS_RUN[step])
        options = ("--config", config_name(self.unit), "--work_dir", f"../{self.folder.relative_to(self.build)}")
        return Step(STEP_NAMES[step], (*what, *options), self.build / "tcl", results)


_VITIS_RUN = {"csim": "--csim", "export": "--package", "cosim": "--cosim"}


def bitstream_step(build: Path, results: tuple[Path, ...]) -> Step:
    """The block design, its implementation and the bitstream."""
    command = ("vivado", "-mode", "batch", "-nojournal", "-nolog", "-source", "tcl/vivado.tcl")
    return Step("block design and bitstream", command, build, results)


def find_hls(target: str, wanted: str | None = None) -> str:
    """Which form of Vitis HLS to drive. Raises BuildError, naming what to install.

    target  of make that asks, for the sentence
    wanted  a form; None: the first that is there
    """
    if wanted is not None and wanted not in FORMS:
        raise BuildError(f"HLS={wanted} is no form of Vitis HLS; choose from {', '.join(FORMS)}")
    for form in FORMS if wanted is None else (wanted,):
        # v++ synthesizes, and leaves simulation and packaging to vitis-run
        if all(shutil.which(tool) for tool in ((form, "vitis-run") if form == "v++" else (form,))):
            return form
    missing = "none of vitis-run, v++ and vitis_hls is" if wanted is None else f"{wanted}, which HLS= asks for, is not"
    raise BuildError(
        f"make {target} needs Vitis HLS 2022.2 or later, and {missing} on PATH: install AMD Vitis and source its "
        "settings64.sh"
    )


def find_vivado(target: str) -> None:
    """Raises BuildError, naming what to install."""
    if shutil.which("vivado") is None:
        raise BuildError(
            f"make {target} needs Vivado 2022.2 or later, and vivado is not on PATH: install AMD Vivado (Vitis brings "
            "it) and source its settings64.sh"
        )


def run_step(step: Step, log: Path, append: bool = False) -> float:
    """Run a step to its end, all that it says in `log`. Returns seconds; raises BuildError when it failed.

    Results of an earlier run are removed first, so that none of them can be taken for this one's.
    """
    for result in step.results:
        result.unlink(missing_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    first_line = len(log.read_text(encoding="utf-8", errors="replace").splitlines()) if append and log.exists() else 0
    with log.open("ab" if append else "wb") as output:
        output.write(f"$ {shlex.join(step.command)}\n".encode())
        output.flush()
        process = subprocess.Popen(
            step.command, cwd=step.folder, env=os.environ | dict(step.environment), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait()
        except BaseException:  # an interrupt must not leave the tool behind
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[first_line + 1 :]
    if status != 0:
        how = f"ended with exit status {status}" if status > 0 else f"was killed by signal {-status}"
        raise BuildError(f"{step.tool} failed at {_failed_step(step, lines)}: it {how}; {_first_error(lines)} ({log})")
    missing = [result for result in step.results if not result.exists()]
    if missing:
        raise BuildError(
            f"{step.tool} failed at {_failed_step(step, lines)}: it left no {missing[0]}; {_first_error(lines)} ({log})"
        )
    return time.monotonic() - start


def _failed_step(step: Step, lines: list[str]) -> str:
    """The script says when a step begins."""
    begun = [match[1] for line in lines if (match := STEP_MARK.match(line))]
    return STEP_NAMES.get(begun[-1], begun[-1]) if begun else step.name


def _first_error(lines: list[str]) -> str:
    for line in lines:
        if FIRST_ERROR.search(line):
            return f"first error: {line.strip()}"
    said = [line.strip() for line in lines if line.strip()]
    return f"no error in its log, which ends with: {said[-1]}" if said else "its log is empty"
