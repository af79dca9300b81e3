"""What the scheduler refuses: in one sentence, with the place and the way out."""

import pytest

from hw.schedule.loops import pipelined_loops
from spvit.errors import BuildError

KERNEL = """\
#include "hls_stream.h"
void pass(hls::stream<int>& in, hls::stream<int>& out, int n) {
    static int a[64];
    static int b[64];
    // timing::Pipeline loop("PASS");
PASS:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const int word = in.read();
        out.write(word);
        a[word & 63] = word;
        b[word & 31] = word;
    }
}
"""


def loops_of(text):
    return list(pipelined_loops({"kernel.cpp": text}, "kernel.cpp"))


def test_a_kernel_that_can_be_scheduled():
    assert [loop.label for loop in loops_of(KERNEL)] == ["PASS"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("#pragma HLS PIPELINE II = 1", "", "kernel.cpp: the loop PASS has no PIPELINE; add #pragma HLS PIPELINE"),
        ("PIPELINE II", "PIPELINED II", "kernel.cpp:8: pragma HLS PIPELINED is unknown; known are AGGREGATE, "),
        ("word);\n        a", "word)\n        a", "clang could not compile kernel.cpp for the scheduler: kernel.cpp:10"),
        (
            "out.write(word);", "for (int k = 0; k < n; ++k) out.write(word);",
            "kernel.cpp:8: a loop is left within the pipelined loop PASS; give it a constant number of iterations",
        ),
        (
            "out.write(word);", "out.write(*(word > 3 ? &a[word & 7] : &b[word & 3]));",
            "kernel.cpp:10: a load through a choice between pointers, which synthesis refuses where they point to",
        ),
        (
            "out.write(word);", "*(word > 3 ? &a[word & 7] : &b[word & 3]) = 1; out.write(word);",
            "kernel.cpp:10: a store through a choice of pointers; choose an index",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_scheduled_is_one_sentence(old, new, text):
    assert old in KERNEL
    with pytest.raises(BuildError) as error:
        loops_of(KERNEL.replace(old, new, 1))
    assert text in str(error.value) and "\n" not in str(error.value)


def test_a_machine_without_clang_is_told(monkeypatch):
    monkeypatch.setattr("hw.schedule.frontend.find_spec", lambda name: None)
    with pytest.raises(BuildError, match=r"clang not found: the Python package ziglang of requirements.txt is not"):
        loops_of(KERNEL)
