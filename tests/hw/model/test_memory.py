"""Block RAMs, counted by hand."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hw.architecture import Architecture
from hw.layout import Layout
from hw.model.memory import LOOK_UPS, Array, bram36, on_chip_arrays, uram
from hw.program import Sizes, build_program
from spvit.config import resolve_model

KERNELS = Path(__file__).parents[3] / "hls_templates"
ENUMERATIONS = {"Op", "Rows", "Buffer", "Prologue", "Weights", "Epilogue"}
DEIT_S = Layout(resolve_model("deit_s").model, Architecture())


@pytest.mark.parametrize(
    ("depth", "width", "blocks"),
    [
        (64, 1024, 0),  # LUTs
        (65, 36, 1),
        (512, 36, 1),
        (512, 37, 2),  # two of 36 bits, or three of 18 by 1024
        (513, 36, 2),  # deep as two of 512 x 36, as two of 1024 x 18
        (1024, 18, 1),
        (1024, 72, 4),
        (2048, 9, 1),
        (4096, 512, 114),  # 2 x 57 of 2048 x 9; 8 x 15 of 512 x 36 and 4 x 29 of 1024 x 18 are more
        (16384, 1, 1),
        (16385, 1, 2),
    ],
)
def test_blocks_of_one_memory(depth, width, blocks):
    assert Array("a", 1, depth, width).bram18 == blocks
    assert Array("a", 3, depth, width).bram18 == 3 * blocks


def test_deit_s_by_hand():
    """197 rows of 6 words of 64 lanes; four banks like that in image words of 16; 4 blocks of 64 keys of 384."""
    blocks = {array.name: array.bram18 for array in on_chip_arrays(DEIT_S)}
    assert blocks["residual stream"] == min(29 * 3, 57 * 2, 114 * 1)  # 1,182 words of 1,024 bits
    assert blocks["work"] == 4 * 4 * min(8 * 3, 15 * 2, 29 * 1)  # 1,182 words of 256 bits, four side by side
    assert blocks["values, skewed"] == 64 * min(1 * 3, 1 * 2, 2 * 1)  # 1,536 values of 16 bits
    assert blocks["accumulators"] == 86  # 197 words of 3,072 bits
    assert blocks["weight FIFO"] == 114  # 4,096 words of 512 bits: 57 BRAM36
    assert blocks["row statistics, partial too"] == 2 * 2  # 197 of 69 bits
    assert blocks["head statistics, partial too"] == 2 * min(3 * 2, 2 * 4)  # 1,182 of 69 bits
    assert blocks["table of reciprocal: base"] == blocks["table of reciprocal: slope"] == 4  # 256 words, four places
    assert blocks["table of rsqrt: base"] == 1 and blocks["table of sigmoid: base"] == 2
    assert blocks["program"] == 8  # 512 records of 256 bits
    total = sum(blocks.values()) + (4 + 2) * 4
    assert bram36(DEIT_S) == total / 2


def test_every_look_up_of_the_kernels_is_counted():
    """Each call of such a function has a ROM of its own."""
    text = "".join(re.sub(r"//.*", "", path.read_text()) for path in sorted(KERNELS.glob("*.hpp")))
    calls = {
        name: len(re.findall(rf"(?<!inline Reciprocal )(?<!inline Int<24> )\b{name}\(", text)) for name in LOOK_UPS
    }
    assert calls | {"rsqrt": 1} == LOOK_UPS
    assert len(re.findall(r"k(?:Rsqrt)Base\[", text)) == 1


@pytest.mark.parametrize("name", ["micro", "deit_digits", "deit_t", "deit_s", "deit_b"])
def test_no_program_has_more_steps_than_are_counted(name):
    spec = resolve_model(name)
    sizes = Sizes(spec.model, spec.pruning)
    assert len(build_program(sizes).steps) <= Layout(spec.model, Architecture()).max_steps


def test_classes_take_lanes_of_one_row_and_not_of_each():
    """ImageNet-21k's 21,843 lie in the first row and what is behind it, as 1,000 do."""
    assert bram36(Layout(replace(DEIT_S.model, num_classes=21843), Architecture())) == bram36(DEIT_S)
    assert Layout(replace(DEIT_S.model, num_classes=200 * 384), Architecture()).bank_lanes == 384
    assert Layout(replace(DEIT_S.model, num_classes=200 * 384 + 1), Architecture()).bank_lanes == 448


def test_more_tokens_need_more_blocks():
    sizes = [bram36(Layout(resolve_model(name).model, Architecture())) for name in ("deit_t", "deit_s", "deit_b")]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]


@pytest.mark.parametrize(("depth", "width", "blocks"), [(4096, 72, 1), (4097, 72, 2), (65, 73, 2), (1182, 1024, 15)])
def test_ultrarams_of_one_memory(depth, width, blocks):
    assert (Array("a", 2, depth, width, True).uram, Array("a", 2, depth, width, True).bram18) == (2 * blocks, 0)
    assert Array("a", 2, depth, width).uram == 0


def test_memories_move_to_ultraram_one_by_one():
    """What leaves the block RAMs: 1,182 words of 1,024 bits, sixteen times 1,182 of 256, 4,096 of 512."""
    moved = {"x": 15, "work": 16 * 4, "weights": 8}
    for name, ultrarams in moved.items():
        layout = Layout(DEIT_S.model, Architecture(uram=(name,)))
        assert uram(layout) == ultrarams
        gone = {"x": "residual stream", "work": "work", "weights": "weight FIFO"}[name]
        blocks = next(array.bram18 for array in on_chip_arrays(DEIT_S) if array.name == gone)
        assert bram36(layout) == bram36(DEIT_S) - blocks / 2
    assert uram(Layout(DEIT_S.model, Architecture(uram=tuple(moved)))) == sum(moved.values())
    assert uram(DEIT_S) == 0


def test_a_deeper_fifo_takes_more():
    assert bram36(Layout(DEIT_S.model, Architecture(fifo_words=16384))) == bram36(DEIT_S) + 228 - 57
