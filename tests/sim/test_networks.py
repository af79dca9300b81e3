"""Networks are data: one library runs all of its design's. A table that is not as it was sent runs nothing, and what
comes next is right: nothing of a network before is left."""

from __future__ import annotations

import numpy as np
import pytest

from hw.interface import STATUS_CHECKSUM, STATUS_ERROR, STATUS_STAGES, UNWRITTEN, Error
from hw.step_table import HEADER, RECORD_BITS, STEP
from hw.weights import num_table_words, stream_checksum, weight_stream
from sim.bridge import Accelerator
from sim.compare import compare_run
from tests.sim.conftest import Simulators, golden_of
from tests.sim.networks import MICRO, design_of, micro, random_images, random_network

PIXELS = random_images(MICRO.model, 1)
WORD_BITS = 128
"""Of the stream of an engine with one port."""


@pytest.fixture(scope="module")
def accelerator(simulators: Simulators) -> Accelerator:
    return simulators(design_of(micro()))


def assert_right(accelerator: Accelerator) -> None:
    golden = golden_of(accelerator.design, PIXELS)
    assert compare_run(accelerator, accelerator.run(PIXELS[0]), golden).mismatches == ()


def test_networks_take_turns(accelerator):
    rng = np.random.default_rng(0)
    random = [random_network(rng, MICRO.model, MICRO.pruning, extreme) for extreme in (False, True)]
    runners = [accelerator.with_network(network) for network in (micro(1), *random)]
    assert len({runner.design.program for runner in runners} | {accelerator.design.program}) == 4
    for _ in range(3):
        for runner in (accelerator, *runners):
            assert_right(runner)


def refusal(accelerator: Accelerator, words: int | None = None) -> Error:
    """Why it does not run, and that nothing else was done.

    words  of the stream that are sent; None: all
    """
    interface, whole = accelerator._interface, accelerator.stripe_words
    sent = whole if words is None else words
    status = accelerator.answer(num_words=sent)
    expected = np.full(interface.status_words, UNWRITTEN, np.int32)
    expected[STATUS_ERROR], expected[STATUS_STAGES] = status[STATUS_ERROR], 0
    if sent >= num_table_words(accelerator.design.architecture, 0):
        stream = np.ascontiguousarray(accelerator._stripes.swapaxes(0, 1)).reshape(whole, -1)
        expected[STATUS_CHECKSUM] = np.uint32(stream_checksum(stream[:sent])).astype(np.int32)
    assert np.array_equal(status, expected)
    return Error(int(status[STATUS_ERROR]))


def flip(accelerator: Accelerator, record: int, bit: int) -> None:
    """Of the table, 0 being the header; twice leaves it as it was."""
    bit += record * RECORD_BITS
    word, lane = bit // WORD_BITS, bit % WORD_BITS // 16
    accelerator._stripes.view(np.uint16)[0, word, lane] ^= 1 << bit % 16


def field_of(record: int, bit: int) -> str:
    layout = STEP if record else HEADER
    return next(
        (f.name for f in layout.fields if layout.first_bit(f.name) <= bit < layout.first_bit(f.name) + f.bits), ""
    )


def test_each_bit_of_a_corrupt_table(accelerator):
    """Of header and first step. What a number says that is not believed comes first, then the checksum."""
    assert weight_stream(accelerator.design)[0].shape[1] * 16 == WORD_BITS
    other = {
        "version": {Error.TABLE_VERSION},
        "num_steps": {Error.SIZES, Error.NUM_WORDS},
        **{name: {Error.SIZES} for name in ("num_rows", "num_prefix", "num_heads", "package")},
        "num_classes": {Error.SIZES},
        "logits_lane": {Error.SIZES},
    }
    seen = set()
    for record in range(2):
        for bit in range(RECORD_BITS):
            flip(accelerator, record, bit)
            try:
                error = refusal(accelerator)
            finally:
                flip(accelerator, record, bit)
            name = field_of(record, bit)
            allowed = set() if name == "version" else {Error.TABLE_CHECKSUM}
            assert error in allowed | other.get(name, set()), (record, bit, name)
            seen.add((name, error))
    assert {("num_steps", Error.SIZES), ("num_steps", Error.TABLE_CHECKSUM), ("num_classes", Error.SIZES)} <= seen
    assert_right(accelerator)


def test_truncated_streams(accelerator):
    design, whole = accelerator.design, accelerator.stripe_words
    header, table = (num_table_words(design.architecture, steps) for steps in (0, len(design.program.steps)))
    for words in (-1, 0, header - 1, header, header + 1, table - 1, table, table + 1, whole // 2, whole - 1):
        assert refusal(accelerator, words) is Error.NUM_WORDS, words
        assert_right(accelerator)
