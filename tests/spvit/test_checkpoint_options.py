"""THRESHOLD=, EMA= and POS=: what they ask for, and what cannot be asked for."""

import pytest

from spvit.checkpoint_options import (
    CheckpointOptions,
    ThresholdRequest,
    checkpoint_options,
    threshold_request,
)
from spvit.config import PruningConfig, resolve_model
from spvit.errors import ConfigError
from spvit.options import SelectorOptions
from tests.options import read


def asked(options, pruning=None, keep=None):
    args = read(SelectorOptions, "--model", "micro", *options.split(), *([] if keep is None else ["--keep", keep]))
    if pruning is None:
        pruning = resolve_model("micro", keep).pruning
    return threshold_request(args, pruning), checkpoint_options(args)


def test_what_is_asked_for():
    assert asked("") == (ThresholdRequest(), CheckpointOptions())
    assert asked("", keep="0.8,0.6,0.4")[0] == ThresholdRequest(keep_asked=True)
    assert asked("", keep="none")[0] == ThresholdRequest()
    assert asked("--threshold 0.5")[0] == ThresholdRequest(0.5)
    assert asked("--threshold calibrate", keep="0.8,0.6,0.4")[0] == ThresholdRequest(None, True, True)
    assert asked("--ema --pos interpolate")[1] == CheckpointOptions(True, True)
    assert asked("--pos exact")[1].parts == ()
    assert asked("--ema --pos interpolate")[1].parts == ("ema", "pos", "interpolate")


@pytest.mark.parametrize(
    ("options", "keep", "pruning", "sentence"),
    [
        (
            "--threshold half",
            None,
            None,
            "THRESHOLD=half must be a keep probability from 2**-16 to 1, such as 0.5, or cal",
        ),
        (
            "--threshold nan",
            None,
            None,
            "THRESHOLD=nan must be a keep probability from 2**-16 to 1, such as 0.5, or cali",
        ),
        (
            "--threshold 1.5",
            None,
            None,
            "THRESHOLD=1.5 must be a keep probability from 2**-16 to 1, such as 0.5, or cali",
        ),
        (
            "--threshold 1e-9",
            None,
            None,
            "THRESHOLD=1e-9 must be a keep probability from 2**-16 to 1, such as 0.5, or ca",
        ),
        (
            "--threshold 0.5",
            "0.8,0.6,0.4",
            None,
            "KEEP=0.8,0.6,0.4 and THRESHOLD=0.5: both say what is kept; give one of",
        ),
        (
            "--threshold 0.5",
            "none",
            None,
            "THRESHOLD=0.5: KEEP=none leaves no selectors that could decide by it; leave ",
        ),
        (
            "--threshold 0.5",
            None,
            PruningConfig(()),
            "THRESHOLD=0.5: the model has no selectors that could decide by it; ",
        ),
        (
            "--threshold calibrate",
            None,
            PruningConfig((1, 2)),
            "THRESHOLD=calibrate: keep is not set; give KEEP= with a fraction for each of 2 selectors",
        ),
    ],
)
def test_what_cannot_be_asked_for(options, keep, pruning, sentence):
    with pytest.raises(ConfigError) as refused:
        asked(options, pruning, keep)
    assert str(refused.value).startswith(sentence)
