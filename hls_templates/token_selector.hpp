// The token selector's own units beside its passes on the engine: pooling, and the decision of Eq. 6.
#ifndef SPVIT_TOKEN_SELECTOR_HPP
#define SPVIT_TOKEN_SELECTOR_HPP

#include "engine.hpp"

namespace spvit {

/// The candidates' mean of each of step.split features; zeros behind them, and when there is no candidate.
///   feature_sum  [kHeadLanes]  gathered by the pass before
template <class A>
void mean_features(const Step& step, int index, const Tokens& tokens, Memory<A>& memory) {
#pragma HLS INLINE off
    const int count = row_range<A>(Rows::CANDIDATES, tokens).count;
    const Reciprocal divisor = reciprocal(Int<41>(count > 0 ? count : 1));
    Vec<Int<16>, A::kTileIn> means = {};
    timing::Pipeline loop("POOL_FEATURES");
POOL_FEATURES:
    for (int lane = 0; loop.runs(lane < A::kHeadLanes); ++lane) {
#pragma HLS PIPELINE II = 1
        const Int<27> sum = pick_lane(load(memory.feature_sum, lane / A::kTileOut), lane % A::kTileOut);
        const bool is_mean = count > 0 && lane < to_int(step.split);
        const Int<16> mean = is_mean ? divide<15, 16>(Int<48>(sum), divisor) : Int<16>(0);
        shift_in(means, mean);
        if (lane % A::kTileIn == A::kTileIn - 1) store(memory.pooled, lane / A::kTileIn, means);
        trace::record(index, 0, lane, Vec<Int<16>, 1>{{mean}});
    }
}

/// Keeps a token iff sum(score * head weight) >= threshold * sum(head weight); its probability (Eq. 6) is its weight in
/// the package.
///   scores   WORK at step.source_lane, one word per head, lane 0: int16, keep logit minus drop logit
///   branch   WORK at step.weights_lane, one lane per head: int16, before the sigmoid
///   keep, probability  [num_tokens]
template <class A>
void decide(const Step& step, int index, int num_heads, const Tokens& tokens, Memory<A>& memory) {
#pragma HLS INLINE off
    constexpr int kHeadWeightShift = kProbabilityBits - kHeadWeightBits;
    const RowRange rows = row_range<A>(Rows::CANDIDATES, tokens);
    const int scores = step.source_lane - kTokenScoreBank * A::kBankLanes;
    const int branch = step.weights_lane - kBranchBank * A::kBankLanes;
    Int<48> weighted = 0;
    Int<24> weights = 0;
    int row = rows.first;
    int head = 0;
    timing::Pipeline loop("DECIDE");
DECIDE:
    while (loop.runs(row < rows.first + rows.count)) {
#pragma HLS PIPELINE II = 1
        const Int<16> z = read_work_lane<A>(memory, kTokenScoreBank, row, scores + head * A::kWord);
        const Int<16> y = read_work_lane<A>(memory, kBranchBank, row, branch + head);
        const Int<24> score = sigmoid(z, step.frac_bits);
        const Int<16> weight = requantize<16>(sigmoid(y, step.aux_frac_bits), kHeadWeightShift);
        weighted = (head == 0 ? Int<48>(0) : weighted) + Int<40>(score) * weight;
        weights = (head == 0 ? Int<24>(0) : weights) + weight;
        if (++head == num_heads) {
            const bool keep = weighted >= Int<48>(Int<48>(weights) * step.threshold);
            const Reciprocal divisor = reciprocal(Int<41>(weights > 0 ? weights : Int<24>(1)));
            const Int<24> quotient = divide<kProbabilityBits, kProbabilityBits + 2>(weighted, divisor);
            const Int<24> probability = quotient > 0 ? quotient : Int<24>(1);
            store(memory.keep, row, Int<2>(keep ? 1 : 0));
            store(memory.probability, row, probability);
            trace::record(index, row, 0, Vec<Int<24>, 2>{{Int<24>(keep ? 1 : 0), probability}});
            head = 0;
            ++row;
        }
    }
}

}  // namespace spvit

#endif  // SPVIT_TOKEN_SELECTOR_HPP
