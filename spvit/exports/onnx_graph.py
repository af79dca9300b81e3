"""A float SPViT as an ONNX graph, by torch's exporter.

Enters: an `SPViT` in evaluation mode. Leaves: an `onnx.ModelProto` that holds its weights. Input `images`, float32,
normalised (mean and std are in the metadata); outputs as `forms.Decided`. Opset 18: what ONNX Runtime's mobile
builds know, too.
"""

from __future__ import annotations

import json
import logging
import warnings
from typing import Any

import torch
from torch import nn

from spvit.exports.forms import OUTPUTS, Gathered, Masked
from spvit.pruned_vit import SPViT

OPSET = 18
FORMS: dict[str, type[nn.Module]] = {"gathered": Gathered, "masked": Masked}
EXAMPLES = {"gathered": 1, "masked": 2}  # images; a batch of one would be taken for one for ever


def onnx_graph(net: SPViT, form: str) -> Any:
    """The model as a graph.

    form  "gathered": one image, tokens really removed; "masked": a batch, whose dropped tokens are masked
    """
    config = net.config
    example = torch.zeros(EXAMPLES[form], config.in_chans, config.img_size, config.img_size)
    shapes = None if form == "gathered" else ({0: torch.export.Dim("batch", min=1, max=4096)},)
    with quiet():
        program = torch.onnx.export(
            FORMS[form](net).eval(), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=["images"], output_names=list(OUTPUTS), dynamic_shapes=shapes,
        )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    describe(graph, net, form)
    return graph


def describe(graph: Any, net: SPViT, form: str) -> None:
    """Say in the graph's metadata what it is; leave out where in the sources each node comes from."""
    import onnx

    for node in graph.graph.node:
        del node.metadata_props[:]
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    config, pruning = net.config, net.pruning
    facts = {
        "model": config.name, "form": form, "mean": json.dumps(config.mean), "std": json.dumps(config.std),
        "img_size": str(config.img_size), "crop": str(config.crop), "locations": json.dumps(pruning.locations),
        "thresholds": json.dumps(net.thresholds.tolist()), "package": pruning.package,
    }  # fmt: skip
    onnx.helper.set_model_props(graph, facts)


class quiet(warnings.catch_warnings):  # noqa: N801  # used as a function
    """Without what the exporter says to those who write exporters."""

    def __enter__(self) -> Any:
        found = super().__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        return found

    def __exit__(self, *args: Any) -> None:
        logging.disable(self._level)
        super().__exit__(*args)
