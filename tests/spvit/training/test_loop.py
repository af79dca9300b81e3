"""The loop: it learns, it goes on exactly where it was left, and it stops when the loss is no number any more."""

import math
import re
from dataclasses import replace

import pytest
import torch

from spvit.errors import TrainingError
from spvit.initialisation import seeded
from spvit.training.backbone import Classification
from spvit.training.loop import Fitting, Group, Phase, fit
from spvit.training.pruning import Pruning
from spvit.training.state import Journal
from tests.spvit.training.tiny import RECIPE, SPEC, few_digits, make_run


class StopHereError(Exception):
    pass


def backbone_phase(epochs=2, frozen=0, seed=0):
    net = seeded(SPEC.model, SPEC.pruning.without(), seed)
    named = list(net.named_parameters())
    groups = [Group(named[:5], 1e-3, frozen), Group(named[5:], 2e-3)]
    return Phase("backbone", net, groups, epochs, Classification())


def pruning_phase(recipe=RECIPE, epochs=2):
    net, teacher = seeded(SPEC.model, SPEC.pruning), seeded(SPEC.model, SPEC.pruning.without())
    return Phase(
        "selectors",
        net,
        [Group(list(net.named_parameters()), 2e-3)],
        epochs,
        Pruning(teacher, SPEC.pruning.keep, recipe),
    )


def weights_equal(net, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in net.state_dict().items())


def test_it_learns():
    losses = []
    phase = backbone_phase(epochs=8)
    fit(phase, make_run(watch=lambda name, step, loss: losses.append(loss)))
    assert len(losses) == 8 * 4
    assert sum(losses[-4:]) < sum(losses[:4]) - 0.5
    assert not phase.net.training


@pytest.mark.parametrize("make_phase", [backbone_phase, pruning_phase])
@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"save_steps": 3}])
def test_a_resumed_training_has_the_same_losses_and_weights(tmp_path, make_phase, changes):
    recipe = replace(RECIPE, **changes)
    data = few_digits()
    whole: list[float] = []
    expected = make_phase()
    fit(expected, make_run(recipe, data, watch=lambda name, step, loss: whole.append(loss)))

    parts: list[float] = []

    def interrupt(name, step, loss):
        if step == 7:
            raise StopHereError
        parts.append(loss)

    journal = Journal(tmp_path / "weights.state", {})
    with pytest.raises(StopHereError):
        fit(make_phase(), make_run(recipe, data, journal, interrupt))
    saved = journal.progress_of(expected.name)["step"]
    assert saved == (6 if "save_steps" in changes else 4)
    del parts[saved:]  # what was done after the last save is done again
    resumed = make_phase()
    run = make_run(recipe, data, Journal.resume(journal.path, {}), lambda name, step, loss: parts.append(loss))
    fit(resumed, run)
    assert parts == whole
    assert weights_equal(resumed.net, expected.net)


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}])
def test_looks_at_the_test_images_change_nothing(told, changes):
    expected, seen = pruning_phase(epochs=3), pruning_phase(epochs=3)
    data = few_digits(64)
    fit(expected, make_run(replace(RECIPE, test_epochs=0, **changes), data))
    assert told() == ""
    fit(seen, make_run(replace(RECIPE, test_epochs=2, **changes), data))
    assert re.fullmatch(
        r"selectors: \d+\.\d\d% of the test images right after epoch 2 of 3, thresholds not yet calibrated\n",
        told(),
    )
    assert weights_equal(seen.net, expected.net)


@pytest.fixture
def told(capsys):
    """What was written since the last call, without progress bars."""
    return lambda: "".join(re.findall(r"\w+: [^\r\n]*test images[^\r\n]*\n", capsys.readouterr().err))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_the_last_good_state_stays(tmp_path, poison):
    class Poisoned(Classification):
        steps = 0

        def loss(self, model, images, targets):
            self.steps += 1
            return super().loss(model, images, targets) * (poison if self.steps == 6 else 1)

    journal = Journal(tmp_path / "weights.state", {})
    phase = replace(backbone_phase(), objective=Poisoned())
    with pytest.raises(TrainingError) as stopped:
        fit(phase, make_run(journal=journal))
    assert str(stopped.value) == (
        f"backbone: the loss became {poison} in step 6; its state after step 4 is in {journal.path}. Go on with "
        'lower rates or gradient_norm, or with precision = "float32"'
    )
    again = Journal.resume(journal.path, {})
    good = again.progress_of("backbone")
    assert good["step"] == 4
    assert all(value.isfinite().all() for value in good["net"].values())
    slower = [replace(group, rate=group.rate / 10) for group in phase.groups]
    fitting = Fitting(replace(backbone_phase(), groups=slower), make_run(journal=again))
    assert fitting.step == 4
    rates = {group["lr"] for group in fitting.optimizer.param_groups}
    assert rates == {rate * fitting._factor(0)(4) for rate in (1e-4, 2e-4)}


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights():
    class Cliff(Classification):
        def loss(self, model, images, targets):
            loss = super().loss(model, images, targets)
            return loss + 0 * (loss - loss.detach()).sqrt()  # 0, whose slope is infinite

    phase = replace(backbone_phase(), objective=Cliff())
    with pytest.raises(TrainingError, match=r"^backbone: the gradient became nan in step 1; none of it was saved\. "):
        fit(phase, make_run())
    assert weights_equal(phase.net, backbone_phase().net)


def test_rates_warm_up_fall_to_zero_and_wait_while_frozen():
    phase = backbone_phase(epochs=10, frozen=3)
    fitting = Fitting(phase, make_run(replace(RECIPE, warm_up=0.1)))
    assert (fitting.steps, fitting.steps_per_epoch) == (40, 4)
    free, frozen = fitting._factor(0), fitting._factor(3)
    assert [free(step) for step in range(4)] == [0.25, 0.5, 0.75, pytest.approx(0.986, abs=1e-3)]
    assert free(20) == frozen(20) == pytest.approx(0.5)
    assert frozen(11) == 0 < frozen(12) and free(40) == 0
    before = {name: value.clone() for name, value in phase.net.state_dict().items()}
    fit(replace(phase, epochs=1), make_run())
    still = {name for name, value in phase.net.state_dict().items() if torch.equal(value, before[name])}
    assert still - {"thresholds"} == {name for name, _ in phase.groups[0].parameters}


def test_biases_norms_tokens_and_positions_do_not_decay():
    net = seeded(SPEC.model, SPEC.pruning)
    named = list(net.named_parameters())
    fitting = Fitting(Phase("p", net, [Group(named, 1e-3)], 1, Classification()), make_run())
    decays = {id(p): group["weight_decay"] for group in fitting.optimizer.param_groups for p in group["params"]}
    by_name = {name: decays[id(parameter)] for name, parameter in named}
    assert by_name["blocks.0.attn.qkv.weight"] == by_name["selectors.0.scorers.0.fc1.weight"] == 0.05
    assert (
        by_name["cls_token"] == by_name["pos_embed"] == by_name["norm.weight"] == by_name["blocks.0.mlp.fc1.bias"] == 0
    )


def test_the_running_mean_of_the_weights_is_what_is_left():
    phase, last = backbone_phase(), backbone_phase()
    fitting = Fitting(phase, make_run(replace(RECIPE, ema_decay=0.9)))
    seen = []
    for images, labels in fitting.run.data.training.epoch((0, "backbone", 0), 64):
        fitting.advance(images, labels)
        seen.append(phase.net.head.weight.detach().clone())
    mean = seen[0]
    for count, weight in enumerate(seen[1:], 1):
        mean = mean + (1 - min(0.9, (1 + count) / (10 + count))) * (weight - mean)
    fitting.finish()
    torch.testing.assert_close(phase.net.head.weight, mean)
    assert not torch.equal(mean, seen[-1]) and not weights_equal(phase.net, last.net)


def test_brain_floats_learn_too():
    losses = []
    watch = lambda name, step, loss: losses.append(loss)  # noqa: E731
    fit(pruning_phase(epochs=4), make_run(replace(RECIPE, precision="bfloat16"), watch=watch))
    assert sum(losses[-4:]) < sum(losses[:4])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile uses what torch deprecates
def test_a_compiled_model_learns_the_same():
    losses = {}
    for compiled in (False, True):
        watch = losses.setdefault(compiled, [])
        fit(
            backbone_phase(),
            make_run(replace(RECIPE, compile=compiled), watch=lambda n, s, loss, w=watch: w.append(loss)),
        )
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
