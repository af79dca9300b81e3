// What happens to a token's sums on their way out of the array.
//   enters  kTileOut finished sums, each column's bias and shift
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
    Statistics sums;  // RESIDUAL: over these lanes
};

/// Each lane has one multiplier: GELU's slope, the division by the row's sum of exponentials, or the square for
/// LayerNorm's statistics.
///   residual  the row of X, for RESIDUAL
///   exp_sum   1 / (sum of the row's exponentials), for CONTEXT
template <class A>
inline EpilogueResult<A> epilogue(const Step& step, const Vec<Int<48>, A::kTileOut>& sums, const Tile<A>& tile,
                                  const Vec<Int<16>, A::kTileOut>& residual, const Reciprocal& exp_sum) {
#pragma HLS INLINE
    const bool is_gelu = step.epilogue == Epilogue::GELU;
    const bool is_context = step.epilogue == Epilogue::CONTEXT;
    const bool is_residual = step.epilogue == Epilogue::RESIDUAL;
    EpilogueResult<A> result;
    result.sums.sum = 0;
    result.sums.squares = 0;
EPILOGUE_LANES:
    for (int i = 0; i < A::kTileOut; ++i) {
#pragma HLS UNROLL
        const int shift = is_context                        ? dividend_cut<15>(exp_sum)
                          : step.weights == Weights::STREAM ? to_int(tile.shift[i])
                                                            : step.shift;
        Int<48> sum = sums[i] + tile.bias[i];
        if (is_residual) sum += shift_left<48>(residual[i], shift + step.residual_align);
        const Int<kDividendBits> rounded =
            is_context ? requantize<kDividendBits>(sum, shift) : Int<kDividendBits>(requantize<16>(sum, shift));

        const GeluSegment segment = gelu_segment(Int<16>(rounded), step.frac_bits);
        const Int<kDividendBits> left = is_gelu ? Int<kDividendBits>(segment.slope) : rounded;
        const Int<18> right = is_gelu ? Int<18>(segment.remainder) : is_context ? exp_sum.mantissa : Int<18>(rounded);
        const Int<45> product = Int<45>(left) * right;

        if (is_gelu) {
            const Int<46> gelu = gelu_value(Int<16>(rounded), step.frac_bits, segment, product);
            result.value[i] = requantize<16>(gelu, step.second_shift);
        } else if (is_context) {
            result.value[i] = requantize<16>(product, step.second_shift);
        } else {
            result.value[i] = Int<16>(rounded);
        }
        if (is_residual) {
            result.sums.sum += result.value[i];
            result.sums.squares += Int<42>(product);
        }
    }
    return result;
}

/// The largest score of the lanes that belong to tokens.
template <class A>
inline Int<16> largest_score(const Vec<Int<16>, A::kTileOut>& scores, int first_key, int num_tokens) {
#pragma HLS INLINE
    Int<16> largest = -32768;
MAX_LANES:
    for (int i = 0; i < A::kTileOut; ++i) {
#pragma HLS UNROLL
        if (first_key + i < num_tokens && scores[i] > largest) largest = scores[i];
    }
    return largest;
}

}  // namespace spvit

#endif  // SPVIT_EPILOGUE_HPP
