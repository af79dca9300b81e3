"""What the hardware's commands can be asked: one dataclass each, whose fields are their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from quant.options import BuildOptions
from spvit.command import option
from spvit.schema import Choice, Number

CLOCK_MHZ = Number(1, 1000)
UNITS = {
    "msa_block": "Multi-head self-attention of one block",
    "mlp_block": "The MLP of one block",
    "token_selector": "One token selector",
    "token_packager": "One token packager",
}
"""Kernels that are tops of their own."""
TOP = "one unit alone, as a top of its own (default: all of the accelerator)"
IMAGES = "a folder, an image, or digits:test (default: two photographs, or digits for grey models)"
CHECK = "only refuse what can't be done, before the long work"


@dataclass(frozen=True, kw_only=True)
class HlsOptions(BuildOptions):
    check: bool = option(CHECK, False)


@dataclass(frozen=True, kw_only=True)
class ClockedOptions(BuildOptions):
    clock: Annotated[float | None, CLOCK_MHZ] = option("MHz of the accelerator (default: the target's)", None, "MHZ")


@dataclass(frozen=True, kw_only=True)
class EstimateOptions(ClockedOptions):
    kept: str | None = option(
        "patches that an image has left after each selector: 123,78,49 (default: as the keep ratios say)", None, "N,N,N"
    )


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions(ClockedOptions):
    top: Annotated[str | None, Choice(*sorted(UNITS))] = option(TOP, None)


@dataclass(frozen=True, kw_only=True)
class ExploreOptions(ClockedOptions):
    latency_ms: Annotated[float | None, Number(0, 1_000_000, above=True)] = option(
        "what an image may take: also find the keep ratios with which it takes no longer", None, "MS"
    )


@dataclass(frozen=True, kw_only=True)
class VendorOptions(BuildOptions):
    top: Annotated[str | None, Choice(*sorted(UNITS))] = option(TOP, None)
    images: str | None = option(IMAGES, None, "FOLDER")
    hls: str | None = option("which form of Vitis HLS: vitis-run, v++ or vitis_hls (default: the first found)", None)
    check: bool = option(CHECK, False)
