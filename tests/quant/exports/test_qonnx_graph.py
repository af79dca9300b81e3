"""The QONNX graph, executed by qonnx: the golden's integers, for every number of tokens."""

from dataclasses import replace

import array_api_compat.numpy as arrays
import numpy as np
import pytest
import torch

from hw.program import build_program
from quant.exports.qonnx_graph import MaskedIntegers, qonnx_graph
from sim.golden import Golden
from tests.quant.conftest import make_stages

NONE, ALL = 1 << 23, 0  # thresholds that no probability reaches, and that each does


def golden(network, pixels):
    """Logits as integers [N, classes], and patches kept [selectors][N]."""
    result = Golden(network, build_program(network), arrays).run(pixels.numpy())
    return result.logits, result.kept


def decide_all(network, threshold):
    return replace(network, thresholds=tuple(threshold for _ in network.thresholds))


@pytest.mark.parametrize("threshold", [None, ALL, NONE], ids=["some", "all", "none"])
@pytest.mark.parametrize(
    "variant",
    [{}, {"distilled": True, "package": "add"}, {"package": "none"}, {"share_heads": False, "features": "single"}],
    ids=str,
)
def test_masked_integers_are_the_goldens(variant, threshold):
    stages = make_stages(**variant)
    network = stages.network if threshold is None else decide_all(stages.network, threshold)
    masked, pixels = MaskedIntegers(network), stages.pixels[:4]
    logits, kept = golden(network, pixels)
    for i, image in enumerate(pixels):
        with torch.no_grad():
            found, keep = masked(image[None].double())
        assert np.array_equal(found[0].numpy() * 2.0 ** network.frac_bits["head"], logits[i])
        assert keep[0].sum(dim=1).tolist() == [stage[i] for stage in kept]


SMALL = {"depth": 2, "locations": (1,), "keep": (0.6,)}  # qonnx takes minutes over a thousand nodes


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore:\s*Output shapes disagree")  # of what is a shape itself, and known late
@pytest.mark.parametrize("variant", [SMALL, {**SMALL, "distilled": True, "package": "none"}], ids=str)
def test_qonnx_executes_it_equal_to_the_golden(variant):
    stages = make_stages(**variant)
    graph, network = qonnx_graph(stages.network), stages.network
    logits, kept = golden(network, stages.pixels[:2])
    for i, (found, keep) in enumerate(execute(graph, stages.pixels[:2])):
        assert np.array_equal(found[0] * 2.0 ** network.frac_bits["head"], logits[i])
        assert keep[0].sum(axis=1).tolist() == [stage[i] for stage in kept]
    quantizers = [node for node in graph.graph.node if node.op_type == "Quant"]
    assert {node.domain for node in quantizers} == {"qonnx.custom_op.general"}
    assert len(quantizers) >= 2 * len(network.linears)  # each weight, each bias, and activations


def execute(graph, pixels):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    model = ModelWrapper(graph).transform(InferShapes())
    for image in pixels:
        result = execute_onnx(model, {"pixels": image[None].double().numpy()})
        yield result["logits"], result["keep"]
