"""The README's plot is what its command draws today."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from hw.model.charts import for_phones
from sim.options import PlotOptions
from spvit.errors import ConfigError
from spvit_fpga.cli import run as run_command

ROOT = Path(__file__).parents[2]
main = partial(run_command, "token-plot")


@pytest.mark.slow
def test_the_committed_plot_is_not_stale(tmp_path):
    path = tmp_path / "plot.svg"
    main(["--out", str(path)])
    kept = ROOT / PlotOptions().out
    for drawn, committed in ((path, kept), (for_phones(path), for_phones(kept))):
        assert drawn.read_bytes() == committed.read_bytes(), "run make token-plot"


def test_another_board_is_asked_for_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"^TARGET=zcu999 is unknown"):
        main(["--target", "zcu999", "--out", str(tmp_path / "plot.svg")])
    assert not list(tmp_path.iterdir())
