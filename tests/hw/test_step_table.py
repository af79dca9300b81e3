"""The step table: what Python packs the kernels unpack, field by field, at the ends of each field's range."""

import ctypes
import re
import subprocess
from enum import Enum

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.render import render_sources
from hw.step_table import (
    HEADER,
    LANE_BITS,
    RECORD_BITS,
    RECORD_LANES,
    STEP,
    VERSION,
    Field,
    Record,
    pack_table,
    table_checksum,
)
from hw.steps import Op
from sim.build import compile_flags
from spvit.errors import NetworkError
from tests.sim.networks import design_of, micro


def values_of(field):
    if field.choices is not None:
        return st.sampled_from(list(field.choices))
    largest = 2**field.bits - 1
    return st.one_of(st.sampled_from((0, largest)), st.integers(0, largest))


def records(record):
    return st.fixed_dictionaries({field.name: values_of(field) for field in record.fields})


def code(value):
    return list(type(value)).index(value) if isinstance(value, Enum) else int(value)


@pytest.mark.parametrize("record", [HEADER, STEP], ids=["header", "step"])
def test_fields_lie_behind_each_other(record):
    """One field at its largest sets its own bits and no others."""
    nothing = {field.name: next(iter(field.choices)) if field.choices else 0 for field in record.fields}
    first = 0
    for field in record.fields:
        largest = list(field.choices)[-1] if field.choices else 2**field.bits - 1
        lanes = record.pack(nothing | {field.name: largest}, "a step")
        word = int.from_bytes(lanes.tobytes(), "little")
        assert word == code(largest) << first, field.name
        assert record.first_bit(field.name) == first
        first += field.bits
    assert first == record.bits <= RECORD_BITS == LANE_BITS * RECORD_LANES


@given(values=records(STEP))
def test_steps_come_back_as_they_were_packed(values):
    assert STEP.unpack(STEP.pack(values, "a step")) == values


@given(values=records(HEADER))
def test_headers_come_back_as_they_were_packed(values):
    assert HEADER.unpack(HEADER.pack(values, "a network")) == values


def test_what_does_not_fit_is_named():
    values = {field.name: next(iter(field.choices)) if field.choices else 0 for field in STEP.fields}
    with pytest.raises(NetworkError) as refused:
        STEP.pack(values | {"in_tiles": 1024}, "blocks.0.mlp.fc2")
    assert str(refused.value) == (
        "blocks.0.mlp.fc2: in_tiles=1024 does not fit 10 bits, 0..1023 of the accelerator's step record"
    )
    with pytest.raises(NetworkError, match=r"split=-1 does not fit 12 bits"):
        STEP.pack(values | {"split": -1}, "a step")


def test_records_that_nobody_packed_are_refused():
    lanes = np.zeros(RECORD_LANES, np.int16)
    lanes[-1] = -32768
    with pytest.raises(ValueError, match=r"bits set beyond its \d+"):
        STEP.unpack(lanes)
    lanes[:] = 0
    lanes[0] = len(Op)
    with pytest.raises(ValueError, match="op has the code 5, which is none of its 5 choices"):
        STEP.unpack(lanes)


def test_a_record_has_no_room_for_more():
    with pytest.raises(AssertionError, match="takes 257 bits"):
        Record("wide", (Field("a", 200), Field("b", 57)))


def test_each_flipped_bit_changes_the_checksum():
    header = {
        field.name: next(iter(field.choices)) if field.choices else 1
        for field in HEADER.fields
        if field.name not in ("checksum", "version")
    }
    values = {field.name: next(iter(field.choices)) if field.choices else 1 for field in STEP.fields}
    table = pack_table(header, [("one", values), ("two", values)])
    assert table.shape == (3, RECORD_LANES)
    unpacked = HEADER.unpack(table[0])
    assert unpacked["version"] == VERSION and unpacked["checksum"] == table_checksum(table)
    for record in range(3):
        for bit in range(32 if record == 0 else 0, RECORD_BITS):
            flipped = table.copy()
            flipped.view(np.uint16)[record, bit // LANE_BITS] ^= 1 << bit % LANE_BITS
            assert table_checksum(flipped) != unpacked["checksum"], (record, bit)


@pytest.fixture(scope="module", params=[False, True], ids=["native", "exact"])
def unpack_step(request, tmp_path_factory):
    """The kernels' unpack_step: int16 [RECORD_LANES] -> each field as an int64."""
    folder = tmp_path_factory.mktemp("unpack")
    for name, text in render_sources(design_of(micro()).layout, "a test").items():
        (folder / name).write_text(text)
    reads = "\n".join(f"    values[{i}] = code(step.{f.name});" for i, f in enumerate(STEP.fields))
    (folder / "door.cpp").write_text(
        '#include "step.hpp"\n'
        "template <class T> std::int64_t code(T x) { return static_cast<std::int64_t>(x); }\n"
        "template <int W> std::int64_t code(ap_uint<W> x) { return x.to_int64(); }\n"
        'extern "C" __attribute__((visibility("default"))) void unpack(const std::int16_t* lanes, std::int64_t* values) {\n'
        "    spvit::Record record;\n"
        "    for (int i = 0; i < spvit::kRecordLanes; ++i) record[i] = lanes[i];\n"
        f"    const spvit::Step step = spvit::unpack_step(record);\n{reads}\n}}\n"
    )
    flags = [flag for flag in compile_flags(request.param) if flag != "-O3"]
    command = ["g++", *flags, "-O1", "-shared", str(folder / "door.cpp"), "-o", str(folder / "door.so")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    library = ctypes.CDLL(str(folder / "door.so"))

    def unpack(lanes):
        values = np.zeros(len(STEP.fields), np.int64)
        library.unpack(ctypes.c_void_p(lanes.ctypes.data), ctypes.c_void_p(values.ctypes.data))
        return values.tolist()

    return unpack


@given(values=records(STEP))
def test_the_kernels_unpack_what_python_packs(unpack_step, values):
    assert unpack_step(STEP.pack(values, "a step")) == [code(values[field.name]) for field in STEP.fields]


def test_choices_have_the_same_numbers_in_the_kernels():
    text = render_sources(design_of(micro()).layout, "a test")["step.hpp"]
    enumerations = dict(re.findall(r"enum class (\w+) : std::uint8_t \{(.*)\};", text))
    for field in STEP.fields:
        if field.choices is not None:
            name = "Buffer" if field.choices.__name__ == "Memory" else field.choices.__name__
            assert enumerations[name].replace(" ", "").split(",") == [choice.name for choice in field.choices]
