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

/// acc / 2^shift rounded half to even, then saturated to `Bits` bits; 0 <= shift < the width of acc.
template <int Bits, class T>
inline Int<Bits> requantize(const T& acc, int shift) {
#pragma HLS INLINE
    const T floor = acc >> shift;
    const bool tie_goes_down = (floor & 1) == 0;
    const T half = shift_left<48>(1, shift) >> 1;
    const T rounding = half - T(shift > 0 && tie_goes_down ? 1 : 0);
    return saturate<Bits>(T((acc + rounding) >> shift));
}

}  // namespace spvit

#endif  // SPVIT_FIXED_POINT_HPP
