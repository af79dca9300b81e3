// The inner product of one column: two bodies, one result.
//   direct  sum a[j] w[j]                                               tile_in multipliers
//   fast    Winograd 1968; for DNN hardware Pogue and Nicolici 2024     tile_in / 2 multipliers
//           sum (a[j] + w[j+h]) (a[j+h] + w[j]) - pair_term(a) - pair_term(w),  h = tile_in / 2
// Exact in integers. The weights' term is a constant that leaves with the bias, the activations' term is one number per
// token and tile.
#ifndef SPVIT_INNER_PRODUCT_HPP
#define SPVIT_INNER_PRODUCT_HPP

#include "types.hpp"

namespace spvit {

/// sum v[j] v[j+h]: what the fast product has too much for each of its operands.
template <int N>
inline Int<48> pair_term(const Vec<Int<16>, N>& v) {
#pragma HLS INLINE
    Sum<N / 2> sum;
PAIRS:
    for (int j = 0; j < N / 2; ++j) {
#pragma HLS UNROLL
        sum.add(j, Int<32>(v[j]) * v[j + N / 2]);
    }
    return sum.total();
}

/// Products come in pairs: the second one's DSP48E2 adds the first.
template <bool Fast>
struct InnerProduct;

template <>
struct InnerProduct<false> {
    template <int N>
    static Int<48> term(const Vec<Int<16>, N>&) {
        return 0;
    }

    template <int N>
    static Int<48> sum(const Vec<Int<16>, N>& a, const Vec<Int<16>, N>& w) {
#pragma HLS INLINE
        Sum<N, 2> sum;
    PRODUCTS:
        for (int j = 0; j < N; ++j) {
#pragma HLS UNROLL
            sum.add(j, Int<32>(a[j]) * w[j]);
        }
        return sum.total();
    }
};

template <>
struct InnerProduct<true> {
    /// What is to be subtracted for one operand.
    template <int N>
    static Int<48> term(const Vec<Int<16>, N>& v) {
#pragma HLS INLINE
        return pair_term(v);
    }

    /// The inner product plus both operands' terms.
    template <int N>
    static Int<48> sum(const Vec<Int<16>, N>& a, const Vec<Int<16>, N>& w) {
#pragma HLS INLINE
        Sum<N / 2, 2> sum;
    PAIRED_PRODUCTS:
        for (int j = 0; j < N / 2; ++j) {
#pragma HLS UNROLL
            // a DSP48E2's pre-adder takes one of the sums
            const Int<17> left = Int<17>(a[j]) + w[j + N / 2];
            const Int<17> right = Int<17>(a[j + N / 2]) + w[j];
            sum.add(j, Int<34>(left) * right);
        }
        return sum.total();
    }
};

}  // namespace spvit

#endif  // SPVIT_INNER_PRODUCT_HPP
