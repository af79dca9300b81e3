"""Places of a struct's members, as clang lays structs out for wasm32."""

import pytest

from hw.schedule.layout import llvm_members, llvm_size

TYPES = {
    "%inner": "type { i16, i8 }",
    "%bits": "type { [2 x %inner], i128, ptr }",
    "%base": "type <{ i32, i8 }>",
    "%nested": "type { i8, <{ %inner, i8, i8 }>, <{ i8 }> }",
    "%nothing": "type {}",
}


@pytest.mark.parametrize(
    ("kind", "places", "size"),
    [
        ("%inner", [0, 2], (4, 2)),
        ("%bits", [0, 8, 24], (32, 8)),
        ("%base", [0, 4], (5, 1)),
        ("<{ i8, i32, i8 }>", [0, 1, 5], (6, 1)),
        ("%nested", [0, 1, 7], (8, 1)),
        ("%nothing", [], (0, 1)),
    ],
)
def test_places(kind, places, size):
    assert [place for _, place in llvm_members(kind, TYPES)] == places
    assert llvm_size(kind, TYPES) == size
