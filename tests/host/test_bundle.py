"""What a bundle can be wrong in: one sentence each, before anything is loaded."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from host.bundle import load_bundle, load_network
from hw.manifest import VERSION
from spvit.errors import BundleError
from spvit.files import seal
from spvit.images.preprocess import Preprocessing

DESIGN, NETWORK = "design.json", "weights/network.json"


@pytest.fixture
def folder(build, tmp_path):
    """A copy of its own to spoil."""
    copy = tmp_path / "bundle"
    copy.mkdir()
    shutil.copy(build.folder / DESIGN, copy)
    shutil.copytree(build.folder / "weights", copy / "weights")
    return copy


def change(folder, manifest, **fields):
    """Set fields of a manifest; None: remove."""
    path = folder / manifest
    document = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def refused(folder):
    """What is said of the design, or of the network that lies beside it."""
    with pytest.raises(BundleError) as caught:
        load_network(folder, load_bundle(folder))
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(folder), "F")


def test_a_build_folder_is_a_bundle(build, folder):
    bundle, model = load_bundle(folder), build.design.network.model
    assert load_bundle(str(folder)) == bundle
    assert (bundle.name, bundle.board, bundle.bitstream) == ("micro", "zcu102", None)
    assert bundle.networks == (folder / "weights",)
    assert bundle.hardware.capacities == build.design.layout.capacities
    network = load_network(folder, bundle)
    assert network == load_network(str(folder / "weights"), bundle)
    assert (network.name, network.num_tokens, network.digest) == (
        "micro",
        model.num_tokens,
        build.design.network.digest,
    )
    assert network.preprocessing == Preprocessing.from_model(model)
    assert network.logits_frac_bits == build.design.network.frac_bits["head"]
    assert [path.name for path in network.weights] == ["weights_0.bin", "weights_1.bin"]


def test_a_bitstream_is_found(folder):
    (folder / "bitstream").mkdir()
    for suffix in ("bit", "hwh"):
        (folder / "bitstream" / f"spvit.{suffix}").touch()
    assert refused(folder) == (
        "F/bitstream/spvit.bit: neither design.json nor make bitstream has a digest of it; make the bundle again"
    )
    for suffix in ("bit", "hwh"):
        seal(folder / "bitstream" / f"spvit.{suffix}")
    assert load_bundle(folder).bitstream == folder / "bitstream" / "spvit.bit"


def test_a_folder_that_is_none(build, tmp_path):
    sentence = "F: no design.json in there; give a folder that make deploy packed, or one that make hls left"
    assert refused(tmp_path) == sentence
    assert refused(tmp_path / "nowhere") == sentence
    with pytest.raises(BundleError) as caught:
        load_network(tmp_path, build.bundle)
    assert str(caught.value) == (
        f"{tmp_path}: no network.json in there; give a folder with network.json and its stripes, such as a bundle's "
        "networks/<name>, or one that make hls left"
    )


def test_an_archive_that_was_not_unpacked(build, tmp_path):
    (tmp_path / "deploy.tar.gz").touch()
    assert refused(tmp_path / "deploy.tar.gz") == "F: a file; unpack it (tar xzf deploy.tar.gz) and give the folder"
    with pytest.raises(BundleError, match=r": a file; unpack it "):
        load_network(tmp_path / "deploy.tar.gz", build.bundle)


BOTH = pytest.mark.parametrize("manifest", [DESIGN, NETWORK])


@BOTH
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_manifest_cut_short(folder, manifest, share):
    text = (folder / manifest).read_text().rstrip()
    (folder / manifest).write_text(text[: int(len(text) * share)])
    assert re.fullmatch(rf"F/{manifest}: not valid JSON: .*; copy the bundle again", refused(folder))


@BOTH
@pytest.mark.parametrize("content", [b"[]", b"7", b'"x"', b"null"])
def test_a_manifest_without_fields(folder, manifest, content):
    (folder / manifest).write_bytes(content)
    assert re.fullmatch(
        rf"F/{manifest}: not valid JSON: a \w+ in place of an object; copy the bundle again", refused(folder)
    )


@BOTH
def test_a_manifest_that_is_no_text(folder, manifest):
    (folder / manifest).write_bytes(b"\xff\xfe\x00")
    assert refused(folder) == f"F/{manifest}: cannot be read as text (line 1 is UTF-16); save it as UTF-8"


@BOTH
@pytest.mark.parametrize("schema", [VERSION - 1, VERSION + 1, str(VERSION)])
def test_another_schema(folder, manifest, schema):
    change(folder, manifest, schema=schema)
    assert refused(folder) == (
        f"F/{manifest}: schema={schema!r}, this runtime reads {VERSION}; make it again with the project that this "
        "runtime comes from"
    )


FIELDS = {
    DESIGN: ("digest", "target", "clock", "architecture", "capacities", "interface", "sha256"),
    NETWORK: ("design", "digest", "model", "pruning", "shapes", "weights_checksum", "sha256"),
}


@pytest.mark.parametrize(("manifest", "name"), [(one, name) for one, names in FIELDS.items() for name in names])
def test_a_missing_field(folder, manifest, name):
    change(folder, manifest, **{name: None})
    assert refused(folder) == f"F/{manifest}: field {name} is missing; make the bundle again"


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
    interface = json.loads((folder / DESIGN).read_text())["interface"]
    del interface[name]
    change(folder, DESIGN, interface=interface)
    assert refused(folder) == f"F/design.json: interface: {problem}; make the bundle again"


HUGE = int("9" * 4000)


@pytest.mark.parametrize(
    ("manifest", "part", "field", "value", "sentence"),
    [
        (DESIGN, "target", "clock_mhz", float("inf"), "target: clock_mhz=inf must be a number from 1 to 1,000"),
        (DESIGN, "target", "clock_mhz", 1e9, "target: clock_mhz=1000000000.0 must be a number from 1 to 1,000"),
        (DESIGN, "target", "part", "x]; exec rm", "target: part='x]; exec rm' must be an FPGA as Vivado knows it, "),
        (DESIGN, "target", "name", "../x", "target: name='../x' must be a name for folders: "),
        (DESIGN, "clock", "mhz", 0, "clock: mhz=0 must be a number from 0.01 to 10,000"),
        (DESIGN, "clock", "pl0_divisors", [1, 0], "clock: pl0_divisors=0 must be a whole number from 1 to 63"),
        (DESIGN, "clock", "ratio", 7, "clock: ratio is laid out otherwise than this runtime's"),
        (DESIGN, "clock", "output_divide", 4, "clock: its dividers make 299.97 MHz, but the design is for 200"),
        (DESIGN, "target", "clock_mhz", 187.5, "clock: its dividers make 199.98 MHz, but the design is for 187.5"),
        (DESIGN, "capacities", "num_classes", 8, "interface: num_classes=7, but the design has 8"),
        (
            DESIGN,
            "capacities",
            "num_tokens",
            2000,
            "capacities: num_tokens=2000 must be a whole number from 2 to 1,023",
        ),
        (DESIGN, "interface", "num_classes", 8, "interface: num_classes=8, but the design has 7"),
        (DESIGN, "interface", "digest", 5, "interface: digest=5, but the design has "),
        (DESIGN, "interface", "image_words", 5, "interface: image_words=5, but the design has "),
        (
            DESIGN,
            "interface",
            "rows",
            2**40,
            "interface: rows=1099511627776 must be a whole number from 1 to 2,147,483,647",
        ),
        (DESIGN, "architecture", "tile_in", 24, "architecture: [engine] tile_in=24 must be one of 8, 16, 32, 64, 128"),
        (DESIGN, "sha256", "x", "0", "sha256.x='0' must be a SHA-256 in hexadecimal digits, of at most 64 characters"),
        (DESIGN, None, "digest", "x", "digest='x' must be a SHA-256 in hexadecimal digits"),
        (DESIGN, None, "xyz", 1, "has no xyz; it knows schema, name, digest, "),
        (DESIGN, None, "clock", [], "clock=[] must be a table"),
        (NETWORK, "model", "img_size", HUGE, "model: img_size=999999999999999999999999999999999999999"),
        (NETWORK, "model", "std", [0, 0, 0], "model: std=0 must be a number from 0.0001 to 10,000"),
        (NETWORK, "model", "crop", float("nan"), "model: crop=nan must be a number from 0.1 to 1"),
        (NETWORK, "model", "num_classes", 8, "shapes: num_classes=7, but the network has 8"),
        (NETWORK, "shapes", "num_classes", 8, "shapes: num_classes=8, but the network has 7"),
        (NETWORK, "shapes", "num_tokens", 18, "shapes: num_tokens=18, but the network has 17"),
        (NETWORK, "shapes", "num_words", 0, "shapes: num_words=0 must be a whole number from 1 to 2,147,483,647"),
        (NETWORK, None, "design", "x", "design='x' must be a SHA-256 in hexadecimal digits"),
        (NETWORK, None, "logits_frac_bits", 1000, "logits_frac_bits=1000 must be a whole number from -64 to 64"),
        (NETWORK, None, "weights_checksum", -1, "weights_checksum=-1 must be a whole number from 0 to 4,294,967,295"),
        (
            NETWORK,
            None,
            "first_word_of_step",
            [-1],
            "first_word_of_step=-1 must be a whole number from 0 to 2,147,483,647",
        ),
        (NETWORK, None, "xyz", 1, "has no xyz; it knows schema, design, digest, "),
        (NETWORK, None, "model", 7, "model=7 must be a table"),
    ],
)
def test_each_field_has_its_range(folder, manifest, part, field, value, sentence):
    document = json.loads((folder / manifest).read_text())
    change(folder, manifest, **{part: document[part] | {field: value}} if part else {field: value})
    assert refused(folder).startswith(f"F/{manifest}: {sentence}")


@pytest.mark.parametrize(
    ("manifest", "fields", "sentence"),
    [
        (NETWORK, {"model": 7}, "model=7 must be a table"),
        (NETWORK, {"shapes": []}, "shapes=[] must be a table"),
        (DESIGN, {"interface": []}, "interface=[] must be a table"),
        (NETWORK, {"weights_checksum": "x"}, "weights_checksum='x' must be a whole number from 0 to 4,294,967,295"),
        (DESIGN, {"sha256": 7}, "sha256=7 must be a table of at most 100,000 digests"),
        (NETWORK, {"sha256": 7}, "sha256=7 must be a table of at most 100,000 digests"),
    ],
)
def test_fields_of_another_kind(folder, manifest, fields, sentence):
    change(folder, manifest, **fields)
    assert refused(folder) == f"F/{manifest}: {sentence}; make the bundle again"


def test_registers_laid_out_otherwise(folder):
    interface = json.loads((folder / DESIGN).read_text())["interface"]
    interface["registers"]["digest"] += 8
    change(folder, DESIGN, interface=interface)
    assert refused(folder) == (
        "F/design.json: interface: registers is laid out otherwise than this runtime's; make the bundle again"
    )


def test_a_changed_weight(folder):
    path = folder / "weights" / "weights_1.bin"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    assert refused(folder) == (
        "F/weights/weights_1.bin: not the file that network.json was made with (SHA-256 differs); copy the bundle again"
    )


def test_weights_cut_short(folder):
    path = folder / "weights" / "weights_0.bin"
    path.write_bytes(path.read_bytes()[:-16])
    assert "F/weights/weights_0.bin: not the file that network.json was made with" in refused(folder)


def test_missing_weights(folder):
    (folder / "weights" / "weights_1.bin").unlink()
    assert refused(folder) == "F/weights/weights_1.bin: there is no such file; the bundle was cut short, copy it again"


def test_weights_without_a_digest(folder):
    change(folder, NETWORK, sha256={})
    assert refused(folder) == "F/weights/network.json: it has no sha256 of weights_0.bin; make the bundle again"


def test_another_length_than_the_manifests(folder):
    shapes = json.loads((folder / NETWORK).read_text())["shapes"]
    words = shapes["num_words"] + 1
    change(folder, NETWORK, shapes=shapes | {"num_words": words})
    assert refused(folder) == (
        f"F/weights/weights_0.bin: {(words - 1) * 16} bytes, the manifest's num_words={words} asks for {words * 16}; "
        "pack the network again"
    )


def test_a_changed_bitstream(folder):
    (folder / "bitstream").mkdir()
    for name in ("spvit.bit", "spvit.hwh"):
        (folder / "bitstream" / name).write_text("x")
    digests = json.loads((folder / DESIGN).read_text())["sha256"]
    right = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of "x"
    for wrong in ("spvit.bit", "spvit.hwh"):
        change(
            folder,
            DESIGN,
            sha256=digests
            | {f"bitstream/{n}": right for n in ("spvit.bit", "spvit.hwh")}
            | {f"bitstream/{wrong}": "0" * 64},
        )
        assert f"F/bitstream/{wrong}: not the file" in refused(folder)
    change(folder, DESIGN, sha256=digests | {f"bitstream/{n}": right for n in ("spvit.bit", "spvit.hwh")})
    load_bundle(folder)
