"""The figures of an evaluation, on outcomes made by hand."""

import io

import numpy as np
import pytest

from sim.evaluation import ClassReport, Outcomes, Spread, classes_table, models_table, report, tokens_table
from spvit.config import resolve_model
from spvit.console import Console
from spvit.cost import count_macs

MICRO = resolve_model("micro")
UNPRUNED = count_macs(MICRO.model, MICRO.pruning.without()).total / 1e9


def outcomes(found, kept, seconds=2.0):
    one = Outcomes()
    one.add(np.eye(7)[found], np.array(kept), seconds)
    return one


FLOAT = outcomes([0, 1, 1, 2], [[12, 8, 4], [16, 8, 4], [12, 12, 0], [12, 8, 4]])
OTHER = outcomes([0, 1, 2, 2], [[12, 8, 4]] * 4)


def test_accuracy_cost_and_tokens_are_of_each_image():
    one = report(MICRO.model, MICRO.pruning, FLOAT, [0, 1, 2, 3], "abcdefg")
    assert one.accuracy == 0.5 and one.agreement_float is None
    macs = [count_macs(MICRO.model, MICRO.pruning, counts).total / 1e9 for counts in FLOAT.kept]
    assert one.gmacs.mean == pytest.approx(np.mean(macs)) and one.gmacs.worst == max(macs)
    # of the second image nothing is dropped at first, of the third nothing then
    assert [stage.mean for stage in one.tokens] == [
        17,
        (14 + 17 + 14 + 14) / 4,
        (11 + 10 + 14 + 11) / 4,
        (8 + 7 + 3 + 8) / 4,
    ]
    assert (one.tokens[2].least, one.tokens[2].median, one.tokens[2].worst) == (10, 11, 14)
    assert one.kept_fraction == (13 / 16, 9 / 16, 3 / 16)
    assert one.per_class[:4] == (
        ClassReport("a", 1, 1.0),
        ClassReport("b", 1, 1.0),
        ClassReport("c", 1, 0.0),
        ClassReport("d", 1, 0.0),
    )
    assert one.per_class[4] == ClassReport("e", 0, None)
    assert (one.seconds, one.images_per_second) == (2.0, 2.0)


def test_agreement_is_with_the_float_model():
    assert report(MICRO.model, MICRO.pruning, OTHER, [0, 1, 2, 3], "abcdefg", FLOAT).agreement_float == 0.75


def test_logits_are_compared_by_their_digests():
    one, other = Outcomes(), Outcomes()
    one.add(np.array([[0.5, -0.0], [1, 2]]), np.zeros((2, 0), int), 1.0)
    other.add(np.array([[0.5, 0.0], [1, 2 + 2**-40]]), np.zeros((2, 0), int), 1.0)
    assert [a == b for a, b in zip(one.digests, other.digests, strict=True)] == [True, False]


def test_processes_work_side_by_side():
    together = outcomes([0], [[12, 8, 4]], seconds=3.0)
    together.extend(FLOAT)
    assert together.found == [0, 0, 1, 1, 2] and together.seconds == 3.0 and len(together.kept) == 5


def test_percentiles_are_values_that_occurred():
    spread = Spread.of(list(range(101)))
    assert (spread.mean, spread.least, spread.p5, spread.median, spread.p95, spread.worst) == (50, 0, 5, 50, 95, 100)
    assert Spread.of([1, 1, 1, 2]).p95 == 2 and Spread.of([3, 3]).std == 0


def test_an_unpruned_model_has_one_stage():
    one = report(MICRO.model, MICRO.pruning.without(), outcomes([0], np.zeros((1, 0), int)), [0], "abcdefg")
    assert [stage.mean for stage in one.tokens] == [17] and one.kept_fraction == ()
    assert one.gmacs.mean == pytest.approx(UNPRUNED)


def text(table):
    file = io.StringIO()
    Console(file=file, width=100).print(table)
    return [line.split() for line in file.getvalue().splitlines() if line.strip()]


def test_the_tables():
    reports = {
        "float": report(MICRO.model, MICRO.pruning, FLOAT, [0, 1, 2, 3], "abcdefg"),
        "integer": report(MICRO.model, MICRO.pruning, OTHER, [0, 1, 2, 3], "abcdefg", FLOAT),
    }
    rows = text(models_table(reports, UNPRUNED, "micro"))
    assert rows[-2][:4] == ["float", "4", "50.00", "100.00"]
    assert rows[-1][:5] == ["integer", "4", "75.00", "100.00", "75.00"]
    rows = text(tokens_table(reports["float"], MICRO.pruning.locations, "float"))
    assert rows[-4:] == [
        ["0", "17.0", "0.0", "17", "17", "17", "17", "17"],
        ["1", "14.8", "1.3", "14", "14", "14", "17", "17"],
        ["2", "11.5", "1.5", "10", "10", "11", "14", "14"],
        ["3", "6.5", "2.1", "3", "3", "8", "8", "8"],
    ]
    rows = text(classes_table(reports, 2))
    assert rows[0] == ["the", "2", "worst", "of", "4", "classes"]
    assert rows[-2:] == [["c", "1", "0.00", "100.00"], ["d", "1", "0.00", "0.00"]]


def test_the_five_best_classes_count_for_top5():
    one = Outcomes()
    one.add(np.array([[0.0, 6, 5, 4, 3, 2, 1], [0, 6, 5, 4, 3, 2, 1]]), np.zeros((2, 0), int), 1.0)
    assert one.best == [[1, 2, 3, 4, 5]] * 2
    both = report(MICRO.model, MICRO.pruning.without(), one, [5, 6], "abcdefg")
    assert (both.accuracy, both.top5_accuracy) == (0, 0.5)
    assert one.of([1]).best == [[1, 2, 3, 4, 5]] and len(one.of([1]).found) == 1
