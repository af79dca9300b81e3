"""The pragmas of rendered sources, read once: where they stand, what they say, what is no pragma at all."""

import pytest

from hw.pragmas import Constants, dependences, read_folder, read_pragmas
from spvit.errors import BuildError

KERNEL = """\
#include "types.hpp"
namespace spvit {
constexpr int kDistance = 8;
constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
struct Arch {
    static constexpr int kWord = 64;
    static constexpr bool kFast = true;
    static constexpr int kBanks = ceil_div(kWord, 12) * (kFast ? 2 : 1);
};
enum class Package { APPEND, ADD };
template <class A, bool Is = (A::kWord > 3)>
struct Cutter {
    bool done() const { return false; }
    void take(int (&x)[4]) {  // #pragma HLS UNROLL in a comment is none
#pragma HLS INLINE
#pragma HLS ARRAY_PARTITION variable = x cyclic factor = A::kBanks dim=2
    }
};
#ifdef SPVIT_TIMED
#pragma HLS NOT_SEEN
#elif defined(__SYNTHESIS__) || defined(SPVIT_EXACT_WIDTHS)
template <class A>
int run(int n) {
#pragma HLS DATAFLOW
    const char* text = "{ #pragma HLS";
ENGINE:
    for (int i = 0; i < n; ++i) {
#pragma HLS pipeline II=1 \\
    rewind
#pragma HLS DEPENDENCE variable = memory.x inter true distance = kDistance
        if (i > 3) {
            for (int j = 0; j < 2; ++j) {
#pragma HLS UNROLL factor = 2
            }
        }
    }
#pragma HLS DEPENDENCE variable = y type = inter dependent = false
    return 0;
}
#else
#pragma HLS NOT_SEEN
#endif
}
"""


def test_where_a_pragma_stands_and_what_it_says():
    found = read_pragmas({"kernel.hpp": KERNEL})
    assert [(p.line, p.function, p.loop, p.in_loop, p.directive, dict(p.options)) for p in found] == [
        (15, "Cutter::take", "", False, "INLINE", {}),
        (16, "Cutter::take", "", False, "ARRAY_PARTITION",
         {"variable": "x", "cyclic": "", "factor": "A::kBanks", "dim": "2"}),
        (24, "run", "", False, "DATAFLOW", {}),
        (28, "run", "ENGINE", True, "PIPELINE", {"ii": "1", "rewind": ""}),
        (30, "run", "ENGINE", True, "DEPENDENCE",
         {"variable": "memory.x", "inter": "", "true": "", "distance": "kDistance"}),
        (33, "run", "", True, "UNROLL", {"factor": "2"}),
        (37, "run", "", False, "DEPENDENCE", {"variable": "y", "type": "inter", "dependent": "false"}),
    ]  # fmt: skip


def test_dependences_have_their_distances():
    sources = {"kernel.hpp": KERNEL}
    found = dependences(read_pragmas(sources), Constants(sources))
    assert [(d.variable, d.inter, d.dependent, d.distance) for d in found] == [
        ("memory.x", True, True, 8),
        ("y", True, False, 0),
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("kDistance", 8),
        ("A::kBanks", 12),
        ("Arch::kWord / 3", 21),
        ("0x10u", 16),
        ("Package::ADD == Package::ADD ? 3 : 4", 3),
        ("!Arch::kFast || kDistance >= 9", 0),
        ("-(kDistance << 1) % 5", -1),
    ],
)
def test_constants_have_the_values_that_cpp_gives_them(expression, value):
    assert Constants({"kernel.hpp": KERNEL}).value(expression) == value


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("#pragma HLS PIPELIN II = 1", "a.hpp:2: pragma HLS PIPELIN is unknown; known are AGGREGATE, "),
        ("#pragma HLS UNROLL facto = 2", "a.hpp:2: option facto of pragma HLS UNROLL is unknown; known are factor, "),
        (
            "#pragma HLS DEPENDENCE variable = x inter true",
            "a.hpp:2: DEPENDENCE of x is true and has no distance; give one",
        ),
        ("#pragma HLS DEPENDENCE inter false", "a.hpp:2: DEPENDENCE names no variable; add variable = ..."),
        (
            "#pragma HLS DEPENDENCE variable = x inter true distance = kNone",
            "a.hpp:2: kNone is no constant of these sources (kNone is not defined)",
        ),
    ],
)
def test_what_synthesis_would_not_know_is_refused(line, text):
    sources = {"a.hpp": f"void f() {{\n{line}\n}}\n"}
    with pytest.raises(BuildError) as error:
        dependences(read_pragmas(sources), Constants(sources))
    assert str(error.value).startswith(text)


def test_a_constant_with_two_values_has_none():
    sources = {"a.hpp": "constexpr int kA = 1;\nvoid f() { constexpr int kA = 2; }\n"}
    with pytest.raises(BuildError, match="kA has several values"):
        Constants(sources).value("kA")


def test_a_folder_without_sources_is_told(tmp_path):
    with pytest.raises(BuildError, match="run make hls first"):
        read_folder(tmp_path)
