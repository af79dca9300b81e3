// The accelerator around the engine: the walk over the program, and what is stored at its end.
#ifndef SPVIT_ACCELERATOR_HPP
#define SPVIT_ACCELERATOR_HPP

#include "engine.hpp"
#include "input_loader.hpp"
#include "status.hpp"
#include "token_packager.hpp"
#include "token_selector.hpp"

namespace spvit {

/// Runs steps first .. last-1. Before the first, the engine fills that one's first tile.
///   status  what each token selector decided (status.hpp)
template <class A, class Program>
void run_program(int first, int last, Tokens& tokens, WeightFifo<A>& fifo, Memory<A>& memory, std::int32_t* status) {
#pragma HLS INLINE off
    int stage = 0;
    int index = first - 1;
PROGRAM:
    while (index < last) {
#pragma HLS PIPELINE off
        const Step step = engine_step<Program>(index, first, last);
        switch (step.op) {
            case Op::POOL:
                timing::begin_step(index);
                mean_features<A>(index++, tokens, memory);
                break;
            case Op::DECIDE:
                timing::begin_step(index);
                decide<A>(step, index++, tokens, memory);
                break;
            case Op::PACKAGE: {
                timing::begin_step(index);
                const Tokens before = tokens;
                token_packager<A>(index++, tokens, memory);
                store_stage<A>(stage++, before, tokens, memory, status);
                break;
            }
            default:
                index = engine_run<A, Program>(index, first, last, tokens, fifo, memory);
        }
    }
    timing::begin_step(last);
}

/// The logits leave WORK's first row.
template <class A>
void store_logits(const Memory<A>& memory, int first_lane, std::int16_t* logits) {
#pragma HLS INLINE off
    timing::Pipeline loop("LOGITS");
LOGITS:
    for (int i = 0; loop.runs(i < A::kNumClasses); ++i) {
#pragma HLS PIPELINE II = 1
        const BankLane<A> place = locate<A>(first_lane + i);
        Int<16> logit = 0;
    LOGITS_BANKS:
        for (int bank = 0; bank < kBanks; ++bank) {
#pragma HLS UNROLL
            if (place.bank == bank) logit = read_work_lane<A>(memory, bank, 0, to_int(place.lane));
        }
        axi_write(logits, i, static_cast<std::int16_t>(to_int(logit)));
    }
}

}  // namespace spvit

#endif  // SPVIT_ACCELERATOR_HPP
