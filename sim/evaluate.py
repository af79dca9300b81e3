"""How good a model is, three times over: `python -m sim.evaluate --model deit_digits [--data digits:test]`.

Enters: the build's arguments (`quant.build`), labelled images. Quantizes first where that is needed.
Leaves: `eval.json` in the build folder. On the same images run

    float      the float model, in float32 and masked, batch by batch
    brevitas   the Brevitas model, image by image, in float64
    integer    the integers that the accelerator computes (`sim.golden`)

The last two give the same logits, which is checked. `torchrun --nproc-per-node N -m sim.evaluate ...` shares the images
among N processes. A model with parts that the accelerator has no unit for is evaluated in float alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import array_api_compat.torch as arrays
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from hw.program import build_program
from quant.build import add_arguments, build_folder, network_folder, refuse_what_has_no_unit
from quant.dataflow import run_image
from quant.export import from_network
from quant.inputs import calibration_images
from quant.network import load_network
from quant.quantize import ensure_network
from sim.evaluation import ModelReport, Outcomes, classes_table, models_table, report, tokens_table
from sim.golden import Golden
from sim.samples import Samples, default_data, load_samples
from spvit import distributed
from spvit.calibration import settle_thresholds
from spvit.checkpoint_options import checkpoint_options, threshold_request
from spvit.checkpoints import load_checkpoint, load_checkpoint_with_report
from spvit.command import Parser
from spvit.config import ModelSpec, resolve_model, shipped_weights
from spvit.cost import count_macs
from spvit.errors import ConfigError, ImageError, exit_on_user_error
from spvit.files import check_writable, write_json
from spvit.images.preprocess import Pixels, Preprocessing
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT
from spvit.schema import Whole

MODELS = ("float", "brevitas", "integer")
SHOWN_CLASSES = 10
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


def _columns(stages: Sequence[NDArray[np.int64]], images: int) -> NDArray[np.int64]:
    return np.stack(stages, axis=1) if stages else np.zeros((images, 0), np.int64)


def evaluate(
    subjects: dict[str, Subject], samples: Samples, batch: int, console: Console
) -> tuple[dict[str, Outcomes], list[int], dict[str, str]]:
    """Each subject on each image, shared among the processes; complete in the first process alone.

    Returns the outcomes by subject, the position of the image of each row, and why which images were skipped.
    Raises ImageError when no image can be read.
    """
    mine = range(distributed.rank(), len(samples), distributed.world_size())
    outcomes, done, skipped = {name: Outcomes() for name in subjects}, list[int](), dict[str, str]()
    batches = [mine[first : first + batch] for first in range(0, len(mine), batch)]
    first_alone = {"console": console, "transient": True, "disable": not distributed.is_first()}
    for chosen, pixels, broken in track(
        _read_ahead(samples, batches),
        "evaluating",
        len(batches),
        **first_alone,  # type: ignore[arg-type]
    ):
        skipped |= broken
        if not chosen:
            continue
        done += chosen
        for name, subject in subjects.items():
            start = time.monotonic()
            logits, kept = subject.run(pixels)
            outcomes[name].add(logits, kept, time.monotonic() - start)
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
    samples: Samples, batches: Sequence[range]
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


def float_net(spec: ModelSpec, args: argparse.Namespace) -> tuple[SPViT, str]:
    """The float model of a variant that is not quantized, with the thresholds that it would have, and both in words."""
    request = threshold_request(args, spec.pruning)
    checkpoint = args.ckpt if args.ckpt is not None else shipped_weights(args.model)
    found = None
    if checkpoint is None:
        net, words = seeded(spec.model, spec.pruning, args.seed), f"seeded random (seed {args.seed})"
    else:
        options = checkpoint_options(args)
        net, found = load_checkpoint_with_report(checkpoint, spec.model, spec.pruning, options)
        words = str(found)
    if net.pruning.num_selectors:
        pixels, _ = calibration_images(spec, args.calib)
        images = torch.from_numpy(Preprocessing.from_model(spec.model).normalise(pixels)).float()
        words += f"; thresholds: {settle_thresholds(net, images, request, found)}"
    return net, words


def make_subjects(
    spec: ModelSpec, args: argparse.Namespace, device: torch.device, console: Console
) -> dict[str, Subject]:
    """The models that are asked for; the quantized ones are made by the first process where they are not there."""
    wanted = _wanted_models(args)
    try:
        refuse_what_has_no_unit(spec, args.model)
    except ConfigError as error:
        if args.models is not None and wanted != ("float",):
            raise
        if distributed.is_first():
            console.print(f"in float alone: {escape(str(error))}", highlight=False, soft_wrap=True)
        net, words = float_net(spec, args)
        if distributed.is_first():
            console.print(f"weights: {escape(words)}", highlight=False, soft_wrap=True)
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


def _wanted_models(args: argparse.Namespace) -> tuple[str, ...]:
    if args.models is None:
        return MODELS
    wanted = tuple(args.models.split(","))
    for name in wanted:
        if name not in MODELS:
            raise ConfigError(f"--models {args.models}: {name} is none of {', '.join(MODELS)}")
    return wanted


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser("python -m sim.evaluate", (__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    parser.add_argument(
        "--data", metavar="FOLDER", help="a folder with a folder of images per class, or digits:test (default: digits)"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="cpu, cuda, cuda:1 (default: a GPU if there is)")
    parser.add_argument(
        "--batch", type=Whole(1, 4096), default=32, metavar="N", help="images at once (default: %(default)s)"
    )
    parser.add_argument("--models", metavar="M,M", help=f"of {','.join(MODELS)} (default: all that can be)")
    args = parser.parse_args(argv)
    _wanted_models(args)
    spec, console = resolve_model(args.model, args.keep), Console()
    data = args.data or default_data(spec.model)
    check_writable(build_folder(args))
    samples = load_samples(data, spec.model)
    device = start_on(args.device)
    if count_macs(spec.model, spec.pruning.without()).total < SMALL_MACS:
        torch.set_num_threads(1)
    try:
        subjects = make_subjects(spec, args, device, console)
        outcomes, done, skipped = evaluate(subjects, samples, args.batch, console)
        if distributed.is_first():
            tell(spec, outcomes, done, skipped, samples, data, device, build_folder(args) / "eval.json", console)
    finally:
        distributed.stop()
    return 0


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
    outcomes: dict[str, Outcomes],
    done: list[int],
    skipped: dict[str, str],
    samples: Samples,
    data: str,
    device: torch.device,
    path: Path,
    console: Console,
) -> None:
    """Write eval.json, whole or not at all, and print it as tables."""
    labels = [samples.labels[i] for i in done]
    reference = outcomes.get("float")
    reports = {
        name: report(spec.model, spec.pruning, one, labels, samples.classes, None if name == "float" else reference)
        for name, one in outcomes.items()
    }
    unpruned = count_macs(spec.model, spec.pruning.without()).total / 1e9
    differing = None
    if "brevitas" in outcomes and "integer" in outcomes:
        pairs = zip(outcomes["brevitas"].digests, outcomes["integer"].digests, strict=True)
        differing = sum(one != other for one, other in pairs)
    content = {
        "model": spec.model.name, "data": data, "images": len(done), "skipped": skipped,
        "classes": len(samples.classes), "device": str(device), "processes": distributed.world_size(),
        "unpruned_gmacs": unpruned, "brevitas_integer_differences": differing,
        "models": {name: asdict(one) for name, one in reports.items()},
    }  # fmt: skip
    write_json(path, content)
    _print(spec, reports, unpruned, f"{spec.model.name} on {len(done)} images of {data}", console)
    for reason in skipped.values():
        console.print(f"skipped: {reason}", highlight=False, markup=False, soft_wrap=True)
    if differing is not None:
        verdict = "the same logits" if not differing else f"[red]other logits on {differing} images[/red]"
        console.print(f"brevitas and integer: {verdict}", highlight=False)
    console.print(f"written: {escape(str(path))}", highlight=False, soft_wrap=True)


def _print(spec: ModelSpec, reports: dict[str, ModelReport], unpruned: float, title: str, console: Console) -> None:
    console.print(models_table(reports, unpruned, title))
    if spec.pruning.num_selectors and spec.pruning.method != "structured":
        name = "integer" if "integer" in reports else next(iter(reports))
        console.print(tokens_table(reports[name], spec.pruning.locations, name))
    console.print(classes_table(reports, SHOWN_CLASSES))


if __name__ == "__main__":
    exit_on_user_error(main)
