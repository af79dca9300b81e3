// The matrix engine: one flat loop over passes, tiles and tokens (control.hpp). A tile of weights stands still while all
// tokens pass it, one per cycle; the next tile is filled meanwhile. Prologue, array and epilogue are one pipeline, which
// does not drain between passes: a pass's last tile lasts until its first results have landed.
//   enters  steps of the program, the weight FIFO, the memories
//   leaves  the steps' destinations, and the first tile of the engine's next step, active
#ifndef SPVIT_ENGINE_HPP
#define SPVIT_ENGINE_HPP

#include "control.hpp"
#include "epilogue.hpp"
#include "prologue.hpp"
#include "tile.hpp"
#include "timing.hpp"
#include "trace.hpp"

namespace spvit {

template <class A>
using Accumulators = Vec<Int<48>, A::kTileOut>;

/// For the timed C-simulation: engine_pragmas.j2 speaks of these.
template <class A>
void describe_memories(const Memory<A>& memory) {
    timing::memory(memory.x, "x");
    timing::memory(memory.work, "work");
    timing::memory(memory.v, "v");
    timing::memory(memory.row_statistics, "row_statistics");
    timing::memory(memory.partial_row_statistics, "partial_row_statistics");
    timing::memory(memory.head_statistics, "head_statistics");
    timing::memory(memory.partial_head_statistics, "partial_head_statistics");
    timing::memory(memory.score_max, "score_max");
    timing::memory(memory.partial_score_max, "partial_score_max");
    timing::memory(memory.exp_sum, "exp_sum");
    timing::memory(memory.feature_sum, "feature_sum");
    timing::memory(memory.pooled, "pooled");
    timing::memory(memory.keep, "keep");
    timing::memory(memory.program, "program");
    timing::memory(memory.probability, "probability");
}

/// Adds a tile's sums to the statistics of a row of X.
template <class A>
inline void add_statistics(Memory<A>& memory, const TilePlan<A>& tile, int row, const Statistics& sums) {
#pragma HLS INLINE
    const int head = row * A::kHeads + to_int(tile.head);
    const Statistics of_row = load(memory.partial_row_statistics, row);
    const Statistics of_head = load(memory.partial_head_statistics, head);
    const Statistics row_sums = gather(tile.out_tile == 0, of_row, sums);
    const Statistics head_sums = gather(tile.part == 0, of_head, sums);
    store(memory.partial_row_statistics, row, row_sums);
    store(memory.partial_head_statistics, head, head_sums);
    store(memory.row_statistics, row, row_sums);
    store(memory.head_statistics, head, head_sums);
}

/// The words that one iteration reads. X: the source, or else the residual. WORK: the source, and from the keys' bank the
/// key that the next tile takes; these are different banks. V: the column that it takes. What is not read is not looked at.
template <class A>
struct Words {
    Vec<Int<16>, A::kWord> x;
    Vec<Int<16>, A::kWord> work[kBanks];
    Vec<Int<16>, A::kTileIn> values;
};

template <class A>
inline Words<A> read_words(const Position<A>& at, int num_tokens, const Memory<A>& memory) {
#pragma HLS INLINE
    const Step& step = at.tile.step;
    const Fill<A>& fill = at.fill;
    const bool from_x = step.source == Buffer::X;
    Words<A> words;
    if (at.has_token() && (from_x || step.epilogue == Epilogue::RESIDUAL)) {
        const int lane = to_int(at.tile.x_lane);
        words.x = read_word<Memory<A>::kEmbedWords>(memory.x, to_int(at.row), lane,
                                                    {lane % A::kWord, from_x ? A::kTileIn : A::kTileOut});
    }
READ_BANKS:
    for (int bank = 0; bank < kBanks; ++bank) {
#pragma HLS UNROLL
        const bool for_key = bank == kKeyBank && fill.looks_up && fill.from_keys && to_int(fill.index) < num_tokens;
        const int row = to_int(for_key ? fill.index : Lane<A>(at.row));
        const int lane = to_int(for_key ? fill.lane : at.tile.source.lane);
        if (for_key || (at.has_token() && !from_x && at.tile.source.bank == bank)) {
            words.work[bank] = read_word<Memory<A>::kBankWords>(memory.work[bank], row, lane);
        }
    }
    if (fill.looks_up && !fill.from_keys) {
        words.values = read_value_column<A>(memory, to_int(fill.index), to_int(fill.lane));
    }
    return words;
}

/// The source's lanes.
template <class A>
inline Vec<Int<16>, A::kTileIn> source_lanes(const Words<A>& words, const TilePlan<A>& tile) {
#pragma HLS INLINE
    Vec<Int<16>, A::kTileIn> lanes = slice<A::kTileIn>(words.x, to_int(tile.x_lane));
CHOOSE_BANK:
    for (int bank = 0; bank < kBanks; ++bank) {
#pragma HLS UNROLL
        if (tile.step.source == Buffer::WORK && tile.source.bank == bank) {
            lanes = slice<A::kTileIn>(words.work[bank], to_int(tile.source.lane));
        }
    }
    return lanes;
}

/// The array: kTileOut inner products and what the tile adds to each, added to the token's accumulators.
template <class A>
inline Accumulators<A> multiply(const Vec<Int<16>, A::kTileIn>& factors, const Tile<A>& tile, bool first_in,
                                const Accumulators<A>& so_far) {
#pragma HLS INLINE
    const Int<48> activation_term = InnerProduct<A::kFast>::term(factors);
    Accumulators<A> sums;
COLUMN_GROUPS:
    for (int group = 0; group < A::kTileOut / kColumnsPerGroup; ++group) {
#pragma HLS UNROLL
        const Vec<Int<16>, A::kTileIn> copy = broadcast(factors);
    COLUMNS:
        for (int i = 0; i < kColumnsPerGroup; ++i) {
#pragma HLS UNROLL
            const int column = group * kColumnsPerGroup + i;
            const Int<48> partial = InnerProduct<A::kFast>::sum(copy, tile.active[column]) - activation_term;
            sums[column] = (first_in ? Int<48>(0) : so_far[column]) + partial + tile.bias[column];
        }
    }
    return sums;
}

/// A token's finished outputs, and what is kept of them per row.
template <class A>
inline void store_result(const TilePlan<A>& tile, int row, const EpilogueResult<A>& result, int num_tokens,
                         Memory<A>& memory) {
#pragma HLS INLINE
    const int lane = to_int(tile.dest.lane);
    if (tile.step.dest == Buffer::X) {
        write_lanes<Memory<A>::kEmbedWords>(memory.x, row, lane, result.value);
        add_statistics<A>(memory, tile, row, result.sums);
    } else if (tile.step.dest == Buffer::V) {
        write_value<A>(memory, row, lane, result.value);
    } else {
        write_work<A>(memory, tile.dest, row, result.value);
    }
    if (tile.step.epilogue == Epilogue::SCORES) {
        const Int<16> before = load(memory.partial_score_max, row);
        const Int<16> largest = largest_score<A>(result.value, to_int(tile.out_tile) * A::kTileOut, num_tokens);
        const Int<16> score_max = tile.out_tile != 0 && before > largest ? before : largest;
        store(memory.partial_score_max, row, score_max);
        store(memory.score_max, row, score_max);
    }
}

/// Sums each feature over the tokens, for the POOL step that follows.
template <class A>
inline void pool_features(bool first_token, const Vec<Int<16>, A::kTileOut>& features,
                          Vec<Int<27>, A::kTileOut>& sums) {
#pragma HLS INLINE
POOL_LANES:
    for (int i = 0; i < A::kTileOut; ++i) {
#pragma HLS UNROLL
        sums[i] = (first_token ? Int<27>(0) : sums[i]) + features[i];
    }
}

/// A step of the program; before and behind it stands one that computes nothing.
template <class A>
inline Step read_step(const Memory<A>& memory, int index, int num_steps, timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
    const bool exists = index >= 0 && index < num_steps;
    Step step = unpack_step(load(memory.program, exists ? index : 0, site));
    if (!exists) step.op = Op::IDLE;
    return step;
}

/// The tile that is active when engine_run begins: the first of step `index`.
template <class A>
inline TilePlan<A> first_tile(int index, int num_steps, const Tokens& tokens, const Memory<A>& memory) {
#pragma HLS INLINE
    const Step step = read_step<A>(memory, index, num_steps);
    const int next_index = index < 0 ? 0 : to_int(step.next_engine);
    return begin_pass<A>(index, step, next_index, read_step<A>(memory, next_index, num_steps), tokens);
}

/// Runs the engine's steps from `index` up to the first that is none of its own, or the program's end; before the first
/// step stands an idle one, -1, which fills that one's first tile. Returns the index of the step that it stopped before.
/// No read is stale: what gathers in a row is read again kRmwCycles later at the earliest, another pass's results
/// kPipelineCycles later. The timed C-simulation checks each access.
template <class A>
int engine_run(int index, const Network& network, const Tokens& tokens, WeightFifo<A>& fifo, Memory<A>& memory) {
#pragma HLS INLINE off
    static Tile<A> tile;
    static Accumulators<A> accumulators[A::kRows];
    static FrontWord<A> front;
#pragma HLS ARRAY_PARTITION variable = front.lanes.lane complete
#pragma HLS ARRAY_PARTITION variable = front.rest.lane complete
#pragma HLS ARRAY_PARTITION variable = tile.active complete dim = 0
#pragma HLS ARRAY_PARTITION variable = tile.shadow complete dim = 0
#pragma HLS ARRAY_PARTITION variable = tile.bias complete
#pragma HLS ARRAY_PARTITION variable = tile.shadow_bias complete
#pragma HLS ARRAY_PARTITION variable = tile.shift complete
#pragma HLS ARRAY_PARTITION variable = tile.shadow_shift complete
#pragma HLS AGGREGATE variable = accumulators compact = bit
#pragma HLS BIND_STORAGE variable = accumulators type = ram_s2p
    timing::memory(accumulators, "accumulators");
    timing::registers(front.lanes.lane, "lanes.lane");
    timing::registers(front.rest.lane, "rest.lane");
    timing::registers(tile.active, "active");
    timing::registers(tile.shadow, "shadow");
    timing::registers(tile.bias, "bias");
    timing::registers(tile.shadow_bias, "shadow_bias");
    timing::registers(tile.shift, "shift");
    timing::registers(tile.shadow_shift, "shadow_shift");
    const int num_steps = to_int(network.num_steps);
    if (index < 0) front.there = false;

    Position<A> at = begin_tile<A>(first_tile<A>(index, num_steps, tokens, memory), true);
    TilePlan<A> planned[kPlanCycles];
#pragma HLS ARRAY_PARTITION variable = planned complete
    timing::registers(planned, "planned");
BEGIN_PLANNED:
    for (int i = 0; i < kPlanCycles; ++i) {
#pragma HLS UNROLL
        planned[i] = at.tile;
    }
    Vec<Int<27>, A::kTileOut> feature_sums = {};
    if (index >= 0) timing::begin_step(index);
    timing::Pipeline loop("ENGINE");
ENGINE:
    while (loop.runs(at.running)) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = accumulators inter true distance = kRmwCycles
#pragma HLS DEPENDENCE variable = memory.exp_sum inter true distance = kRmwCycles
#pragma HLS DEPENDENCE variable = memory.partial_row_statistics inter true distance = kRmwCycles
#pragma HLS DEPENDENCE variable = memory.partial_head_statistics inter true distance = kRmwCycles
#pragma HLS DEPENDENCE variable = memory.partial_score_max inter true distance = kRmwCycles
#pragma HLS DEPENDENCE variable = memory.x inter false
#pragma HLS DEPENDENCE variable = memory.work inter false
#pragma HLS DEPENDENCE variable = memory.v inter false
#pragma HLS DEPENDENCE variable = memory.row_statistics inter false
#pragma HLS DEPENDENCE variable = memory.head_statistics inter false
#pragma HLS DEPENDENCE variable = memory.score_max inter false
        const TilePlan<A> now = at.tile;
        const Step& step = now.step;
        const Words<A> words = read_words<A>(at, tokens.num_tokens, memory);
        if (at.has_token()) {
            const int token = to_int(at.token);
            const int row = to_int(at.row);
            const PrologueResult<A> in = prologue<A>(step, source_lanes<A>(words, now), row, to_int(now.in_tile),
                                                     to_int(now.out_tile), tokens.num_tokens, memory);
            const Accumulators<A> sums = multiply<A>(in.factors, tile, now.first_in, load(accumulators, token));
            store(accumulators, token, sums);
            if (now.last_in) {
                const Vec<Int<16>, A::kTileOut> residual = slice<A::kTileOut>(words.x, to_int(now.x_lane));
                const EpilogueResult<A> out = epilogue<A>(step, sums, tile, residual, reciprocal(Int<41>(in.exp_sum)));
                store_result<A>(now, row, out, tokens.num_tokens, memory);
                if (step.pool) {
                    pool_features<A>(token == 0, out.value, feature_sums);
                    store(memory.feature_sum, to_int(now.part), feature_sums);
                }
                trace::record(now.index, row, to_int(now.out_tile) * A::kTileOut, out.value);
            }
        }

        const bool word_there = front.there;
        const bool border = at.at_border(word_there);
        const bool starves = at.fill.takes && !word_there;
        timing::spend(border, starves,
                      at.has_token()    ? timing::Cycle::TOKEN
                      : !at.fill.done() ? timing::Cycle::FILL
                                        : timing::Cycle::DRAIN);
        if (starves) trace::expect_data(fifo);
        if (at.fill.accesses(word_there)) {
            fill_column<A>(at.fill, {streamed_lanes<A>(at.fill, front), words.work[kKeyBank], words.values},
                           tokens.num_tokens, tile);
        }
        if (at.fill.takes && word_there) front.keep(at.fill.bytes);
        front.follow(at.fill.takes, fifo);
        swap_tiles<A>(tile, border, planned[kPlanCycles - 1].first_in);
        advance<A>(at, word_there, planned[kPlanCycles - 1]);
        if (border && at.running) timing::begin_step(at.tile.index);

    PLAN:
        for (int i = kPlanCycles - 1; i > 0; --i) {
#pragma HLS UNROLL
            planned[i] = planned[i - 1];
        }
        planned[0] = plan_behind<A>(now, read_step<A>(memory, to_int(now.next.next_engine), num_steps), tokens);
    }
    if (at.tile.step.op != Op::ENGINE) trace::expect_taken(front.there);  // nothing is left for the engine
    return at.tile.index;
}

}  // namespace spvit

#endif  // SPVIT_ENGINE_HPP
