from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from quant.export import to_network
from quant.model import QuantizedSPViT
from quant.network import activation_names
from tests.quant.conftest import Stages, make_stages
from tests.quant.integers import Golden

VARIANTS = [
    {},
    {"distilled": True},
    {"package": "add"},
    {"package": "none"},
    {"share_heads": False, "features": "single"},
]


def taps_of(net: QuantizedSPViT, pixels: Tensor) -> tuple[Tensor, list[dict[str, Tensor]]]:
    taps: list[dict[str, Tensor]] = []
    with torch.no_grad():
        return net(pixels, taps), taps


def check_against_integers(net: QuantizedSPViT, pixels: Tensor) -> list[dict[str, Tensor]]:
    network = to_network(net)
    logits, taps = taps_of(net, pixels)
    for index, got in enumerate(taps):
        expected = Golden(network, pixels[index].numpy()).taps
        assert got.keys() == expected.keys()
        for name, integers in expected.items():
            assert np.array_equal(got[name].numpy(), integers), f"image {index}: {name}"
        assert np.array_equal(logits[index].numpy(), expected["head"][0] * 2.0 ** -network.frac_bits["head"])
    return taps


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_tap_equals_integer_arithmetic(variant):
    stages = make_stages(**variant)
    taps = check_against_integers(stages.quantized, stages.pixels[:4])
    seen = set().union(*taps)  # images that have nothing left to select from skip their later selectors
    assert set(activation_names(stages.network.model, stages.network.pruning)) <= seen


@pytest.mark.parametrize(
    ("thresholds", "tokens"),
    [
        ((1.0, 0.5, 0.5), [2, None, None]),  # all dropped: a package joins the class token, nothing is left to select
        ((2.0**-16, 1.0, 0.5), [17, 2, None]),
        ((2.0**-16, 2.0**-16, 2.0**-16), [17, 17, 17]),  # nothing dropped: no package
    ],
    ids=["all dropped at once", "all dropped later", "nothing dropped"],
)
def test_extreme_decisions_equal_integer_arithmetic(micro, thresholds, tokens):
    net = QuantizedSPViT(replace(micro.folded, thresholds=thresholds), micro.formats)
    for taps in check_against_integers(net, micro.pixels[:2]):
        left = [taps.get(f"selectors.{index}.x") for index in range(3)]
        assert [None if x is None else len(x) for x in left] == tokens


def test_saturating_tensors_equal_integer_arithmetic(micro):
    """Formats four bits too fine: everything overflows, and by the same rule."""
    finer = {name: bits + 4 if name.startswith("blocks.") else bits for name, bits in micro.formats.activations.items()}
    finer |= {name: micro.formats.activations[name] for name in finer if name.endswith((".scores", ".fc1", ".gelu"))}
    net = QuantizedSPViT(micro.folded, replace(micro.formats, activations=finer))
    taps = check_against_integers(net, micro.pixels[:2])
    assert any((taps[0][name] == 32767).any() for name in finer)


def test_images_lose_different_numbers_of_tokens(micro):
    _, taps = taps_of(micro.quantized, micro.pixels)
    assert len({len(image["selectors.0.x"]) for image in taps}) > 2


def test_an_image_does_not_depend_on_its_neighbours(micro):
    with torch.no_grad():
        together = micro.quantized(micro.pixels[:3])
        alone = torch.cat([micro.quantized(image[None]) for image in micro.pixels[:3]])
    assert torch.equal(together, alone)


def trainable_copy(stages: Stages) -> QuantizedSPViT:
    net = QuantizedSPViT(stages.folded, stages.formats)
    return net.train()


def test_gradients_reach_every_weight_and_leave_the_formats_alone(micro):
    net = trainable_copy(micro)
    labels = torch.arange(4) % net.model.num_classes
    torch.nn.functional.cross_entropy(net(micro.pixels[:4]), labels).backward()
    for name, parameter in net.named_parameters():
        if name.endswith("scaling_impl.value"):
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    # the keys' bias shifts all scores of a row alike, and nothing else is without effect
    dead = {name for name, p in net.named_parameters() if p.grad is not None and not p.grad.abs().max() > 1e-12}
    assert dead == set(), dead


def test_gradients_are_those_of_the_float_network_nearly(micro):
    from quant.calibrate import float_arithmetic
    from quant.dataflow import run_image

    net = trainable_copy(micro)
    image = micro.pixels[0]
    net(image[None])[0, 0].backward()
    weight = micro.folded.linears["blocks.2.mlp.fc1"].weight.clone().requires_grad_()
    arithmetic = float_arithmetic(micro.folded)
    arithmetic.parameters = {
        **arithmetic.parameters,
        "blocks.2.mlp.fc1": (weight, micro.folded.linears["blocks.2.mlp.fc1"].bias),
    }
    run_image(micro.folded.model, micro.folded.pruning, arithmetic, image)[0].backward()
    got, expected = net.linear("blocks.2.mlp.fc1").layer.weight.grad, weight.grad
    assert (got - expected).abs().max() <= 0.02 * expected.abs().max()


def test_a_training_step_lowers_the_loss_and_the_result_is_still_exact(micro):
    net = trainable_copy(micro)
    pixels, labels = micro.pixels[:4], torch.tensor([1, 2, 3, 4])
    net.linear("patch_embed.proj").requires_grad_(False)  # its inputs are raw pixels
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(net(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert to_network(net).digest != micro.network.digest
    check_against_integers(net.eval(), pixels[:1])


def test_a_trained_state_reloads_bit_for_bit(micro, tmp_path):
    net = trainable_copy(micro)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.01)
    torch.save(net.state_dict(), tmp_path / "state.pth")
    other = QuantizedSPViT(micro.folded, micro.formats)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert to_network(other).digest == to_network(net).digest
