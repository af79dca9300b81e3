// The matrix engine: one flat loop. A tile of weights stands still while all tokens pass it, one per cycle; the next tile
// is filled meanwhile. Prologue, array and epilogue are one pipeline.
//   enters  a step of the program, the weight FIFO, the memories
//   leaves  the step's destination, and the first tile of the next step in the shadow registers
#ifndef SPVIT_ENGINE_HPP
#define SPVIT_ENGINE_HPP

#include "epilogue.hpp"
#include "prologue.hpp"
#include "tile.hpp"
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

/// `N` lanes of a word, from a multiple of N on.
template <int N, int M>
inline Vec<Int<16>, N> slice(const Vec<Int<16>, M>& word, int first) {
#pragma HLS INLINE
    Vec<Int<16>, N> part;
SLICE_LANES:
    for (int i = 0; i < N; ++i) {
#pragma HLS UNROLL
        part[i] = word[(first + i) % M];
    }
    return part;
}

/// Everything that lives as long as the accelerator.
template <class A>
struct Engine {
    Memory<A> memory;
    Tile<A> tile;
    Vec<Int<48>, A::kTileOut> accumulators[A::kRows];
};

/// Adds a tile's sums to the statistics of a row of X.
template <class A>
inline void add_statistics(Memory<A>& memory, int row, int out_tile, const Statistics& sums) {
#pragma HLS INLINE
    constexpr int kTilesPerHead = A::kHeadLanes / A::kTileOut;
    const bool first_of_head = out_tile % kTilesPerHead == 0;
    const int head = row * A::kHeads + out_tile / kTilesPerHead;
    const Statistics of_row = memory.row_statistics[row];
    const Statistics of_head = memory.head_statistics[head];
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
    memory.row_statistics[row] = row_sums;
    memory.head_statistics[head] = head_sums;
}

/// One pass: source x weights -> destination, over the rows that are tokens now.
///   next   the engine's next step: its first tile is filled during this pass's last one
///   index  of the step, for the trace
template <class A>
void engine_pass(const Step& step, const Step& next, int index, const Tokens& tokens, WeightFifo<A>& fifo,
                 Engine<A>& engine) {
#pragma HLS INLINE off
    Memory<A>& memory = engine.memory;
    const bool idle = step.op != Op::ENGINE;
    const RowRange rows = row_range<A>(step.rows, tokens);
    const int num_rows = idle ? 0 : rows.count;
    const int in_tiles = idle ? 1 : step.in_tiles != 0 ? step.in_tiles : ceil_div(tokens.num_tokens, A::kTileIn);
    const int out_tiles = idle ? 1 : step.out_tiles != 0 ? step.out_tiles : ceil_div(tokens.num_tokens, A::kTileOut);

    int in_tile = 0;
    int out_tile = 0;
    int cycle = 0;  // within the tile: the token
    Fill<A> fill = in_tiles > 1    ? begin_fill<A>(step, 0, 1, tokens)
                   : out_tiles > 1 ? begin_fill<A>(step, 1, 0, tokens)
                                   : begin_fill<A>(next, 0, 0, tokens);

ENGINE:
    while (out_tile < out_tiles) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = engine.accumulators inter true distance = kRmwCycles
        const bool has_token = cycle < num_rows;
        const int row = rows.first + cycle;
        const int source_lane = step.source_lane + in_tile * A::kTileIn;
        const int dest_lane = step.dest_lane + out_tile * A::kTileOut;

        // WORK: the source, and the key that the next tile takes; they lie in different banks
        const BankLane source = locate<A>(source_lane);
        const int key_row = fill.out_tile * A::kTileOut + fill.index;
        Vec<Int<16>, A::kWord> work_word[kBanks] = {};
    READ_BANKS:
        for (int bank = 0; bank < kBanks; ++bank) {
#pragma HLS UNROLL
            const bool for_key = bank == kKeyBank && fill.reads_keys() && key_row < fill.num_tokens;
            const int key_lane = fill.first_lane + fill.in_tile * A::kTileIn;
            const int lane = for_key ? key_lane : source.lane;
            if (for_key || (has_token && step.source == Buffer::WORK && bank == source.bank)) {
                work_word[bank] = read_lanes<A, A::kWord, Memory<A>::kBankGroups>(
                    memory.work[bank], for_key ? key_row : row, lane / A::kWord * A::kWord);
            }
        }

        if (has_token) {
            // X is read once: as the source, or as the residual
            const int x_lane = step.source == Buffer::X ? source_lane : dest_lane;
            Vec<Int<16>, A::kWord> x_word = {};
            if (step.source == Buffer::X || step.epilogue == Epilogue::RESIDUAL) {
                x_word = read_lanes<A, A::kWord, Memory<A>::kEmbedGroups>(memory.x, row, x_lane / A::kWord * A::kWord);
            }
            const Vec<Int<16>, A::kTileIn> raw =
                step.source == Buffer::X ? slice<A::kTileIn>(x_word, source_lane % A::kWord)
                                         : slice<A::kTileIn>(work_word[source.bank], source.lane % A::kWord);

            Vec<Int<16>, A::kTileIn> factors = raw;
            Int<27> exp_sum = 1;
            switch (step.prologue) {
                case Prologue::LAYER_NORM: {
                    const int second_row = source_lane >= A::kEmbedLanes ? 1 : 0;  // class and distillation token
                    factors = layer_norm<A>(raw, memory.row_statistics[row + second_row], false, step);
                    break;
                }
                case Prologue::HEAD_LAYER_NORM:
                    factors = layer_norm<A>(raw, memory.head_statistics[row * A::kHeads + step.head], true, step);
                    break;
                case Prologue::SOFTMAX: {
                    factors = softmax_numerator<A>(raw, memory.score_max[row], in_tile * A::kTileIn, tokens.num_tokens,
                                                   step.frac_bits);
                    exp_sum = in_tile == 0 && out_tile == 0 ? Int<27>(0) : memory.exp_sum[row];
                    if (out_tile == 0) {
                    SUM_EXP:
                        for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
                            exp_sum += factors[i];
                        }
                    }
                    memory.exp_sum[row] = exp_sum;
                    break;
                }
                case Prologue::CONCAT:
                    factors = concat_pooled<A>(raw, memory, in_tile * A::kTileIn, step.split);
                    break;
                default:
                    break;
            }

            const Int<48> activation_term = InnerProduct<A::kFast>::term(factors);
            Vec<Int<48>, A::kTileOut> sums = engine.accumulators[cycle];
        COLUMNS:
            for (int column = 0; column < A::kTileOut; ++column) {
#pragma HLS UNROLL
                const Int<48> partial =
                    InnerProduct<A::kFast>::sum(factors, engine.tile.active[column]) - activation_term;
                sums[column] = in_tile == 0 ? partial : Int<48>(sums[column] + partial);
            }
            engine.accumulators[cycle] = sums;

            if (in_tile == in_tiles - 1) {
                const Vec<Int<16>, A::kTileOut> residual = slice<A::kTileOut>(x_word, dest_lane % A::kWord);
                const EpilogueResult<A> result =
                    epilogue<A>(step, sums, engine.tile, residual, reciprocal(Int<41>(exp_sum)));
                const int column = out_tile * A::kTileOut;
                if (step.dest == Buffer::X) {
                    write_lanes<A, A::kTileOut, Memory<A>::kEmbedGroups>(memory.x, row, dest_lane, result.value);
                    add_statistics<A>(memory, row, out_tile, result.sums);
                } else if (step.dest == Buffer::V) {
                    write_value<A>(memory, row, dest_lane, result.value);
                } else {
                    const BankLane dest = locate<A>(dest_lane);
                    write_lanes<A, A::kTileOut, Memory<A>::kBankGroups>(memory.work[dest.bank], row, dest.lane,
                                                                        result.value);
                }
                if (step.epilogue == Epilogue::SCORES) {
                    const Int<16> largest = largest_score<A>(result.value, column, tokens.num_tokens);
                    memory.score_max[row] =
                        out_tile != 0 && memory.score_max[row] > largest ? memory.score_max[row] : largest;
                }
                if (step.pool) {
                POOL_LANES:
                    for (int i = 0; i < A::kTileOut; ++i) {
#pragma HLS UNROLL
                        memory.feature_sum[column + i] =
                            (cycle == 0 ? Int<27>(0) : memory.feature_sum[column + i]) + result.value[i];
                    }
                }
                trace::record(index, row, column, result.value);
            }
        }

        if (!fill.done()) {
            if (fill.weights == Weights::STREAM) {
                fill_from_stream<A>(fill, engine.tile, fifo);
            } else {
                const int lane = (fill.first_lane + fill.in_tile * A::kTileIn) % A::kWord;
                fill_from_memory<A>(fill, engine.tile, memory, slice<A::kTileIn>(work_word[kKeyBank], lane));
            }
        }

        ++cycle;
        if (cycle >= num_rows && cycle >= kRmwCycles && fill.done()) {
            cycle = 0;
            if (++in_tile == in_tiles) {
                in_tile = 0;
                ++out_tile;
            }
            swap_tiles<A>(engine.tile, in_tile == 0);
            const bool last_in = in_tile + 1 == in_tiles;
            const bool last = last_in && out_tile + 1 >= out_tiles;
            fill = last || out_tile == out_tiles
                       ? begin_fill<A>(next, 0, 0, tokens)
                       : begin_fill<A>(step, last_in ? out_tile + 1 : out_tile, last_in ? 0 : in_tile + 1, tokens);
        }
    }
}

}  // namespace spvit

#endif  // SPVIT_ENGINE_HPP
