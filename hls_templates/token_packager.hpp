// The token packager: kept tokens move to the front, the others become one package token (Eq. 8).
#ifndef SPVIT_TOKEN_PACKAGER_HPP
#define SPVIT_TOKEN_PACKAGER_HPP

#include "engine.hpp"

namespace spvit {

/// A package's sum of a word of lanes is read again so many iterations after it was written, at the earliest.
constexpr int kPackageSumCycles = 4;

/// Moves the kept rows of X to the front, order preserved: a write pointer, no sort. Prefix and older packages are always
/// kept. Sums the dropped rows, weighted. The heads' statistics stay behind: before the next selector reads them, a block
/// gathers them anew.
///   num_words    of a row
///   package_sum  [kEmbedLanes]  sum of probability * x over the dropped rows
/// Returns the number of rows kept; `weight` gets the sum of the dropped rows' probabilities.
template <class A>
int compact(const Tokens& tokens, int num_words, Memory<A>& memory,
            Vec<Int<48>, A::kWord> (&package_sum)[A::kEmbedLanes / A::kWord], Int<41>& weight) {
    constexpr int kWords = A::kEmbedLanes / A::kWord;  // at most
    // iterations of a row: its words, and no fewer than a package's sum takes from read to write
    const int parts = larger(num_words, kPackageSumCycles);
    const RowRange candidates = row_range<A>(Rows::CANDIDATES, tokens);
    Row<A> written = 0;
    Row<A> row = 0;
    UInt<bits_for(larger(kWords, kPackageSumCycles))> part = 0;
    bool dropped_any = false;
    weight = 0;
    timing::Pipeline loop("COMPACT");
COMPACT:
    while (loop.runs(row < tokens.num_tokens)) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory.x inter false
#pragma HLS DEPENDENCE variable = memory.row_statistics inter false
#pragma HLS DEPENDENCE variable = package_sum inter true distance = kPackageSumCycles
        // no row is written before it was read: written <= row
        const int from = to_int(row);
        const int to = to_int(written);
        const bool candidate = from >= candidates.first && from < candidates.first + candidates.count;
        const bool keep = !candidate || load(memory.keep, from) != 0;
        const Int<24> probability = load(memory.probability, from);
        if (part < num_words) {
            const Vec<Int<16>, A::kWord> x = read_word<Memory<A>::kEmbedWords>(memory.x, from, part * A::kWord);
            if (keep) {
                write_lanes<Memory<A>::kEmbedWords>(memory.x, to, part * A::kWord, x);
            } else {
                Vec<Int<48>, A::kWord> sum = load(package_sum, part);
            WEIGH_LANES:
                for (int i = 0; i < A::kWord; ++i) {
#pragma HLS UNROLL
                    sum[i] = (dropped_any ? sum[i] : Int<48>(0)) + Int<48>(probability) * x[i];
                }
                store(package_sum, part, sum);
            }
        }
        const bool ends_row = part == parts - 1;
        part = ends_row ? 0 : to_int(part) + 1;
        if (ends_row) {
            if (keep) {
                store(memory.row_statistics, to, load(memory.row_statistics, from));
                written = written + 1;
            } else {
                weight += probability;
                dropped_any = true;
            }
            row = row + 1;
        }
    }
    return to_int(written);
}

/// Divides the weighted sum by the weight and writes the package token to `row`, lane by lane, with its statistics.
///   add  onto what stands there (saturating)
template <class A>
void write_package(const Vec<Int<48>, A::kWord> (&package_sum)[A::kEmbedLanes / A::kWord], Int<41> weight, int row,
                   int num_words, bool add, Memory<A>& memory) {
    const Reciprocal divisor = reciprocal(weight);
    Statistics row_sums = {0, 0};
    Vec<Int<16>, A::kWord> word = {};
    timing::Pipeline loop("WRITE_PACKAGE");
WRITE_PACKAGE:
    for (int lane = 0; loop.runs(lane < num_words * A::kWord); ++lane) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory.x inter false
        // no word is written before it was read for the last time
        const int i = lane % A::kWord;
        const Int<16> older = pick_lane(read_word<Memory<A>::kEmbedWords>(memory.x, row, lane), i);
        const Int<16> package = divide<15, 16>(pick_lane(load(package_sum, lane / A::kWord), i), divisor);
        const Int<16> value = add ? saturate<16>(Int<17>(Int<17>(older) + package)) : package;
        const Statistics sums = {Int<27>(value), Int<42>(Int<32>(value) * value)};
        shift_in(word, value);
        row_sums = gather(lane == 0, row_sums, sums);
        if (i == A::kWord - 1) {
            write_lanes<Memory<A>::kEmbedWords>(memory.x, row, lane - i, word);
        }
    }
    memory.row_statistics[row] = row_sums;
}

/// All of X, for C-simulation alone.
template <class A>
inline void trace_rows(int index, int num_rows, int num_words, const Memory<A>& memory) {
#ifdef SPVIT_TRACE
    for (int row = 0; row < num_rows; ++row) {
        for (int lane = 0; lane < num_words * A::kWord; lane += A::kGroup) {
            const int word = row * Memory<A>::kEmbedWords + lane / A::kWord;
            trace::record(index, row, lane, memory.x[lane % A::kWord / A::kGroup][word]);
        }
    }
#else
    (void)index, (void)num_rows, (void)num_words, (void)memory;
#endif
}

/// Packs what `decide` dropped. Nothing dropped: nothing changes.
template <class A>
void token_packager(int index, const Network& network, Tokens& tokens, Memory<A>& memory) {
#pragma HLS INLINE off
    Vec<Int<48>, A::kWord> package_sum[A::kEmbedLanes / A::kWord];
#pragma HLS AGGREGATE variable = package_sum compact = bit
#pragma HLS BIND_STORAGE variable = package_sum type = ram_s2p impl = lutram
    Int<41> weight = 0;
    const int old_tokens = tokens.num_tokens;
    const int num_words = to_int(network.num_heads) * (A::kHeadLanes / A::kWord);  // of a row
    timing::memory(package_sum, "package_sum");
    const int rows = compact<A>(tokens, num_words, memory, package_sum, weight);
    tokens.num_tokens = rows;
    if (rows < old_tokens && network.package != Package::NONE) {
        const bool add = network.package == Package::ADD && tokens.num_packages > 0;
        write_package<A>(package_sum, weight, add ? rows - 1 : rows, num_words, add, memory);
        if (!add) {
            ++tokens.num_tokens;
            ++tokens.num_packages;
        }
    }
    trace_rows(index, tokens.num_tokens, num_words, memory);
}

}  // namespace spvit

#endif  // SPVIT_TOKEN_PACKAGER_HPP
