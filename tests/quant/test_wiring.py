from dataclasses import replace

import pytest

from quant.network import activation_names, linear_shapes
from quant.wiring import Wire, stream_before, wiring
from spvit.config import resolve_model


@pytest.mark.parametrize("name", ["micro", "deit_digits", "deit_s", "deit_t_distilled"])
@pytest.mark.parametrize("share_heads", [True, False])
def test_every_layer_is_wired_to_activations_that_exist_and_none_is_left_over(name, share_heads):
    spec = resolve_model(name)
    pruning = replace(spec.pruning, share_heads=share_heads)
    wires, names = wiring(spec.model, pruning), set(activation_names(spec.model, pruning))
    assert list(wires) == list(linear_shapes(spec.model, pruning))
    ends = {end for wire in wires.values() for end in (wire.source, wire.result, wire.residual) if end is not None}
    assert ends <= names
    # what no linear layer touches is what attention makes by itself
    assert {name.rpartition(".")[2] for name in names - ends} == {"scores"}


def test_residuals_are_the_streams_before_them():
    spec = resolve_model("micro")
    wires = wiring(spec.model, spec.pruning)
    assert wires["patch_embed.proj"] == Wire("pixels", "patch_embed", "patch_embed")
    assert wires["blocks.0.attn.proj"].residual == stream_before(0) == "patch_embed"
    assert wires["blocks.2.attn.proj"] == Wire("blocks.2.attn.context", "blocks.2.attn.proj", "blocks.1.mlp.fc2")
    assert wires["blocks.2.mlp.fc2"] == Wire("blocks.2.mlp.fc1.gelu", "blocks.2.mlp.fc2", "blocks.2.attn.proj")
    assert wires["selectors.1.head_branch.fc1"].source == stream_before(2) == "blocks.1.mlp.fc2"
    assert [name for name, wire in wires.items() if wire.residual is not None and not name.startswith("blocks")] == [
        "patch_embed.proj"
    ]
