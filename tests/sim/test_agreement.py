"""How the distance to float is counted, on logits and decisions made by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from quant.build import NETWORK_FOLDER
from sim.agreement import Agreement, FloatReference, float_reference
from sim.golden import GoldenResult
from spvit.checkpoints import save_checkpoint
from spvit.images.sources import ImageSet
from spvit.initialisation import seeded
from tests.sim.networks import MICRO, design_of, micro, random_images

DESIGN = design_of(micro())
LSB = 2.0 ** -DESIGN.network.frac_bits["head"]
PATCHES = MICRO.model.num_patches
ALL = np.ones(PATCHES)


@dataclass
class Report:
    top1_agreement_float: float | None = None
    top1_disagreements: list[str] = field(default_factory=list)
    max_abs_logit_error: float | None = None
    rms_logit_error: float | None = None
    keep_decisions: int = 0
    keep_flips: int = 0
    largest_flip_margin: float = 0.0
    accuracy: float | None = None
    accuracy_float: float | None = None


def keep_taps(*stages):
    return {f"selectors.{k}.keep": [np.stack([keep, keep], axis=1)] for k, keep in enumerate(stages)}


def compare(float_logits, integer_logits, stages=((ALL, ALL, 0.0),) * 3, labels=None):
    """Each image's logits; of one image, each stage's keep in integers (of those alive) and float, and probability."""
    count = len(float_logits)
    images = ImageSet(tuple(f"{i}.png" for i in range(count)), random_images(MICRO.model, count), labels)
    probability = [np.full((count, PATCHES), p) for _, _, p in stages]
    reference = FloatReference(
        np.array(float_logits, float), [np.tile(keep, (count, 1)) for _, keep, _ in stages], probability, [0.5] * 3
    )
    agreement = Agreement(DESIGN, reference, images)
    for i, logits in enumerate(integer_logits):
        golden = GoldenResult(np.array([logits], np.int16), taps=keep_taps(*(keep for keep, _, _ in stages)))
        agreement.add(i, golden, 0)
    report = Report()
    agreement.summarise(report)
    return report, list(agreement.lines())


def units(*values):
    """Real logits as integers."""
    return [round(value / LSB) for value in (*values, *(0.0,) * (7 - len(values)))]


def reals(*values):
    return [*values, *(0.0,) * (7 - len(values))]


def test_equal_logits():
    report, lines = compare([reals(1.5, 0.25)], [units(1.5, 0.25)])
    assert (report.top1_agreement_float, report.max_abs_logit_error, report.rms_logit_error) == (1.0, 0.0, 0.0)
    assert (report.keep_flips, report.keep_decisions, report.top1_disagreements) == (0, 3 * PATCHES, [])
    assert report.accuracy is None and report.accuracy_float is None
    assert lines[0].startswith("against float: best class the same on 1 of 1; ")
    assert lines[1:] == [f"keep decisions: 0 of {3 * PATCHES} differ from float"]


def test_errors_are_of_all_logits_of_all_images():
    report, _ = compare([reals(1.0), reals(2.0)], [units(1.25), units(2.0, 0.5)])
    assert report.max_abs_logit_error == 0.5
    assert report.rms_logit_error == pytest.approx(np.sqrt((0.25**2 + 0.5**2) / 14))


def test_a_near_tie_is_named_apart_from_a_disagreement():
    """0.png: the float margin of 0.25 is below twice the error; 1.png: it is not."""
    report, lines = compare([reals(1.25, 1.0), reals(1.5, 0.0)], [units(1.0, 1.25), units(1.0, 1.25 - 0.55)])
    assert report.top1_agreement_float == 0.5 and report.top1_disagreements == ["0.png"]
    assert "  the float model itself nearly ties on 0.png" in lines
    report, lines = compare([reals(2.0, 0.0)], [units(1.1, 1.2)])
    assert report.top1_disagreements == ["0.png"] and "nearly ties" in lines[1]
    exact = [reals(1.0, 0.5), [0.0] * 7]
    report, lines = compare(exact[:1], [units(0.95, 0.96)])
    assert report.top1_disagreements == ["0.png"]


def test_a_disagreement_beyond_the_error():
    """Only possible where the largest error is less than half the margin: the order of ties."""
    report, lines = compare([reals(0.0, 0.0, 0.0)], [units(0.0, LSB)])
    assert report.top1_agreement_float == 0.0
    assert lines[1] == "  the float model itself nearly ties on 0.png"


def test_flips_are_counted_up_to_the_first_stage_that_differs():
    first = ALL.copy()
    first[3] = 0
    second, second_float = np.ones(PATCHES - 1), first.copy()
    second[[4, 5]] = 0  # the 5th and 6th of those alive: patches 5 and 6
    stages = [(first, first, 0.9), (second, second_float, 0.53), (np.ones(PATCHES - 3), ALL, 0.0)]
    report, lines = compare([reals(1.0)], [units(1.0)], stages)
    assert report.keep_decisions == PATCHES + PATCHES - 1
    assert report.keep_flips == 2
    assert report.largest_flip_margin == pytest.approx(0.03)
    assert lines[-1] == f"keep decisions: 2 of {2 * PATCHES - 1} differ from float, at most 0.03 from the threshold"


def test_accuracy_is_of_labels():
    logits = [reals(1.0), reals(0.0, 1.0), reals(0.0, 0.0, 1.0)]
    integers = [units(1.0), units(0.0, 1.0), units(2.0, 0.0, 1.0)]
    report, lines = compare(logits, integers, labels=np.array([0, 2, 2]))
    assert (report.accuracy, report.accuracy_float) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert lines[-1] == "accuracy: 33.33% in C-simulation, 66.67% in float"


def test_the_reference_is_the_float_model(tmp_path):
    import torch

    from spvit.images.preprocess import Preprocessing

    net = seeded(MICRO.model, MICRO.pruning)
    folder = tmp_path / NETWORK_FOLDER
    folder.mkdir()
    save_checkpoint(folder / "float.safetensors", net)
    images = ImageSet(("a", "b"), random_images(MICRO.model, 2), None)
    reference = float_reference(folder, DESIGN, images)
    normal = torch.as_tensor(Preprocessing.from_model(MICRO.model).normalise(images.pixels)).double()
    with torch.no_grad():
        outputs = [net.double().forward_gathered(image[None]) for image in normal]
    assert np.allclose(reference.logits, [output.logits[0].numpy() for output in outputs], rtol=0, atol=1e-12)
    assert reference.thresholds == net.thresholds.tolist()
    for stage in range(3):
        assert np.array_equal(reference.keep[stage][0], outputs[0].records[stage].keep[0].numpy())
        assert reference.probability[stage].shape == (2, PATCHES)
