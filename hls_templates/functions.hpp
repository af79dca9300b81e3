// The non-linear functions: tables with linear interpolation in integers, step by step as in quant/functions.py.
#ifndef SPVIT_FUNCTIONS_HPP
#define SPVIT_FUNCTIONS_HPP

#include "fixed_point.hpp"
#include "tables.hpp"

namespace spvit {

/// 2^-t in Q0.15 (32767 stands for one), rounded half to even.
///   t   row maximum minus score, >= 0, `frac_bits` <= kExpFracBits fraction bits
inline Int<16> exp2_negative(Int<17> t, int frac_bits) {
#pragma HLS INLINE
#pragma HLS BIND_STORAGE variable = kExp type = rom_np impl = bram
    const Int<28> aligned = shift_left<28>(t, kExpFracBits - frac_bits);
    const int whole = to_int(Int<18>(aligned >> kExpFracBits));
    const Int<19> value = kExp[to_int(aligned) & ((1 << kExpFracBits) - 1)];
    return whole > 15 ? Int<16>(0) : requantize<16, kExpGuardBits, 4>(value, kExpGuardBits + (whole & 15));
}

/// One segment of h(|x|) = GELU(x) - max(x, 0), chosen by x: h = base * 2^kGeluRemainderBits + slope * remainder.
struct GeluSegment {
    Int<20> base;
    Int<18> slope;
    Int<10> remainder;
    Int<31> positive;  // max(x, 0), with kGeluMaxFracBits fraction bits
};

constexpr int kGeluRemainderBits = kGeluMaxFracBits - kGeluSegmentBits;
constexpr int kGeluFracBits = kGeluTableFracBits + kGeluRemainderBits;

inline GeluSegment gelu_segment(Int<16> x, int frac_bits) {
#pragma HLS INLINE
#pragma HLS BIND_STORAGE variable = kGeluBase type = rom_np impl = bram
#pragma HLS BIND_STORAGE variable = kGeluSlope type = rom_np impl = bram
    const Int<17> magnitude = x < 0 ? Int<17>(-Int<17>(x)) : Int<17>(x);
    const Int<31> aligned = shift_left<31>(magnitude, kGeluMaxFracBits - frac_bits);
    GeluSegment s;
    s.positive = x > 0 ? aligned : Int<31>(0);
    if (aligned < (kGeluLimit << kGeluMaxFracBits)) {
        const int position = to_int(aligned);
        s.base = kGeluBase[position >> kGeluRemainderBits];
        s.slope = kGeluSlope[position >> kGeluRemainderBits];
        s.remainder = position & ((1 << kGeluRemainderBits) - 1);
    } else {
        s.base = 0;
        s.slope = 0;
        s.remainder = 0;
    }
    return s;
}

/// What slope * remainder is added to, to give GELU(x) with kGeluFracBits fraction bits, unrounded.
inline Int<47> gelu_addend(const GeluSegment& s) {
#pragma HLS INLINE
    return shift_left<46>(s.positive, kGeluFracBits - kGeluMaxFracBits) + shift_left<46>(s.base, kGeluRemainderBits);
}

/// 1 / x, or 1 / sqrt(x), as a 17-bit mantissa and the exponent of x.
struct Reciprocal {
    Int<18> mantissa;
    UInt<6> exponent;
};

/// Index of the leading one of x > 0.
template <class T>
inline int floor_log2(T x) {
#pragma HLS INLINE
#if defined(__SYNTHESIS__) || defined(SPVIT_EXACT_WIDTHS)
    return T::width - 1 - x.countLeadingZeros();
#else
    return 63 - __builtin_clzll(static_cast<unsigned long long>(x));
#endif
}

/// To 17 bits, half up, at most 2^17 - 1.
inline Int<18> round_reciprocal(Int<48> value, int drop) {
#pragma HLS INLINE
    const Int<48> rounded = (value + shift_left<48>(1, drop - 1)) >> drop;
    const int largest = (1 << kReciprocalBits) - 1;
    return rounded > largest ? Int<18>(largest) : Int<18>(rounded);
}

/// 1/s = mantissa * 2^-(kReciprocalBits + exponent), for 0 < s < 2^40.
inline Reciprocal reciprocal(Int<41> s) {
#pragma HLS INLINE
    constexpr int kRemainderBits = kMantissaBits - kReciprocalSegmentBits;
    Reciprocal r;
    r.exponent = floor_log2(s);
    const Int<41> aligned = shift_left<41>(s, 39 - r.exponent);  // the leading one at bit 39
    const int fraction = to_int(Int<26>(aligned >> (39 - kMantissaBits))) & ((1 << kMantissaBits) - 1);
    const int segment = fraction >> kRemainderBits;
    const int remainder = fraction & ((1 << kRemainderBits) - 1);
    const Int<48> value =
        shift_left<48>(kReciprocalBase[segment], kRemainderBits) + Int<48>(kReciprocalSlope[segment]) * remainder;
    r.mantissa = round_reciprocal(value, kRemainderBits + kReciprocalGuardBits);
    return r;
}

/// 1/sqrt(v) = mantissa * 2^-(kReciprocalBits + exponent), for 0 < v < 2^54.
inline Reciprocal reciprocal_sqrt(Int<55> v) {
#pragma HLS INLINE
    constexpr int kLowBits = kMantissaBits - 2;  // v = m * 4^exponent, m in [1, 4) with kLowBits fraction bits
    constexpr int kRemainderBits = kLowBits + 1 - kRsqrtSegmentBits;
    Reciprocal r;
    r.exponent = floor_log2(v) >> 1;
    const Int<55> aligned = shift_left<55>(v, 2 * (26 - r.exponent));  // 52 fraction bits
    const int mantissa = to_int(Int<26>(aligned >> (52 - kLowBits)));
    const bool upper = mantissa >= (2 << kLowBits);
    const int position = upper ? mantissa : 2 * (mantissa - (1 << kLowBits));
    const int segment = position >> kRemainderBits;
    const int remainder = position & ((1 << kRemainderBits) - 1);
    const Int<48> value =
        shift_left<48>(kRsqrtBase[segment], kRemainderBits) + Int<48>(kRsqrtSlope[segment]) * remainder;
    r.mantissa = round_reciprocal(value, kRemainderBits + kReciprocalGuardBits);
    return r;
}

/// Of a dividend, those that the divider's multiplier takes: more than kDividendGuardBits too many leave no trace.
template <int RatioBits>
constexpr int dividend_bits() {
    return RatioBits + 2 + kDividendGuardBits < kMaxDividendBits ? RatioBits + 2 + kDividendGuardBits
                                                                 : kMaxDividendBits;
}

/// How many bits of a dividend lie below them.
template <int RatioBits>
inline int dividend_cut(const Reciprocal& divisor) {
#pragma HLS INLINE
    return divisor.exponent + RatioBits + 2 - dividend_bits<RatioBits>();
}

/// Fraction bits that cut dividend * mantissa has beyond the quotient's.
template <int RatioBits>
constexpr int divide_frac_bits() {
    return kReciprocalBits + dividend_bits<RatioBits>() - 2 - RatioBits;
}

/// dividend / divisor, rounded once; |dividend| <= divisor * 2^RatioBits.
template <int RatioBits, int Bits>
inline Int<Bits> divide(Int<48> dividend, const Reciprocal& divisor) {
#pragma HLS INLINE
    constexpr int kTopBits = dividend_bits<RatioBits>();
    constexpr int kAppended = kTopBits - RatioBits - 2;  // so that the smallest divisor's cut is none
    const Int<48 + kAppended> longer = shift_left<48 + kAppended>(dividend, kAppended);
    const Int<kTopBits> top = requantize<kTopBits>(longer, dividend_cut<RatioBits>(divisor) + kAppended);
    return requantize<Bits>(Int<45>(Int<45>(top) * divisor.mantissa), divide_frac_bits<RatioBits>());
}

/// sigmoid(x) with kProbabilityBits fraction bits; `frac_bits` <= kSigmoidMaxFracBits.
inline Int<24> sigmoid(Int<16> x, int frac_bits) {
#pragma HLS INLINE
    constexpr int kRemainderBits = kSigmoidMaxFracBits - kSigmoidSegmentBits;
    const Int<17> magnitude = x < 0 ? Int<17>(-Int<17>(x)) : Int<17>(x);
    const Int<31> aligned = shift_left<31>(magnitude, kSigmoidMaxFracBits - frac_bits);
    Int<24> tail = 0;
    if (aligned < (kSigmoidLimit << kSigmoidMaxFracBits)) {
        const int position = to_int(aligned);
        const int segment = position >> kRemainderBits;
        const int remainder = position & ((1 << kRemainderBits) - 1);
        const Int<32> value =
            shift_left<32>(kSigmoidBase[segment], kRemainderBits) + kSigmoidSlope[segment] * remainder;
        tail = Int<24>((value + (1 << (kRemainderBits - 1))) >> kRemainderBits);
    }
    return x >= 0 ? Int<24>((1 << kProbabilityBits) - tail) : tail;
}

}  // namespace spvit

#endif  // SPVIT_FUNCTIONS_HPP
