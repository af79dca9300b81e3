"""The program as data: a header and one record per step, at the head of the weight stream. The one definition.

A record is RECORD_BITS wide and travels as int16 lanes, the lowest bits first; its fields lie behind each other in the
order given here. Python packs them, `step.hpp` (rendered from this) unpacks them, and what one can't hold the other
never sees: `pack` refuses values beyond their field. VERSION counts what was ever changed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from hw.steps import Epilogue, Memory, Op, Package, Prologue, Rows, Weights, WeightWidth
from spvit.errors import NetworkError

VERSION = 2
ENUMERATIONS: tuple[type[Enum], ...] = (Op, Memory, Prologue, Weights, WeightWidth, Rows, Epilogue, Package)
"""In the kernels under the same names, but for Memory, which is Buffer there."""
LANE_BITS = 16
RECORD_BITS = 256
RECORD_LANES = RECORD_BITS // LANE_BITS

Value = int | bool | Enum
Values = Mapping[str, Value]
Lanes = NDArray[np.int16]


@dataclass(frozen=True)
class Field:
    """Of a record: `bits` wide, an unsigned number, or one of `choices`, which are numbered from 0 on."""

    name: str
    bits: int
    meaning: str = ""
    choices: type[Enum] | None = None

    @property
    def is_flag(self) -> bool:
        return self.bits == 1 and self.choices is None

    def encode(self, value: Value) -> int:
        """Raises ValueError where the field can't hold it."""
        if self.choices is not None:
            return list(self.choices).index(self.choices(value))
        number = int(value)  # type: ignore[arg-type]  # an Enum without choices is an assertion's case
        if not 0 <= number < 2**self.bits:
            raise ValueError(f"{self.name}={number} does not fit {self.bits} bits, 0..{2**self.bits - 1}")
        return number

    def decode(self, code: int) -> Value:
        """Raises ValueError where the code is none of the choices."""
        if self.choices is not None:
            if code >= len(self.choices):
                raise ValueError(f"{self.name} has the code {code}, which is none of its {len(self.choices)} choices")
            return list(self.choices)[code]
        return bool(code) if self.is_flag else code


@dataclass(frozen=True)
class Record:
    """Fields one behind the other, from bit 0 on."""

    name: str
    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        assert len(set(names)) == len(names), names
        assert self.bits <= RECORD_BITS, f"{self.name} takes {self.bits} bits"
        for field in self.fields:
            assert field.choices is None or len(field.choices) <= 2**field.bits, field

    @property
    def bits(self) -> int:
        return sum(field.bits for field in self.fields)

    def first_bit(self, name: str) -> int:
        """Of one of its fields."""
        first = 0
        for field in self.fields:
            if field.name == name:
                return first
            first += field.bits
        raise KeyError(name)

    def pack(self, values: Values, what: str) -> Lanes:
        """Its lanes, int16 [RECORD_LANES].

        what  the step's name, for the sentence
        Raises NetworkError where a value does not fit its field.
        """
        assert values.keys() == {field.name for field in self.fields}, values.keys()
        word, first = 0, 0
        for field in self.fields:
            try:
                word |= field.encode(values[field.name]) << first
            except ValueError as error:
                raise NetworkError(f"{what}: {error} of the accelerator's {self.name} record") from None
            first += field.bits
        return np.frombuffer(word.to_bytes(RECORD_BITS // 8, "little"), "<i2").copy()

    def unpack(self, lanes: Lanes) -> dict[str, Value]:
        """What `pack` made lanes of. Raises ValueError where they are none of its making."""
        assert lanes.shape == (RECORD_LANES,) and lanes.dtype == np.int16, (lanes.shape, lanes.dtype)
        word = int.from_bytes(lanes.astype("<i2").tobytes(), "little")
        if word >> self.bits:
            raise ValueError(f"a {self.name} record has bits set beyond its {self.bits}")
        values, first = {}, 0
        for field in self.fields:
            values[field.name] = field.decode(word >> first & (2**field.bits - 1))
            first += field.bits
        return values


HEADER = Record(
    "network",
    (
        Field("checksum", 32, "of the table: `table_checksum`, over this field's own bits as zeros"),
        Field("version", 8, "of this layout"),
        Field("digest", 32, "of the network, for the status"),
        Field("num_steps", 12),
        Field("num_words", 28, "of the weight stream, this table with it"),
        Field("num_rows", 12, "of X, that follow this table"),
        Field("num_prefix", 4, "of them, before the patches"),
        Field("num_heads", 8),
        Field("package", 2, "", Package),
        Field("grid", 8, "patches along a side of the image"),
        Field("patch_lines", 8, "of the image, in a patch"),
        Field("line_words", 8, "of the image port, in a patch's line"),
        Field("num_classes", 16),
        Field("logits_lane", 16, "of WORK's first row"),
    ),
)

STEP = Record(
    "step",
    (
        Field("op", 3, "", Op),
        Field("rows", 2, "", Rows),
        Field("source", 2, "", Memory),
        Field("source_lane", 16, "lanes are counted within a row; WORK's rows are kBanks * kBankLanes wide"),
        Field("prologue", 3, "", Prologue),
        Field("split", 12, "CONCAT: first pooled lane; POOL: features"),
        Field("head", 8, "HEAD_LAYER_NORM: whose statistics"),
        Field("weights", 2, "", Weights),
        Field("weights_lane", 16, "K, V: the head's first lane; DECIDE: the head branch's"),
        Field("in_tiles", 10, "0: the tokens"),
        Field("out_tiles", 10, "0: the tokens"),
        Field("epilogue", 3, "", Epilogue),
        Field("dest", 2, "", Memory),
        Field("dest_lane", 16),
        Field("pool", 1, "sum what leaves, for the POOL step that follows"),
        Field("shift", 4, "SCORES: accumulator -> score, less kMinShift"),
        Field("norm_channels", 11, "of the row or head that is normalised"),
        Field("norm_shift", 5, "fraction bits of the normalised row below the product's"),
        Field("epsilon", 48, "beside C sum x^2 - (sum x)^2"),
        Field("residual_shift", 3, "left, to kResidualGuardBits more fraction bits than the result has"),
        Field("second_shift", 5, "GELU, CONTEXT: after the lane's multiplier"),
        Field("frac_bits", 4, "of what enters the function: SOFTMAX, GELU, DECIDE"),
        Field("aux_frac_bits", 4, "DECIDE: the head branch's"),
        Field("threshold", 23, "DECIDE"),
        Field("next_engine", 12, "the engine's next step after this one"),
        Field("weight_width", 2, "of the streamed weights", WeightWidth),
    ),
)


def pack_table(header: Values, steps: Sequence[tuple[str, Values]]) -> Lanes:
    """Header and named steps: int16 [1 + steps, RECORD_LANES].

    header  all but its checksum and version, which follow from the rest
    Raises NetworkError.
    """
    values = {**header, "version": VERSION, "checksum": 0}
    table: Lanes = np.stack([HEADER.pack(values, "the network"), *(STEP.pack(values, name) for name, values in steps)])
    table[0] = HEADER.pack({**values, "checksum": table_checksum(table)}, "the network")
    return table


def table_checksum(table: Lanes) -> int:
    """For each record rotate by one, XOR 32 bits at a time: a flipped bit always shows. The checksum's own bits are not
    looked at.

    table  int16 [records, RECORD_LANES]
    """
    halves = table.astype(np.int64) & 0xFFFF
    halves[0, : HEADER.fields[0].bits // LANE_BITS] = 0
    checksum = 0
    for record in halves:
        low, high = (int(np.bitwise_xor.reduce(record[first::2])) for first in (0, 1))
        checksum = (checksum << 1 & 0xFFFFFFFF | checksum >> 31) ^ (high << LANE_BITS | low)
    return checksum
