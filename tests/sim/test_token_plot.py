"""The README's plot is what its command draws today."""

from __future__ import annotations

import pytest

from hw.model.charts import for_phones
from sim.token_plot import PLOT, main
from spvit.errors import ConfigError


@pytest.mark.slow
def test_the_committed_plot_is_not_stale(tmp_path):
    path = tmp_path / "plot.svg"
    main(["--out", str(path)])
    for drawn, committed in ((path, PLOT), (for_phones(path), for_phones(PLOT))):
        assert drawn.read_bytes() == committed.read_bytes(), "run python -m sim.token_plot"


def test_another_board_is_asked_for_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"^TARGET=zcu999 is unknown"):
        main(["--target", "zcu999", "--out", str(tmp_path / "plot.svg")])
    assert not list(tmp_path.iterdir())
