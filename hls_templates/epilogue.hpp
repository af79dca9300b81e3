// What happens to a token's sums on their way out of the array.
//   enters  kTileOut finished sums, each column's shift
//   leaves  kTileOut int16 values, and what the row's statistics gain
#ifndef SPVIT_EPILOGUE_HPP
#define SPVIT_EPILOGUE_HPP

#include "functions.hpp"
#include "step.hpp"
#include "tile.hpp"

namespace spvit {

template <class A>
struct EpilogueResult {
    Vec<Int<16>, A::kTileOut> value;
    Statistics sums;  // over these lanes; of no meaning but for RESIDUAL
};

/// Each lane has one multiplier and adder: GELU's segment, the division by the row's sum of exponentials, or the square
/// for LayerNorm's statistics.
///   residual  the row of X, for RESIDUAL
///   exp_sum   1 / (sum of the row's exponentials), for CONTEXT
template <class A>
inline EpilogueResult<A> epilogue(const Step& step, const Vec<Int<48>, A::kTileOut>& sums, const Tile<A>& tile,
                                  const Vec<Int<16>, A::kTileOut>& residual, const Reciprocal& exp_sum) {
#pragma HLS INLINE
    constexpr int kTopBits = dividend_bits<15>();  // hold every weighted sum of values, so that they never saturate
    constexpr int kCutBits = kTopBits + kResidualGuardBits + 1;
    const bool is_gelu = step.epilogue == Epilogue::GELU;
    const bool is_context = step.epilogue == Epilogue::CONTEXT;
    const bool is_residual = step.epilogue == Epilogue::RESIDUAL;
    EpilogueResult<A> result;
    Sum<A::kTileOut> sum_of_values;
    Sum<A::kTileOut> sum_of_squares;
EPILOGUE_LANES:
    for (int i = 0; i < A::kTileOut; ++i) {
#pragma HLS UNROLL
        // beyond kMinShift; a row of tokens has a sum of exponentials of 32767 at least, so that context's is no less
        const int shift = is_context                        ? dividend_cut<15>(exp_sum) - kMinShift
                          : step.weights == Weights::STREAM ? to_int(tile.shift[i])
                                                            : to_int(step.shift);
        Cut<kCutBits> sum = cut<kCutBits, kResidualGuardBits, kMinShift, kShiftBits>(sums[i], shift);
        if (is_residual) sum.value += shift_left<kCutBits>(residual[i], step.residual_shift);
        const Int<kTopBits + 2> nearest = round_half_even<kResidualGuardBits>(sum);
        const Int<16> rounded = saturate<16>(sum, nearest);

        const GeluSegment segment = gelu_segment(rounded, to_int(step.frac_bits));
        const Int<kTopBits> left = is_gelu      ? Int<kTopBits>(segment.slope)
                                   : is_context ? Int<kTopBits>(nearest)
                                                : Int<kTopBits>(rounded);
        const Int<18> right = is_gelu ? Int<18>(segment.remainder) : is_context ? exp_sum.mantissa : Int<18>(rounded);
        const Int<47> addend = is_gelu ? gelu_addend(segment) : Int<47>(0);
        const Int<48> product = Int<48>(left) * right + addend;

        result.value[i] = is_gelu || is_context
                              ? requantize<16, kMinSecondShift, kSecondShiftBits>(product, step.second_shift)
                              : rounded;
        sum_of_values.add(i, result.value[i]);
        sum_of_squares.add(i, Int<32>(product));
    }
    result.sums.sum = sum_of_values.total();
    result.sums.squares = sum_of_squares.total();
    return result;
}

/// Of N numbers, a power of two: a tree.
template <class T>
inline T largest_lane(const Vec<T, 1>& word) {
#pragma HLS INLINE
    return word[0];
}
template <class T, int N>
inline T largest_lane(const Vec<T, N>& word) {
#pragma HLS INLINE
    Vec<T, N / 2> half;
LARGER_HALF:
    for (int i = 0; i < N / 2; ++i) {
#pragma HLS UNROLL
        half[i] = word[i] > word[i + N / 2] ? word[i] : word[i + N / 2];
    }
    return largest_lane(half);
}

/// The largest score of the lanes that belong to tokens.
template <class A>
inline Int<16> largest_score(const Vec<Int<16>, A::kTileOut>& scores, int first_key, int num_tokens) {
#pragma HLS INLINE
    const int tokens = num_tokens - first_key;
    Vec<Int<16>, A::kTileOut> masked;
MASK_SCORES:
    for (int i = 0; i < A::kTileOut; ++i) {
#pragma HLS UNROLL
        masked[i] = i < tokens ? scores[i] : Int<16>(-32768);
    }
    return largest_lane(masked);
}

}  // namespace spvit

#endif  // SPVIT_EPILOGUE_HPP
