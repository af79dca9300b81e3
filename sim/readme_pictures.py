"""The README's pictures, made by what they show: `spvit pictures`.

Enters: the build's options; quantizes first where that is needed. Leaves, in `docs/`: `kept_tokens.jpg`, which patches
of the two photographs each selector keeps, and `report.png`, the head of the build's report. Random weights are said
on both. The second takes Chromium, and playwright of requirements-dev.in.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from PIL import Image

from hw.options import ClockedOptions
from quant.build import build_folder, network_folder
from quant.quantize import ensure_network
from sim.report.evidence import RANDOM, describe_weights
from sim.report.page import REPORT
from sim.report.page import run as write_report
from spvit.checkpoints import load_checkpoint
from spvit.config import resolve_model
from spvit.console import Console, stage
from spvit.cost import tokens_per_stage
from spvit.errors import BuildError
from spvit.files import write_whole
from spvit.images.drawing import veil_dropped
from spvit.images.preprocess import Pixels, Preprocessing
from spvit.images.sources import load_images
from spvit.pruned_vit import SPViT

FOLDER = Path("docs")
KEPT, SCREENSHOT = "kept_tokens.jpg", "report.png"
MOST_BYTES = 150_000  # of a committed picture
WIDTH, HEIGHT = 1080, 570  # pixels of the window
RED = "#b2182b"


@torch.no_grad()
def kept_tokens(net: SPViT, pixels: Pixels, weights: str) -> bytes:
    """A JPEG: for each image [N, S, S, 3] a row, the image and what is kept after each selector."""
    images = torch.from_numpy(Preprocessing.from_model(net.config).normalise(pixels)).float()
    columns = 1 + net.pruning.num_selectors
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(1.9 * columns, 2.05 * len(pixels) + 0.4), layout="constrained")
        grid = figure.subplots(len(pixels), columns, squeeze=False)
        for axes, image, colours in zip(grid, images, pixels, strict=True):
            output = net.forward_gathered(image[None])
            kept = [record.keep[0].nonzero()[:, 0].numpy() for record in output.records]
            first, *rows = tokens_per_stage(net.config, net.pruning, [len(patches) for patches in kept])
            axes[0].imshow(colours)
            axes[0].set_title(f"{first:.0f} tokens")
            for axis, location, patches, left in zip(axes[1:], net.pruning.locations, kept, rows, strict=True):
                axis.imshow(veil_dropped(colours, patches, net.config.patch_size))
                axis.set_title(f"{left:.0f} from block {location}")
        for axis in grid.flat:
            axis.axis("off")
        untrained = ": says nothing of a trained model" if weights.startswith(RANDOM) else ""
        figure.suptitle(f"{net.config.name}, {weights}{untrained}", color=RED if untrained else "black", fontsize=10)
        drawn = io.BytesIO()
        figure.savefig(drawn, dpi=110, format="jpg", pil_kwargs={"quality": 85, "optimize": True})
    return drawn.getvalue()


def screenshot(page: Path) -> bytes:
    """The head of a page at a desk, as a PNG of 256 colours. Raises BuildError where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        browser = None
    if browser is None:
        raise BuildError(f"{SCREENSHOT} takes Chromium and playwright; install them, as .ci/install-tools does")
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        opened = started.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        opened.goto(page.resolve().as_uri())
        shot = opened.screenshot()
        started.close()
    small, picture = io.BytesIO(), Image.open(io.BytesIO(shot)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return small.getvalue()


def run(args: ClockedOptions) -> None:
    console = Console()
    spec = resolve_model(args.model, args.keep)
    ensure_network(args, console)
    folder = build_folder(args)
    weights = describe_weights(folder) or ""
    net = load_checkpoint(network_folder(args) / "float.safetensors", spec.model, spec.pruning)
    write_report(args)
    with stage("drawing"):
        images = load_images(None, Preprocessing.from_model(spec.model))
        pictures = {KEPT: kept_tokens(net.eval(), images.pixels, weights), SCREENSHOT: screenshot(folder / REPORT)}
    for name, content in pictures.items():
        if len(content) > MOST_BYTES:
            raise BuildError(
                f"{FOLDER / name}: would have {len(content):,} bytes; at most {MOST_BYTES:,} are committed"
            )
        write_whole(FOLDER / name, content)
        console.print(f"{FOLDER / name}: {len(content) / 1e3:.0f} kB")
