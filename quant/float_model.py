"""The float model that a command's arguments ask for, where nothing is quantized.

Enters: a `ModelSpec`, the build's arguments. Leaves: an `SPViT` with its thresholds, and what it is.
"""

from __future__ import annotations

import torch

from quant.inputs import calibration_images
from quant.options import BuildOptions
from spvit.calibration import settle_thresholds
from spvit.checkpoint_options import checkpoint_options, threshold_request
from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import ModelSpec, shipped_weights
from spvit.images.preprocess import Preprocessing
from spvit.initialisation import seeded
from spvit.pruned_vit import SPViT


def float_model(spec: ModelSpec, args: BuildOptions) -> tuple[SPViT, str]:
    """The float model with the thresholds that it would have if it were quantized, and both in words."""
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
    return net.eval(), words
