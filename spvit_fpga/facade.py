"""The flow as Python functions: a model, its 16 bits, its accelerator, and what can be asked of that.

    net = load_model("deit_s", checkpoint="deit_small_patch16_224.pth")
    accelerator = build(quantize(net, "photos"), target="zcu102")
    accelerator.csim("photos").mismatches

Each raises a UserError with one sentence for what its caller can mend. What lies in a build folder is what the commands
leave there (`spvit hls`, `csim`, `estimate`, `report`), made by the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from hw.architecture import Architecture
from hw.deploy import ARCHIVE, check_target, pack_project
from hw.generate import Project, is_written, make_design, make_project, write_project
from hw.layout import Layout
from hw.model.estimate import Estimate, make_estimate, write_estimate
from hw.model.resources import check_fits
from hw.request import design_name, hardware_of
from hw.schedule.command import make_schedule, write_schedule
from hw.schedule.frontend import check_tools
from hw.schedule.report import Schedule
from hw.target import Target, resolve_target, with_clock
from quant.build import NETWORK_FOLDER, ROOT, refuse_what_has_no_unit
from quant.inputs import Inputs, are_trained, calibration_images, inputs_of, weights_of
from quant.network import QuantizedNetwork
from quant.options import BuildOptions
from quant.quantize import Quantized, quantized, write
from quant.report import Report
from quant.widths import layer_widths, with_weight_bits
from sim.compiler import Compiler
from sim.csim import CsimReport, default_images, simulate
from sim.report.page import write_page
from spvit.checkpoint_options import CheckpointOptions, threshold_request
from spvit.checkpoints import LoadReport, load_checkpoint_with_report, save_checkpoint, tensors_digest
from spvit.config import ModelConfig, ModelSpec, PruningConfig, resolve_model, shipped_weights
from spvit.console import Console
from spvit.cost import count_macs
from spvit.errors import BuildError, ConfigError, ImageError
from spvit.files import check_writable
from spvit.images import sources
from spvit.images.preprocess import Pixels, Preprocessing
from spvit.images.sources import ImageSet
from spvit.initialisation import seeded
from spvit.options import SelectorOptions
from spvit.pruned_vit import SPViT
from spvit.train import Request, train_in_memory
from spvit.training.recipe import resolve_recipe

Images: TypeAlias = "str | Path | Pixels | ImageSet | None"
"""A folder, an image's path, digits:train or digits:test, uint8 [N, S, S, chans] of the model's size; None: bundled."""


@dataclass(frozen=True)
class Model:
    """A float SPViT.

    source   which weights it has, in words
    weights  the same as the build folder's inputs.json has it
    found    what the file of its weights was; None: they are seeded random
    keep     which keep ratios were asked for, as --keep takes them
    """

    spec: ModelSpec
    net: SPViT
    source: str
    weights: str
    found: LoadReport | None = None
    keep: str | None = None

    @property
    def name(self) -> str:
        return self.spec.model.name

    @property
    def gmacs(self) -> float:
        """Of an image that keeps what the keep ratios say. Raises ConfigError where there are none."""
        return count_macs(self.spec.model, self.spec.pruning).total / 1e9

    def save(self, path: str | Path) -> Path:
        """The weights, for `checkpoint=` and CKPT=. Raises CheckpointError."""
        save_checkpoint(path, self.net)
        return Path(path)


@dataclass(frozen=True)
class QuantizedModel:
    """A network in 16 bits, and the float model that it was made of.

    pixels  what it was calibrated with, uint8 [N, S, S, chans]
    """

    model: Model
    made: Quantized
    inputs: Inputs

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def network(self) -> QuantizedNetwork:
        return self.made.network

    @property
    def report(self) -> Report:
        """How well it follows the float model."""
        return self.made.report


def load_model(
    model: str | Path | ModelSpec | ModelConfig | SPViT,
    checkpoint: str | Path | None = None,
    *,
    pruning: PruningConfig | None = None,
    keep: str | Sequence[float] | None = None,
    seed: int = 0,
    ema: bool = False,
    interpolate: bool = False,
) -> Model:
    """A float model with its weights. Raises ConfigError, CheckpointError, FileError.

    model        a name of the registry, the path of a TOML, sizes of your own, or a module, whose weights it keeps
    checkpoint   .safetensors or .pth; None: those that come with the model, or seeded random ones
    pruning      where its selectors are; None: as `model` says, and for bare sizes nowhere
    keep         kept fractions of the patches, one per selector, or "none"
    seed         of random weights
    ema          take the running mean of the weights, where the checkpoint has it beside them
    interpolate  resize the position embedding of a checkpoint of another image size
    """
    asked = _keep_text(keep)
    if isinstance(model, SPViT):
        if checkpoint is not None or pruning is not None or keep is not None:
            raise ConfigError(
                "a module has its weights and its selectors; give checkpoint, pruning and keep with sizes"
            )
        return _of_module(ModelSpec(model.config, model.pruning), model, "a module's weights")
    spec = _spec(model, pruning, asked)
    if checkpoint is None and isinstance(model, (str, Path)):
        checkpoint = shipped_weights(str(model))
    options = CheckpointOptions(ema, interpolate)
    path = None if checkpoint is None else Path(checkpoint)
    if path is None:
        net, found, source = seeded(spec.model, spec.pruning, seed), None, f"seeded random (seed {seed})"
    else:
        net, found = load_checkpoint_with_report(path, spec.model, spec.pruning, options)
        source = str(found)
    return Model(spec, net.eval(), source, weights_of(path, options, seed), found, asked)


def train(
    model: str | Path | ModelSpec | ModelConfig,
    data: str = "digits",
    *,
    checkpoint: str | Path | None = None,
    pruning: PruningConfig | None = None,
    keep: str | Sequence[float] | None = None,
    recipe: str | Path | None = None,
    **changes: Any,
) -> Model:
    """Train a model down to its keep ratios, in this process: backbone, then selectors, then thresholds.

    data        digits, or a folder with train/<class>/ and val/<class>/
    checkpoint  of the backbone; None: it is trained too
    recipe      a TOML with numbers of the training; `changes` go over it: `backbone_epochs=10`
    Raises ConfigError, CheckpointError, ImageError, TrainingError.
    """
    asked = _keep_text(keep)
    spec = _spec(model, pruning, asked)
    settled = resolve_recipe(spec.model.name, None if recipe is None else Path(recipe), changes)
    path = None if checkpoint is None else Path(checkpoint)
    trained = train_in_memory(Request(spec, path), data, settled)
    return _of_module(trained.spec, trained.net, f"trained on {data}")


def quantize(
    model: Model | SPViT,
    images: Images = None,
    *,
    threshold: float | str | None = None,
    weight_bits: int | str | None = None,
) -> QuantizedModel:
    """The model in 16-bit fixed point, calibrated with images. The model stays as it is.

    images     what it is calibrated with; None: bundled ones
    threshold  keep probability of the selectors, or "calibrate": fit it to the keep ratios (None: trained ones keep
               theirs, fresh ones are calibrated)
    weight_bits  the weights' width, 16, 12 or 8, with layers that differ behind it: "8,head=16" (None: the model's own)
    Raises ConfigError, ImageError.
    """
    own = load_model(model) if isinstance(model, SPViT) else model
    own = replace(own, spec=with_weight_bits(own.spec, None if weight_bits is None else str(weight_bits)))
    refuse_what_has_no_unit(own.spec, own.name)
    asked = SelectorOptions(model=own.name, keep=own.keep, threshold=None if threshold is None else str(threshold))
    request = threshold_request(asked, own.spec.pruning)
    if images is None or isinstance(images, (str, Path)):
        pixels, _ = calibration_images(own.spec, None if images is None else str(images))
    else:
        pixels = _image_set(images, own.spec.model).pixels
    made = quantized(deepcopy(own.net), own.found, pixels, request, weight_bits=layer_widths(own.spec))
    return QuantizedModel(own, made, inputs_of(own.spec, own.weights, request, pixels))


def build(
    model: QuantizedModel,
    target: str | Path | Target = "zcu102",
    design: str | Path | Mapping[str, int | str] | None = None,
    *,
    folder: str | Path | None = None,
) -> Accelerator:
    """The accelerator of a quantized model for a board, generated into its build folder.

    target  a board's name, or the path of a TOML
    design  what it is to run on: a family's name (deit), the path of a TOML with [capacities], the build folder of one
            that is there; or the engine's sizes alone, as [engine] has them; None: of the model's own sizes
    folder  None: build/<model>-<target>
    Raises ConfigError where the model does not fit, FileError.
    """
    board = target if isinstance(target, Target) else resolve_target(str(target))
    spec = replace(model.model.spec, engine=dict(design)) if isinstance(design, Mapping) else model.model.spec
    named = str(design) if isinstance(design, (str, Path)) else None
    options = BuildOptions(model=model.name, design=named)
    hardware = hardware_of(options, spec, board)
    check_fits(Layout(spec.model, hardware.architecture, hardware.capacities), board)
    own = f"{model.name}-{board.name}" if named is None else f"{model.name}-{board.name}-on-{Path(named).stem}"
    place = ROOT / own if folder is None else Path(folder)
    check_writable(place)
    mapped = make_design(model.network, hardware.architecture, hardware.capacities)
    project = make_project(mapped, board, design_name(options), trained=are_trained(model.inputs.weights))
    write(model.made, model.inputs, place / NETWORK_FOLDER)
    if not is_written(project, place):
        write_project(project, place)
    return Accelerator(spec, model, project, place)


@dataclass(frozen=True)
class Accelerator:
    """A generated accelerator, and the folder in which all of it lies."""

    spec: ModelSpec
    model: QuantizedModel
    project: Project
    folder: Path

    @property
    def target(self) -> Target:
        return self.project.target

    @property
    def architecture(self) -> Architecture:
        return self.project.design.architecture

    @cached_property
    def sources(self) -> dict[str, str]:
        """The generated C++: file name -> text."""
        return {path[4:]: text for path, text in self.project.files.items() if path.startswith("src/")}

    def csim(self, images: Images = None, *, top: str | None = None, exact: bool = False) -> CsimReport:
        """Compile and run the C++, and compare every value with the golden: `csim.json`.

        images  None: two photographs, or the digits' test images for a model of grey ones
        top     one unit alone: msa_block, mlp_block, token_selector, token_packager
        exact   with exact widths (ap_int) in place of native integers
        Raises BuildError, ImageError.
        """
        config = self.spec.model
        compiler = Compiler.find()
        compiler.check()
        chosen = _image_set(default_images(config.in_chans) if images is None else images, config)
        try:
            return simulate(self.project, self.folder, chosen, Console(quiet=True), top, exact, compiler)
        except SystemExit as stopped:  # the command's verdict
            raise BuildError(str(stopped)) from None

    def estimate(self, kept: Sequence[int] | None = None, clock_mhz: float | None = None) -> Estimate:
        """Cycles, latency and resources in closed form: `estimate.json`. No synthesis and no board has seen it.

        kept  patches that an image has left after each selector; None: as the keep ratios say
        """
        estimate = make_estimate(self.spec, with_clock(self.target, clock_mhz), kept, self.project.design.layout)
        write_estimate(estimate, self.folder)
        return estimate

    def schedule(self, top: str | None = None, clock_mhz: float | None = None) -> Schedule:
        """II, period and depth of each loop by an open model of synthesis: `schedule.json`. Takes up to minutes."""
        check_tools()
        schedule = make_schedule(self.project, with_clock(self.target, clock_mhz).clock_mhz, top)
        write_schedule(schedule, top, self.folder)
        return schedule

    def report(self, clock_mhz: float | None = None) -> Path:
        """One page to look at, of what was run so far: `report.html`."""
        target = with_clock(self.target, clock_mhz)
        return write_page(self.spec, target, self.target, self.project.design.layout, self.folder)

    def deploy(self) -> Path:
        """What the board needs, in one archive: `deploy.tar.gz`. Raises ConfigError, BuildError."""
        check_target(self.target)
        pack_project(self.project, self.folder)
        return self.folder / ARCHIVE


def _keep_text(keep: str | Sequence[float] | None) -> str | None:
    """As KEEP= has it."""
    return keep if keep is None or isinstance(keep, str) else ",".join(map(str, keep))


def _spec(model: str | Path | ModelSpec | ModelConfig, pruning: PruningConfig | None, keep: str | None) -> ModelSpec:
    if isinstance(model, (str, Path)):
        spec = resolve_model(str(model), keep)
        return spec if pruning is None else replace(spec, pruning=pruning)
    if keep is not None:
        raise ConfigError(f"keep={keep}: is for models by name; sizes of your own have it in their pruning")
    if isinstance(model, ModelSpec):
        return model if pruning is None else replace(model, pruning=pruning)
    return ModelSpec(model, PruningConfig(locations=()) if pruning is None else pruning)


def _of_module(spec: ModelSpec, net: SPViT, source: str) -> Model:
    """A module's weights, and thresholds that are taken for trained ones."""
    own = deepcopy(net).cpu().float().eval()
    tensors = {name: tensor.detach().contiguous() for name, tensor in own.state_dict().items()}
    found = LoadReport(source, "own", True, spec.pruning.keep, ())
    return Model(spec, own, source, tensors_digest(tensors), found)


def _image_set(images: Images, config: ModelConfig) -> ImageSet:
    """Images of the model's size. Raises ImageError."""
    if images is None or isinstance(images, (str, Path)):
        return sources.load_images(None if images is None else str(images), Preprocessing.from_model(config))
    pixels = images.pixels if isinstance(images, ImageSet) else images
    wanted = (config.img_size, config.img_size, config.in_chans)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != wanted or not len(pixels):
        raise ImageError(
            f"images are {pixels.dtype} {list(pixels.shape)}; {config.name} takes uint8 [N, "
            f"{', '.join(map(str, wanted))}], with an image at least"
        )
    if isinstance(images, ImageSet):
        return images
    return ImageSet(tuple(f"image {position}" for position in range(len(pixels))), pixels, None)


def load_images(model: Model, source: str | Path | None = None, count: int | None = None) -> ImageSet:
    """Images as the model sees them, with names, and labels where the source has them.

    source  a folder, an image, digits:train, digits:test; None: bundled ones
    count   at most so many, evenly spaced; None: all
    Raises ImageError.
    """
    config = model.spec.model
    every = _image_set(default_images(config.in_chans) if source is None else source, config)
    if count is None or count >= len(every):
        return every
    places = np.linspace(0, len(every) - 1, count).round().astype(int)
    labels = None if every.labels is None else every.labels[places]
    return ImageSet(tuple(every.names[place] for place in places), every.pixels[places], labels)


def draw_kept(model: Model | QuantizedModel, images: Images = None, count: int = 3) -> Any:
    """What the selectors keep of the first `count` images: a matplotlib figure. Raises ConfigError, ImageError."""
    from spvit.visualize import draw_tokens, require_tokens  # matplotlib

    net = model.made.net if isinstance(model, QuantizedModel) else model.net
    require_tokens(net.config.name, net.pruning)
    chosen = _image_set(default_images(net.config.in_chans) if images is None else images, net.config)
    pixels = chosen.pixels[:count]
    normalised = torch.from_numpy(Preprocessing.from_model(net.config).normalise(pixels)).float()
    return draw_tokens(net, pixels, normalised, chosen.names[:count])
