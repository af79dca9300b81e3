"""What a quantized network is made from: calibration images, and the digest of everything that decides the result.

Enters: a `ModelSpec` and the build's arguments. Leaves: images uint8 [N, S, S, chans], and `Inputs`. No torch here.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from quant.build import NETWORK_FOLDER, build_folder, model_spec
from quant.options import BuildOptions
from quant.widths import layer_widths, narrow
from spvit.checkpoint_options import CheckpointOptions, ThresholdRequest, checkpoint_options, threshold_request
from spvit.config import ModelSpec, shipped_weights
from spvit.cost import count_macs
from spvit.errors import CheckpointError
from spvit.files import check_writable, is_whole, read_json, write_json
from spvit.images.preprocess import Preprocessing
from spvit.images.sources import load_images

INPUTS_FILE = "inputs.json"
SEED = "seed"  # of random weights, in the place of a checkpoint's digest
ROOT = Path(__file__).parent.parent
CALIBRATION_MACS = 1.5e11  # as many images as some ten seconds of a laptop's core pay for, within:
MIN_IMAGES, MAX_IMAGES = 8, 256
CROP = 0.7  # side of the extra views of a photograph, as a fraction of the whole
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the quantized network.

    model, pruning  configuration
    weights         SHA-256 of the checkpoint and how it is read, or the seed
    thresholds      what was asked for
    calibration     SHA-256 of the pixels
    code            SHA-256 of the sources that read the above
    """

    model: str
    pruning: str
    weights: str
    thresholds: str
    calibration: str
    code: str

    def written_in(self, folder: Path) -> bool:
        """Whether the network in `folder` was made from these, and is as it was written."""
        return is_whole(folder) and read_json(folder / INPUTS_FILE, "remove the folder") == asdict(self)

    def write(self, folder: Path) -> None:
        write_json(folder / INPUTS_FILE, asdict(self))


def is_trained(folder: Path) -> bool:
    """Whether the network in `folder` was made from trained weights, not from seeded random ones."""
    return are_trained(str(read_json(folder / INPUTS_FILE, "make the network again").get("weights")))


def are_trained(weights: str) -> bool:
    """Of `Inputs.weights`."""
    return not weights.startswith(SEED)


@dataclass(frozen=True)
class Plan:
    """A quantization, decided but not begun.

    folder       where the network goes
    checkpoint   the weights; None: seeded random ones
    options      how they are read
    thresholds   which thresholds are asked for
    pixels       calibration images
    calibration  what they are, in words
    """

    spec: ModelSpec
    folder: Path
    checkpoint: Path | None
    options: CheckpointOptions
    thresholds: ThresholdRequest
    seed: int
    pixels: Pixels
    calibration: str

    @property
    def inputs(self) -> Inputs:
        return inputs_of(self.spec, weights_of(self.checkpoint, self.options, self.seed), self.thresholds, self.pixels)


def inputs_of(spec: ModelSpec, weights: str, thresholds: ThresholdRequest, pixels: Pixels) -> Inputs:
    """What decides the network that this model becomes now."""
    if widths := narrow(layer_widths(spec)):
        weights += f" rounded to {widths}"
    return Inputs(
        repr(spec.model), repr(spec.pruning), weights, repr(thresholds), _sha256(pixels.tobytes()), _code_digest()
    )


def weights_of(checkpoint: Path | None, options: CheckpointOptions, seed: int) -> str:
    """Which weights: a file's, and how it is read, or seeded ones."""
    return f"{SEED} {seed}" if checkpoint is None else " ".join((_sha256(checkpoint.read_bytes()), *options.parts))


def plan(args: BuildOptions) -> Plan:
    """Read the arguments and the calibration images. Raises ConfigError, FileError, CheckpointError, ImageError."""
    spec = model_spec(args)
    checkpoint = args.ckpt if args.ckpt is not None else shipped_weights(args.model)
    if checkpoint is not None and not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint}: there is no such file; give the path of a .pth, .pt or .safetensors file")
    thresholds = threshold_request(args, spec.pruning)
    check_writable(build_folder(args))
    pixels, calibration = calibration_images(spec, args.calib)
    folder = build_folder(args) / NETWORK_FOLDER
    return Plan(spec, folder, checkpoint, checkpoint_options(args), thresholds, args.seed, pixels, calibration)


def calibration_images(spec: ModelSpec, source: str | None) -> tuple[Pixels, str]:
    """Images to calibrate with, uint8 [N, S, S, chans], and what they are, in words.

    source  what `spvit.images.sources.load_images` takes. None: scikit-learn's handwritten digits for a model of grey
            images, else its two photographs, whole, in parts and mirrored.
    Evenly spaced ones are taken where there are more than the model's size allows.
    """
    preprocessing = Preprocessing.from_model(spec.model)
    budget = int(min(max(CALIBRATION_MACS / count_macs(spec.model, spec.pruning).total, MIN_IMAGES), MAX_IMAGES))
    if source is None and spec.model.in_chans != 1:
        pixels = views(load_images(None, preprocessing).pixels)[:budget]
        return pixels, f"{len(pixels)} views of the two bundled photographs (give your own images with CALIB=)"
    source = source or "digits:train"
    pixels = load_images(source, preprocessing).pixels
    chosen = np.unique(np.linspace(0, len(pixels) - 1, budget).round().astype(int))
    return pixels[chosen], f"{len(chosen)} of {len(pixels)} images of {source}"


def poverty(pixels: Pixels) -> str | None:
    """Why images [N, S, S, chans] teach nothing about a model's ranges, as a sentence; None: they may."""
    count = len(pixels)
    if (pixels == pixels[:, :1, :1]).all():
        which = "the one image is" if count == 1 else f"all {count} images are"
        what = f"{which} of a single colour"
    elif count > 1 and (pixels == pixels[:1]).all():
        what = f"all {count} images are the same"
    else:
        return None
    return (
        f"warning: calibration: {what}, so hardly a range of the model is seen, and what follows says little of other "
        "images; give CALIB= pictures like those that it will be given"
    )


def views(photographs: Pixels) -> Pixels:
    """Each photograph whole, its middle and its corners enlarged, and all of these mirrored: [12 N, S, S, chans]."""
    size = photographs.shape[1]
    crop = max(round(size * CROP), 1)
    far, middle = size - crop, (size - crop) // 2
    corners = [(middle, middle), (0, 0), (far, far), (0, far), (far, 0)]
    parts = [photographs]
    for top, left in corners:
        cut = photographs[:, top : top + crop, left : left + crop]
        parts.append(np.stack([_enlarge(image, size) for image in cut]))
    upright = np.concatenate(parts)
    return np.concatenate([upright, upright[:, :, ::-1]])


def _enlarge(image: Pixels, size: int) -> Pixels:
    channels = [
        np.asarray(Image.fromarray(image[..., channel]).resize((size, size), Image.Resampling.BICUBIC))
        for channel in range(image.shape[-1])
    ]
    return np.stack(channels, axis=-1)


@cache
def _code_digest() -> str:
    """Of the sources that turn inputs into a network."""
    files = sorted(path for room in ("quant", "spvit") for path in (ROOT / room).glob("*.py"))
    return _sha256(b"".join(path.name.encode() + b"\0" + path.read_bytes() for path in files))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
