"""A model for other tools: `spvit export --model deit_s --format onnx|qonnx|npz`.

Enters: the build's arguments (`quant.build`). Leaves, in `build/export/<model>` or OUT=:

    onnx    gathered.onnx, masked.onnx   the float model: one image with its tokens really removed; a batch, masked
    qonnx   qonnx.onnx                   the 16-bit network with Brevitas' quantizers, masked
    npz     network.npz                  the 16-bit network's integers and formats

The quantized network is `make hls`'s; it is made first where it is not there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from quant.build import build_folder, network_folder
from quant.exports.integers import to_npz
from quant.float_model import float_model
from quant.network import load_network
from quant.options import ExportOptions
from quant.quantize import ensure_network
from spvit.config import resolve_model
from spvit.console import Console, stage
from spvit.errors import BuildError, ConfigError
from spvit.exports.forms import refuse_what_has_no_graph
from spvit.files import check_writable, write_whole

ROOT = Path("build/export")
PACKAGES = {"onnx": ("onnx", "onnxscript"), "qonnx": ("onnx", "onnxoptimizer", "qonnx"), "npz": ()}
MOST_BYTES = 2**31  # what protobuf can hold


def require(packages: Sequence[str], wanted: str) -> None:
    """Raise BuildError for what is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise BuildError(
            f"{wanted} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed here; "
            "install requirements.txt, or delete .venv and let make install it"
        )


def export_folder(args: ExportOptions) -> Path:
    """Where the files go: OUT=, or a folder named as the build folder is, without the target."""
    if args.out is None:
        return ROOT / build_folder(replace(args, target="export")).name.replace("-export", "", 1)
    folder = Path(args.out)
    if folder.suffix in (".onnx", ".npz") or folder.is_file():
        raise ConfigError(f"OUT={folder}: is the folder that the files are put into; give a folder's name")
    return folder


def export(args: ExportOptions, folder: Path, console: Console) -> list[Path]:
    """Write the files of the format that is asked for; their paths."""
    spec = resolve_model(args.model, args.keep)
    if args.format == "onnx":
        from spvit.exports.onnx_graph import FORMS, onnx_graph

        refuse_what_has_no_graph(spec, args.model)
        net, source = float_model(spec, args)
        console.print(f"weights: {source}")
        return [_write(folder / f"{form}.onnx", partial(onnx_graph, net, form)) for form in FORMS]
    quantized = ExportOptions(**{**vars(args), "out": None})
    ensure_network(quantized, console)
    network = load_network(network_folder(quantized))
    if args.format == "npz":
        write_whole(folder / "network.npz", to_npz(network))
        return [folder / "network.npz"]
    from quant.exports.qonnx_graph import qonnx_graph

    return [_write(folder / "qonnx.onnx", partial(qonnx_graph, network))]


def _write(path: Path, make: Callable[[], Any]) -> Path:
    with stage(f"tracing {path.name}: up to a minute or two"):
        graph = make()
    if graph.ByteSize() >= MOST_BYTES:
        raise ConfigError(
            f"{path}: would have {graph.ByteSize():,} bytes, and ONNX files end at 2 GB; choose a smaller MODEL="
        )
    write_whole(path, graph.SerializeToString(deterministic=True))
    return path


def run(args: ExportOptions) -> int:
    console = Console()
    require(PACKAGES[args.format], f"FORMAT={args.format}")
    folder = export_folder(args)
    check_writable(folder)
    for path in export(args, folder, console):
        console.print(f"{path}: {path.stat().st_size / 1e6:.3g} MB")
    return 0
