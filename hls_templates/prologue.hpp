// What happens to a token on its way into the array.
//   enters  kTileIn lanes as they lie in memory, the row's statistics
//   leaves  kTileIn signed 16-bit factors
#ifndef SPVIT_PROLOGUE_HPP
#define SPVIT_PROLOGUE_HPP

#include "functions.hpp"
#include "memory.hpp"
#include "step.hpp"

namespace spvit {

/// (x - mean) / std. Lanes that pad the row get garbage, which meets zero weights.
template <class A>
inline Vec<Int<16>, A::kTileIn> layer_norm(const Vec<Int<16>, A::kTileIn>& x, const Statistics& statistics,
                                           const Step& step) {
#pragma HLS INLINE
    const Int<55> total = statistics.sum;
    const Int<55> weighted_squares = times<55, A::kChannels>(statistics.squares, step.norm_channels);
    const Int<55> variance = weighted_squares - Int<55>(total * total) + Int<55>(step.epsilon);
    const Reciprocal rstd = reciprocal_sqrt(variance > 0 ? variance : Int<55>(1));
    const int shift = step.norm_shift + rstd.exponent;
    // |C x - sum| <= (C - 1) (2^16 - 1): up to 1,024 channels one DSP48E2 takes it whole
    constexpr int kCentredBits = 17 + ceil_log2(A::kChannels);
    Vec<Int<16>, A::kTileIn> z;
NORM_LANES:
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        const Int<28> scaled = times<28, A::kChannels>(x[i], step.norm_channels);
        const Int<kCentredBits> centred = scaled - statistics.sum;
        const Int<kCentredBits + 18> product = Int<kCentredBits + 18>(centred) * rstd.mantissa;
        z[i] = requantize<16, kMinNormShift>(product, shift);
    }
    return z;
}

/// 2^(score - row maximum); keys that are no tokens give zero, after the table, which would map them to something else.
///   frac_bits  of the scores
template <class A>
inline Vec<Int<16>, A::kTileIn> softmax_numerator(const Vec<Int<16>, A::kTileIn>& scores, Int<16> row_max,
                                                  int frac_bits, int first_key, int num_tokens) {
#pragma HLS INLINE
    const int tokens = num_tokens - first_key;
    Vec<Int<16>, A::kTileIn> p;
EXP_LANES:
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        p[i] = i < tokens ? exp2_negative(Int<17>(row_max) - scores[i], frac_bits) : Int<16>(0);
    }
    return p;
}

/// The token's own features, then the features pooled over all candidates.
template <class A>
inline Vec<Int<16>, A::kTileIn> concat_pooled(const Vec<Int<16>, A::kTileIn>& features, const Memory<A>& memory,
                                              int first_lane, int split) {
#pragma HLS INLINE
    const Vec<Int<16>, A::kTileIn> pooled = load(memory.pooled, part_of<A::kTileIn, A::kHeadLanes>(first_lane));
    Vec<Int<16>, A::kTileIn> joined;
CONCAT_LANES:
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        joined[i] = first_lane + i >= split ? pooled[i] : features[i];
    }
    return joined;
}

/// What enters the array, and for the softmax the row's sum of exponentials so far.
template <class A>
struct PrologueResult {
    Vec<Int<16>, A::kTileIn> factors;
    Int<27> exp_sum;
};

/// A row's lanes on their way in.
///   raw      kTileIn lanes of the source, from tile in_tile on
///   out_tile the exponentials are summed while the first tile of outputs is computed
template <class A>
inline PrologueResult<A> prologue(const Step& step, const Vec<Int<16>, A::kTileIn>& raw, int row, int in_tile,
                                  int out_tile, int num_tokens, Memory<A>& memory) {
#pragma HLS INLINE
    PrologueResult<A> result = {raw, 1};
    const int first_lane = in_tile * A::kTileIn;
    if (step.prologue == Prologue::LAYER_NORM || step.prologue == Prologue::HEAD_LAYER_NORM) {
        const bool per_head = step.prologue == Prologue::HEAD_LAYER_NORM;
        const int second_row = first_lane >= A::kEmbedLanes ? 1 : 0;  // class and distillation token side by side
        const Statistics statistics = per_head ? load(memory.head_statistics, row * A::kHeads + to_int(step.head))
                                               : load(memory.row_statistics, row + second_row);
        result.factors = layer_norm<A>(raw, statistics, step);
    } else if (step.prologue == Prologue::SOFTMAX) {
        result.factors =
            softmax_numerator<A>(raw, load(memory.score_max, row), to_int(step.frac_bits), first_lane, num_tokens);
        const Int<27> sum_so_far = load(memory.exp_sum, row);
        result.exp_sum = in_tile == 0 && out_tile == 0 ? Int<27>(0) : sum_so_far;
        if (out_tile == 0) {
            Sum<A::kTileIn> sum;
        SUM_EXP:
            for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
                sum.add(i, result.factors[i]);
            }
            result.exp_sum += sum.total();
        }
        store(memory.exp_sum, row, result.exp_sum);
    } else if (step.prologue == Prologue::CONCAT) {
        result.factors = concat_pooled<A>(raw, memory, first_lane, to_int(step.split));
    }
    return result;
}

}  // namespace spvit

#endif  // SPVIT_PROLOGUE_HPP
