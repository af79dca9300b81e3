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
struct PositionLoader {
    static constexpr int kChunk = A::kFillLanes > A::kGroup ? A::kFillLanes : A::kGroup;  // lanes written at once

    int num_rows;
    int row;
    int lane;
    Vec<Int<16>, kChunk> chunk;
    Statistics row_sums;
    Statistics head_sums;

    bool done() const { return row == num_rows; }

    void take(const FillWord<A>& word, Memory<A>& memory) {
#pragma HLS INLINE
        const int part = part_of<A::kFillLanes, kChunk>(lane);
    CHUNK_LANES:
        for (int i = 0; i < kChunk; ++i) {
#pragma HLS UNROLL
            if (i / A::kFillLanes == part) chunk[i] = word[i % A::kFillLanes];
        }
    POSITION_LANES:
        for (int i = 0; i < A::kFillLanes; ++i) {
#pragma HLS UNROLL
            const Int<32> square = Int<32>(word[i]) * word[i];
            row_sums.sum += word[i];
            row_sums.squares += square;
            head_sums.sum += word[i];
            head_sums.squares += square;
        }
        lane += A::kFillLanes;
        if (lane % kChunk == 0) {
            write_lanes<kChunk, Memory<A>::kEmbedGroups>(memory.x, row, lane - kChunk, chunk);
        }
        if (lane % A::kHeadLanes == 0) {
            store(memory.head_statistics, row * A::kHeads + lane / A::kHeadLanes - 1, head_sums);
            head_sums = {0, 0};
        }
        if (lane == A::kEmbedLanes) {
            store(memory.row_statistics, row, row_sums);
            row_sums = {0, 0};
            lane = 0;
            ++row;
        }
    }
};

template <class A>
inline PositionLoader<A> begin_position(int num_rows) {
#pragma HLS INLINE
    return {num_rows, 0, 0, {}, {0, 0}, {0, 0}};
}

/// Cuts the image, which comes line by line, into patches: rows of WORK, pixels in (y, x, channel) order.
template <class A>
struct PatchCutter {
    static constexpr int kGrid = A::kImgSize / A::kPatchSize;
    static constexpr int kWordsPerLine = A::kPatchSize * A::kInChans / A::kImageLanes;  // of a patch

    int patch_x;
    int patch_y;
    int y;     // of the line within the patches
    int word;  // within a patch's line

    bool done() const { return patch_y == kGrid; }

    void take(const PixelWord<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE
        const BankLane<A> place = locate<A>((y * kWordsPerLine + word) * A::kImageLanes);
        const int row = A::kPrefix + patch_y * kGrid + patch_x;
        store(memory.work[to_int(place.bank)], row * Memory<A>::kBankGroups + to_int(place.lane) / A::kImageLanes,
              unpack<A::kImageLanes, 8>(pixels));
        if (++word == kWordsPerLine) {
            word = 0;
            if (++patch_x == kGrid) {
                patch_x = 0;
                if (++y == A::kPatchSize) {
                    y = 0;
                    ++patch_y;
                }
            }
        }
    }
};

/// X and the patches, side by side.
template <class A>
void load_inputs(WeightFifo<A>& fifo, PixelStream<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE off
    PositionLoader<A> position = begin_position<A>(A::kRows);
    PatchCutter<A> patches = {0, 0, 0, 0};
    timing::Pipeline loop("LOAD_INPUTS");
LOAD_INPUTS:
    while (loop.runs(!position.done() || !patches.done())) {
#pragma HLS PIPELINE II = 1
        FillWord<A> word;
        PixelWord<A> pixel_word;
        if (!position.done()) {
            trace::expect_data(fifo);
            if (fifo.read_nb(word)) position.take(word, memory);
        }
        if (!patches.done()) {
            trace::expect_data(pixels);
            if (pixels.read_nb(pixel_word)) patches.take(pixel_word, memory);
        }
    }
}

/// X alone, for a kernel that is a top of its own.
template <class A>
void load_position(WeightFifo<A>& fifo, int num_rows, Memory<A>& memory) {
#pragma HLS INLINE off
    PositionLoader<A> position = begin_position<A>(num_rows);
    timing::Pipeline loop("LOAD_POSITION");
LOAD_POSITION:
    while (loop.runs(!position.done())) {
#pragma HLS PIPELINE II = 1
        trace::expect_data(fifo);
        position.take(fifo.read(), memory);
    }
}

/// Runs steps first .. last-1. Before the first, the engine fills that one's first tile.
///   status  what each token selector decided (status.hpp)
template <class A, class Program>
void run_program(int first, int last, Tokens& tokens, WeightFifo<A>& fifo, Memory<A>& memory, std::int32_t* status) {
#pragma HLS INLINE off
    int stage = 0;
    int index = first - 1;
PROGRAM:
    while (index < last) {
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
        axi_write(
            logits, i,
            static_cast<std::int16_t>(to_int(read_work_lane<A>(memory, to_int(place.bank), 0, to_int(place.lane)))));
    }
}

}  // namespace spvit

#endif  // SPVIT_ACCELERATOR_HPP
