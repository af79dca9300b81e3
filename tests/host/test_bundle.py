"""What a bundle can be wrong in: one sentence each, before anything is loaded."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from host.bundle import load_bundle
from spvit.errors import BundleError
from spvit.files import seal
from spvit.images.preprocess import Preprocessing


@pytest.fixture
def folder(build, tmp_path):
    """A copy of its own to spoil."""
    copy = tmp_path / "bundle"
    copy.mkdir()
    shutil.copy(build.folder / "manifest.json", copy)
    shutil.copytree(build.folder / "weights", copy / "weights")
    return copy


def change(folder, **fields):
    """Set fields of the manifest; None: remove."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not None}))


def refused(folder):
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder), "F")


def test_a_build_folder_is_a_bundle(build, folder):
    bundle, model = load_bundle(folder), build.design.network.model
    assert load_bundle(str(folder)) == bundle
    assert (bundle.name, bundle.board, bundle.num_tokens) == ("micro", "zcu102", model.num_tokens)
    assert bundle.preprocessing == Preprocessing.from_model(model)
    assert bundle.logits_frac_bits == build.design.network.frac_bits["head"]
    assert [path.name for path in bundle.weights] == ["weights_0.bin", "weights_1.bin"]
    assert bundle.bitstream is None


def test_a_bitstream_is_found(folder):
    (folder / "bitstream").mkdir()
    for suffix in ("bit", "hwh"):
        (folder / "bitstream" / f"spvit.{suffix}").touch()
    assert refused(folder) == (
        "F/bitstream/spvit.bit: neither manifest.json nor make bitstream has a digest of it; make the bundle again"
    )
    for suffix in ("bit", "hwh"):
        seal(folder / "bitstream" / f"spvit.{suffix}")
    assert load_bundle(folder).bitstream == folder / "bitstream" / "spvit.bit"


def test_a_folder_that_is_none(tmp_path):
    sentence = "F: no manifest.json in there; give a folder that make deploy packed, or one that make hls left"
    assert refused(tmp_path) == sentence
    assert refused(tmp_path / "nowhere") == sentence


def test_an_archive_that_was_not_unpacked(tmp_path):
    (tmp_path / "deploy.tar.gz").touch()
    assert refused(tmp_path / "deploy.tar.gz") == "F: a file; unpack it (tar xzf deploy.tar.gz) and give the folder"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_manifest_cut_short(folder, share):
    path = folder / "manifest.json"
    text = path.read_text().rstrip()
    path.write_text(text[: int(len(text) * share)])
    assert re.fullmatch(r"F/manifest.json: not valid JSON: .*; copy the bundle again", refused(folder))


@pytest.mark.parametrize("content", [b"[]", b"7", b'"x"', b"null"])
def test_a_manifest_without_fields(folder, content):
    (folder / "manifest.json").write_bytes(content)
    assert re.fullmatch(
        r"F/manifest.json: not valid JSON: a \w+ in place of an object; copy the bundle again", refused(folder)
    )


def test_a_manifest_that_is_no_text(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert refused(folder) == "F/manifest.json: cannot be read as text (line 1 is UTF-16); save it as UTF-8"


@pytest.mark.parametrize("schema", [3, 5, "4"])
def test_another_schema(folder, schema):
    change(folder, schema=schema)
    assert refused(folder) == (
        f"F/manifest.json: schema={schema!r}, this runtime reads 4; make the bundle again with the project that this "
        "runtime comes from"
    )


@pytest.mark.parametrize("name", ["model", "target", "interface", "digest", "weights_checksum", "sha256"])
def test_a_missing_field(folder, name):
    change(folder, **{name: None})
    assert refused(folder) == f"F/manifest.json: field {name} is missing; make the bundle again"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("port_words", "field port_words is missing"),
        ("digest", "field digest is missing"),
        ("registers", "registers is laid out otherwise than this runtime's"),
        ("buffers", "buffers is laid out otherwise than this runtime's"),
    ],
)
def test_a_missing_field_of_the_interface(folder, name, problem):
    interface = json.loads((folder / "manifest.json").read_text())["interface"]
    del interface[name]
    change(folder, interface=interface)
    assert refused(folder) == f"F/manifest.json: interface: {problem}; make the bundle again"


HUGE = int("9" * 4000)


@pytest.mark.parametrize(
    ("part", "field", "value", "sentence"),
    [
        ("target", "clock_mhz", float("inf"), "target: clock_mhz=inf must be a number from 1 to 1,000"),
        ("target", "clock_mhz", 1e9, "target: clock_mhz=1000000000.0 must be a number from 1 to 1,000"),
        ("target", "part", "x]; exec rm", "target: part='x]; exec rm' must be an FPGA as Vivado knows it, "),
        ("target", "name", "../x", "target: name='../x' must be a name for folders: "),
        ("clock", "mhz", 0, "clock: mhz=0 must be a number from 0.01 to 10,000"),
        ("clock", "pl0_divisors", [1, 0], "clock: pl0_divisors=0 must be a whole number from 1 to 63"),
        ("clock", "ratio", 7, "clock: ratio is laid out otherwise than this runtime's"),
        ("clock", "output_divide", 4, "clock: its dividers make 299.97 MHz, but the design is for 200"),
        ("target", "clock_mhz", 187.5, "clock: its dividers make 199.98 MHz, but the design is for 187.5"),
        ("model", "img_size", HUGE, "model: img_size=999999999999999999999999999999999999999"),
        ("model", "std", [0, 0, 0], "model: std=0 must be a number from 0.0001 to 10,000"),
        ("model", "crop", float("nan"), "model: crop=nan must be a number from 0.1 to 1"),
        ("model", "num_classes", 8, "interface: num_classes=7, but the design has 8"),
        ("interface", "num_classes", 8, "interface: num_classes=8, but the design has 7"),
        ("interface", "digest", 5, "interface: digest=5, but the design has "),
        ("interface", "rows", 2**40, "interface: rows=1099511627776 must be a whole number from 1 to 2,147,483,647"),
        ("architecture", "tile_in", 24, "architecture: [engine] tile_in=24 must be one of 8, 16, 32, 64, 128"),
        ("sha256", "x", "0", "sha256.x='0' must be a SHA-256 in hexadecimal digits, of at most 64 characters"),
        (None, "logits_frac_bits", 1000, "logits_frac_bits=1000 must be a whole number from -64 to 64"),
        (None, "weights_checksum", -1, "weights_checksum=-1 must be a whole number from 0 to 4,294,967,295"),
        (None, "digest", "x", "digest='x' must be a SHA-256 in hexadecimal digits"),
        (None, "first_word_of_step", [-1], "first_word_of_step=-1 must be a whole number from 0 to 2,147,483,647"),
        (None, "xyz", 1, "has no xyz; it knows schema, digest, "),
        (None, "clock", [], "clock=[] must be a table"),
    ],
)
def test_each_field_has_its_range(folder, part, field, value, sentence):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(folder, **{part: manifest[part] | {field: value}} if part else {field: value})
    assert refused(folder).startswith(f"F/manifest.json: {sentence}")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": 7}, "model=7 must be a table"),
        ({"interface": []}, "interface=[] must be a table"),
        ({"weights_checksum": "x"}, "weights_checksum='x' must be a whole number from 0 to 4,294,967,295"),
        ({"sha256": 7}, "sha256=7 must be a table of at most 100,000 digests"),
    ],
)
def test_fields_of_another_kind(folder, fields, sentence):
    change(folder, **fields)
    assert refused(folder) == f"F/manifest.json: {sentence}; make the bundle again"


def test_registers_laid_out_otherwise(folder):
    interface = json.loads((folder / "manifest.json").read_text())["interface"]
    interface["registers"]["digest"] += 8
    change(folder, interface=interface)
    assert refused(folder) == (
        "F/manifest.json: interface: registers is laid out otherwise than this runtime's; make the bundle again"
    )


def test_a_changed_weight(folder):
    path = folder / "weights" / "weights_1.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert refused(folder) == (
        "F/weights/weights_1.bin: not the file that manifest.json was made with (SHA-256 differs); copy the bundle again"
    )


def test_weights_cut_short(folder):
    path = folder / "weights" / "weights_0.bin"
    path.write_bytes(path.read_bytes()[:-16])
    assert "F/weights/weights_0.bin: not the file that manifest.json was made with" in refused(folder)


def test_missing_weights(folder):
    (folder / "weights" / "weights_1.bin").unlink()
    assert refused(folder) == "F/weights/weights_1.bin: there is no such file; the bundle was cut short, copy it again"


def test_weights_without_a_digest(folder):
    change(folder, sha256={})
    assert refused(folder) == "F/manifest.json: it has no sha256 of weights/weights_0.bin; make the bundle again"


def test_another_length_than_the_manifests(folder):
    interface = json.loads((folder / "manifest.json").read_text())["interface"]
    interface["port_words"] += 1
    for port in range(2):
        interface["buffers"][f"weights_{port}"]["shape"][0] += 1
    change(folder, interface=interface, port_words=interface["port_words"])
    words = interface["port_words"]
    assert refused(folder) == (
        f"F/weights/weights_0.bin: {(words - 1) * 16} bytes, the manifest's port_words={words} asks for {words * 16}; "
        "make the bundle again"
    )


def test_a_changed_bitstream(folder):
    (folder / "bitstream").mkdir()
    for name in ("spvit.bit", "spvit.hwh"):
        (folder / "bitstream" / name).write_text("x")
    digests = json.loads((folder / "manifest.json").read_text())["sha256"]
    right = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of "x"
    for wrong in ("spvit.bit", "spvit.hwh"):
        change(
            folder,
            sha256=digests
            | {f"bitstream/{n}": right for n in ("spvit.bit", "spvit.hwh")}
            | {f"bitstream/{wrong}": "0" * 64},
        )
        assert f"F/bitstream/{wrong}: not the file" in refused(folder)
    change(folder, sha256=digests | {f"bitstream/{n}": right for n in ("spvit.bit", "spvit.hwh")})
    load_bundle(folder)
