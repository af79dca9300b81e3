// The matrix engine: one flat loop over passes, tiles and tokens. A tile of weights stands still while all tokens pass it,
// one per cycle; the next tile is filled meanwhile. Prologue, array and epilogue are one pipeline, which does not drain
// between passes: a pass's last tile lasts until its first results have landed.
//   enters  steps of the program, the weight FIFO, the memories
//   leaves  the steps' destinations, and the first tile of the engine's next step, active
#ifndef SPVIT_ENGINE_HPP
#define SPVIT_ENGINE_HPP

#include "epilogue.hpp"
#include "prologue.hpp"
#include "tile.hpp"
#include "timing.hpp"
#include "trace.hpp"

namespace spvit {

/// A tile lasts at least this long, so that an accumulator is never read before its last sum is written.
constexpr int kRmwCycles = 8;

struct RowRange {
    int first;
    int count;
};

template <class A>
inline RowRange row_range(Rows rows, const Tokens& tokens) {
#pragma HLS INLINE
    const int patches = tokens.num_tokens - A::kPrefix;
    switch (rows) {
        case Rows::PATCHES:
            return {A::kPrefix, patches};
        case Rows::CANDIDATES:
            return {A::kPrefix, patches - tokens.num_packages};
        case Rows::FIRST:
            return {0, 1};
        default:
            return {0, tokens.num_tokens};
    }
}

/// Everything that lives as long as the accelerator.
template <class A>
struct Engine {
    Memory<A> memory;
    Tile<A> tile;
    Vec<Int<48>, A::kTileOut> accumulators[A::kRows];
};

/// What memories have, for the timed C-simulation: the same as engine_pragmas.j2 says to synthesis.
template <class A>
void describe_memories(const Engine<A>& engine) {
    const Memory<A>& memory = engine.memory;
    timing::memory(engine.accumulators, "accumulators");
    timing::memory(memory.x, "x", A::kWord / A::kGroup);
    for (int bank = 0; bank < kBanks; ++bank) timing::memory(memory.work[bank], "work", A::kWord / A::kImageLanes);
    for (int bank = 0; bank < A::kWord; ++bank) timing::memory(memory.v[bank], "v");
    timing::memory(memory.row_statistics, "row_statistics");
    timing::memory(memory.partial_row_statistics, "partial_row_statistics");
    timing::memory(memory.head_statistics, "head_statistics");
    timing::memory(memory.partial_head_statistics, "partial_head_statistics");
    timing::memory(memory.score_max, "score_max");
    timing::memory(memory.partial_score_max, "partial_score_max");
    timing::memory(memory.exp_sum, "exp_sum");
    timing::memory(memory.keep, "keep");
    timing::memory(memory.probability, "probability");
    timing::claim_distance(engine.accumulators, kRmwCycles);
    timing::claim_distance(memory.partial_row_statistics, kRmwCycles);
    timing::claim_distance(memory.partial_head_statistics, kRmwCycles);
    timing::claim_distance(memory.partial_score_max, kRmwCycles);
    timing::claim_distance(memory.exp_sum, kRmwCycles);
}

/// Adds a tile's sums to the statistics of a row of X.
template <class A>
inline void add_statistics(Memory<A>& memory, int row, int out_tile, const Statistics& sums) {
#pragma HLS INLINE
    constexpr int kTilesPerHead = A::kHeadLanes / A::kTileOut;
    const bool first_of_head = out_tile % kTilesPerHead == 0;
    const int head = row * A::kHeads + out_tile / kTilesPerHead;
    const Statistics of_row = load(memory.partial_row_statistics, row);
    const Statistics of_head = load(memory.partial_head_statistics, head);
    Statistics row_sums = sums;
    Statistics head_sums = sums;
    if (out_tile != 0) {
        row_sums.sum += of_row.sum;
        row_sums.squares += of_row.squares;
    }
    if (!first_of_head) {
        head_sums.sum += of_head.sum;
        head_sums.squares += of_head.squares;
    }
    store(memory.partial_row_statistics, row, row_sums);
    store(memory.partial_head_statistics, head, head_sums);
    store(memory.row_statistics, row, row_sums);
    store(memory.head_statistics, head, head_sums);
}

/// Where the loop stands: a tile of inputs, a tile of outputs, and the token that passes.
struct Position {
    int in_tile;
    int out_tile;
    int cycle;  // within the tile: the token
    int row;    // of the token, in memory
};

/// The words that one cycle reads. X: the source, or else the residual. WORK: the source, and from the keys' bank the
/// key that the next tile takes; these are different banks.
template <class A>
struct Words {
    Vec<Int<16>, A::kWord> x;
    Vec<Int<16>, A::kWord> work[kBanks];
};

template <class A>
inline Words<A> read_words(const Step& step, const Position& at, bool has_token, const Fill<A>& fill,
                           const Memory<A>& memory) {
#pragma HLS INLINE
    Words<A> words = {};
    const bool from_x = step.source == Buffer::X;
    const int source_lane = step.source_lane + at.in_tile * A::kTileIn;
    const int x_lane = from_x ? source_lane : step.dest_lane + at.out_tile * A::kTileOut;
    if (has_token && (from_x || step.epilogue == Epilogue::RESIDUAL)) {
        words.x = read_lanes<A::kWord, Memory<A>::kEmbedGroups>(memory.x, at.row, x_lane / A::kWord * A::kWord);
    }
    const BankLane source = locate<A>(source_lane);
READ_BANKS:
    for (int bank = 0; bank < kBanks; ++bank) {
#pragma HLS UNROLL
        const bool for_key = bank == kKeyBank && fill.reads_keys() && fill.key_row() < fill.num_tokens;
        const int row = for_key ? fill.key_row() : at.row;
        const int lane = for_key ? fill.key_lane() : source.lane;
        if (for_key || (has_token && !from_x && bank == source.bank)) {
            words.work[bank] =
                read_lanes<A::kWord, Memory<A>::kBankGroups>(memory.work[bank], row, lane / A::kWord * A::kWord);
        }
    }
    return words;
}

/// The array: kTileOut inner products and what the tile adds to each, added to the token's accumulators.
template <class A>
inline Vec<Int<48>, A::kTileOut> multiply(const Vec<Int<16>, A::kTileIn>& factors, const Position& at,
                                          Engine<A>& engine) {
#pragma HLS INLINE
    const Int<48> activation_term = InnerProduct<A::kFast>::term(factors);
    Vec<Int<48>, A::kTileOut> sums = load(engine.accumulators, at.cycle);
COLUMNS:
    for (int column = 0; column < A::kTileOut; ++column) {
#pragma HLS UNROLL
        const Int<48> partial = InnerProduct<A::kFast>::sum(factors, engine.tile.active[column]) - activation_term;
        sums[column] = (at.in_tile == 0 ? Int<48>(0) : sums[column]) + partial + engine.tile.bias[column];
    }
    store(engine.accumulators, at.cycle, sums);
    return sums;
}

/// A token's finished outputs, and what is kept of them per row or per feature.
template <class A>
inline void store_result(const Step& step, const Position& at, const EpilogueResult<A>& result, int num_tokens,
                         Memory<A>& memory) {
#pragma HLS INLINE
    const int first_column = at.out_tile * A::kTileOut;
    const int lane = step.dest_lane + first_column;
    if (step.dest == Buffer::X) {
        write_lanes<A::kTileOut, Memory<A>::kEmbedGroups>(memory.x, at.row, lane, result.value);
        add_statistics<A>(memory, at.row, at.out_tile, result.sums);
    } else if (step.dest == Buffer::V) {
        write_value<A>(memory, at.row, lane, result.value);
    } else {
        const BankLane dest = locate<A>(lane);
    WRITE_BANKS:
        for (int bank = 0; bank < kBanks; ++bank) {
#pragma HLS UNROLL
            if (bank == dest.bank) {
                write_lanes<A::kTileOut, Memory<A>::kBankGroups>(memory.work[bank], at.row, dest.lane, result.value);
            }
        }
    }
    if (step.epilogue == Epilogue::SCORES) {
        const Int<16> before = load(memory.partial_score_max, at.row);
        const Int<16> largest = largest_score<A>(result.value, first_column, num_tokens);
        const Int<16> score_max = at.out_tile != 0 && before > largest ? before : largest;
        store(memory.partial_score_max, at.row, score_max);
        store(memory.score_max, at.row, score_max);
    }
    if (step.pool) {
        const int first_feature = part_of<A::kTileOut, A::kHeadLanes>(first_column) * A::kTileOut;
    POOL_LANES:
        for (int i = 0; i < A::kTileOut; ++i) {
#pragma HLS UNROLL
            const Int<27> before = at.cycle == 0 ? Int<27>(0) : memory.feature_sum[first_feature + i];
            memory.feature_sum[first_feature + i] = before + result.value[i];
        }
    }
}

/// One step on the engine: source x weights -> destination, over the rows that are tokens now.
struct Pass {
    Step step;
    RowRange rows;
    int in_tiles;
    int out_tiles;
};

template <class A>
inline Pass make_pass(const Step& step, const Tokens& tokens) {
#pragma HLS INLINE
    const bool idle = step.op != Op::ENGINE;
    Pass pass;
    pass.step = step;
    pass.rows = idle ? RowRange{0, 0} : row_range<A>(step.rows, tokens);
    pass.in_tiles = idle ? 1 : step.in_tiles != 0 ? step.in_tiles : ceil_div(tokens.num_tokens, A::kTileIn);
    pass.out_tiles = idle ? 1 : step.out_tiles != 0 ? step.out_tiles : ceil_div(tokens.num_tokens, A::kTileOut);
    return pass;
}

/// The tile to be filled while the one at `at` computes: the one after it, or the next step's first.
template <class A>
inline Fill<A> fill_after(const Position& at, const Pass& pass, const Step& next, const Tokens& tokens) {
#pragma HLS INLINE
    if (at.in_tile + 1 < pass.in_tiles) return begin_fill<A>(pass.step, at.out_tile, at.in_tile + 1, tokens);
    if (at.out_tile + 1 < pass.out_tiles) return begin_fill<A>(pass.step, at.out_tile + 1, 0, tokens);
    return begin_fill<A>(next, 0, 0, tokens);
}

/// A step of the engine; an idle one before the first and from `last` on.
template <class Program>
inline Step engine_step(int index, int first, int last) {
#pragma HLS INLINE
    return index >= first && index < last ? Program::step(index) : Program::idle();
}

/// Runs the engine's steps from `index` up to the first that is none of its own, or `last`; before the step `first`
/// stands an idle one, which fills that one's first tile. Returns the index of the step that it stopped before.
/// No read is stale: what gathers in a row is read again kRmwCycles later at the earliest, another pass's results
/// kPipelineCycles later. The timed C-simulation checks each access.
template <class A, class Program>
int engine_run(int index, int first, int last, const Tokens& tokens, WeightFifo<A>& fifo, Engine<A>& engine) {
#pragma HLS INLINE off
    Memory<A>& memory = engine.memory;
    Pass pass = make_pass<A>(engine_step<Program>(index, first, last), tokens);
    int next_index = index < first ? first : pass.step.next_engine;
    Step next = engine_step<Program>(next_index, first, last);
    Position at = {0, 0, 0, pass.rows.first};
    Fill<A> fill = fill_after<A>(at, pass, next, tokens);
    bool running = true;
    if (index >= first) timing::begin_step(index);
    timing::Pipeline loop("ENGINE");
ENGINE:
    while (loop.runs(running)) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = engine.accumulators inter true distance = kRmwCycles
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
        const Step& step = pass.step;
        const bool has_token = at.cycle < pass.rows.count;
        const Words<A> words = read_words<A>(step, at, has_token, fill, memory);
        if (has_token) {
            const int source_lane = step.source_lane + at.in_tile * A::kTileIn;
            const BankLane source = locate<A>(source_lane);
            const Vec<Int<16>, A::kTileIn> raw = step.source == Buffer::X
                                                     ? slice<A::kTileIn>(words.x, source_lane)
                                                     : slice<A::kTileIn>(words.work[source.bank], source.lane);
            const PrologueResult<A> in =
                prologue<A>(step, raw, at.row, at.in_tile, at.out_tile, tokens.num_tokens, memory);
            const Vec<Int<48>, A::kTileOut> sums = multiply<A>(in.factors, at, engine);
            if (at.in_tile == pass.in_tiles - 1) {
                const int dest_lane = step.dest_lane + at.out_tile * A::kTileOut;
                const Vec<Int<16>, A::kTileOut> residual = slice<A::kTileOut>(words.x, dest_lane);
                const EpilogueResult<A> out =
                    epilogue<A>(step, sums, engine.tile, residual, reciprocal(Int<41>(in.exp_sum)));
                store_result<A>(step, at, out, tokens.num_tokens, memory);
                trace::record(index, at.row, at.out_tile * A::kTileOut, out.value);
            }
        }
        timing::spend(at.cycle, has_token      ? timing::Cycle::TOKEN
                                : !fill.done() ? timing::Cycle::FILL
                                               : timing::Cycle::DRAIN);
        if (!fill.done()) advance_fill<A>(fill, engine.tile, fifo, words.work[kKeyBank], memory);

        // the tile's border
        const bool pass_ends = at.in_tile + 1 == pass.in_tiles && at.out_tile + 1 == pass.out_tiles;
        const int least_cycles = timing::cycles(pass_ends ? A::kPipelineCycles : kRmwCycles);
        ++at.cycle;
        ++at.row;
        if (at.cycle >= pass.rows.count && at.cycle >= least_cycles && fill.done()) {
            if (pass_ends) {
                at.in_tile = 0;
                at.out_tile = 0;
                running = next_index == index + 1 && next.op == Op::ENGINE;
                ++index;
                if (running) {
                    timing::begin_step(index);
                    pass = make_pass<A>(next, tokens);
                    next_index = next.next_engine;
                    next = engine_step<Program>(next_index, first, last);
                }
            } else if (++at.in_tile == pass.in_tiles) {
                at.in_tile = 0;
                ++at.out_tile;
            }
            at.cycle = 0;
            at.row = pass.rows.first;
            swap_tiles<A>(engine.tile, at.in_tile == 0);
            fill = fill_after<A>(at, pass, next, tokens);
        }
    }
    return index;
}

}  // namespace spvit

#endif  // SPVIT_ENGINE_HPP
