"""The layer-to-phase schedule: merging as the paper's Table 8 invites to, the budget, and a search from end to end."""

import json
from dataclasses import replace

import pytest
import torch

from spvit.checkpoints import load_checkpoint_with_report
from spvit.config import resolve_model
from spvit.cost import count_macs
from spvit.errors import ConfigError, TrainingError
from spvit.train import Request, train, write
from spvit.training import progressive
from spvit.training.backbone import train_backbone
from spvit.training.budget import parse_budget
from spvit.training.data import InMemory
from spvit.training.progressive import Progress, meet_budget, merge_phases, search
from spvit.training.state import Journal
from tests.spvit.training.tiny import RECIPE, SPEC, few_digits, make_run

TABLE_8 = {1: 0.15, 2: 0.17, 3: 0.39, 4: 0.47, 5: 0.64, 6: 0.71, 7: 0.77, 8: 0.85, 9: 0.89, 10: 0.92, 11: 0.93}


def test_table_8_falls_into_phases():
    assert merge_phases(TABLE_8, 0.2) == {1: 0.15, 3: 0.39, 5: 0.64, 8: 0.85}
    assert merge_phases({location: TABLE_8[location] for location in range(3, 12)}, 0.3) == {3: 0.39, 6: 0.71}
    assert merge_phases(TABLE_8, 1.0) == {1: 0.15}
    assert merge_phases({2: 0.3, 5: 0.3}, 0.01) == {2: 0.3}
    assert merge_phases({}, 0.1) == {}


def cost_of(spec):
    return lambda kept: count_macs(spec.model, spec.pruning, kept).total


def met(limit, keep=(0.75, 0.25)):
    return meet_budget(with_places((1, 3), keep), cost_of, limit, "MACs")


def with_places(locations, keep):
    return replace(SPEC, pruning=replace(SPEC.pruning, locations=locations, keep=keep))


def test_the_budget_changes_the_first_rate_alone_if_it_can():
    cost = cost_of(with_places((1, 3), (0.75, 0.25)))
    assert met(cost((9, 4))).keep == (0.56, 0.25)  # 9 of 16
    assert met(cost((9, 4)) - 1).keep == (0.5, 0.25)
    assert met(cost((2, 2))).keep == (0.12, 0.12)
    with pytest.raises(ConfigError) as refused:
        met(1000)
    assert str(refused.value) == (
        "tiny: with selectors before the blocks 1, 3 a budget of 1000 MACs cannot be met, with one patch left after the "
        f"first it still takes {cost((1, 1)):.5g} MACs; allow at least that or a larger accuracy_drop, or give the "
        "selectors' places yourself, without --progressive"
    )


def test_a_first_selector_that_the_budget_does_not_need_goes():
    alone = cost_of(with_places((3,), (0.25,)))
    assert (met(alone((4,))).locations, met(alone((4,))).keep) == ((3,), (0.25,))
    assert met(alone((4,)) - 1).locations == (1, 3)
    assert (met(alone((9,))).locations, met(alone((9,))).keep) == ((3,), (0.56,))
    assert met(1e9).keep == (1.0,)


def test_selectors_come_from_the_last_block_to_the_first_and_rates_stop_at_the_tolerance(monkeypatch):
    """Each model's accuracy is made up, so that how the search answers to it can be told."""
    spare = {3: 0.8, 2: 0.4, 1: 0.0}  # what a block can lose without harm
    trained = []

    def prune(net, teacher, run, name, epochs):
        trained.append((net.pruning.locations, net.pruning.keep))

    def reached(net, run, held_out):
        rates = zip(net.pruning.locations, net.pruning.keep, strict=True)
        return 0.9 if all(1 - keep <= spare[location] + 1e-9 for location, keep in rates) else 0.5

    monkeypatch.setattr(progressive, "prune", prune)
    monkeypatch.setattr(progressive, "_calibrated_accuracy", reached)
    monkeypatch.setattr(progressive, "accuracy", lambda net, test: 0.95)
    run = make_run()
    net, steps = search(
        train_backbone(SPEC, make_run(replace(RECIPE, backbone_epochs=0))), SPEC.pruning, run, run.data.test
    )
    assert [(step.location, step.rate, step.accuracy) for step in steps] == [
        (3, 0.8, 0.9),
        (2, 0.4, 0.9),
        (1, 0.0, 0.9),
    ]
    assert trained == [
        ((3,), (0.6,)),
        ((3,), (0.2,)),
        ((3,), (0.0625,)),  # refused
        ((2, 3), (0.6, 0.2)),
        ((2, 3), (0.2, 0.2)),  # refused: and no more than what block 3 prunes is tried
        ((1, 2, 3), (0.6, 0.6, 0.2)),  # refused: no selector there
    ]
    assert (net.pruning.locations, net.pruning.keep) == ((2, 3), (0.6, 0.2))


def test_what_chooses_the_rates_is_neither_trained_on_nor_what_they_are_judged_by(monkeypatch):
    """Until they are chosen; then all training images are used."""
    data = few_digits(200)
    judged, seen = [], {}

    class Watched(InMemory):
        def epoch(self, place, batch, start=0):
            seen.setdefault(place[1], set()).update(image.numpy().tobytes() for image in self.images)
            return super().epoch(place, batch, start)

        def part(self, chosen):
            return Watched(self.images[list(chosen)], self.labels[list(chosen)], self.jittered)

    def judge(net, source):
        judged.append(source)
        return 0.5

    monkeypatch.setattr(progressive, "accuracy", judge)
    watched = replace(data, training=Watched(data.training.images, data.training.labels))
    recipe = replace(
        RECIPE, backbone_epochs=1, pruning_epochs=1, progressive_epochs=1, rate_step=0.9, held_out_images=30
    )
    train(Request(SPEC, progressive=True), make_run(recipe, watched))
    everything = {image.numpy().tobytes() for image in data.training.images}
    assert len(everything) == 200 and judged and len({len(source) for source in judged}) == 1
    for source in judged:
        held = {image.numpy().tobytes() for image in source.images}
        assert len(held) == 30 and held < everything
        for phase, images in seen.items():
            assert images == (everything if phase == "selectors" else everything - held), phase
    assert {"selectors", "backbone"} < seen.keys()


def test_nothing_to_prune(monkeypatch):
    monkeypatch.setattr(progressive, "prune", lambda *_: None)
    monkeypatch.setattr(progressive, "_calibrated_accuracy", lambda *_: 0.1)
    monkeypatch.setattr(progressive, "accuracy", lambda net, test: 0.95)
    with pytest.raises(TrainingError) as stopped:
        search(
            train_backbone(SPEC, make_run(replace(RECIPE, backbone_epochs=0))),
            SPEC.pruning,
            make_run(),
            few_digits().test,
        )
    assert str(stopped.value) == (
        "tiny: no block can spare a token within accuracy_drop=0.1 of the unpruned 95.00%; allow a larger drop, a smaller "
        "rate_step or more progressive_epochs"
    )


def test_progress_comes_back_as_it_was():
    progress = Progress((progressive.Step(3, 0.5, 0.9),), 0.25, 0.9, {"x": torch.ones(2)})
    again = Progress.from_state(progress.to_state())
    assert again.steps == progress.steps and again.trying == 0.25 and again.rates == {3: 0.5}


class StopHereError(Exception):
    pass


def test_from_end_to_end_and_resumed_at_every_kind_of_step(tmp_path):
    """One uninterrupted run, and one that is stopped again and again: the same places, rates and weights."""
    recipe = replace(RECIPE, pruning_epochs=1, accuracy_drop=0.3, batch=32)
    data = few_digits(64, recipe)
    request = Request(SPEC, budget=parse_budget("165kMACs", None, None), progressive=True)
    phases: list[str] = []
    whole = train(request, make_run(recipe, data, watch=lambda name, step, loss: phases.append(name)))
    assert list(dict.fromkeys(phases))[:2] == ["backbone", "block 3 to 40%"] and phases[-1] == "selectors"
    assert [step.location for step in whole.steps] == [3, 2, 1]
    assert whole.result.parts["training"].cost == pytest.approx(165e3, rel=0.01)

    path = tmp_path / "weights.state"
    Journal(path, {}).finish("nothing", {})
    begun: set[str] = set()

    def stop_in_each(name, step, loss):
        if name not in begun:
            begun.add(name)
            raise StopHereError

    while True:
        try:
            parts = train(request, make_run(recipe, data, Journal.resume(path, {}), stop_in_each))
            break
        except StopHereError:
            pass
    assert begun == set(phases)
    assert parts.steps == whole.steps
    assert parts.net.pruning == whole.net.pruning
    assert all(torch.equal(value, parts.net.state_dict()[name]) for name, value in whole.net.state_dict().items())

    write(tmp_path / "weights.safetensors", whole, data)
    made = resolve_model(str(tmp_path / "weights.toml"))  # for make hls, which checks it against the weights
    again, found = load_checkpoint_with_report(tmp_path / "weights.safetensors", made.model, made.pruning)
    assert found.calibrated_keep == made.pruning.keep and made.model.name == "tiny-progressive"
    assert torch.equal(again.thresholds, whole.net.thresholds) and made.engine == SPEC.engine
    report = json.loads((tmp_path / "weights.json").read_text())
    assert [step["location"] for step in report["progressive"]] == [3, 2, 1]
    assert len(report["similarity"]) == 4 and all(0 <= value <= 1 for value in report["similarity"])
    for picture in ("similarity", "progressive"):
        assert (tmp_path / f"weights-{picture}.png").read_bytes().startswith(b"\x89PNG")
