// The engine's control: where its loop stands, and how it moves on.
//
// A tile of weights stands still while the rows pass it, one per iteration, and while the next tile is filled. What is
// constant meanwhile is a TilePlan; what is not, the counters of a Position. An iteration, as registers see it:
//   every iteration  the step behind the next is read from the program, and with it the tile behind this one is planned,
//                    from registers alone; the plan then moves through kPlanCycles registers, which give reading and
//                    planning their time. A tile lasts kRmwCycles at least, so its successor's plan has always arrived.
//   the border       ends the iteration in which no cycles are left and the fill's last access takes place, or has taken
//                    place. All that it depends on are registers, whether the weight FIFO has a word too (FrontWord).
//                    What it changes is one choice (advance): the Position moves on, or begins the planned tile.
#ifndef SPVIT_CONTROL_HPP
#define SPVIT_CONTROL_HPP

#include "tile.hpp"

namespace spvit {

/// A tile lasts at least this long, so that an accumulator is never read before its last sum is written.
constexpr int kRmwCycles = 8;
/// So many iterations after it was made a plan is used.
constexpr int kPlanCycles = 6;
static_assert(kPlanCycles < kRmwCycles, "at its border a tile's successor must have been planned");

struct RowRange {
    int first;
    int count;
};

template <class A>
inline RowRange row_range(Rows rows, const Tokens& tokens) {
#pragma HLS INLINE
    const int patches = tokens.num_tokens - tokens.num_prefix;
    switch (rows) {
        case Rows::PATCHES:
            return {tokens.num_prefix, patches};
        case Rows::CANDIDATES:
            return {tokens.num_prefix, patches - tokens.num_packages};
        case Rows::FIRST:
            return {0, 1};
        default:
            return {0, tokens.num_tokens};
    }
}

/// Iterations of a tile.
template <class A>
using Length = UInt<bits_for(larger(A::kRows, A::kPipelineCycles))>;

/// A tile, as it is known before it begins.
template <class A>
struct TilePlan {
    // its pass: one step on the engine, source x weights -> destination, over the rows that are tokens now
    Step step;
    Step next;       // of the engine: its first tile is filled during this pass's last one
    int index;       // of `step` in the program
    int next_index;  // of `next`
    Row<A> first_row;
    Row<A> num_rows;
    // itself
    TileIndex<A> in_tile;
    TileIndex<A> out_tile;
    TileIndex<A> in_left;  // tiles of the pass behind it, down to zero
    TileIndex<A> out_left;
    TileIndex<A> head;  // of X's rows, in which its outputs lie,
    TileIndex<A> part;  // and where there
    bool first_in;
    bool last_in;  // its sums are finished
    bool ends_pass;
    bool ends_run;       // behind it stands a step that is not the engine's
    Lane<A> x_lane;      // of X: the source's first, or else the destination's
    BankLane<A> source;  // of WORK
    BankLane<A> dest;
    Length<A> more_cycles;  // that it lasts at least, beyond one
    Fill<A> fill;           // of the tile behind it
};

/// What a tile's place in its pass decides.
template <class A>
inline void complete(TilePlan<A>& plan) {
#pragma HLS INLINE
    const Lane<A> source_lane = plan.step.source_lane + to_int(plan.in_tile) * A::kTileIn;
    const Lane<A> dest_lane = plan.step.dest_lane + to_int(plan.out_tile) * A::kTileOut;
    const int rows = to_int(plan.num_rows);
    plan.first_in = plan.in_tile == 0;
    plan.last_in = plan.in_left == 0;
    plan.ends_pass = plan.last_in && plan.out_left == 0;
    plan.ends_run = plan.ends_pass && (plan.next.op != Op::ENGINE || plan.next_index != plan.index + 1);
    plan.x_lane = plan.step.source == Buffer::X ? source_lane : dest_lane;
    plan.source = locate<A>(to_int(source_lane));
    plan.dest = locate<A>(to_int(dest_lane));
    static_assert(kRmwCycles > 1, "a tile may not end in its first cycle");
    const int least_cycles = timing::cycles(plan.ends_pass ? A::kPipelineCycles : kRmwCycles);
    plan.more_cycles = larger(rows, least_cycles) - 1;
    if (plan.ends_pass) {
        plan.fill = begin_fill<A>(plan.next, 0, 0);
    } else if (plan.last_in) {
        plan.fill = begin_fill<A>(plan.step, to_int(plan.out_tile) + 1, 0);
    } else {
        plan.fill = begin_fill<A>(plan.step, to_int(plan.out_tile), to_int(plan.in_tile) + 1);
    }
}

/// The first tile of a pass.
template <class A>
inline TilePlan<A> begin_pass(int index, const Step& step, int next_index, const Step& next, const Tokens& tokens) {
#pragma HLS INLINE
    const bool works = step.op == Op::ENGINE;
    const RowRange rows = row_range<A>(step.rows, tokens);
    const int in_tiles = step.in_tiles != 0 ? int(step.in_tiles) : ceil_div(tokens.num_tokens, A::kTileIn);
    const int out_tiles = step.out_tiles != 0 ? int(step.out_tiles) : ceil_div(tokens.num_tokens, A::kTileOut);
    TilePlan<A> plan;
    plan.step = step;
    plan.next = next;
    plan.index = index;
    plan.next_index = next_index;
    plan.first_row = rows.first;
    plan.num_rows = works ? rows.count : 0;
    plan.in_tile = 0;
    plan.out_tile = 0;
    plan.in_left = works ? in_tiles - 1 : 0;
    plan.out_left = works ? out_tiles - 1 : 0;
    plan.head = 0;
    plan.part = 0;
    complete<A>(plan);
    return plan;
}

/// The tile behind `tile`.
///   after_next  the engine's next step behind tile.next
template <class A>
inline TilePlan<A> plan_behind(const TilePlan<A>& tile, const Step& after_next, const Tokens& tokens) {
#pragma HLS INLINE
    constexpr int kPartsPerHead = A::kHeadLanes / A::kTileOut;
    if (tile.ends_pass) {
        return begin_pass<A>(tile.index + 1, tile.next, tile.next.next_engine, after_next, tokens);
    }
    TilePlan<A> plan = tile;
    if (tile.last_in) {
        const bool ends_head = tile.part == kPartsPerHead - 1;
        plan.in_left = plan.in_tile;  // as many as were
        plan.in_tile = 0;
        plan.out_tile = tile.out_tile + 1;
        plan.out_left = tile.out_left - 1;
        plan.head = ends_head ? to_int(tile.head) + 1 : to_int(tile.head);
        plan.part = ends_head ? 0 : to_int(tile.part) + 1;
    } else {
        plan.in_tile = tile.in_tile + 1;
        plan.in_left = tile.in_left - 1;
    }
    complete<A>(plan);
    return plan;
}

/// Where the loop stands.
template <class A>
struct Position {
    bool running;
    TilePlan<A> tile;
    Fill<A> fill;           // of the next tile
    Row<A> token;           // that enters: its place in the accumulators,
    Row<A> row;             // and in memory
    Row<A> tokens_left;     // down to zero
    Length<A> cycles_left;  // down to zero, where the tile
    bool may_end;           // may end

    bool has_token() const { return tokens_left != 0; }

    /// Whether this iteration is the tile's last.
    ///   word_there  the weight FIFO has one
    bool at_border(bool word_there) const { return may_end && fill.ends(word_there); }
};

template <class A>
inline Position<A> begin_tile(const TilePlan<A>& tile, bool running) {
#pragma HLS INLINE
    return {running, tile, tile.fill, 0, tile.first_row, tile.num_rows, tile.more_cycles, false};
}

/// The next iteration's position.
///   planned  the tile behind at.tile
template <class A>
inline void advance(Position<A>& at, bool word_there, const TilePlan<A>& planned) {
#pragma HLS INLINE
    Position<A> moved = at;
    if (at.fill.accesses(word_there)) moved.fill.advance();
    if (at.has_token()) {
        moved.token = at.token + 1;
        moved.row = at.row + 1;
        moved.tokens_left = at.tokens_left - 1;
    }
    moved.cycles_left = at.cycles_left - 1;
    moved.may_end = at.may_end || at.cycles_left == 1;
    if (at.at_border(word_there)) {
        at = begin_tile<A>(planned, !at.tile.ends_run);
    } else {
        at = moved;
    }
}

}  // namespace spvit

#endif  // SPVIT_CONTROL_HPP
