"""The top of the house: the flow as Python functions, and as the command `spvit`.

    from spvit_fpga import build, load_model, quantize

    net = load_model("deit_s", checkpoint="deit_small_patch16_224.pth")
    accelerator = build(quantize(net, images="photos"), target="zcu102")
    accelerator.csim("photos").mismatches
    accelerator.estimate().latency_ms
    accelerator.report()

The functions are imported when they are asked for: `make help` and the console's --help need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spvit.config import ModelConfig, ModelSpec, PruningConfig, resolve_model
    from spvit.errors import UserError
    from spvit_fpga.facade import (
        Accelerator,
        Model,
        QuantizedModel,
        build,
        draw_kept,
        load_images,
        load_model,
        quantize,
        train,
    )

PLACES = {
    "spvit.config": ("ModelConfig", "ModelSpec", "PruningConfig", "resolve_model"),
    "spvit.errors": ("UserError",),
    "spvit_fpga.facade": (
        "Accelerator",
        "Model",
        "QuantizedModel",
        "build",
        "draw_kept",
        "load_images",
        "load_model",
        "quantize",
        "train",
    ),
}

__all__ = [
    "Accelerator",
    "Model",
    "ModelConfig",
    "ModelSpec",
    "PruningConfig",
    "QuantizedModel",
    "UserError",
    "build",
    "draw_kept",
    "load_images",
    "load_model",
    "quantize",
    "resolve_model",
    "train",
]


def __getattr__(name: str) -> Any:
    for place, names in PLACES.items():
        if name in names:
            return getattr(import_module(place), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
