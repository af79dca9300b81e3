// A tile of weights in registers, and the filling of the next one behind it.
//   enters  the weight FIFO, or K and V from on-chip memory: always a column or a part of one, never a row
//   leaves  the active tile, what it adds to each column's sum, each column's shift
#ifndef SPVIT_TILE_HPP
#define SPVIT_TILE_HPP

#include "inner_product.hpp"
#include "memory.hpp"
#include "step.hpp"
#include "weight_stream.hpp"

namespace spvit {

constexpr int kParamLanes = 4;  // a column's 48-bit bias and its shift, as int16

/// The registers. `shadow` is filled while `active` computes; they change places at the tile's border.
template <class A>
struct Tile {
    Vec<Int<16>, A::kTileIn> active[A::kTileOut];
    Vec<Int<16>, A::kTileIn> shadow[A::kTileOut];
    Int<48> bias[A::kTileOut];  // streamed: bias with the weights' term, of the first tile; K, V: each tile's term
    Int<48> shadow_bias[A::kTileOut];
    Int<5> shift[A::kTileOut];  // beyond kMinShift
    Int<5> shadow_shift[A::kTileOut];
};

/// Which tile is being filled, and how far.
template <class A>
struct Fill {
    static constexpr int kParamWords = ceil_div(A::kTileOut * kParamLanes, A::kFillLanes);
    static constexpr int kWordsPerColumn = A::kTileIn / A::kFillLanes;

    Weights weights;
    int first_lane;  // K, V: of the head
    int in_tile;
    int out_tile;
    int num_tokens;
    int index;  // accesses done
    int total;  // accesses in all

    bool done() const { return index == total; }
    bool reads_keys() const { return !done() && weights == Weights::K; }
    bool has_params() const { return in_tile == 0; }
    int key_row() const { return out_tile * A::kTileOut + index; }
    int key_lane() const { return first_lane + in_tile * A::kTileIn; }
};

template <class A>
inline Fill<A> begin_fill(const Step& step, int out_tile, int in_tile, const Tokens& tokens) {
#pragma HLS INLINE
    Fill<A> fill;
    fill.weights = step.weights;
    fill.first_lane = step.weights_lane;
    fill.in_tile = in_tile;
    fill.out_tile = out_tile;
    fill.num_tokens = tokens.num_tokens;
    fill.index = 0;
    fill.total = step.op != Op::ENGINE ? 0
                 : step.weights != Weights::STREAM
                     ? A::kTileOut
                     : A::kTileOut * Fill<A>::kWordsPerColumn + (in_tile == 0 ? Fill<A>::kParamWords : 0);
    return fill;
}

/// 48 bits from three lanes.
inline Int<48> unpack_bias(Int<16> low, Int<16> middle, Int<16> high) {
#pragma HLS INLINE
    const Int<18> low_bits = Int<18>(low) & 0xffff;
    const Int<18> middle_bits = Int<18>(middle) & 0xffff;
    return shift_left<48>(high, 32) + shift_left<48>(middle_bits, 16) + low_bits;
}

/// A column, or a part of one, on its way to the registers.
template <class A>
using FillLanes = Vec<Int<16>, A::kTileIn>;

/// A word of the stream, as often as a column has parts.
template <class A>
inline FillLanes<A> repeat(const FillWord<A>& word) {
#pragma HLS INLINE
    FillLanes<A> lanes;
REPEAT_WORD:
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        lanes[i] = word[i % A::kFillLanes];
    }
    return lanes;
}

/// One column from on-chip memory. `key_word` is the word of K that the loop read for it.
template <class A>
inline FillLanes<A> column_on_chip(const Fill<A>& fill, const Vec<Int<16>, A::kWord>& key_word,
                                   const Memory<A>& memory) {
#pragma HLS INLINE
    const bool is_key = fill.weights == Weights::K;
    const bool is_token = !is_key || fill.key_row() < fill.num_tokens;
    FillLanes<A> lanes =
        is_key ? slice<A::kTileIn>(key_word, fill.key_lane())
               : read_value_column<A>(memory, fill.first_lane + fill.key_row(), fill.in_tile * A::kTileIn);
MASK_KEY:
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        lanes[i] = is_token ? lanes[i] : Int<16>(0);
    }
    return lanes;
}

/// One access of a fill. What it brings passes all columns on one bus, and one of them takes it: a choice between stream
/// and memory in front of each register would cost a LUT for each of their bits.
template <class A>
inline void advance_fill(Fill<A>& fill, Tile<A>& tile, WeightFifo<A>& fifo, const Vec<Int<16>, A::kWord>& key_word,
                         const Memory<A>& memory) {
#pragma HLS INLINE
    constexpr int kColumnsPerWord = A::kFillLanes / kParamLanes;
    const bool streams = fill.weights == Weights::STREAM;
    FillWord<A> word = {};
    if (streams) {
        trace::expect_data(fifo);
        if (!fifo.read_nb(word)) return;  // never waits: a stalled read would stop the whole array
    }
    const FillLanes<A> lanes = streams ? repeat<A>(word) : column_on_chip<A>(fill, key_word, memory);
    const int params = streams && fill.has_params() ? Fill<A>::kParamWords : 0;
    if (!streams || fill.index < params) {
        const Int<48> term = InnerProduct<A::kFast>::term(lanes);
    BIAS_COLUMNS:
        for (int column = 0; column < A::kTileOut; ++column) {
#pragma HLS UNROLL
            const int lane = column % kColumnsPerWord * kParamLanes;
            const Int<48> bias = streams ? unpack_bias(word[lane], word[lane + 1], word[lane + 2]) : Int<48>(-term);
            if ((streams ? column / kColumnsPerWord : column) == fill.index) {
                tile.shadow_bias[column] = bias;
                if (streams) tile.shadow_shift[column] = word[lane + 3];
            }
        }
    }
    if (fill.index >= params) {
        const int place = fill.index - params;
        const int column = streams ? place / Fill<A>::kWordsPerColumn : place;
        const int part = place % Fill<A>::kWordsPerColumn;
    FILL_LANES:
        for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
            if (!streams || i / A::kFillLanes == part) tile.shadow[column][i] = lanes[i];
        }
    }
    ++fill.index;
}

/// The tile's border: what was filled becomes active.
template <class A>
inline void swap_tiles(Tile<A>& tile, bool first_of_column) {
#pragma HLS INLINE
SWAP_COLUMNS:
    for (int column = 0; column < A::kTileOut; ++column) {
#pragma HLS UNROLL
        tile.active[column] = tile.shadow[column];
        tile.bias[column] = tile.shadow_bias[column];
        tile.shadow_bias[column] = 0;
        if (first_of_column) tile.shift[column] = tile.shadow_shift[column];
    }
}

}  // namespace spvit

#endif  // SPVIT_TILE_HPP
