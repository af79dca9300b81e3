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

/// Columns that stand together: what all columns take reaches each group through registers of its own.
constexpr int kColumnsPerGroup = 8;

/// Two registers on the way to a group of columns, near them. Not inlined: synthesis would make the groups' copies one.
template <class T>
inline T broadcast(const T& value) {
#pragma HLS INLINE off
#pragma HLS LATENCY min = 2 max = 2
    return value;
}

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

/// The filling of a tile, and how far it is.
template <class A>
struct Fill {
    static constexpr int kParamWords = ceil_div(A::kTileOut * kParamLanes, A::kFillLanes);
    static constexpr int kWordsPerColumn = A::kTileIn / A::kFillLanes;
    using Accesses = UInt<bits_for(A::kTileOut* kWordsPerColumn + kParamWords)>;

    // what decides about the border is said, not compared
    bool streams;     // the next access brings streamed weights or parameters
    bool looks_up;    // or a column of K or V; neither: it is done
    bool takes;       // a streamed one takes a word of the weight FIFO: there must be one
    bool ready;       // or what is left of those that were taken; a column of K or V is ready, too
    bool last;        // it is the last one
    bool from_keys;   // K, not V
    bool params;      // the word brings columns' parameters
    bool packed;      // its weights are narrow: of four columns' parts, three words bring the fourth
    bool bytes;       // or of two, one brings the second
    bool keeps_next;  // the access behind the next takes no word
    UInt<2> phase;    // of the next column's part among four
    Accesses left;    // down to zero
    Accesses place;   // of the next one: among the parameters, or the columns and their parts
    Lane<A> index;    // K: the column's token; V: its dimension
    Lane<A> lane;     // K: the column's first dimension; V: its first token

    bool done() const { return !streams && !looks_up; }

    /// Whether this iteration brings it on; to its end.
    ///   word_there  the weight FIFO has one
    bool accesses(bool word_there) const { return ready || (takes && word_there); }
    bool ends(bool word_there) const { return done() || (last && accesses(word_there)); }

    void advance() {
#pragma HLS INLINE
        const bool last_params = params && place == kParamWords - 1;
        // decided two accesses ahead, from registers: of what the word brings, the second of two is kept, the fourth of four
        const bool kept = bytes ? (to_int(phase) & 1) != 0 : packed && phase == 1;
        takes = streams && !last && !keeps_next;
        ready = !last && (looks_up || (streams && keeps_next));
        keeps_next = params ? last_params && bytes : kept;
        phase = params ? 0 : (to_int(phase) + 1) & 3;
        params = params && !last_params;
        place = last_params ? 0 : to_int(place) + 1;
        index = index + 1;
        streams = streams && !last;
        looks_up = looks_up && !last;
        last = left == 2;
        left = left - 1;
    }
};

/// Of a tile of an engine step; of any other step's there is nothing to fill.
template <class A>
inline Fill<A> begin_fill(const Step& step, int out_tile, int in_tile) {
#pragma HLS INLINE
    using F = Fill<A>;
    static_assert(A::kTileOut > 1, "a fill has more than one access");
    const bool works = step.op == Op::ENGINE;
    const bool streams = step.weights == Weights::STREAM;
    const int first_column = out_tile * A::kTileOut;
    const int first_input = in_tile * A::kTileIn;
    F fill;
    fill.streams = works && streams;
    fill.looks_up = works && !streams;
    fill.takes = works && streams;
    fill.ready = works && !streams;
    fill.packed = step.weight_width != WeightWidth::W16;
    fill.bytes = step.weight_width == WeightWidth::W8;
    fill.keeps_next = fill.bytes && in_tile != 0;
    fill.phase = 0;
    fill.last = false;
    fill.from_keys = step.weights == Weights::K;
    fill.params = streams && in_tile == 0;
    fill.left = streams ? A::kTileOut * F::kWordsPerColumn + (in_tile == 0 ? F::kParamWords : 0) : A::kTileOut;
    fill.place = 0;
    fill.index = first_column + (fill.from_keys ? 0 : int(step.weights_lane));
    fill.lane = first_input + (fill.from_keys ? int(step.weights_lane) : 0);
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

/// What an iteration has for the fill: the weight FIFO's first word, a word of K and a column of V.
template <class A>
struct FillWords {
    FillWord<A> streamed;
    Vec<Int<16>, A::kWord> key;
    Vec<Int<16>, A::kTileIn> values;
};

/// Streamed weights as int16: a word's highest bits, or those that words before it brought below theirs.
template <class A>
inline FillWord<A> streamed_lanes(const Fill<A>& fill, const FrontWord<A>& front) {
#pragma HLS INLINE
    static_assert(A::kTileOut * Fill<A>::kWordsPerColumn % 4 == 0, "a tile must be whole groups of packed words");
    const int below = fill.params || !fill.packed ? 0 : fill.bytes ? 0xFF : 0xF;
    FillWord<A> lanes;
STREAMED_LANES:
    for (int i = 0; i < A::kFillLanes; ++i) {
#pragma HLS UNROLL
        const Int<16> taken = to_int(front.lanes[i]) & ~below;
        const Int<16> kept = shift_left<16>(front.rest[i], 4);
        lanes[i] = fill.takes ? taken : kept;
    }
    return lanes;
}

/// One column from on-chip memory; keys that are no tokens give zero.
template <class A>
inline FillLanes<A> column_on_chip(const Fill<A>& fill, const FillWords<A>& words, int num_tokens) {
#pragma HLS INLINE
    const Vec<Int<16>, A::kTileIn> key = slice<A::kTileIn>(words.key, to_int(fill.lane));
    const bool is_token = to_int(fill.index) < num_tokens;
    FillLanes<A> lanes;
MASK_KEY:
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        lanes[i] = !fill.from_keys ? words.values[i] : is_token ? key[i] : Int<16>(0);
    }
    return lanes;
}

/// One access of a fill. What it brings passes all columns on one bus, and one of them takes it: a choice between stream
/// and memory in front of each register would cost a LUT for each of their bits.
template <class A>
inline void fill_column(const Fill<A>& fill, const FillWords<A>& words, int num_tokens, Tile<A>& tile) {
#pragma HLS INLINE
    constexpr int kColumnsPerWord = A::kFillLanes / kParamLanes;
    const FillWord<A>& word = words.streamed;
    FillLanes<A> lanes;
FILL_BUS:
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        lanes[i] = word[i % A::kFillLanes];
    }
    Int<48> term = 0;
    if (!fill.streams) {
        lanes = column_on_chip<A>(fill, words, num_tokens);
        term = InnerProduct<A::kFast>::term(lanes);
    }
    const int place = to_int(fill.place);
    const int column_of_weights = fill.streams ? place / Fill<A>::kWordsPerColumn : place;
    const int part = place % Fill<A>::kWordsPerColumn;
FILL_GROUPS:
    for (int group = 0; group < A::kTileOut / kColumnsPerGroup; ++group) {
#pragma HLS UNROLL
        const FillLanes<A> bus = broadcast(lanes);
    FILL_COLUMNS:
        for (int i = 0; i < kColumnsPerGroup; ++i) {
#pragma HLS UNROLL
            const int column = group * kColumnsPerGroup + i;
            const int lane = column % kColumnsPerWord * kParamLanes;
            const bool takes_params = fill.params && column / kColumnsPerWord == place;
            const bool takes_weights = !fill.params && column == column_of_weights;
            if (takes_params) {
                tile.shadow_bias[column] = unpack_bias(bus[lane], bus[lane + 1], bus[lane + 2]);
                tile.shadow_shift[column] = bus[lane + 3];
            } else if (takes_weights && !fill.streams) {
                tile.shadow_bias[column] = -term;
            }
            if (takes_weights) {
                for (int j = 0; j < A::kTileIn; ++j) {
#pragma HLS UNROLL
                    if (!fill.streams || j / A::kFillLanes == part) tile.shadow[column][j] = bus[j];
                }
            }
        }
    }
}

/// The tile's border: what was filled becomes active.
template <class A>
inline void swap_tiles(Tile<A>& tile, bool border, bool first_of_column) {
#pragma HLS INLINE
SWAP_GROUPS:
    for (int group = 0; group < A::kTileOut / kColumnsPerGroup; ++group) {
#pragma HLS UNROLL
        if (!broadcast(border)) continue;
    SWAP_COLUMNS:
        for (int i = 0; i < kColumnsPerGroup; ++i) {
#pragma HLS UNROLL
            const int column = group * kColumnsPerGroup + i;
            tile.active[column] = tile.shadow[column];
            tile.bias[column] = tile.shadow_bias[column];
            tile.shadow_bias[column] = 0;
            if (first_of_column) tile.shift[column] = tile.shadow_shift[column];
        }
    }
}

}  // namespace spvit

#endif  // SPVIT_TILE_HPP
