"""`make csim` where the locale is not UTF-8: files are read and written as ever, and the verdict is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
MODEL = """# größe → klein
[model]
name = "tiny"
img_size = 16
patch_size = 4
embed_dim = 16
depth = 2
num_heads = 2
num_classes = 4
[pruning]
locations = [1]
keep = [0.5]
[engine]
tile_in = 8
tile_out = 16
"""


@pytest.fixture(params=["iso-8859-1", pytest.param("ascii", marks=pytest.mark.slow)])
def locale(request, tmp_path):
    """Environment variables of a locale, whose encoding Python takes as it is."""
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    if request.param == "ascii":
        return plain, "ascii"
    place = tmp_path / "locales" / "en_US.ISO-8859-1"
    place.parent.mkdir()
    localedef = shutil.which("localedef")
    if (
        localedef is None
        or subprocess.run([localedef, "-i", "en_US", "-f", "ISO-8859-1", place], capture_output=True).returncode
    ):
        pytest.skip("localedef makes no ISO-8859-1 locale here")
    return plain | {"LOCPATH": str(place.parent), "LC_ALL": place.name}, "iso8859-1"


def test_csim_says_its_verdict(tmp_path, locale):
    variables, encoding = locale
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= variables | {"PYTHONPATH": str(ROOT)}
    asked = [sys.executable, "-c", "import sys; print(sys.stdout.encoding)"]
    assert subprocess.run(asked, env=environment, capture_output=True, text=True).stdout.strip().lower() == encoding
    (tmp_path / "modèles").mkdir()
    (tmp_path / "modèles" / "größe→.toml").write_text(MODEL, encoding="utf-8")
    Image.effect_noise((20, 20), 90).convert("RGB").save(tmp_path / "modèles" / "ñ→é.png")
    command = [
        sys.executable,
        "-m",
        "spvit_fpga",
        "csim",
        "--model",
        "modèles/größe→.toml",
        "--images",
        "modèles",
        "--out",
        "bûild",
    ]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=600)
    said = run.stdout.decode(encoding, errors="replace") + run.stderr.decode(encoding, errors="replace")
    assert run.returncode == 0 and "\nbit-exact: " in said, said
    report = json.loads((tmp_path / "bûild" / "csim.json").read_text(encoding="utf-8"))
    assert (report["images"], report["mismatches"]) == (1, 0) and report["taps_compared"] > 0
