"""What stands in a checkpoint's file, read without running pickled code.

Enters: the path of a torch file (.pth, .pth.tar, .pt, .bin, .ckpt, .state) or a .safetensors file. Leaves: its content
as it was saved, and a safetensors file's metadata. A torch file is a zip whose entries carry checksums; torch does not
look at them, so they are looked at here.
"""

import argparse
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from spvit.errors import CheckpointError
from spvit.files import opened

TORCH_SUFFIXES = (".pth", ".tar", ".pt", ".bin", ".ckpt")
SUFFIXES = ".pth, .pth.tar, .pt, .bin, .ckpt or .safetensors"
# What training scripts keep beside the weights: command lines, paths, metrics as numpy's numbers. They hold data only;
# a path from another system is never opened.
DATA_TYPES: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in np.typecodes["AllFloat"] + np.typecodes["AllInteger"] + "?"},
    *((getattr(np.core.multiarray, maker), f"numpy.{core}.multiarray.{maker}") for core in ("core", "_core")
      for maker in ("scalar", "_reconstruct")),
    *((pathlib.PurePosixPath, f"{module}.{name}") for module in ("pathlib", "pathlib._local")
      for name in ("PosixPath", "PurePosixPath")),
    *((pathlib.PureWindowsPath, f"{module}.{name}") for module in ("pathlib", "pathlib._local")
      for name in ("WindowsPath", "PureWindowsPath")),
]  # fmt: skip
READING_FAILED = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,  # of torch, about the file
    MemoryError,
    RecursionError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
IN_ITS_PLACE = (  # what people have in place of the file that they fetched
    (rb"version https://git-lfs", "it is a Git LFS pointer; git lfs pull fetches the file itself"),
    (rb"\s*<(!doctype|html|\?xml)", "it is a web page, such as a download's error or question"),
    (rb"\s*\{", "it is JSON, such as a server's error or an index of parts"),
    (rb"\x1f\x8b", "it is packed by gzip; unpack it"),
    (rb"\x93NUMPY", "it is a numpy array"),
)


def read_checkpoint(path: Path) -> tuple[Mapping[Any, Any], Mapping[str, str]]:
    """The file's content and a safetensors file's metadata. Raises CheckpointError."""
    start = _start_of(path)
    suffix = path.suffix.lower()
    if suffix not in (*TORCH_SUFFIXES, ".safetensors"):
        raise CheckpointError(f"{path}: checkpoints end with {SUFFIXES}, not {path.suffix or 'no suffix'}")
    broken = f"{path}: not a checkpoint, or cut short; fetch or save it again"
    if suffix == ".safetensors" or _is_safetensors(start):
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, *READING_FAILED) as error:
            raise CheckpointError(f"{broken} ({_in_its_place(start) or _first_line(error)})") from None
    content = read_torch(path, broken)
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__} in place of a state dict; save net.state_dict()"
        )
    return content, {}


def read_torch(path: Path, broken: str, way_out: str = "choose another") -> Any:
    """What torch.save wrote. Raises CheckpointError: `broken` where it is not that, or not any more.

    way_out  what to do where there is no such file
    """
    start = _start_of(path, way_out)
    if start.startswith(b"PK\x03\x04"):
        damaged = _damaged_entry(path, broken)
        if damaged is not None:
            raise CheckpointError(f"{broken} (the checksum of {damaged} in it is wrong)")
    try:
        with torch.serialization.safe_globals(DATA_TYPES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle's age; what cannot be read is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            raise CheckpointError(
                f"{path}: holds pickled code ({code[1]}), which is never run; "
                "load it where you trust it and save the weights alone, with torch.save(net.state_dict(), ...)"
            ) from None
    except READING_FAILED:
        pass
    known = _in_its_place(start)
    raise CheckpointError(f"{broken} ({known})" if known else broken)


def _damaged_entry(path: Path, broken: str) -> str | None:
    """The first entry of the zip whose checksum is wrong; None: all are right, or it was written without."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(re.search(r"/(code/__torch__|constants\.pkl)", entry.filename) for entry in entries):
                raise CheckpointError(f"{broken} (it is TorchScript, a program; save the weights, net.state_dict())")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):  # torch never packs
                raise CheckpointError(broken)
            if not any(entry.CRC for entry in entries):  # torch.serialization.set_crc32_options(False)
                return None
            return archive.testzip()
    except READING_FAILED:
        raise CheckpointError(broken) from None


def _start_of(path: Path, way_out: str = "give the path of a .pth, .pt or .safetensors checkpoint") -> bytes:
    with opened(path, way_out, CheckpointError) as file:
        return file.read(64)


def _is_safetensors(start: bytes) -> bool:
    """A header's length, little-endian in eight bytes, and its JSON."""
    return start[8:9] == b"{" and start[6:8] == b"\0\0"


def _in_its_place(start: bytes) -> str:
    return next((what for pattern, what in IN_ITS_PLACE if re.match(pattern, start, re.IGNORECASE)), "")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
