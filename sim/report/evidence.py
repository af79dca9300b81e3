"""What was run of a design besides estimating it: C-simulations, the open scheduler, synthesis, co-simulation, board.

Enters: a build folder. Leaves: `Evidence`, each part None where its command has not been run. A file of another model,
board or design is refused: its figures would stand under the wrong name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hw.architecture import Architecture
from hw.manifest import DESIGN, NETWORK, WEIGHTS_FOLDER
from hw.target import Target
from hw.vendor.reports import Figures
from quant.build import NETWORK_FOLDER
from quant.inputs import INPUTS_FILE
from spvit.errors import BuildError
from spvit.files import read_json
from spvit.schema import shown_text

CSIM, SCHEDULE, REPORTS, LATENCY = "csim.json", "schedule.json", "reports.json", "latency.json"
RANDOM = "random weights"
TIMED = "make timed"
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """The build folder's files.

    csim      C-simulation against the golden: images, mismatches, tokens
    timing    timed C-simulation of one image: cycles, latency
    stages    by name, what the vendor's tools said: csynth, cosim, vivado
    board     measured on the board
    schedule  of each loop by the open scheduler: interval, period, depth
    weights   of the network that was run, in words
    """

    csim: Document | None
    timing: Document | None
    stages: Mapping[str, Figures]
    board: Document | None
    schedule: Document | None = None
    weights: str | None = None

    @property
    def is_random(self) -> bool:
        """Whether what depends on the weights says nothing of a trained model."""
        return self.weights is not None and self.weights.startswith(RANDOM)


def engine_name(architecture: Architecture) -> str:
    return f"{architecture.tile_in}x{architecture.tile_out} {architecture.inner_product}"


def timing_name(design: Architecture, board: Target, engine: Architecture, clock_mhz: float) -> str:
    """The timed C-simulation's report: `timing.json` of the design itself, another name on another engine or clock."""
    if (engine, clock_mhz) == (design, board.clock_mhz):
        return "timing.json"
    return f"timing-{engine_name(engine).replace(' ', '-')}-{clock_mhz:g}mhz.json"


def read_evidence(
    folder: Path, model: str, target: str, engine: str, timing_file: str = "timing.json", design: Path | None = None
) -> Evidence:
    """What lies in the build folder. Raises BuildError for a file that can't be read or is another design's.

    design  folder of the hardware, where it is another one
    """
    csim = _read(folder / CSIM, "make csim")
    timing = _read(folder / timing_file, TIMED)
    own = (model, target)
    if csim is not None:
        _require_same(folder / CSIM, "model", (csim.get("model"), csim.get("target")), own, "make csim")
    if timing is not None:
        _require_same(folder / timing_file, "model", (timing.get("model"), timing.get("target")), own, TIMED)
        _require_same(folder / timing_file, "engine", timing.get("engine"), engine, TIMED)
    schedule = _read(folder / SCHEDULE, "make schedule")
    if schedule is not None:
        _require_same(folder / SCHEDULE, "model", (schedule.get("model"), schedule.get("target")), own, "make schedule")
        _require_same(folder / SCHEDULE, "engine", schedule.get("engine"), engine, "make schedule")
    return Evidence(
        csim, timing, _stages(design or folder), _board(folder, design or folder), schedule, describe_weights(folder)
    )


def describe_weights(folder: Path) -> str | None:
    """Of the network in a build folder, in words; None: there is none yet."""
    inputs = _read(folder / NETWORK_FOLDER / INPUTS_FILE, "make hls")
    if inputs is None:
        return None
    kind, *rest = str(inputs.get("weights")).split()
    return f"{RANDOM} (seed {rest[0]})" if kind == "seed" and rest else f"a checkpoint, SHA-256 {kind[:12]}…"


def _stages(folder: Path) -> dict[str, Figures]:
    path = folder / REPORTS
    document = _read(path, "make synth")
    if document is None:
        return {}
    _require_same(path, "digest", document.get("digest"), _digest(folder, path), "make synth")
    return {name: Figures.from_json(document[name]) for name in ("csynth", "cosim", "vivado") if name in document}


def _board(folder: Path, design: Path) -> Document | None:
    """Only what was measured: the emulated device's times are estimates, and ours are at hand."""
    path = folder / LATENCY
    document = _read(path, "make notebook")
    if document is None or document.get("measurement", {}).get("kind") != "board":
        return None
    measurement: Document = document["measurement"]
    _require_same(path, "digest", measurement.get("digest"), _digest(design, path), "the notebook on the board")
    own = _digest(folder, path, f"{WEIGHTS_FOLDER}/{NETWORK}", "network")
    _require_same(path, "network", measurement.get("network"), own, "the notebook on the board")
    return measurement


def _digest(folder: Path, path: Path, manifest: str = DESIGN, of: str = "design") -> str:
    """Of the design, or the network, that the folder holds."""
    document = _read(folder / manifest, "make hls")
    if document is None:
        raise BuildError(f"{path}: there is no {manifest} beside it to tell which {of} it is of; run make hls")
    return str(document.get("digest"))


def _require_same(path: Path, field: str, found: object, expected: object, command: str) -> None:
    if found != expected:
        shown = [" on ".join(map(str, one)) if isinstance(one, tuple) else str(one)[:12] for one in (found, expected)]
        raise BuildError(
            f"{path}: {field} is {shown_text(shown[0])}, this design's is {shown[1]}; remove the file, or run "
            f"{command} again"
        )


def _read(path: Path, command: str) -> Document | None:
    return read_json(path, f"remove it, or run {command} again", BuildError) if path.exists() else None
