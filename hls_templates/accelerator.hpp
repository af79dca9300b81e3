// The accelerator around the engine: the walk over the program, and what is stored at its end.
#ifndef SPVIT_ACCELERATOR_HPP
#define SPVIT_ACCELERATOR_HPP

#include "input_loader.hpp"
#include "program.hpp"
#include "token_packager.hpp"
#include "token_selector.hpp"

namespace spvit {

/// Runs the program. Before its first step, the engine fills that one's first tile.
///   status  what each token selector decided (status.hpp)
template <class A>
void run_program(const Network& network, Tokens& tokens, WeightFifo<A>& fifo, Memory<A>& memory, std::int32_t* status) {
#pragma HLS INLINE off
    const int num_steps = to_int(network.num_steps);
    int stage = 0;
    int index = -1;
PROGRAM:
    while (index < num_steps) {
#pragma HLS PIPELINE off
        const Step step = read_step<A>(memory, index, num_steps);
        switch (step.op) {
            case Op::POOL:
                timing::begin_step(index);
                mean_features<A>(step, index++, tokens, memory);
                break;
            case Op::DECIDE:
                timing::begin_step(index);
                decide<A>(step, index++, to_int(network.num_heads), tokens, memory);
                break;
            case Op::PACKAGE: {
                timing::begin_step(index);
                const Tokens before = tokens;
                token_packager<A>(index++, network, tokens, memory);
                store_stage<A>(stage++, before, tokens, memory, status);
                break;
            }
            default:
                index = engine_run<A>(index, network, tokens, fifo, memory);
        }
    }
    timing::begin_step(num_steps);
}

/// What is left of a stream, where nothing may run: its writer must come to its end.
template <class Stream>
void discard(int num_words, Stream& stream) {
#pragma HLS INLINE off
    timing::Pipeline loop("DISCARD");
DISCARD:
    for (int i = 0; loop.runs(i < num_words); ++i) {
#pragma HLS PIPELINE II = 1
        trace::expect_data(stream);
        stream.read();
    }
}

/// The logits leave WORK's first row.
template <class A>
void store_logits(const Network& network, const Memory<A>& memory, std::int16_t* logits) {
#pragma HLS INLINE off
    timing::Pipeline loop("LOGITS");
LOGITS:
    for (int i = 0; loop.runs(i < to_int(network.num_classes)); ++i) {
#pragma HLS PIPELINE II = 1
        const BankLane<A> place = locate<A>(to_int(network.logits_lane) + i);
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
