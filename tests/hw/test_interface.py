"""Registers, buffers and status as Python has them against Vitis HLS's layout, the rendered C++ and status.hpp."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw import interface as names
from hw.generate import make_project
from hw.interface import Error, Interface, Shapes
from hw.manifest import DESIGN, DesignManifest, parse_manifest
from hw.target import resolve_target
from hw.weights import stream_checksum
from tests.sim.networks import design_of, micro

TEMPLATES = Path(__file__).parents[2] / "hls_templates"
DEIT_S = Interface(
    digest=0x1234ABCD, weight_ports=4, port_words=1 << 20, stripe_lanes=16, image_lanes=16, image_words=9408,
    num_classes=1000, num_stages=4, rows=197,
)  # fmt: skip


def test_registers_lie_as_vitis_hls_lays_them():
    """Written down from a driver header of Vitis HLS: 64-bit arguments 12 bytes apart, 32-bit ones 8."""
    expected = {
        "CTRL": 0x00, "GIER": 0x04, "IP_IER": 0x08, "IP_ISR": 0x0C,
        "weights_0_1": 0x10, "weights_0_2": 0x14, "weights_1_1": 0x1C, "weights_1_2": 0x20,
        "weights_2_1": 0x28, "weights_2_2": 0x2C, "weights_3_1": 0x34, "weights_3_2": 0x38,
        "num_words": 0x40, "digest": 0x48, "image_1": 0x50, "image_2": 0x54, "image_words": 0x5C,
        "logits_1": 0x64, "logits_2": 0x68, "status_1": 0x70, "status_2": 0x74,
    }  # fmt: skip
    assert {register.name: register.offset for register in DEIT_S.registers} == expected
    assert expected["status_2"] + 4 <= names.ADDRESS_RANGE


def test_buffers():
    shapes = {buffer.name: (buffer.bundle, buffer.dtype, buffer.shape, buffer.nbytes) for buffer in DEIT_S.buffers}
    assert shapes == {
        **{f"weights_{p}": (f"weights_{p}", "int16", (1 << 20, 16), 32 << 20) for p in range(4)},
        "image": ("image", "uint8", (224 * 224 * 3,), 150_528),
        "logits": ("logits", "int16", (1000,), 2000),
        "status": ("status", "int32", (4 + 4 * 8,), 144),
    }
    assert DEIT_S.bundles == ("weights_0", "weights_1", "weights_2", "weights_3", "image", "logits", "status")
    assert [buffer.name for buffer in DEIT_S.buffers if not buffer.is_read] == ["logits", "status"]


def test_a_network_brings_its_own_sizes():
    shapes = Shapes(690_000, img_size=160, in_chans=3, num_classes=7, num_stages=3, num_prefix_tokens=1, num_tokens=101)
    assert [buffer.shape for buffer in DEIT_S.weights(shapes.num_words)] == [(690_000, 16)] * 4
    assert DEIT_S.registers_of(shapes) == {
        "num_words": 690_000,
        "digest": 0x1234ABCD,
        "image_words": 160 * 160 * 3 // 16,
    }


def test_the_manifest_brings_it_back():
    manifest = json.loads(json.dumps(DEIT_S.to_manifest()))
    assert Interface(**{name: manifest[name] for name in Interface.__dataclass_fields__}) == DEIT_S
    assert manifest["registers"]["digest"] == 0x48
    assert manifest["buffers"]["logits"] == {"bundle": "logits", "dtype": "int16", "shape": [1000]}


@pytest.mark.parametrize(("tile_in", "ports"), [(8, 1), (16, 2)])
def test_the_top_function_says_the_same(tile_in, ports):
    project = make_project(design_of(micro(), tile_in=tile_in, tile_out=32), resolve_target("zcu102"))
    interface = parse_manifest(DesignManifest, json.loads(project.files[DESIGN]), Path(DESIGN)).interface
    assert interface.weight_ports == ports
    top = project.files["src/top.cpp"]
    signature = re.search(r"void spvit_top\((.*?)\) \{", top, re.DOTALL)[1]
    assert [argument.split()[-1].lstrip("*") for argument in signature.split(",")] == [
        n for n, _ in interface.arguments
    ]
    pinned = dict(re.findall(r"s_axilite port = (\w+) bundle = control offset = (0x\w+)", top))
    assert {name: int(offset, 16) for name, offset in pinned.items()} == interface.offsets
    masters = re.findall(r"m_axi port = (\w+) offset = slave bundle = (\w+) depth = (\d+)", top)
    assert {name: bundle for name, bundle, _ in masters} == {b.name: b.bundle for b in interface.buffers}
    depths = {name: int(depth) for name, _, depth in masters}
    assert depths["weights_0"] == interface.port_words
    assert depths["logits"] == interface.num_classes
    assert depths["status"] == interface.status_words
    assert depths["image"] == interface.image_words
    assert f"kDigest = 0x{interface.digest:08x}U;" in top


def test_the_status_buffer_is_the_headers():
    text = (TEMPLATES / "status.hpp").read_text()
    constants = dict(re.findall(r"constexpr int k(\w+) = (\d+);", text))
    assert constants == {
        "StatusError": str(names.STATUS_ERROR), "StatusStages": str(names.STATUS_STAGES),
        "StatusChecksum": str(names.STATUS_CHECKSUM), "StatusNetwork": str(names.STATUS_NETWORK), "StatusHeader": str(names.STATUS_HEADER),
        "KeepRowsPerWord": str(names.KEEP_ROWS_PER_WORD),
    }  # fmt: skip
    listed = re.search(r"enum class Error : \S+ \{(.*?)\}", text, re.DOTALL)[1]
    assert re.findall(r"^ +(\w+),?", listed, re.MULTILINE) == [error.name for error in Error]
    assert [error.value for error in Error] == list(range(len(Error)))


streams = st.tuples(st.integers(1, 100), st.sampled_from([8, 16, 32]), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[2]).integers(-(2**15), 2**15, drawn[:2], dtype=np.int16)
)


def slow_checksum(words):
    total = 0
    for word in words.tolist():
        folded = 0
        for lane, value in enumerate(word):
            folded ^= (value & 0xFFFF) << (16 * (lane % 2))
        total = ((total << 1 | total >> 31) & 0xFFFF_FFFF) ^ folded
    return total


@given(streams)
def test_checksum(words):
    assert stream_checksum(words) == slow_checksum(words)


@given(streams, st.data())
def test_a_flipped_bit_always_shows(words, data):
    flipped = words.copy()
    row, lane = (data.draw(st.integers(0, size - 1)) for size in words.shape)
    flipped[row, lane] ^= np.int16(np.array(1 << data.draw(st.integers(0, 15)), np.uint16).astype(np.int16))
    assert stream_checksum(flipped) != stream_checksum(words)
