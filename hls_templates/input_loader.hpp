// What is loaded before the first pass: X, and the image's patches.
#ifndef SPVIT_INPUT_LOADER_HPP
#define SPVIT_INPUT_LOADER_HPP

#include "memory.hpp"
#include "timing.hpp"
#include "trace.hpp"
#include "weight_stream.hpp"

namespace spvit {

/// Lanes of X that are loaded per cycle: each is squared, and the image takes longer to arrive.
constexpr int kPositionLanes = 16;

/// X starts as position embedding (with the class token on its row): the first rows of the weight stream.
///   PerHead  gathers each head's statistics too: before a token selector that is a top of its own
template <class A, bool PerHead>
struct PositionLoader {
    static constexpr int kLanes = smaller(A::kFillLanes, kPositionLanes);  // that are taken at once
    static constexpr int kChunk = larger(kLanes, A::kGroup);               // that are written at once
    static constexpr int kStepsPerHead = A::kHeadLanes / kLanes;

    static constexpr int kWordsPerRow = A::kEmbedLanes / A::kFillLanes;
    using Words = UInt<bits_for(A::kRows* kWordsPerRow)>;

    FrontWord<A> front;
    Words unread;                          // words behind it, down to zero,
    bool reads;                            // while there are any
    bool last_read;                        // the next one is the last
    bool wants;                            // one, in this iteration: whether is decided before, from registers
    Counter<A::kFillLanes / kLanes> part;  // of the word
    Counter<kStepsPerHead> step;           // of the head
    Counter<A::kHeads> head;
    Row<A> row;
    Row<A> rows_left;
    bool last_row;
    bool more;
    Vec<Int<16>, kChunk> chunk;
    Statistics row_sums;
    Statistics head_sums;

    /// What an iteration has: lanes of the word that is there, or its successor on its way. None behind the last.
    void advance(WeightFifo<A>& fifo, Memory<A>& memory) {
#pragma HLS INLINE
        constexpr int kParts = A::kFillLanes / kLanes;
        const bool goes_on = front.there && !part.last;
        const bool before_last = part.value == kParts - 2;
        if (front.there) take(memory);
        if (wants) {
            trace::expect_data(fifo);
            front.follow(true, fifo);
            wants = !front.there || (kParts == 1 && !last_read);
            if (front.there) {
                reads = !last_read;
                last_read = unread == 2;
                unread = unread - 1;
            }
        } else {
            front.there = goes_on;
            wants = reads && goes_on && before_last;
        }
    }

    /// The next lanes of the word.
    void take(Memory<A>& memory) {
#pragma HLS INLINE
        const Vec<Int<16>, kLanes> lanes = slice<kLanes>(front.lanes, to_int(part.value) * kLanes);
        const int lane = to_int(head.value) * A::kHeadLanes + to_int(step.value) * kLanes;
        const bool starts_head = step.value == 0;
        const bool starts_row = starts_head && head.value == 0;
        const bool ends_row = step.last && head.last;
        const int place = part_of<kLanes, kChunk>(to_int(step.value) * kLanes);
        Sum<kLanes> sum;
        Sum<kLanes> squares;
    POSITION_LANES:
        for (int i = 0; i < kLanes; ++i) {
#pragma HLS UNROLL
            sum.add(i, lanes[i]);
            squares.add(i, Int<32>(lanes[i]) * lanes[i]);
        }
        const Statistics sums = {Int<27>(sum.total()), Int<42>(squares.total())};
        row_sums = gather(starts_row, row_sums, sums);
        if (PerHead) head_sums = gather(starts_head, head_sums, sums);
    CHUNK_LANES:
        for (int i = 0; i < kChunk; ++i) {
#pragma HLS UNROLL
            if (i / kLanes == place) chunk[i] = lanes[i % kLanes];
        }
        if (place == kChunk / kLanes - 1) {
            write_lanes<Memory<A>::kEmbedWords>(memory.x, to_int(row), lane / kChunk * kChunk, chunk);
        }
        if (PerHead && step.last) {
            store(memory.head_statistics, to_int(row) * A::kHeads + to_int(head.value), head_sums);
        }
        if (ends_row) store(memory.row_statistics, to_int(row), row_sums);

        more = !(ends_row && last_row);
        if (ends_row) {
            last_row = rows_left == 2;
            row = row + 1;
            rows_left = rows_left - 1;
        }
        if (step.last) head.advance();
        step.advance();
        part.advance();
    }
};

template <class A, bool PerHead>
inline PositionLoader<A, PerHead> begin_position(int num_rows) {
#pragma HLS INLINE
    PositionLoader<A, PerHead> loader;
    loader.row = 0;
    loader.rows_left = num_rows;
    loader.last_row = num_rows == 1;
    loader.more = num_rows != 0;
    loader.front.there = false;
    loader.unread = num_rows * PositionLoader<A, PerHead>::kWordsPerRow;
    loader.reads = num_rows != 0;
    loader.wants = num_rows != 0;
    loader.last_read = num_rows * PositionLoader<A, PerHead>::kWordsPerRow == 1;
    return loader;
}

/// Cuts the image, which comes line by line, into patches: rows of WORK, pixels in (y, x, channel) order.
template <class A>
struct PatchCutter {
    static constexpr int kGrid = A::kImgSize / A::kPatchSize;
    static constexpr int kWordsPerLine = A::kPatchSize * A::kInChans / A::kImageLanes;  // of a patch

    Counter<kGrid> patch_x;
    Counter<kGrid> patch_y;
    Counter<A::kPatchSize> y;     // of the line within the patches
    Counter<kWordsPerLine> word;  // within a patch's line
    bool more = true;

    void take(const PixelWord<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE
        const BankLane<A> place = locate<A>((y.value * kWordsPerLine + word.value) * A::kImageLanes);
        const int row = A::kPrefix + patch_y.value * kGrid + patch_x.value;
        write_work<A>(memory, place, row, unpack<A::kImageLanes, 8>(pixels));

        const bool ends_line = word.last && patch_x.last;
        const bool ends_patches = ends_line && y.last;
        more = !(ends_patches && patch_y.last);
        if (ends_patches) patch_y.advance();
        if (ends_line) y.advance();
        if (word.last) patch_x.advance();
        word.advance();
    }
};

/// X and the patches, side by side.
template <class A>
void load_inputs(WeightFifo<A>& fifo, PixelStream<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE off
    PositionLoader<A, false> position = begin_position<A, false>(A::kRows);
    PatchCutter<A> patches;
    timing::Pipeline loop("LOAD_INPUTS");
LOAD_INPUTS:
    while (loop.runs(position.more || patches.more)) {
#pragma HLS PIPELINE II = 1
        PixelWord<A> pixel_word;
        position.advance(fifo, memory);
        if (patches.more) {
            trace::expect_data(pixels);
            if (pixels.read_nb(pixel_word)) patches.take(pixel_word, memory);
        }
    }
}

/// X alone, for a kernel that is a top of its own.
template <class A>
void load_position(WeightFifo<A>& fifo, int num_rows, Memory<A>& memory) {
#pragma HLS INLINE off
    PositionLoader<A, true> position = begin_position<A, true>(num_rows);
    timing::Pipeline loop("LOAD_POSITION");
LOAD_POSITION:
    while (loop.runs(position.more)) {
#pragma HLS PIPELINE II = 1
        position.advance(fifo, memory);
    }
}

}  // namespace spvit

#endif  // SPVIT_INPUT_LOADER_HPP
