// The token packager: kept tokens move to the front, the others become one package token (Eq. 8).
#ifndef SPVIT_TOKEN_PACKAGER_HPP
#define SPVIT_TOKEN_PACKAGER_HPP

#include "engine.hpp"

namespace spvit {

enum class Package : std::uint8_t {
    APPEND,  // each selector appends its package
    ADD,     // later packages are added onto the first
    NONE     // dropped tokens are gone
};

/// Moves the kept rows of X to the front, order preserved: a write pointer, no sort. Prefix and older packages are always
/// kept. Sums the dropped rows, weighted.
///   package_sum  [kEmbedLanes]  sum of probability * x over the dropped rows
/// Returns the number of rows kept; `weight` gets the sum of the dropped rows' probabilities.
template <class A>
int compact(const Tokens& tokens, Memory<A>& memory, Vec<Int<48>, A::kWord> (&package_sum)[A::kEmbedLanes / A::kWord],
            Int<41>& weight) {
    constexpr int kWords = A::kEmbedLanes / A::kWord;
    constexpr int kParts = kWords > A::kHeads ? kWords : A::kHeads;  // of a row: its words and its heads' statistics
    const RowRange candidates = row_range<A>(Rows::CANDIDATES, tokens);
    int written = 0;
    int part = 0;
    int row = 0;
    bool dropped_any = false;
    weight = 0;
    timing::Pipeline loop("COMPACT");
COMPACT:
    while (loop.runs(row < tokens.num_tokens)) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory.x inter false
#pragma HLS DEPENDENCE variable = memory.row_statistics inter false
#pragma HLS DEPENDENCE variable = memory.head_statistics inter false
        // no row is written before it was read: written <= row
        const bool candidate = row >= candidates.first && row < candidates.first + candidates.count;
        const bool keep = !candidate || load(memory.keep, row) != 0;
        const Int<24> probability = load(memory.probability, row);
        if (part < kWords) {
            const Vec<Int<16>, A::kWord> x =
                read_lanes<A::kWord, Memory<A>::kEmbedGroups>(memory.x, row, part * A::kWord);
            if (keep) {
                write_lanes<A::kWord, Memory<A>::kEmbedGroups>(memory.x, written, part * A::kWord, x);
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
        if (part < A::kHeads) {
            const Statistics statistics = load(memory.head_statistics, row * A::kHeads + part);
            if (keep) store(memory.head_statistics, written * A::kHeads + part, statistics);
        }
        if (++part == kParts) {
            part = 0;
            if (keep) {
                store(memory.row_statistics, written, load(memory.row_statistics, row));
                ++written;
            } else {
                weight += probability;
                dropped_any = true;
            }
            ++row;
        }
    }
    return written;
}

/// Divides the weighted sum by the weight and writes the package token to `row`, lane by lane, with its statistics.
///   add  onto what stands there (saturating)
template <class A>
void write_package(const Vec<Int<48>, A::kWord> (&package_sum)[A::kEmbedLanes / A::kWord], Int<41> weight, int row,
                   bool add, Memory<A>& memory) {
    const Reciprocal divisor = reciprocal(weight);
    Statistics row_sums = {0, 0};
    Statistics head_sums = {0, 0};
    Vec<Int<16>, A::kWord> word = {};
    timing::Pipeline loop("WRITE_PACKAGE");
WRITE_PACKAGE:
    for (int lane = 0; loop.runs(lane < A::kEmbedLanes); ++lane) {
#pragma HLS PIPELINE II = 1
        const int i = lane % A::kWord;
        if (i == 0) word = read_lanes<A::kWord, Memory<A>::kEmbedGroups>(memory.x, row, lane);
        const Int<16> package = divide<15, 16>(load(package_sum, lane / A::kWord)[i], divisor);
        const Int<16> value = add ? saturate<16>(Int<17>(Int<17>(word[i]) + package)) : package;
        const Int<32> square = Int<32>(value) * value;
        word[i] = value;
        row_sums.sum += value;
        row_sums.squares += square;
        head_sums.sum += value;
        head_sums.squares += square;
        if (i == A::kWord - 1) {
            write_lanes<A::kWord, Memory<A>::kEmbedGroups>(memory.x, row, lane - i, word);
        }
        if ((lane + 1) % A::kHeadLanes == 0) {
            store(memory.head_statistics, row * A::kHeads + lane / A::kHeadLanes, head_sums);
            head_sums = {0, 0};
        }
    }
    memory.row_statistics[row] = row_sums;
}

/// Packs what `decide` dropped. Nothing dropped: nothing changes.
template <class A>
void token_packager(int index, Tokens& tokens, Memory<A>& memory) {
#pragma HLS INLINE off
    Vec<Int<48>, A::kWord> package_sum[A::kEmbedLanes / A::kWord];
    Int<41> weight = 0;
    const int old_tokens = tokens.num_tokens;
    int rows = old_tokens;
    timing::memory(package_sum, "package_sum");
    rows = compact<A>(tokens, memory, package_sum, weight);
    tokens.num_tokens = rows;
    if (rows < old_tokens && A::kPackage != Package::NONE) {
        const bool add = A::kPackage == Package::ADD && tokens.num_packages > 0;
        write_package<A>(package_sum, weight, add ? rows - 1 : rows, add, memory);
        if (!add) {
            ++tokens.num_tokens;
            ++tokens.num_packages;
        }
    }
    for (int row = 0; row < tokens.num_tokens; ++row) {
        for (int lane = 0; lane < A::kEmbedLanes; lane += A::kGroup) {
            trace::record(index, row, lane, memory.x[row * Memory<A>::kEmbedGroups + lane / A::kGroup]);
        }
    }
}

}  // namespace spvit

#endif  // SPVIT_TOKEN_PACKAGER_HPP
