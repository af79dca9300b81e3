// On-chip memories. Every array has one read and one write site in the engine's loop.
#ifndef SPVIT_MEMORY_HPP
#define SPVIT_MEMORY_HPP

#include "record.hpp"
#include "timing.hpp"

namespace spvit {

constexpr int kBanks = 4;  // WORK: Q/context, K, scores and a spare; side by side they hold the hidden layer

constexpr int kKeyBank = 1;
constexpr int kBranchBank = 1;  // of the token selector: what `decide` reads lies in two banks
constexpr int kTokenScoreBank = 3;

/// Rows in the image: prefix, patches, packages. Changes when tokens are packaged.
struct Tokens {
    int num_tokens;
    int num_packages;
    int num_prefix;
};

/// Of WORK's row, or of the logits: these are one row's, and run on, in the last bank, over the rows behind it.
template <class A>
constexpr int most_lanes() {
    static_assert(ceil_div(A::kNumClasses, A::kWord) * A::kWord <= (kBanks - 1 + A::kRows) * A::kBankLanes,
                  "the logits must fit in WORK's first row and what lies behind it");
    return larger(kBanks * A::kBankLanes, ceil_div(A::kNumClasses, A::kWord) * A::kWord);
}

template <class A>
using Row = UInt<bits_for(A::kRows)>;
/// Of a row of any buffer.
template <class A>
using Lane = UInt<bits_for(most_lanes<A>())>;
/// Counts tiles along a row.
template <class A>
using TileIndex = UInt<bits_for(most_lanes<A>() / A::kGroup)>;

/// Sum and sum of squares, for LayerNorm.
struct Statistics {
    Int<27> sum;
    Int<42> squares;
};

/// Sums so far and what is new; the first of all begin anew.
inline Statistics gather(bool first, const Statistics& so_far, const Statistics& sums) {
#pragma HLS INLINE
    Statistics gathered;
    gathered.sum = (first ? Int<27>(0) : so_far.sum) + sums.sum;
    gathered.squares = (first ? Int<42>(0) : so_far.squares) + sums.squares;
    return gathered;
}

/// A memory has one read and one write port, so what is read twice in the engine's loop is there twice: for the prologue,
/// and `partial`, where the epilogue gathers it tile by tile.
template <class A>
struct Memory {
    /// Memories are words of kWord lanes, each in groups that can be written alone, side by side. WORK's groups are an image
    /// word: pixels come so.
    using Group = Vec<Int<16>, A::kGroup>;
    using WorkGroup = Vec<Int<16>, A::kImageLanes>;
    static constexpr int kGroups = A::kWord / A::kGroup;
    static constexpr int kWorkGroups = A::kWord / A::kImageLanes;
    static constexpr int kEmbedWords = A::kEmbedLanes / A::kWord;
    static constexpr int kBankWords = A::kBankLanes / A::kWord;
    static constexpr int kKeyBlocks = ceil_div(A::kRows, A::kWord);

    Group x[kGroups][A::kRows * kEmbedWords];                    // residual stream
    WorkGroup work[kBanks][kWorkGroups][A::kRows * kBankWords];  // everything else that lives within a block
    Int<16> v[A::kWord][kKeyBlocks * A::kEmbedLanes];  // values, skewed: (dim, key) in bank (dim + key) mod kWord

    Statistics row_statistics[A::kRows];
    Statistics partial_row_statistics[A::kRows];
    Statistics head_statistics[A::kRows * A::kHeads];
    Statistics partial_head_statistics[A::kRows * A::kHeads];
    Int<16> score_max[A::kRows];
    Int<16> partial_score_max[A::kRows];
    Int<27> exp_sum[A::kRows];

    Vec<Int<27>, A::kTileOut> feature_sum[A::kHeadLanes / A::kTileOut];
    Vec<Int<16>, A::kTileIn> pooled[A::kHeadLanes / A::kTileIn];
    Int<2> keep[A::kRows];
    Int<24> probability[A::kRows];

    Record program[A::kMaxSteps];
};

/// Which of a word's parts of N lanes holds `lane`: a constant where there is one, or every lane would get a multiplexer.
template <int N, int M>
inline int part_of(int lane) {
#pragma HLS INLINE
    return N == M ? 0 : lane / N % (M / N);
}

/// The word of a row that holds `lane`.
///   PerRow  words
template <int PerRow, int G, std::size_t Groups, std::size_t Words>
inline Vec<Int<16>, G* static_cast<int>(Groups)> read_word(const Vec<Int<16>, G> (&array)[Groups][Words], int row,
                                                           int lane, timing::Lanes used = {},
                                                           timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
    constexpr int kLanes = G * static_cast<int>(Groups);
    Vec<Int<16>, kLanes> word;
READ_GROUPS:
    for (int g = 0; g < static_cast<int>(Groups); ++g) {
#pragma HLS UNROLL
        const Vec<Int<16>, G> group = load(array[g], row * PerRow + lane / kLanes, site, used.overlap(g * G, G));
        for (int i = 0; i < G; ++i) {
#pragma HLS UNROLL
            word[g * G + i] = group[i];
        }
    }
    return word;
}

/// Writes `N` lanes of a row, whole groups, from `lane` on, a multiple of N.
template <int PerRow, int G, int N, std::size_t Groups, std::size_t Words>
inline void write_lanes(Vec<Int<16>, G> (&array)[Groups][Words], int row, int lane, const Vec<Int<16>, N>& lanes,
                        timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
    constexpr int kLanes = G * static_cast<int>(Groups);
    const int part = part_of<N, kLanes>(lane);
WRITE_GROUPS:
    for (int g = 0; g < static_cast<int>(Groups); ++g) {
#pragma HLS UNROLL
        Vec<Int<16>, G> group;
        for (int i = 0; i < G; ++i) {
#pragma HLS UNROLL
            group[i] = lanes[(g * G + i) % N];
        }
        if (g * G / N == part) store(array[g], row * PerRow + lane / kLanes, group, site);
    }
}

/// `N` lanes of a word, from `first` on, a multiple of N; of `first` counts where in its word it lies.
template <int N, int M>
inline Vec<Int<16>, N> slice(const Vec<Int<16>, M>& word, int first) {
#pragma HLS INLINE
    const int chosen = part_of<N, M>(first);
    Vec<Int<16>, N> lanes;
SLICE_LANES:
    for (int i = 0; i < N; ++i) {
#pragma HLS UNROLL
        lanes[i] = word[i];
        for (int part = 1; part < M / N; ++part) {
#pragma HLS UNROLL
            if (part == chosen) lanes[i] = word[part * N + i];
        }
    }
    return lanes;
}

/// One lane of a word, N a power of two: a tree.
template <class T>
inline T pick_lane(const Vec<T, 1>& word, int) {
#pragma HLS INLINE
    return word[0];
}
template <class T, int N>
inline T pick_lane(const Vec<T, N>& word, int lane) {
#pragma HLS INLINE
    Vec<T, N / 2> half;
PICK_HALF:
    for (int i = 0; i < N / 2; ++i) {
#pragma HLS UNROLL
        half[i] = (lane & (N / 2)) != 0 ? word[i + N / 2] : word[i];
    }
    return pick_lane(half, lane);
}

/// A word that is gathered lane by lane, first to last: a shift register.
template <class T, int N>
inline void shift_in(Vec<T, N>& word, const T& lane) {
#pragma HLS INLINE
SHIFT_IN:
    for (int i = 0; i + 1 < N; ++i) {
#pragma HLS UNROLL
        word[i] = word[i + 1];
    }
    word[N - 1] = lane;
}

/// A lane of WORK: in which bank, and where there.
template <class A>
struct BankLane {
    UInt<bits_for(kBanks - 1)> bank;
    Lane<A> lane;
};

template <class A>
inline BankLane<A> locate(int lane) {
#pragma HLS INLINE
    BankLane<A> found;
    found.bank = 0;
    found.lane = lane;
FIND_BANK:
    for (int bank = 1; bank < kBanks; ++bank) {
#pragma HLS UNROLL
        if (lane >= bank * A::kBankLanes) {
            found.bank = bank;
            found.lane = lane - bank * A::kBankLanes;
        }
    }
    return found;
}

/// Writes lanes of a row of WORK, from `place` on.
template <class A, int N>
inline void write_work(Memory<A>& memory, const BankLane<A>& place, int row, const Vec<Int<16>, N>& lanes,
                       timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
WRITE_BANKS:
    for (int bank = 0; bank < kBanks; ++bank) {
#pragma HLS UNROLL
        if (place.bank == bank) {
            write_lanes<Memory<A>::kBankWords>(memory.work[bank], row, to_int(place.lane), lanes, site);
        }
    }
}

/// One lane of a row of WORK, within a bank.
template <class A>
inline Int<16> read_work_lane(const Memory<A>& memory, int bank, int row, int lane,
                              timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
    return pick_lane(read_word<Memory<A>::kBankWords>(memory.work[bank], row, lane, {}, site), lane % A::kWord);
}

/// lanes[(i + amount) mod N] at place i, for N a power of two: one row of multiplexers per bit of `amount`.
template <int N>
inline Vec<Int<16>, N> rotate(Vec<Int<16>, N> lanes, int amount) {
#pragma HLS INLINE
ROTATE_BY_BITS:
    for (int step = 1; step < N; step *= 2) {
#pragma HLS UNROLL
        Vec<Int<16>, N> turned;
        for (int i = 0; i < N; ++i) {
#pragma HLS UNROLL
            turned[i] = (amount & step) != 0 ? lanes[(i + step) % N] : lanes[i];
        }
        lanes = turned;
    }
    return lanes;
}

/// One dimension of the values over `kTileIn` keys, a column of V: one access per bank.
template <class A>
inline Vec<Int<16>, A::kTileIn> read_value_column(const Memory<A>& memory, int dim, int first_key) {
#pragma HLS INLINE
    const int address = first_key / A::kWord * A::kEmbedLanes + dim;
    Vec<Int<16>, A::kWord> banks;
READ_VALUE_BANKS:
    for (int bank = 0; bank < A::kWord; ++bank) {
#pragma HLS UNROLL
        banks[bank] = load(memory.v[bank], address);
    }
    banks = rotate(banks, (dim + first_key) % A::kWord);
    Vec<Int<16>, A::kTileIn> column;
    for (int i = 0; i < A::kTileIn; ++i) {
#pragma HLS UNROLL
        column[i] = banks[i];
    }
    return column;
}

/// `kTileOut` dimensions of one token's value: one access per bank.
template <class A>
inline void write_value(Memory<A>& memory, int key, int first_dim, const Vec<Int<16>, A::kTileOut>& value) {
#pragma HLS INLINE
    const int address = key / A::kWord * A::kEmbedLanes + first_dim;
    const int skew = (first_dim + key) % A::kWord;
    Vec<Int<16>, A::kWord> banks;
    for (int i = 0; i < A::kWord; ++i) {
#pragma HLS UNROLL
        banks[i] = i < A::kTileOut ? value[i % A::kTileOut] : Int<16>(0);
    }
    banks = rotate(banks, (A::kWord - skew) % A::kWord);
WRITE_VALUE_BANKS:
    for (int bank = 0; bank < A::kWord; ++bank) {
#pragma HLS UNROLL
        const int dim = (bank + A::kWord - skew) % A::kWord;
        if (dim < A::kTileOut) store(memory.v[bank], address + dim, banks[bank]);
    }
}

}  // namespace spvit

#endif  // SPVIT_MEMORY_HPP
