"""The log of a training: its rows, TensorBoard's files, the curve, and going on from a state."""

import csv
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from spvit.training.backbone import train_backbone
from spvit.training.log import COLUMNS, Log, draw
from spvit.training.loop import Run
from tests.spvit.training.tiny import RECIPE, SPEC, make_run


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scalars(folder):
    """(tag, step) -> value, of TensorBoard's records: length, its CRC, the event, its CRC."""
    found = {}
    for path in sorted(folder.iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            place += 12 + length + 4
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A backbone of 2 epochs of 4 steps, logged."""
    out = tmp_path_factory.mktemp("train") / "weights.safetensors"
    losses = []
    run = make_run(RECIPE, watch=lambda phase, step, loss: losses.append(loss))
    run = Run(run.data, run.recipe, run.journal, run.device, run.watch, Log(out))
    train_backbone(SPEC, run)
    return out, losses, run


def test_rows_have_each_steps_loss_and_each_look_at_the_test_images(trained):
    out, losses, _ = trained
    rows = rows_of(out.with_name("weights-log.csv"))
    assert tuple(rows[0]) == COLUMNS
    of_losses = [row for row in rows if row["loss"]]
    assert [float(row["loss"]) for row in of_losses] == losses and len(losses) == 8
    assert [(row["phase"], row["epoch"], row["step"]) for row in of_losses] == [
        ("backbone", "1" if step <= 4 else "2", str(step)) for step in range(1, 9)
    ]
    (tested,) = [row for row in rows if row["test_accuracy"]]
    assert tested["step"] == "4" and 0 <= float(tested["test_accuracy"]) <= 1
    assert max(float(row["rate"]) for row in rows) <= RECIPE.backbone_rate


def test_tensorboard_has_the_same(trained):
    out, losses, _ = trained
    found = scalars(out.with_name("weights-events") / "backbone")
    assert [found["loss", step] for step in range(1, 9)] == pytest.approx(losses, rel=1e-6)
    assert ("test_accuracy", 4) in found and ("rate", 8) in found


def test_the_curve_is_of_these_rows(trained):
    out, losses, run = trained
    assert out.with_name("weights-curve.png").read_bytes().startswith(b"\x89PNG")
    (axes, beside) = draw(run.log.rows).axes
    (line,) = axes.get_lines()
    assert line.get_ydata().tolist() == losses and line.get_label() == "loss, backbone"
    assert len(beside.get_lines()) == 1


def test_a_row_is_the_mean_of_its_steps_and_epochs_end_with_one(tmp_path):
    log = Log(tmp_path / "w.safetensors")
    log.begin("p", 0)
    for step in range(1, 51):
        log.add_loss("p", 1, step, float(step), 0.1, 50)
    log.finish()
    steps = [int(row["step"]) for row in rows_of(tmp_path / "w-log.csv")]
    assert steps == list(range(2, 51, 2))
    assert log.rows[0].loss == 1.5 and log.rows[-1].loss == 49.5


def test_what_came_after_the_state_is_dropped(tmp_path):
    weights = tmp_path / "w.safetensors"
    log = Log(weights)
    for phase in ("first", "second, to 30%"):
        log.begin(phase, 0)
        for step in range(1, 5):
            log.add_loss(phase, 1, step, float(step), 0.1, 4)
        log.finish()
    with (tmp_path / "w-log.csv").open("a") as file:
        file.write("second, to 30%,1,5")  # torn
    log = Log(weights, resumed=True)
    log.begin("second, to 30%", 2)
    log.add_loss("second, to 30%", 1, 3, 30.0, 0.1, 4)
    log.finish()
    rows = [(row["phase"], row["step"], row["loss"]) for row in rows_of(tmp_path / "w-log.csv")]
    assert rows[:4] == [("first", str(step), f"{step}.0") for step in range(1, 5)]
    assert rows[4:] == [("second, to 30%", "1", "1.0"), ("second, to 30%", "2", "2.0"), ("second, to 30%", "3", "30.0")]
    assert scalars(tmp_path / "w-events" / "second-to-30-")["loss", 3] == 30.0
    assert sorted(path.name for path in (tmp_path / "w-events").iterdir()) == ["first", "second-to-30-"]


def test_a_training_that_begins_anew_leaves_nothing_of_the_one_before(tmp_path):
    for _ in range(2):
        log = Log(tmp_path / "w.safetensors")
        log.begin("p", 0)
        log.add_loss("p", 1, 1, 1.0, 0.1, 1)
        log.finish()
    assert len(rows_of(tmp_path / "w-log.csv")) == 1 and len(list((tmp_path / "w-events" / "p").iterdir())) == 1


def test_without_weights_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run(RECIPE)
    train_backbone(SPEC, run)
    assert not list(tmp_path.iterdir()) and run.log.rows
