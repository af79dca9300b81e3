// Integers and vectors. One source, two builds:
//   exact   (synthesis, and C-simulation with -DSPVIT_EXACT_WIDTHS)  Int<W> is ap_int<W>: a width that is too small shows
//   native  (fast C-simulation)                                      Int<W> is the machine integer that holds W bits
// UInt<W> is its unsigned sister: counters, addresses and shift amounts, which a sign would make twice as expensive.
// Nothing else in the kernels knows which one it is compiled in.
#ifndef SPVIT_TYPES_HPP
#define SPVIT_TYPES_HPP

#include <cstdint>

#include "ap_int.h"
#include "hls_stream.h"

namespace spvit {

#if defined(__SYNTHESIS__) || defined(SPVIT_EXACT_WIDTHS)

template <int W>
using Int = ap_int<W>;
template <int W>
using UInt = ap_uint<W>;

/// x * 2^n in W bits, 0 <= n < 64; a signed amount would build a shifter to the right as well.
template <int W, class T>
inline Int<W> shift_left(const T& x, UInt<6> n) {
    return Int<W>(x) << n;
}

template <int W, bool Signed>
inline int to_int(const ap_int_base<W, Signed>& x) {
    return x.to_int();
}

/// N terms, three at a time: an adder of three numbers takes as many LUTs as one of two.
template <int N>
inline ap_int<48> add_up(const ap_int<48> (&terms)[N]) {
#pragma HLS INLINE
    constexpr int kGroups = (N + 2) / 3;
    ap_int<48> sums[kGroups];
ADD_THREE:
    for (int i = 0; i < kGroups; ++i) {
#pragma HLS UNROLL
        sums[i] = terms[3 * i];
        if (3 * i + 1 < N) sums[i] += terms[3 * i + 1];
        if (3 * i + 2 < N) sums[i] += terms[3 * i + 2];
    }
    return add_up(sums);
}

template <>
inline ap_int<48> add_up(const ap_int<48> (&terms)[1]) {
#pragma HLS INLINE
    return terms[0];
}

/// The sum of N terms; of products, one behind the other in `Chain` DSP48E2s, whose adders take the one before.
template <int N, int Chain = 1>
struct Sum {
    ap_int<48> chains[N / Chain];

    void add(int i, const ap_int<48>& term) {
#pragma HLS INLINE
        const int chain = i % (N / Chain);
        chains[chain] = i < N / Chain ? term : ap_int<48>(chains[chain] + term);
    }
    ap_int<48> total() const {
#pragma HLS INLINE
        return add_up(chains);
    }
};

/// The nearest whole number not above x / 2^n, 0 <= n < 2^AmountBits; `inexact` unless nothing is lost, `too_large` unless
/// W bits hold it. Rows of multiplexers, the largest step first: each leaves as many bits as the steps after it need.
template <int W, int AmountBits, int In>
inline void shift_right(const ap_int<In>& x, int n, Int<W>& floor, bool& inexact, bool& too_large) {
#pragma HLS INLINE
    ap_int<In> rest = x;
    inexact = false;
    too_large = false;
SHIFT_BY_BITS:
    for (int step = 1 << (AmountBits - 1); step > 0; step /= 2) {
#pragma HLS UNROLL
        const int kept = W + step - 1;
        if ((n & step) != 0) {
            inexact = inexact || (rest & ((ap_int<In>(1) << step) - 1)) != 0;
            rest >>= step;
        }
        if (kept < In) {
            too_large = too_large || (rest >> (kept - 1) != 0 && rest >> (kept - 1) != -1);
            rest = ap_int<In>(rest << (In - kept)) >> (In - kept);
        }
    }
    floor = rest;
}

#else

template <int Bytes>
struct NativeInt;
template <>
struct NativeInt<2> {
    using type = std::int16_t;
    using natural = std::uint16_t;
};
template <>
struct NativeInt<4> {
    using type = std::int32_t;
    using natural = std::uint32_t;
};
template <>
struct NativeInt<8> {
    using type = std::int64_t;
    using natural = std::uint64_t;
};

constexpr int native_bytes(int width) { return width <= 16 ? 2 : width <= 32 ? 4 : 8; }

template <int W>
using Int = typename NativeInt<native_bytes(W)>::type;
template <int W>
using UInt = typename NativeInt<native_bytes(W)>::natural;

/// x * 2^n in W bits; through unsigned, since C++14 does not define it for negative numbers.
template <int W, class T>
inline Int<W> shift_left(const T& x, int n) {
    return static_cast<Int<W>>(static_cast<std::uint64_t>(static_cast<std::int64_t>(x)) << n);
}

template <class T>
inline int to_int(const T& x) {
    return static_cast<int>(x);
}

/// The sum of N terms.
template <int N, int Chain = 1>
struct Sum {
    std::int64_t sum = 0;

    void add(int, std::int64_t term) { sum += term; }
    std::int64_t total() const { return sum; }
};

/// The nearest whole number not above x / 2^n, 0 <= n < 2^AmountBits; `inexact` unless nothing is lost, `too_large` unless
/// W bits hold it.
template <int W, int AmountBits, class T>
inline void shift_right(const T& x, int n, Int<W>& floor, bool& inexact, bool& too_large) {
    const std::int64_t whole = static_cast<std::int64_t>(x) >> n;
    inexact = shift_left<64>(whole, n) != x;
    too_large = whole >> (W - 1) != 0 && whole >> (W - 1) != -1;
    floor = static_cast<Int<W>>(whole);
}

#endif

/// N lanes side by side: one word of a wide memory, one bus of a datapath.
template <class T, int N>
struct Vec {
    T lane[N];
    T& operator[](int i) { return lane[i]; }
    const T& operator[](int i) const { return lane[i]; }
};

constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }
constexpr int round_up(int a, int b) { return ceil_div(a, b) * b; }
constexpr int ceil_log2(int n) {
    int bits = 0;
    while ((1 << bits) < n) ++bits;
    return bits;
}
/// Of an unsigned number from 0 to `largest`.
constexpr int bits_for(int largest) { return ceil_log2(largest + 1); }
constexpr int larger(int a, int b) { return a > b ? a : b; }
constexpr int smaller(int a, int b) { return a < b ? a : b; }

/// Counts 0 .. bound-1, and again. That it stands at its last number is a register: what follows waits for no comparison.
///   Most  that `bound` may be; it is 1 at least
template <int Most>
struct Counter {
    UInt<bits_for(larger(Most - 1, 1))> value;
    UInt<bits_for(larger(Most - 1, 1))> last_value;
    bool last;

    explicit Counter(int bound = Most) : value(0), last_value(bound - 1), last(bound == 1) {}

    void advance() {
#pragma HLS INLINE
        const int next = to_int(value) + 1;
        value = last ? 0 : next;
        last = last_value == 0 || last_value == next;
    }
};

/// x * factor in W bits, two bits of the factor at a time: what is done in every lane must not take a DSP in each.
///   Most  that the factor may be
template <int W, int Most, class T>
inline Int<W> times(const T& x, UInt<bits_for(Most)> factor) {
#pragma HLS INLINE
    const Int<W> twice = shift_left<W>(x, 1);
    const Int<W> triple = twice + x;
    Int<W> product = 0;
TIMES_DIGITS:
    for (int bit = 0; bit < bits_for(Most); bit += 2) {
#pragma HLS UNROLL
        const int digit = (to_int(factor) >> bit) & 3;
        const Int<W> multiple = digit == 3 ? triple : digit == 2 ? twice : digit == 1 ? Int<W>(x) : Int<W>(0);
        product += shift_left<W>(multiple, bit);
    }
    return product;
}

}  // namespace spvit

#endif  // SPVIT_TYPES_HPP
