"""Two commands, two clocks: a design is made once, and networks are packed for it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from hw.manifest import read_design, read_network
from spvit.errors import BuildError, ConfigError
from spvit_fpga.cli import run

ROOM = """
[capacities]
num_tokens = 30
embed_dim = 48
num_heads = 3
head_dim = 16
hidden_dim = 128
patch_dim = 48
line_dim = 12
image_dim = 1200
num_classes = 20
num_selectors = 4
num_blocks = 6

[engine]
tile_in = 8
tile_out = 16
"""
OTHER = """
[model]
name = "other"
img_size = 20
patch_size = 4
embed_dim = 48
depth = 4
num_heads = 3
mlp_ratio = 2.0
num_classes = 20
distilled = true

[pruning]
locations = [1, 2]
keep = [0.7, 0.4]
package = "add"
"""
DESIGN, NETWORK = Path("build/design-small-zcu102"), Path("build/micro-zcu102-on-small/weights")


def command(name: str, *arguments: str) -> int | None:
    return run(name, arguments, "make")


hls, weights, csim = (partial(command, name) for name in ("hls", "weights", "csim"))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(ROOM)
    Path("other.toml").write_text(OTHER)
    return tmp_path


def dates(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_networks_share_a_design(workplace, capsys):
    """Its files and its library are made once; each network is bit-exact on it."""
    assert hls("--model", "micro", "--design", "small.toml") is None
    assert csim("--model", "micro", "--design", "small.toml") == 0
    made = dates(DESIGN)
    assert sum(path.suffix == ".so" for path in made) == 1
    for arguments in (
        ("--model", "micro", "--keep", "none", "--design", "small.toml"),
        ("--model", "other.toml", "--design", "small.toml"),
        ("--model", "other.toml", "--design", str(DESIGN)),
    ):
        assert weights(*arguments) is None
        assert csim(*arguments) == 0
        assert hls(*arguments) is None
    assert dates(DESIGN) == made
    digest = read_design(DESIGN).digest
    packed = [read_network(path.parent) for path in Path("build").glob("*/weights/network.json")]
    assert len(packed) == 4 and {one.design for one in packed} == {digest}
    assert {one.model.name for one in packed} == {"micro", "other"}
    assert "for the design small, digest" in capsys.readouterr().out


def test_a_model_s_own_design_takes_its_other_networks(workplace):
    hls("--model", "micro")
    made = dates(Path("build/micro-zcu102"))
    assert weights("--model", "micro", "--keep", "none") is None
    assert dates(Path("build/micro-zcu102")) == made
    packed = read_network(Path("build/micro-zcu102-keep-none-on-micro_zcu102/weights"))
    assert packed.design == read_design(Path("build/micro-zcu102")).digest and packed.shapes.num_stages == 0


def test_what_cannot_be_packed(workplace):
    with pytest.raises(BuildError, match=r"^build/design-small-zcu102/design.json: there is no design yet; make hls "):
        weights("--model", "micro", "--design", "small.toml")
    Path("small.toml").write_text(ROOM.replace("num_tokens = 30", "num_tokens = 16"))
    with pytest.raises(
        ConfigError, match=r"^micro does not fit DESIGN=small.toml: num_tokens=17 \(room for 16\); without"
    ):
        hls("--model", "micro", "--design", "small.toml")
    assert not Path("build").exists()


def test_a_design_of_another_project_is_no_place_for_a_network(workplace):
    hls("--model", "micro", "--design", "small.toml")
    path = DESIGN / "design.json"
    document = json.loads(path.read_text())
    document["digest"] = "0" * 64
    document["interface"]["digest"] = 0
    path.write_text(json.dumps(document))
    with pytest.raises(
        ConfigError, match=r"its design.json is of digest 00000000, and this project makes \w{8} of its"
    ):
        weights("--model", "micro", "--design", str(DESIGN))
    with pytest.raises(BuildError, match=r"design.json: of digest 00000000, and micro would be packed for \w{8}; make"):
        weights("--model", "micro", "--design", "small.toml")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"small.toml: \[capacities\] is missing"),
        ("[sizes]", r"small.toml: there is no \[sizes\]; it knows \[capacities\] and \[engine\]"),
        ("capacities = 7", r"small.toml: capacities=7 must be a table"),
        (ROOM.replace("num_heads = 3\n", ""), r"small.toml: \[capacities\] field num_heads is missing"),
        (
            ROOM.replace("num_heads = 3", "num_heads = 0"),
            r"small.toml: \[capacities\] num_heads=0 must be a whole number",
        ),
        (ROOM.replace("num_heads", "heads"), r"small.toml: \[capacities\] has no heads; did you mean num_heads\?"),
        (ROOM.replace("tile_in = 8", "tile_in = 7"), r"small.toml: \[engine\] tile_in=7 must be one of 8, "),
    ],
)
def test_a_design_that_cannot_be(workplace, text, sentence):
    Path("small.toml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        hls("--model", "micro", "--design", "small.toml")
    with pytest.raises(ConfigError, match=r"^DESIGN=diet is unknown; choose one of deit, or give the path of a \.toml"):
        hls("--model", "micro", "--design", "diet")
