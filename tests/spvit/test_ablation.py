"""Every row of every table, that equal costs are equal, and that finished rows are kept."""

import json
from functools import partial

import pytest

from spvit.ablation import Row, Variant, chosen_questions, markdown, questions
from spvit.config import PruningConfig, resolve_model
from spvit.cost import count_macs
from spvit.errors import ConfigError
from spvit_fpga.cli import run as run_command

main = partial(run_command, "ablation")

DIGITS = resolve_model("deit_digits")
TARGET = count_macs(DIGITS.model, DIGITS.pruning).total
VARIANTS = [variant for question in questions(DIGITS) for variant in question.variants]


@pytest.mark.parametrize("variant", VARIANTS, ids=[variant.label for variant in VARIANTS])
def test_each_variant_costs_what_the_model_does(variant):
    spec = variant.of(DIGITS)
    macs = count_macs(spec.model, spec.pruning).total
    if variant.unpruned:
        assert spec.pruning.num_selectors == 0 and macs > 1.5 * TARGET
    else:
        assert 0.95 * TARGET < macs <= TARGET * 1.005  # a patch less, or a channel rounded up


def test_the_tables_are_the_papers():
    titles = " ".join(question.title for question in questions(DIGITS))
    assert all(f"Table {number})" in titles for number in (5, 6, 7, 10, 11, 12))
    methods = {variant.of(DIGITS).pruning.method for variant in VARIANTS}
    assert methods == {"selector", "random", "structured", "class_attention"}
    assert any(variant.of(DIGITS).pruning.proportional_attention for variant in VARIANTS)
    places = next(question for question in questions(DIGITS) if question.name == "places")
    found = [variant.of(DIGITS).pruning.locations for variant in places.variants]
    assert found == [(2, 3, 4), (1, 3, 4), (2, 3, 5), (3, 4), (2, 3, 4, 5)]


def quick(out, *more):
    main(["--quick", "--tables", "rivals", "--out", str(out), "--device", "cpu", *more])


def test_finished_rows_are_kept_and_an_interrupted_run_goes_on(tmp_path, monkeypatch, capsys):
    from spvit import ablation

    trained, train = [], ablation.Ablation._train

    def interrupted(self, spec):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(spec.pruning)
        return train(self, spec)

    monkeypatch.setattr(ablation.Ablation, "_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path)
    assert len(list((tmp_path / "rows").glob("*.json"))) == 2 and not (tmp_path / "ablation.json").exists()
    rest = []
    monkeypatch.setattr(ablation.Ablation, "_train", lambda self, spec: rest.append(spec.pruning) or train(self, spec))
    quick(tmp_path)
    assert [pruning.proportional_attention for pruning in rest] == [True, True]
    assert len(list((tmp_path / "backbones").glob("*.safetensors"))) == 1  # one for all rows
    report = json.loads((tmp_path / "ablation.json").read_text())
    (rows,) = report["tables"].values()
    assert [row["label"] for row in rows] == [variant.label for variant in questions(DIGITS)[-1].variants]
    for row in rows:
        assert 0 <= row["accuracy"][0] <= 1 and row["gmacs"][0] * 1e9 == pytest.approx(TARGET, rel=0.15)
    text = (tmp_path / "ablation.md").read_text()
    assert text.startswith("## Rivals with the same packages and thresholds\n") and text.count("\n| ") == 5
    assert text.rstrip() in capsys.readouterr().out
    monkeypatch.setattr(ablation.Ablation, "_train", lambda self, spec: pytest.fail("trained twice"))
    quick(tmp_path)
    with pytest.raises(BaseException, match="trained twice"):  # other settings are other rows
        quick(tmp_path, "--selector-rate", "0.001")
    next((tmp_path / "rows").glob("*.json")).write_text('{"accuracy": [1.0]', encoding="utf-8")
    with pytest.raises(BaseException, match="trained twice"):  # a damaged one is made again
        quick(tmp_path)


def test_a_table_for_people():
    question = questions(DIGITS)[-1]
    rows = [Row((0.9, 0.92), (0.0075, 0.0077), (0.5, 0.25), 1234)] + [Row((0.5,), (0.013,), (), 99)] * 3
    lines = markdown(question, rows).splitlines()
    assert lines[4] == "| token selector (as it is) | 91.00 ± 1.41 % | 7.60 ± 0.14 | 1,234 | 0.500, 0.250 |"
    assert lines[5].endswith("| 50.00 % | 13.00 | 99 | all |")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--tables", "heads,tails"],
            "--tables heads,tails: tails is none of heads, places, package, scorer, method, pooling, rivals",
        ),
        (["--seeds", "0"], "--seeds 0 must be a whole number from 1 to 1,000; "),
        (["--data", "gone"], "--data gone: no such folder; "),
        (["--model", "deit_digitz"], "MODEL=deit_digitz is neither the path of a .toml file nor one of "),
    ],
)
def test_requests_that_cannot_be(tmp_path, options, sentence):
    with pytest.raises(ConfigError) as error:
        main(["--out", str(tmp_path / "out"), *options])
    assert str(error.value).startswith(sentence)
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_cost_to_compare_at():
    own = resolve_model("deit_digits")
    for pruning in (PruningConfig((2, 3)), PruningConfig((2,), (0.5,)), own.pruning.without()):
        with pytest.raises(ConfigError, match=r"^deit_digits: the ablations compare variants at the cost of"):
            chosen_questions(type(own)(own.model, pruning), None)


def test_a_row_names_all_that_decided_it(tmp_path):
    variant = Variant("mean", model={"pooling": "mean"})
    assert variant.of(DIGITS).model.pooling == "mean" and variant.of(DIGITS).pruning.locations == (2, 3, 4)
