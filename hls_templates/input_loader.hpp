// What is loaded before the first pass: X, and the image's patches.
#ifndef SPVIT_INPUT_LOADER_HPP
#define SPVIT_INPUT_LOADER_HPP

#include "memory.hpp"
#include "step.hpp"
#include "timing.hpp"
#include "trace.hpp"
#include "weight_stream.hpp"

namespace spvit {

// what the header's fields can say
constexpr int kMostPatches = 1 << 8;  // along a side of the image
constexpr int kMostLines = 1 << 8;    // of a patch
constexpr int kMostWords = 1 << 8;    // of the image port, in a patch's line

/// Lanes of X that are loaded per cycle: each is squared, and the image takes longer to arrive.
constexpr int kPositionLanes = 16;

/// X starts as position embedding (with the class token on its row): the first rows of the weight stream.
///   PerHead  gathers each head's statistics too: before a token selector that is a top of its own
template <class A, bool PerHead>
struct PositionLoader {
    static constexpr int kLanes = smaller(A::kFillLanes, kPositionLanes);  // that are taken at once
    static constexpr int kChunk = larger(kLanes, A::kGroup);               // that are written at once
    static constexpr int kStepsPerHead = A::kHeadLanes / kLanes;

    static constexpr int kWordsPerHead = A::kHeadLanes / A::kFillLanes;
    using Words = UInt<bits_for(A::kRows* A::kHeads* kWordsPerHead)>;

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

    PositionLoader(int num_rows, int num_heads) : front(), head(num_heads) {
        const int words = num_rows * num_heads * kWordsPerHead;
        front.there = false;
        unread = words;
        reads = words != 0;
        last_read = words == 1;
        wants = words != 0;
        row = 0;
        rows_left = num_rows;
        last_row = num_rows == 1;
        more = words != 0;
    }

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

/// Cuts the image, which comes line by line, into patches: rows of WORK, pixels in (y, x, channel) order.
template <class A>
struct PatchCutter {
    Counter<kMostPatches> patch_x;
    Counter<kMostPatches> patch_y;
    Counter<kMostLines> y;     // of the line within the patches
    Counter<kMostWords> word;  // within a patch's line
    Lane<A> lane = 0;          // of the line's first word
    Row<A> row;                // of the patch,
    Row<A> first_row;          // and of its line's first
    bool more = true;

    explicit PatchCutter(const Network& network)
        : patch_x(to_int(network.grid)),
          patch_y(to_int(network.grid)),
          y(to_int(network.patch_lines)),
          word(to_int(network.line_words)),
          row(to_int(network.num_prefix)),
          first_row(to_int(network.num_prefix)) {}

    void take(const PixelWord<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE
        const BankLane<A> place = locate<A>(to_int(lane) + to_int(word.value) * A::kImageLanes);
        write_work<A>(memory, place, to_int(row), unpack<A::kImageLanes, 8>(pixels));

        const bool ends_line = word.last && patch_x.last;
        const bool ends_patches = ends_line && y.last;
        more = !(ends_patches && patch_y.last);
        if (ends_patches) {
            lane = 0;
            first_row = row + 1;
        } else if (ends_line) {
            lane = lane + (to_int(word.last_value) + 1) * A::kImageLanes;
        }
        if (word.last) row = ends_line && !ends_patches ? to_int(first_row) : to_int(row) + 1;
        if (ends_patches) patch_y.advance();
        if (ends_line) y.advance();
        if (word.last) patch_x.advance();
        word.advance();
    }
};

/// X and the patches, side by side.
template <class A>
void load_inputs(const Network& network, WeightFifo<A>& fifo, PixelStream<A>& pixels, Memory<A>& memory) {
#pragma HLS INLINE off
    PositionLoader<A, false> position(to_int(network.num_rows), to_int(network.num_heads));
    PatchCutter<A> patches(network);
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
void load_position(const Network& network, WeightFifo<A>& fifo, Memory<A>& memory) {
#pragma HLS INLINE off
    PositionLoader<A, true> position(to_int(network.num_rows), to_int(network.num_heads));
    timing::Pipeline loop("LOAD_POSITION");
LOAD_POSITION:
    while (loop.runs(position.more)) {
#pragma HLS PIPELINE II = 1
        position.advance(fifo, memory);
    }
}

}  // namespace spvit

#endif  // SPVIT_INPUT_LOADER_HPP
