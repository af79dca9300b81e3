"""The graphs in ONNX Runtime: PyTorch's decisions and logits, for every number of tokens that is left."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from spvit.config import PruningConfig
from spvit.exports.onnx_graph import onnx_graph
from spvit.initialisation import seeded
from tests.spvit.exports.test_forms import images, make_net
from tests.spvit.test_backbones import LVVIT, PIT

TOLERANCE = 1e-5


def session(graph):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(graph.SerializeToString(), options)


@torch.no_grad()
def check(run, net, batch):
    logits, keep, num_tokens = run.run(None, {"images": batch.numpy()})
    expected = net.forward_gathered(batch)
    assert np.abs(logits - expected.logits.numpy()).max() <= TOLERANCE
    for stage, record in enumerate(expected.records):
        assert np.array_equal(keep[:, stage, : record.keep.shape[1]], record.keep.numpy())
        assert np.array_equal(num_tokens[:, stage], record.num_tokens.numpy())
    return num_tokens


def marked_net(**variant):
    """Its thresholds are numbers that stand nowhere else, so that a graph of it can be given others."""
    net = make_net(**variant)
    net.thresholds.copy_(torch.tensor([0.5013, 0.5017, 0.5019]))
    return net


def retuned(graph, net, threshold):
    """The same graph with other thresholds, each of which is one of its initializers."""
    values = [np.float32(value) for value in net.thresholds.tolist()]
    places = [
        i
        for i, one in enumerate(graph.graph.initializer)
        if one.data_type == onnx.TensorProto.FLOAT and not one.dims and onnx.numpy_helper.to_array(one) in values
    ]
    assert len(places) == len(values)
    net.thresholds.fill_(threshold)
    for place in places:
        name = graph.graph.initializer[place].name
        graph.graph.initializer[place].CopyFrom(onnx.numpy_helper.from_array(np.array(threshold, np.float32), name))
    return session(graph)


@pytest.mark.parametrize("variant", [{}, {"package": "add", "distilled": True}, {"package": "none"}], ids=str)
def test_gathered(variant):
    net = marked_net(**variant)
    graph = onnx_graph(net, "gathered")
    run, counts = session(graph), set()
    for seed in range(3):
        for image in images(2, seed).split(1):
            counts.add(tuple(check(run, net, image)[0]))
    assert len(counts) > 2  # the shapes really follow the image
    marks = net.thresholds.clone()
    for threshold in (0.0, 2.0):
        net.thresholds.copy_(marks)
        other = type(graph).FromString(graph.SerializeToString())
        check(retuned(other, net, threshold), net, images(1))
    onnx.checker.check_model(graph)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["gathered", "masked"])
@pytest.mark.parametrize(("model", "locations"), [(LVVIT, (1, 2)), (PIT, (1, 2, 4))], ids=["lvvit", "pit"])
def test_other_backbones(model, locations, form):
    net = seeded(model, PruningConfig(locations, keep=(0.7, 0.5, 0.3)[: len(locations)]))
    net.thresholds.copy_(torch.tensor([0.5013, 0.5017, 0.5019])[: len(locations)])
    graph, counts = onnx_graph(net, form), set()
    run = session(graph)
    for seed in range(2):
        batch = images(2, seed, model.img_size)
        for part in [batch] if form == "masked" else batch.split(1):
            counts |= {tuple(row) for row in check(run, net, part).tolist()}
    assert len(counts) > 1
    marks = net.thresholds.clone()
    for threshold in (0.0, 2.0):
        net.thresholds.copy_(marks)
        other = type(graph).FromString(graph.SerializeToString())
        check(retuned(other, net, threshold), net, images(1, size=model.img_size))


def test_masked_takes_any_batch():
    net = marked_net()
    graph = onnx_graph(net, "masked")
    run = session(graph)
    for count in (1, 2, 5):
        check(run, net, images(count, seed=count))
    marks = net.thresholds.clone()
    for threshold in (0.0, 2.0):
        net.thresholds.copy_(marks)
        other = type(graph).FromString(graph.SerializeToString())
        check(retuned(other, net, threshold), net, images(2))


def test_the_mobile_format_runs_it(tmp_path):
    """ONNX Runtime's own format, the one that its mobile builds load."""
    net = make_net()
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.optimized_model_filepath = 3, str(tmp_path / "gathered.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    graph = onnx_graph(net, "gathered")
    assert [(one.domain, one.version) for one in graph.opset_import] == [("", 18)]
    onnxruntime.InferenceSession(graph.SerializeToString(), options)
    run = onnxruntime.InferenceSession(str(tmp_path / "gathered.ort"))
    for image in images(2, seed=4).split(1):
        check(run, net, image)
