// What is loaded before the first pass: X, and the image's patches.
#ifndef SPVIT_INPUT_LOADER_HPP
#define SPVIT_INPUT_LOADER_HPP

#include "memory.hpp"
#include "timing.hpp"
#include "trace.hpp"
#include "weight_stream.hpp"

namespace spvit {

/// X starts as position embedding (with the class token on its row): the first rows of the weight stream.
template <class A>
struct PositionLoader {
    static constexpr int kChunk = larger(A::kFillLanes, A::kGroup);  // lanes written at once
    static constexpr int kWordsPerHead = A::kHeadLanes / A::kFillLanes;

    // the next word's place: compared with its bounds as it stands, and counted then
    UInt<bits_for(kWordsPerHead)> word;  // of the head
    UInt<bits_for(A::kHeads)> head;
    Row<A> row;
    Row<A> rows_left;
    bool done;
    Vec<Int<16>, kChunk> chunk;
    Statistics row_sums;
    Statistics head_sums;

    void take(const FillWord<A>& lanes, Memory<A>& memory) {
#pragma HLS INLINE
        const int lane = to_int(head) * A::kHeadLanes + to_int(word) * A::kFillLanes;
        const bool starts_head = word == 0;
        const bool starts_row = starts_head && head == 0;
        const bool ends_head = word == kWordsPerHead - 1;
        const bool ends_row = ends_head && head == A::kHeads - 1;
        const int part = part_of<A::kFillLanes, kChunk>(to_int(word) * A::kFillLanes);
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
        head_sums = gather(starts_head, head_sums, sums);
    CHUNK_LANES:
        for (int i = 0; i < kChunk; ++i) {
#pragma HLS UNROLL
            if (i / A::kFillLanes == part) chunk[i] = lanes[i % A::kFillLanes];
        }
        if (part == kChunk / A::kFillLanes - 1) {
            write_lanes<Memory<A>::kEmbedWords>(memory.x, to_int(row), lane / kChunk * kChunk, chunk);
        }
        if (ends_head) store(memory.head_statistics, to_int(row) * A::kHeads + to_int(head), head_sums);
        if (ends_row) store(memory.row_statistics, to_int(row), row_sums);

        word = ends_head ? 0 : to_int(word) + 1;
        if (ends_head) head = ends_row ? 0 : to_int(head) + 1;
        if (ends_row) {
            done = rows_left == 1;
            row = row + 1;
            rows_left = rows_left - 1;
        }
    }
};

template <class A>
inline PositionLoader<A> begin_position(int num_rows) {
#pragma HLS INLINE
    PositionLoader<A> loader = {};
    loader.rows_left = num_rows;
    loader.done = num_rows == 0;
    return loader;
}

/// Cuts the image, which comes line by line, into patches: rows of WORK, pixels in (y, x, channel) order.
template <class A>
struct PatchCutter {
    static constexpr int kGrid = A::kImgSize / A::kPatchSize;
    static constexpr int kWordsPerLine = A::kPatchSize * A::kInChans / A::kImageLanes;  // of a patch
    using Place = UInt<bits_for(A::kImgSize* A::kInChans)>;

    Place patch_x;
    Place patch_y;
    Place y;     // of the line within the patches
    Place word;  // within a patch's line
    bool done;

    void take(const PixelWord<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE
        const BankLane<A> place = locate<A>((y * kWordsPerLine + word) * A::kImageLanes);
        const int row = A::kPrefix + patch_y * kGrid + patch_x;
        write_work<A>(memory, place, row, unpack<A::kImageLanes, 8>(pixels));

        const bool ends_patch_line = word == kWordsPerLine - 1;
        const bool ends_line = ends_patch_line && patch_x == kGrid - 1;
        const bool ends_patches = ends_line && y == A::kPatchSize - 1;
        word = ends_patch_line ? 0 : to_int(word) + 1;
        if (ends_patch_line) patch_x = ends_line ? 0 : to_int(patch_x) + 1;
        if (ends_line) y = ends_patches ? 0 : to_int(y) + 1;
        if (ends_patches) {
            done = patch_y == kGrid - 1;
            patch_y = patch_y + 1;
        }
    }
};

/// X and the patches, side by side.
template <class A>
void load_inputs(WeightFifo<A>& fifo, PixelStream<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE off
    PositionLoader<A> position = begin_position<A>(A::kRows);
    PatchCutter<A> patches = {};
    timing::Pipeline loop("LOAD_INPUTS");
LOAD_INPUTS:
    while (loop.runs(!position.done || !patches.done)) {
#pragma HLS PIPELINE II = 1
        FillWord<A> word;
        PixelWord<A> pixel_word;
        if (!position.done) {
            trace::expect_data(fifo);
            if (fifo.read_nb(word)) position.take(word, memory);
        }
        if (!patches.done) {
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
    while (loop.runs(!position.done)) {
#pragma HLS PIPELINE II = 1
        trace::expect_data(fifo);
        position.take(fifo.read(), memory);
    }
}

}  // namespace spvit

#endif  // SPVIT_INPUT_LOADER_HPP
