// The accelerator around the engine: what is loaded before the first pass, the walk over the program, what is stored.
#ifndef SPVIT_ACCELERATOR_HPP
#define SPVIT_ACCELERATOR_HPP

#include "engine.hpp"
#include "status.hpp"
#include "token_packager.hpp"
#include "token_selector.hpp"

namespace spvit {

/// X starts as position embedding (with the class token on its row): the first rows of the weight stream.
template <class A>
void load_position(WeightFifo<A>& fifo, int num_rows, Memory<A>& memory) {
#pragma HLS INLINE off
    constexpr int kChunk = A::kFillLanes > A::kGroup ? A::kFillLanes : A::kGroup;  // lanes written at once
    Vec<Int<16>, kChunk> chunk = {};
    Statistics row_sums = {0, 0};
    Statistics head_sums = {0, 0};
    int lane = 0;
    int row = 0;
LOAD_POSITION:
    while (row < num_rows) {
#pragma HLS PIPELINE II = 1
        trace::expect_data(fifo);
        const FillWord<A> word = fifo.read();
    POSITION_LANES:
        for (int i = 0; i < A::kFillLanes; ++i) {
#pragma HLS UNROLL
            chunk[(lane + i) % kChunk] = word[i];
            const Int<32> square = Int<32>(word[i]) * word[i];
            row_sums.sum += word[i];
            row_sums.squares += square;
            head_sums.sum += word[i];
            head_sums.squares += square;
        }
        lane += A::kFillLanes;
        if (lane % kChunk == 0) {
            write_lanes<A, kChunk, Memory<A>::kEmbedGroups>(memory.x, row, lane - kChunk, chunk);
        }
        if (lane % A::kHeadLanes == 0) {
            memory.head_statistics[row * A::kHeads + lane / A::kHeadLanes - 1] = head_sums;
            head_sums = {0, 0};
        }
        if (lane == A::kEmbedLanes) {
            memory.row_statistics[row] = row_sums;
            row_sums = {0, 0};
            lane = 0;
            ++row;
        }
    }
}

/// Cuts the image, uint8 [kImgSize][kImgSize][kInChans], into patches: rows of WORK, pixels in (y, x, channel) order.
template <class A>
void load_patches(const PortWord<A::kImageLanes, 8>* image, Memory<A>& memory) {
#pragma HLS INLINE off
    constexpr int kGrid = A::kImgSize / A::kPatchSize;
    constexpr int kWordsPerLine = A::kPatchSize * A::kInChans / A::kImageLanes;  // of a patch
    constexpr int kWordsPerPatch = kWordsPerLine * A::kPatchSize;
    Vec<Int<16>, A::kGroup> group = {};
    int patch_x = 0;
    int patch_y = 0;
    int y = 0;
    int word = 0;  // within the line
    int lane = 0;  // within the patch
PATCHES:
    for (int i = 0; i < kGrid * kGrid * kWordsPerPatch; ++i) {
#pragma HLS PIPELINE II = 1
        const int line = patch_y * A::kPatchSize + y;
        const Vec<Int<16>, A::kImageLanes> pixels =
            unpack<A::kImageLanes, 8>(image[(line * kGrid + patch_x) * kWordsPerLine + word]);
    PIXELS:
        for (int j = 0; j < A::kImageLanes; ++j) {
#pragma HLS UNROLL
            group[(lane + j) % A::kGroup] = pixels[j];
        }
        const int row = A::kPrefix + patch_y * kGrid + patch_x;
        const bool patch_ends = lane + A::kImageLanes == kWordsPerPatch * A::kImageLanes;
        if ((lane + A::kImageLanes) % A::kGroup == 0 || patch_ends) {
            const BankLane place = locate<A>(lane / A::kGroup * A::kGroup);
            memory.work[place.bank][row * Memory<A>::kBankGroups + place.lane / A::kGroup] = group;
        }
        lane += A::kImageLanes;
        if (++word == kWordsPerLine) {
            word = 0;
            if (++y == A::kPatchSize) {
                y = 0;
                lane = 0;
                if (++patch_x == kGrid) {
                    patch_x = 0;
                    ++patch_y;
                }
            }
        }
    }
}

/// The index of the engine's next step after `index`, or `last`.
template <class Program>
int next_engine_step(int index, int last) {
#pragma HLS INLINE
FIND_NEXT:
    do {
        ++index;
    } while (index < last && Program::step(index).op != Op::ENGINE);
    return index;
}

/// Runs steps first .. last-1. The engine runs one step behind: before the first pass it only fills that pass's tile.
///   status  what each token selector decided (status.hpp)
template <class A, class Program>
void run_program(int first, int last, Tokens& tokens, WeightFifo<A>& fifo, Engine<A>& engine, std::int32_t* status) {
#pragma HLS INLINE off
    int stage = 0;
PROGRAM:
    for (int index = first - 1; index < last; ++index) {
        const Step step = index < first ? Program::idle() : Program::step(index);
        switch (step.op) {
            case Op::POOL:
                pool_features<A>(index, tokens, engine.memory);
                break;
            case Op::DECIDE:
                decide<A>(step, index, tokens, engine.memory);
                break;
            case Op::PACKAGE: {
                const Tokens before = tokens;
                token_packager<A>(index, tokens, engine.memory);
                store_stage<A>(stage++, before, tokens, engine.memory, status);
                break;
            }
            default: {
                const int next = next_engine_step<Program>(index, last);
                engine_pass<A>(step, next < last ? Program::step(next) : Program::idle(), index, tokens, fifo, engine);
            }
        }
    }
}

/// The logits leave WORK's first row.
template <class A>
void store_logits(const Memory<A>& memory, int first_lane, std::int16_t* logits) {
#pragma HLS INLINE off
LOGITS:
    for (int i = 0; i < A::kNumClasses; ++i) {
#pragma HLS PIPELINE II = 1
        const BankLane place = locate<A>(first_lane + i);
        logits[i] =
            static_cast<std::int16_t>(to_int(memory.work[place.bank][place.lane / A::kGroup][place.lane % A::kGroup]));
    }
}

}  // namespace spvit

#endif  // SPVIT_ACCELERATOR_HPP
