// THE rounding rule: drop bits, half to even, saturate. quant/formats.py states it in Python.
#ifndef SPVIT_FIXED_POINT_HPP
#define SPVIT_FIXED_POINT_HPP

#include "types.hpp"

namespace spvit {

/// The nearest number that `Bits` signed bits hold.
template <int Bits, class T>
inline Int<Bits> saturate(const T& x) {
#pragma HLS INLINE
    static_assert(Bits <= 31, "saturation bounds are held in int");
    const int largest = (1 << (Bits - 1)) - 1;
    const int smallest = -largest - 1;
    return x > largest ? Int<Bits>(largest) : x < smallest ? Int<Bits>(smallest) : Int<Bits>(x);
}

/// A number cut short, all that decides how it is rounded kept: `value` has more fraction bits than the result will.
template <int W>
struct Cut {
    Int<W> value;    // rounded down; its first bit is to spare, for an addition
    bool inexact;    // what was cut off is not zero
    bool too_large;  // W - 1 bits do not hold it, which is far beyond saturation
    bool negative;
};

/// acc / 2^(Least + amount) with `Guard` fraction bits, 0 <= amount < 2^AmountBits: the shifter is as wide as its window.
///   acc  less than 64 - Guard bits
template <int W, int Guard, int Least, int AmountBits, class T>
inline Cut<W> cut(const T& acc, int amount) {
#pragma HLS INLINE
    constexpr int kDropped = Least > Guard ? Least - Guard : 0;
    constexpr int kAppended = Guard > Least ? Guard - Least : 0;
    const Int<64> below = Int<64>(acc) & ((Int<64>(1) << kDropped) - 1);
    Cut<W> result;
    Int<W - 1> kept;
    shift_right<W - 1, AmountBits>(Int<64>(shift_left<64>(acc, kAppended) >> kDropped), amount, kept, result.inexact,
                                   result.too_large);
    result.value = kept;
    result.inexact = result.inexact || below != 0;
    result.negative = acc < 0;
    return result;
}

/// Drops the guard bits, half to even. What is `too_large` is not looked at here.
template <int Guard, int W>
inline Int<W - Guard + 1> round_half_even(const Cut<W>& x) {
#pragma HLS INLINE
    static_assert(Guard >= 1 && W <= 32, "half a unit is the first guard bit");
    const int bits = to_int(x.value);
    const int floor = bits >> Guard;
    const bool half = (bits >> (Guard - 1) & 1) != 0;
    const bool more = x.inexact || (bits & ((1 << (Guard - 1)) - 1)) != 0;
    return Int<W - Guard + 1>(floor + (half && (more || (floor & 1) != 0) ? 1 : 0));
}

/// What x was rounded to, saturated to `Bits` bits.
template <int Bits, int W, class T>
inline Int<Bits> saturate(const Cut<W>& x, const T& rounded) {
#pragma HLS INLINE
    const int largest = (1 << (Bits - 1)) - 1;
    return x.too_large ? Int<Bits>(x.negative ? -largest - 1 : largest) : saturate<Bits>(rounded);
}

/// acc / 2^shift rounded half to even, then saturated to `Bits` bits; Least <= shift < Least + 2^AmountBits.
template <int Bits, int Least = 0, int AmountBits = 6, class T>
inline Int<Bits> requantize(const T& acc, int shift) {
#pragma HLS INLINE
    const Cut<Bits + 3> x = cut<Bits + 3, 1, Least, AmountBits>(acc, shift - Least);
    return saturate<Bits>(x, round_half_even<1>(x));
}

}  // namespace spvit

#endif  // SPVIT_FIXED_POINT_HPP
