"""The 16-bit network as QONNX: Brevitas' quantizers as `Quant` nodes, the accelerator's table functions between them.

Enters: a `QuantizedNetwork`. Leaves: an `onnx.ModelProto` with static shapes, whose logits are the golden's for every
image: dropped tokens are masked in place of removed, which changes no integer of those that live. Input `pixels`,
float64 [1, S, S, chans], whole numbers 0..255; outputs `logits` float64 [1, classes], `keep` [1, selectors, N].
All is computed in float64, where the products of 16-bit integers are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quant import straight_through as st
from quant.dataflow import Arithmetic, attention, cut_patches, decide, mlp
from quant.export import from_network
from quant.model import QuantizedSPViT
from quant.network import QuantizedNetwork, activation_names
from quant.wiring import stream_before
from spvit.exports.onnx_graph import quiet

OPSET = 17


@dataclass
class Layers(Arithmetic):
    """Arithmetic whose linear layers are Brevitas' modules, which know how to export themselves."""

    net: QuantizedSPViT | None = None
    formats: Mapping[str, int] = field(default_factory=dict)  # known, so that no exporter has to watch them being read

    def frac_bits(self, name: str) -> int:
        return self.formats[name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        assert self.net is not None
        return self.net.linear(name)(x)


class MaskedIntegers(nn.Module):
    """`quant.dataflow.run_image` with dropped tokens masked, so that no shape follows the image."""

    def __init__(self, network: QuantizedNetwork) -> None:
        super().__init__()
        self.net, self.formats = from_network(network), dict(network.frac_bits)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [1, S, S, chans] in float64 to logits [1, classes] and decisions [1, selectors, N]."""
        net, model, pruning = self.net, self.net.model, self.net.pruning
        roundings = {name: net.activation(name) for name in activation_names(model, pruning)}
        a = Layers({}, net.position, net.thresholds, roundings, net=net, formats=self.formats)
        prefix = model.num_prefix_tokens
        position = a.roundings["patch_embed"](a.position)
        patches = a.round("pixels", cut_patches(pixels[0], model.patch_size))
        branch = a.linear("patch_embed.proj", patches)
        x = a.round("patch_embed", torch.cat([position[:prefix], branch + position[prefix:]]))  # (T, C)
        alive = torch.ones(model.num_tokens, dtype=torch.bool)
        keeps = list[Tensor]()
        for block in range(model.depth):
            if block in pruning.locations:
                x, alive = self._prune(a, len(keeps), x, alive)
                keeps.append(alive[prefix : prefix + model.num_patches].to(x.dtype))
            x = mlp(model, a, block, attention(model, a, block, x, alive))
        rows = st.layer_norm(x[:prefix], a.frac_bits(stream_before(model.depth)), model.layer_norm_eps)
        logits = a.round("head", a.linear("head", a.round("norm", rows).reshape(1, -1)))
        decisions = torch.stack(keeps)[None] if keeps else logits.new_zeros(1, 0, model.num_patches)
        return logits, decisions

    def _prune(self, a: Arithmetic, index: int, x: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (T, C) and which are alive (T), with the package behind them."""
        model, pruning = self.net.model, self.net.pruning
        prefix, singles = model.num_prefix_tokens, model.num_tokens
        patches, candidates = x[prefix:singles], alive[prefix:singles]
        keep, probability = decide(model, pruning, a, index, patches, candidates)
        dropped = candidates & ~keep
        alive = torch.cat([alive[:prefix], candidates & keep, alive[singles:]])
        if pruning.package == "none":
            return x, alive
        frac_bits = a.frac_bits(stream_before(pruning.locations[index]))
        package = st.package_token(patches, probability * dropped, frac_bits)[None]
        exists = dropped.any()[None]
        if pruning.package == "add" and len(x) > singles:
            package = st.add_packages(x[singles:] * alive[singles:, None], package, frac_bits)
            return torch.cat([x[:singles], package]), torch.cat([alive[:singles], alive[singles:] | exists])
        return torch.cat([x, package]), torch.cat([alive, exists])


@torch.no_grad()
def qonnx_graph(network: QuantizedNetwork) -> Any:
    """The network as a graph, by Brevitas' exporter."""
    model = network.model
    net = MaskedIntegers(network).eval()
    example = torch.zeros(1, model.img_size, model.img_size, model.in_chans, dtype=torch.float64)
    net(example)  # the functions' tables are made, before the exporter watches
    with quiet():
        from brevitas.export import export_qonnx  # it warns while it is imported

        graph = export_qonnx(
            net, args=(example,), opset_version=OPSET, dynamo=False,  # torch.export takes ten times as long over it
            input_names=["pixels"], output_names=["logits", "keep"],
        )  # fmt: skip
    _widen_quantizers(graph)
    return graph


def _widen_quantizers(graph: Any) -> None:
    """A cast to float64 behind each Quant node: qonnx has them answer in float32, which holds 16 bits exactly."""
    import onnx

    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    for node in nodes:
        graph.graph.node.append(node)
        if node.op_type == "Quant":
            name = node.output[0]
            graph.graph.node[-1].output[0] = f"{name}_float32"
            graph.graph.node.append(
                onnx.helper.make_node("Cast", [f"{name}_float32"], [name], to=onnx.TensorProto.DOUBLE)
            )
