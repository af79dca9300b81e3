"""Quantization-aware fine-tuning: `spvit finetune --model deit_digits --out tuned.safetensors`.

Enters: a trained float SPViT and a data set. What learns are the float model's own weights: each step folds them and
rounds them through the Brevitas model, in the formats that were calibrated at the start, and sends the gradients
straight through the roundings. So what leaves is an ordinary checkpoint, for `make hls CKPT=`. Decisions have no
gradient: the selectors stand still, and at the end their thresholds are calibrated again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from quant.build import model_spec
from quant.calibrate import choose_formats, observe_ranges
from quant.fold import fold, fold_with_gradients
from quant.model import QuantizedSPViT
from quant.options import FinetuneOptions
from quant.widths import layer_widths, narrow
from spvit import distributed
from spvit.calibration import calibrate_thresholds
from spvit.checkpoint_options import checkpoint_options
from spvit.checkpoints import load_checkpoint_with_report, save_checkpoint
from spvit.config import ModelConfig, shipped_weights
from spvit.console import Console, Table, track
from spvit.errors import CheckpointError
from spvit.losses import logits_loss
from spvit.pruned_vit import SPViT
from spvit.records import Output
from spvit.training.data import INFERENCE_BATCH, Data, data_name, load_data, sample
from spvit.training.log import Log
from spvit.training.loop import Group, Model, Objective, Phase, Run, fit
from spvit.training.recipe import resolve_recipe
from spvit.training.state import OUT_FOLDER, Journal

PHASE = "quantized"
FORMAT_IMAGES = 64  # choose the formats
COMPARED_IMAGES = 512  # before and after
WEIGHT_KL = 1.0  # of the float model's logits, beside the labels


class RoundedSPViT(SPViT):
    """An SPViT whose forward in training is the accelerator's, rounding and all; its weights are the float ones.

    images       training images, normalised, from which the formats are chosen
    weight_bits  by layer, where weights have less than 16
    """

    def __init__(self, net: SPViT, images: Tensor, weight_bits: Mapping[str, int] | None = None) -> None:
        super().__init__(net.config, net.pruning)
        self.load_state_dict(net.state_dict())
        self.selectors.requires_grad_(False)
        folded = fold(net)
        formats = choose_formats(folded, observe_ranges(folded, to_pixels(images, net.config)), weight_bits=weight_bits)
        self._rounded = (QuantizedSPViT(folded, formats),)  # in a tuple, so that its copy of the weights is not ours

    def forward(self, images: Tensor) -> Output:
        if not self.training:
            return super().forward(images)
        logits = self.rounded_logits(to_pixels(images, self.config)).to(images.dtype)
        return Output(logits, logits.new_zeros(len(logits), 0, 0), (), logits.new_zeros(len(logits), 0))

    def rounded_logits(self, pixels: Tensor) -> Tensor:
        """The accelerator's logits [N, classes] for today's weights, of pixels uint8 [N, S, S, chans], in float64."""
        folded = fold_with_gradients(self)
        weights: dict[str, Tensor] = {"position": folded.position}
        for name, linear in folded.linears.items():
            layer = f"linears.{name.replace('.', '/')}.layer"
            weights |= {f"{layer}.weight": linear.weight, f"{layer}.bias": linear.bias}
        (rounded,) = self._rounded
        logits: Tensor = functional_call(rounded.to(pixels.device), weights, (pixels,))
        return logits


def to_pixels(images: Tensor, model: ModelConfig) -> Tensor:
    """What the accelerator is given: normalised images (N, chans, S, S) as uint8 [N, S, S, chans]."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (model.mean, model.std))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class Following(Objective):
    """The labels' cross-entropy, and the float model's logits."""

    def __init__(self, teacher: SPViT) -> None:
        self.teacher = teacher

    def loss(self, model: Model, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            taught = self.teacher.forward_masked(images).logits
        logits = model(images).logits
        return cross_entropy(logits, targets) + WEIGHT_KL * logits_loss(logits, taught)


def finetune(net: SPViT, run: Run, epochs: int, rate: float, weight_bits: Mapping[str, int] | None = None) -> SPViT:
    """An SPViT whose weights know that they will be rounded, in evaluation mode; `net` stays as it is.

    rate         AdamW's, after the recipe's warm-up and before its cosine
    weight_bits  by layer, where weights have less than 16
    Raises TrainingError, CheckpointError.
    """
    rounded = RoundedSPViT(net, run.data.calibration(FORMAT_IMAGES), weight_bits)
    learning = [(name, parameter) for name, parameter in rounded.named_parameters() if parameter.requires_grad]
    fit(Phase(PHASE, rounded, [Group(learning, rate)], epochs, Following(net.to(run.device).eval())), run)
    tuned = SPViT(net.config, net.pruning)
    tuned.load_state_dict(rounded.cpu().state_dict())
    if tuned.pruning.keep:
        calibrate_thresholds(tuned, run.data.calibration(run.recipe.calibration_images), tuned.pruning.keep)
    return tuned.eval()


@torch.no_grad()
def accuracies(net: SPViT, data: Data, weight_bits: Mapping[str, int] | None = None) -> tuple[float, float]:
    """Fractions of (at most COMPARED_IMAGES) test images whose class the float and the rounded model find."""
    net = net.cpu().eval()
    rounded, right, count = RoundedSPViT(net, data.calibration(FORMAT_IMAGES), weight_bits), torch.zeros(2), 0
    images = sample(data.test, COMPARED_IMAGES)
    what = f"comparing the rounded model with the float one on {len(images)} test images"
    total, shown = -(-len(images) // INFERENCE_BATCH), distributed.is_first()
    for batch, labels in track(images.views(), what, total, shown):
        both = net.forward_masked(batch).logits, rounded.rounded_logits(to_pixels(batch, net.config))
        right += torch.tensor([(logits.argmax(dim=1) == labels).sum() for logits in both])
        count += len(labels)
    floating, fixed = (right / count).tolist()
    return floating, fixed


def run(options: FinetuneOptions) -> None:
    console = Console()
    spec = model_spec(options)
    checkpoint = options.ckpt or shipped_weights(options.model)
    if checkpoint is None:
        raise CheckpointError(f"{spec.model.name}: no weights come with it; give trained ones with CKPT=")
    recipe = resolve_recipe(spec.model.name, options.recipe, options.changes)
    name = data_name(options.data, spec.model)
    out = options.out or OUT_FOLDER / f"{spec.model.name}-tuned.safetensors"
    data = load_data(name, spec.model, recipe)
    net, found = load_checkpoint_with_report(checkpoint, spec.model, spec.pruning, checkpoint_options(options))
    if options.keep is None:  # thresholds are fitted anew to what they were made for; where nobody knows, they stay
        net.pruning = replace(net.pruning, keep=found.calibrated_keep)
    if not found.selectors_found:
        raise CheckpointError(f"{checkpoint}: its selectors are not trained; run make train CKPT={checkpoint} first")
    device, widths = distributed.start(options.device), narrow(layer_widths(spec))
    try:
        asked = {"data": name, "ckpt": str(checkpoint), "epochs": options.epochs, "rate": options.rate}
        asked |= {"reading": checkpoint_options(options).parts or None}
        asked |= {"weight_bits": widths} if widths else {}
        parts = {"model": asdict(spec.model), "pruning": asdict(spec.pruning), "recipe": recipe.identity}
        with Journal.beside(out, options.resume, parts | {"asked": asked}) as journal:
            if distributed.is_first():
                console.print(f"weights: {found}")
            log = Log(out if distributed.is_first() else None, resumed=options.resume is not None)
            before = accuracies(net, data, widths)
            tuned = finetune(net, Run(data, recipe, journal, device, log=log), options.epochs, options.rate, widths)
            after = accuracies(tuned, data, widths)
            if distributed.is_first():
                save_checkpoint(out, tuned)
                show(before, after, min(COMPARED_IMAGES, len(data.test)), console)
                keep = "" if options.keep is None else f" KEEP={options.keep}"
                bits = "" if options.weight_bits is None else f" WEIGHT_BITS={options.weight_bits}"
                console.print(f"{out}: make hls TARGET=zcu102 MODEL={options.model} CKPT={out}{keep}{bits}")
            distributed.wait_for_all()
            journal.remove()
    finally:
        distributed.stop()


def show(before: tuple[float, float], after: tuple[float, float], images: int, console: Console) -> None:
    table = Table(f"accuracy on {images} test images", "fine-tuning", (("float", "%"), ("rounded", "%")))
    for name, (floating, fixed) in (("before", before), ("after", after)):
        table.add_row(name, f"{100 * floating:.2f}", f"{100 * fixed:.2f}")
    console.print(table)
