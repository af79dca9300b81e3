"""The recipe: where its numbers come from, and which are refused."""

from dataclasses import fields
from pathlib import Path

import pytest

from spvit.errors import ConfigError
from spvit.losses import LossWeights
from spvit.options import TrainOptions
from spvit.training.recipe import Recipe, resolve_recipe
from spvit_fpga.cli import parser_of
from spvit_fpga.commands import COMMANDS
from tests.options import read


def resolved(model, *arguments):
    options = read(TrainOptions, "--model", model, *arguments)
    return resolve_recipe(model, options.recipe, options.changes)


def test_the_defaults_are_the_papers():
    recipe = Recipe()
    assert (recipe.selector_rate, recipe.finetune_rate, recipe.pruning_epochs) == (5e-4, 5e-6, 60)
    assert recipe.loss_weights == LossWeights(kl=0.5, distill=0.5, ratio=2.0)
    assert (recipe.mixup, recipe.cutmix, recipe.erasing, recipe.magnitude) == (0.8, 1.0, 0.25, 9.0)
    assert (recipe.label_smoothing, recipe.repeats, recipe.weight_decay, recipe.progressive_epochs) == (
        0.1,
        3,
        0.05,
        25,
    )


def test_model_then_file_then_flags(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("batch = 32\npruning_epochs = 3\nselector_rate = 1\n")
    recipe = resolved("deit_digits", "--recipe", str(file), "--batch", "16", "--compile")
    assert (recipe.batch, recipe.pruning_epochs, recipe.backbone_epochs) == (16, 3, 80)
    assert recipe.compile and recipe.augment == "jitter"
    assert recipe.selector_rate == 1.0 and type(recipe.selector_rate) is float
    assert resolve_recipe("deit_s") == Recipe()


def test_every_field_is_a_flag_with_a_word_on_it():
    text = parser_of(COMMANDS["train"]).format_help()
    for item in fields(Recipe):
        assert item.metadata["help"]
        assert f"--{item.name.replace('_', '-')} " in text or f"--{item.name}, --no-" in text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bach = 3", "mine.toml: has no bach; did you mean batch? it knows backbone_epochs, "),
        ("batch = 0", "mine.toml: batch=0 must be a whole number from 1 to 1,000,000"),
        ("batch = 1.5", "mine.toml: batch=1.5 must be a whole number from 1 to 1,000,000"),
        ("compile = 1", "mine.toml: compile=1 must be true or false"),
        ("erasing = 1.5", "mine.toml: erasing=1.5 must be a number from 0 to 1"),
        ("selector_rate = nan", "mine.toml: selector_rate=nan must be a number from 0 to 10"),
        ('precision = "half"', "mine.toml: precision='half' must be one of float32, bfloat16, float16"),
        ("batch =", "mine.toml: not valid TOML: Invalid value (at end of document); mend it there"),
    ],
)
def test_what_cannot_be(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        resolve_recipe("deit_s", Path("mine.toml"))
    assert str(refused.value).startswith(sentence)


def test_a_missing_file():
    with pytest.raises(ConfigError, match=r"^none\.toml: there is no such file; RECIPE= takes the path of a TOML$"):
        resolve_recipe("deit_s", Path("none.toml"))
