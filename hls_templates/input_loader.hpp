// What is loaded before the first pass: X, and the image's patches.
#ifndef SPVIT_INPUT_LOADER_HPP
#define SPVIT_INPUT_LOADER_HPP

#include "memory.hpp"
#include "timing.hpp"
#include "trace.hpp"
#include "weight_stream.hpp"

namespace spvit {

/// X starts as position embedding (with the class token on its row): the first rows of the weight stream.
///   PerHead  gathers each head's statistics too: before a token selector that is a top of its own
template <class A, bool PerHead>
struct PositionLoader {
    static constexpr int kChunk = larger(A::kFillLanes, A::kGroup);  // lanes written at once
    static constexpr int kWordsPerHead = A::kHeadLanes / A::kFillLanes;

    Counter<kWordsPerHead> word;  // of the head
    Counter<A::kHeads> head;
    Row<A> row;
    Row<A> rows_left;
    bool last_row;
    bool more;
    Vec<Int<16>, kChunk> chunk;
    Statistics row_sums;
    Statistics head_sums;

    void take(const FillWord<A>& lanes, Memory<A>& memory) {
#pragma HLS INLINE
        const int lane = to_int(head.value) * A::kHeadLanes + to_int(word.value) * A::kFillLanes;
        const bool starts_head = word.value == 0;
        const bool starts_row = starts_head && head.value == 0;
        const bool ends_row = word.last && head.last;
        const int part = part_of<A::kFillLanes, kChunk>(to_int(word.value) * A::kFillLanes);
        Sum<A::kFillLanes> sum;
        Sum<A::kFillLanes> squares;
    POSITION_LANES:
        for (int i = 0; i < A::kFillLanes; ++i) {
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
            if (i / A::kFillLanes == part) chunk[i] = lanes[i % A::kFillLanes];
        }
        if (part == kChunk / A::kFillLanes - 1) {
            write_lanes<Memory<A>::kEmbedWords>(memory.x, to_int(row), lane / kChunk * kChunk, chunk);
        }
        if (PerHead && word.last) {
            store(memory.head_statistics, to_int(row) * A::kHeads + to_int(head.value), head_sums);
        }
        if (ends_row) store(memory.row_statistics, to_int(row), row_sums);

        more = !(ends_row && last_row);
        if (ends_row) {
            last_row = rows_left == 2;
            row = row + 1;
            rows_left = rows_left - 1;
        }
        if (word.last) head.advance();
        word.advance();
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
        FillWord<A> word;
        PixelWord<A> pixel_word;
        if (position.more) {
            trace::expect_data(fifo);
            if (fifo.read_nb(word)) position.take(word, memory);
        }
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
        trace::expect_data(fifo);
        position.take(fifo.read(), memory);
    }
}

}  // namespace spvit

#endif  // SPVIT_INPUT_LOADER_HPP
