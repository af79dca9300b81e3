"""How good a model is, three times over: `spvit eval --model deit_digits [--data digits:test]`.

Enters: the build's arguments (`quant.build`), labelled images. Quantizes first where that is needed.
Leaves: `eval.json` in the build folder, and `eval.md`, a table for a README. On the same images run

    float      the float model, in float32 and masked, batch by batch
    brevitas   the Brevitas model, image by image, in float64
    integer    the integers that the accelerator computes (`sim.golden`)
    csim       the generated C++, on `--csim N` of the images

The last three give the same logits, which is checked. What is done stands in `eval.journal`: killed and started again
in the same way, the command goes on there. `torchrun --nproc-per-node N -m spvit_fpga eval ...` shares the images
among N processes. A model with parts that the accelerator has no unit for is evaluated in float alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import array_api_compat.torch as arrays
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from hw.generate import ensure_project
from hw.model.estimate import make_estimate
from hw.program import build_program
from hw.target import resolve_target, with_clock
from quant.build import build_folder, design_folder, network_folder, refuse_what_has_no_unit
from quant.dataflow import run_image
from quant.export import from_network
from quant.float_model import float_model
from quant.network import load_network
from quant.quantize import ensure_network
from sim.bridge import Accelerator, CsimError
from sim.build import build_library
from sim.evaluation import ModelReport, Outcomes, classes_table, markdown, models_table, report, tokens_table
from sim.golden import Golden
from sim.journal import Journal
from sim.options import EvalOptions
from sim.samples import Samples, default_data, load_samples
from spvit import distributed
from spvit.checkpoints import load_checkpoint
from spvit.config import ModelSpec, resolve_model, shipped_weights, to_table
from spvit.console import Console, stage, styled, track
from spvit.cost import count_macs
from spvit.errors import BuildError, ConfigError, ImageError
from spvit.files import check_writable, sha256, write_json, write_whole
from spvit.images.preprocess import Pixels, Preprocessing
from spvit.pruned_vit import SPViT

MODELS = ("float", "brevitas", "integer")
SHOWN_CLASSES = 10
MANY_IMAGES = 2000  # beyond, only who asks for Brevitas' model waits for it
JOURNAL = "eval.journal"
READERS = 4  # threads that decode images
SMALL_MACS = 1e8  # of an image; a second thread costs smaller models more in waiting than it brings


class Subject(Protocol):
    """A model under evaluation."""

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Real-valued logits [N, classes] and patches kept [N, selectors] of images uint8 [N, S, S, chans]."""


class FloatModel:
    def __init__(self, net: SPViT, device: torch.device) -> None:
        self.net, self.device = net.eval().to(device), device
        self.preprocessing = Preprocessing.from_model(net.config)

    @torch.no_grad()
    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        images = torch.from_numpy(self.preprocessing.normalise(pixels)).float().to(self.device)
        output = self.net.forward_masked(images)
        kept = [record.keep.sum(dim=1).long().cpu().numpy() for record in output.records]
        return output.logits.double().cpu().numpy(), _columns(kept, len(pixels))


class BrevitasModel:
    def __init__(self, folder: Path, device: torch.device) -> None:
        self.net, self.device = from_network(load_network(folder)).to(device), device

    @torch.no_grad()
    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        model, pruning = self.net.model, self.net.pruning
        kept = np.zeros((len(pixels), pruning.num_selectors), np.int64)  # a selector without candidates keeps none
        logits = np.zeros((len(pixels), model.num_classes))
        arithmetic = self.net.arithmetic()
        for i, image in enumerate(torch.from_numpy(pixels).to(self.device)):

            def observe(
                name: str, value: torch.Tensor, before: torch.Tensor, frac_bits: int | None, row: int = i
            ) -> None:
                if name.endswith(".keep"):
                    kept[row, int(name.split(".")[1])] = int(value.sum())

            arithmetic.observer = observe
            logits[i] = run_image(model, pruning, arithmetic, image).cpu().numpy()
        return logits, kept


class IntegerModel:
    def __init__(self, folder: Path, device: torch.device) -> None:
        network = load_network(folder)
        self.golden = Golden(network, build_program(network), arrays, None if device.type == "cpu" else str(device))

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        result = self.golden.run(pixels)
        logits = result.logits * 2.0 ** -self.golden.network.frac_bits["head"]
        return logits, _columns([np.array(stage) for stage in result.kept], len(pixels))


class CsimModel:
    """The generated C++ in C-simulation, image by image."""

    def __init__(self, args: EvalOptions) -> None:
        project, _ = ensure_project(args)
        self.accelerator = Accelerator(project.design, build_library(design_folder(args) / "src"))

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        network = self.accelerator.design.network
        logits = np.zeros((len(pixels), network.model.num_classes))
        kept = np.zeros((len(pixels), network.pruning.num_selectors), np.int64)  # a skipped selector keeps none
        for row, image in enumerate(pixels):
            try:
                result = self.accelerator.run(image)
            except CsimError as error:
                raise BuildError(f"the C-simulation stopped: {error}") from None
            logits[row] = result.logits * 2.0 ** -network.frac_bits["head"]
            for selector in range(kept.shape[1]):
                decisions = result.trace.get(f"selectors.{selector}.keep")
                kept[row, selector] = 0 if decisions is None else (decisions[:, 0] == 1).sum()
        return logits, kept


def _columns(stages: Sequence[NDArray[np.int64]], images: int) -> NDArray[np.int64]:
    return np.stack(stages, axis=1) if stages else np.zeros((images, 0), np.int64)


def evaluate(
    subjects: dict[str, Subject], samples: Samples, batch: int, journal: Journal
) -> tuple[dict[str, Outcomes], list[int], dict[str, str]]:
    """Each subject on each image, shared among the processes; complete in the first process alone.

    Returns the outcomes by subject, the position of the image of each row, and why which images were skipped.
    Raises ImageError when no image can be read.
    """
    place = {name: i for i, name in enumerate(samples.names)}
    seen = {*journal.done, *(place[name] for name in journal.skipped)}
    mine = [i for i in range(distributed.rank(), len(samples), distributed.world_size()) if i not in seen]
    batches = [mine[first : first + batch] for first in range(0, len(mine), batch)]
    what = f"evaluating {', '.join(subjects)} on {len(samples):,} images, in batches of up to {batch}"
    for chosen, pixels, broken in track(
        _read_ahead(samples, batches), what, len(batches), shown=distributed.is_first()
    ):
        fresh = {name: Outcomes() for name in subjects if chosen}
        for name, one in fresh.items():
            start = time.monotonic()
            logits, kept = subjects[name].run(pixels)
            one.add(logits, kept, time.monotonic() - start)
        journal.add(chosen, broken, fresh)
    outcomes = {name: journal.outcomes.get(name, Outcomes()) for name in subjects}
    done, skipped = journal.done, journal.skipped
    if distributed.world_size() > 1:
        parts: list[Any] = [None] * distributed.world_size()
        dist.all_gather_object(parts, (outcomes, done, skipped))
        outcomes, done, skipped = {name: Outcomes() for name in subjects}, [], {}
        for their_outcomes, their_done, their_skipped in parts:
            done += their_done
            skipped |= their_skipped
            for name, one in their_outcomes.items():
                outcomes[name].extend(one)
    if not done:
        raise ImageError(f"none of the {len(samples)} images can be read, first {next(iter(skipped.values()))}")
    return outcomes, done, skipped


def _read_ahead(
    samples: Samples, batches: Sequence[Sequence[int]]
) -> Iterator[tuple[list[int], NDArray[np.uint8], dict[str, str]]]:
    """Of each batch the images that can be read, their pixels, and why the others can't; the next one meanwhile."""

    def read(position: int) -> Pixels | str:
        try:
            return samples.read(position)
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(READERS) as readers:
        coming = [readers.map(read, batch) for batch in batches[:1]]
        for i, batch in enumerate(batches):
            if i + 1 < len(batches):
                coming.append(readers.map(read, batches[i + 1]))
            images = list(zip(batch, coming.pop(0), strict=True))
            good = [(position, image) for position, image in images if not isinstance(image, str)]
            broken = {samples.names[position]: image for position, image in images if isinstance(image, str)}
            pixels = np.stack([image for _, image in good]) if good else np.empty(0, np.uint8)
            yield [position for position, _ in good], pixels, broken


def make_subjects(
    spec: ModelSpec, args: EvalOptions, images: int, device: torch.device, console: Console
) -> dict[str, Subject]:
    """The models that are asked for; the quantized ones are made by the first process where they are not there."""
    wanted = _wanted_models(args, images)
    try:
        refuse_what_has_no_unit(spec, args.model)
    except ConfigError as error:
        if args.csim or (args.models is not None and wanted != ("float",)):
            raise
        if distributed.is_first():
            console.print(f"in float alone: {error}")
        net, words = float_model(spec, args)
        if distributed.is_first():
            console.print(f"weights: {words}")
        return {"float": FloatModel(net, device)}
    if distributed.is_first():
        ensure_network(args, console)
    distributed.wait_for_all()
    folder = network_folder(args)
    makers: dict[str, Callable[[], Subject]] = {
        "float": lambda: FloatModel(load_checkpoint(folder / "float.safetensors", spec.model, spec.pruning), device),
        "brevitas": lambda: BrevitasModel(folder, device),
        "integer": lambda: IntegerModel(folder, device),
    }
    return {name: makers[name]() for name in wanted}


def _wanted_models(args: EvalOptions, images: int = 0) -> tuple[str, ...]:
    """The models to run on so many images: with many, Brevitas' is left out, since the integers are the same."""
    if args.models is None:
        return MODELS if images <= MANY_IMAGES else tuple(name for name in MODELS if name != "brevitas")
    wanted = tuple(args.models.split(","))
    for name in wanted:
        if name not in MODELS:
            raise ConfigError(f"--models {args.models}: {name} is none of {', '.join(MODELS)}")
    return wanted


def run(args: EvalOptions) -> int:
    _wanted_models(args)
    spec, console = resolve_model(args.model, args.keep), Console()
    data = args.data or default_data(spec.model)
    check_writable(build_folder(args))
    samples = load_samples(data, spec.model)
    device = start_on(args.device)
    if count_macs(spec.model, spec.pruning.without()).total < SMALL_MACS:
        torch.set_num_threads(1)
    try:
        subjects = make_subjects(spec, args, len(samples), device, console)
        journal = open_journal(args, spec, samples, list(subjects), "")
        found = Evaluated(*evaluate(subjects, samples, args.batch, journal))
        journals = [journal]
        if args.csim:
            found.csim, found.csim_done, csim_journal = c_simulate(args, spec, samples)
            journals.append(csim_journal)
        if distributed.is_first():
            tell(spec, args, found, samples, data, device, console)
        for one in journals:
            one.remove()
    finally:
        distributed.stop()
    return 0


@dataclass
class Evaluated:
    """Outcomes by model; the position of the image of each row; why which images were skipped; the same of csim."""

    outcomes: dict[str, Outcomes]
    done: list[int]
    skipped: dict[str, str]
    csim: Outcomes | None = None
    csim_done: list[int] = field(default_factory=list)


def _weights(args: EvalOptions) -> Path | None:
    """The file of the weights; None: seeded random ones."""
    return args.ckpt if args.ckpt is not None else shipped_weights(args.model)


def open_journal(args: EvalOptions, spec: ModelSpec, samples: Samples, models: list[str], suffix: str) -> Journal:
    """The journal of this process, for this very evaluation."""
    checkpoint = _weights(args)
    folder = network_folder(args)
    names = hashlib.sha256(json.dumps([samples.names, samples.labels]).encode()).hexdigest()
    identity = {
        "model": to_table(spec.model), "pruning": to_table(spec.pruning), "models": models, "images": names,
        "weights": sha256(checkpoint) if checkpoint is not None else f"seed {args.seed}", "calibration": args.calib,
        "network": load_network(folder).digest if models != ["float"] else "",
        "process": [distributed.rank(), distributed.world_size()],
    }  # fmt: skip
    rank = f".{distributed.rank()}" if distributed.rank() else ""
    return Journal(build_folder(args) / f"{JOURNAL}{suffix}{rank}", identity)


def c_simulate(args: EvalOptions, spec: ModelSpec, samples: Samples) -> tuple[Outcomes, list[int], Journal]:
    """The C-simulation's outcomes on as many images as are asked for, evenly spaced, and their positions."""
    chosen = sorted({round(place) for place in np.linspace(0, len(samples) - 1, min(args.csim, len(samples)))})
    part = Samples(
        samples.classes, tuple(samples.names[i] for i in chosen), tuple(samples.labels[i] for i in chosen),
        lambda i: samples.read(chosen[i]),
    )  # fmt: skip
    if distributed.is_first():
        with stage("compiling the C-simulation"):
            subject = CsimModel(args)
    distributed.wait_for_all()
    if not distributed.is_first():
        subject = CsimModel(args)
    journal = open_journal(args, spec, part, ["csim"], ".csim")
    outcomes, done, _ = evaluate({"csim": subject}, part, 1, journal)
    return outcomes["csim"], [chosen[i] for i in done], journal


def start_on(device: str) -> torch.device:
    """Join the other processes, if there are, on a device that is there. Raises ConfigError."""
    try:
        torch.device("cpu" if device == "auto" else device)
    except RuntimeError:
        raise ConfigError(f"DEVICE={device} is no device of torch's; give cpu, cuda, or cuda:1") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"DEVICE={device}: torch finds no GPU here; leave DEVICE out, or give cpu")
    return distributed.start(device)


def tell(
    spec: ModelSpec,
    args: EvalOptions,
    found: Evaluated,
    samples: Samples,
    data: str,
    device: torch.device,
    console: Console,
) -> None:
    """Write eval.json and eval.md, whole or not at all, and print them as tables."""
    outcomes, done, skipped = found.outcomes, found.done, found.skipped
    labels, reference = [samples.labels[i] for i in done], outcomes.get("float")
    reports = {
        name: report(spec.model, spec.pruning, one, labels, samples.classes, None if name == "float" else reference)
        for name, one in outcomes.items()
    }
    differing = {}
    if "brevitas" in outcomes and "integer" in outcomes:
        differing["brevitas"] = _different(outcomes["brevitas"], outcomes["integer"])
    if found.csim is not None:
        row = {position: row for row, position in enumerate(done)}
        rows, labels = [row[i] for i in found.csim_done], [samples.labels[i] for i in found.csim_done]
        beside = None if reference is None else reference.of(rows)
        reports["csim"] = report(spec.model, spec.pruning, found.csim, labels, samples.classes, beside)
        if "integer" in outcomes:
            differing["csim"] = _different(found.csim, outcomes["integer"].of(rows))
    unpruned = count_macs(spec.model, spec.pruning.without()).total / 1e9
    estimate, line = _estimated(spec, args, next(iter(outcomes.values())))
    content = {
        "model": spec.model.name, "data": data, "images": len(done), "skipped": skipped,
        "classes": len(samples.classes), "device": str(device), "processes": distributed.world_size(),
        "unpruned_gmacs": unpruned, "brevitas_integer_differences": differing.get("brevitas"),
        "csim_integer_differences": differing.get("csim"), "estimate": estimate,
        "models": {name: asdict(one) for name, one in reports.items()},
    }  # fmt: skip
    notes = [f"On the accelerator, per image: {line}."] if line else []
    if _weights(args) is None:
        notes.append(f"**Seeded random weights** (seed {args.seed}): says nothing of a trained model.")
    folder, text = build_folder(args), markdown(spec.model.name, reports, unpruned, notes)
    write_json(folder / "eval.json", content)
    write_whole(folder / "eval.md", text)
    _print(spec, reports, unpruned, f"{spec.model.name} on {len(done)} images of {data}", console)
    for reason in skipped.values():
        console.print(f"skipped: {reason}")
    for name, images in differing.items():
        verdict = ("the same logits", "") if not images else (f"other logits on {images} images", "red")
        console.print(styled(f"{name} and integer: ", verdict))
    console.print(f"for a README, {folder / 'eval.md'}:\n\n{text}")
    console.print(f"written: {folder / 'eval.json'}")


def _different(one: Outcomes, other: Outcomes) -> int:
    """Images with other logits."""
    return sum(a != b for a, b in zip(one.digests, other.digests, strict=True))


def _estimated(spec: ModelSpec, args: EvalOptions, outcomes: Outcomes) -> tuple[dict[str, Any] | None, str]:
    """The accelerator's latency where it keeps what the images keep in the mean, and that in words, or why not."""
    kept = tuple(round(mean) for mean in np.array(outcomes.kept).mean(axis=0)) if spec.pruning.num_selectors else ()
    try:
        refuse_what_has_no_unit(spec, args.model)
        target = with_clock(resolve_target(args.target), args.clock)
        latency_ms = make_estimate(spec, target, kept).latency_ms
    except ConfigError as error:
        return None, f"no estimate, since {error}"
    content = {"target": target.name, "clock_mhz": target.clock_mhz, "kept_patches": kept, "latency_ms": latency_ms}
    return content, f"{latency_ms:.3g} ms at {target.clock_mhz:g} MHz on {target.name} (estimate, not measured)"


def _print(spec: ModelSpec, reports: dict[str, ModelReport], unpruned: float, title: str, console: Console) -> None:
    console.print(models_table(reports, unpruned, title))
    if spec.pruning.num_selectors and spec.pruning.method != "structured":
        name = "integer" if "integer" in reports else next(iter(reports))
        console.print(tokens_table(reports[name], spec.pruning.locations, name))
    on_all_images = {name: one for name, one in reports.items() if name != "csim"}
    console.print(classes_table(on_all_images, SHOWN_CLASSES))
