// On-chip memories. Every array has one read and one write site in the engine's loop.
#ifndef SPVIT_MEMORY_HPP
#define SPVIT_MEMORY_HPP

#include "timing.hpp"
#include "types.hpp"

namespace spvit {

constexpr int kBanks = 4;  // WORK: Q/context, K, scores and a spare; side by side they hold the hidden layer

constexpr int kKeyBank = 1;
constexpr int kBranchBank = 1;  // of the token selector: what `decide` reads lies in two banks
constexpr int kTokenScoreBank = 3;

/// Rows in the image: prefix, patches, packages. Changes when tokens are packaged.
struct Tokens {
    int num_tokens;
    int num_packages;
};

template <class A>
using Row = UInt<bits_for(A::kRows)>;
/// Of a row of any buffer.
template <class A>
using Lane = UInt<bits_for(kBanks* A::kBankLanes)>;
/// Counts tiles along a row.
template <class A>
using TileIndex = UInt<bits_for(kBanks* A::kBankLanes / A::kGroup)>;

/// Sum and sum of squares, for LayerNorm.
struct Statistics {
    Int<27> sum;
    Int<42> squares;
};

/// A memory has one read and one write port, so what is read twice in the engine's loop is there twice: for the prologue,
/// and `partial`, where the epilogue gathers it tile by tile.
template <class A>
struct Memory {
    /// Memories are words of kWord lanes, made of groups, the unit of access. WORK's are an image word: pixels come so.
    using Group = Vec<Int<16>, A::kGroup>;
    using WorkGroup = Vec<Int<16>, A::kImageLanes>;
    static constexpr int kEmbedGroups = A::kEmbedLanes / A::kGroup;
    static constexpr int kBankGroups = A::kBankLanes / A::kImageLanes;
    static constexpr int kKeyBlocks = ceil_div(A::kRows, A::kWord);

    Group x[A::kRows * kEmbedGroups];                  // residual stream
    WorkGroup work[kBanks][A::kRows * kBankGroups];    // everything else that lives within a block
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
};

/// `N` lanes from `first_lane` on of a row that is `Groups` groups wide.
template <int N, int Groups, int G, std::size_t Size>
inline Vec<Int<16>, N> read_lanes(const Vec<Int<16>, G> (&array)[Size], int row, int first_lane,
                                  timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
    Vec<Int<16>, N> lanes;
    const int first = row * Groups + first_lane / G;
READ_GROUPS:
    for (int g = 0; g < N / G; ++g) {
#pragma HLS UNROLL
        const Vec<Int<16>, G> group = load(array, first + g, site);
        for (int i = 0; i < G; ++i) {
#pragma HLS UNROLL
            lanes[g * G + i] = group[i];
        }
    }
    return lanes;
}

template <int N, int Groups, int G, std::size_t Size>
inline void write_lanes(Vec<Int<16>, G> (&array)[Size], int row, int first_lane, const Vec<Int<16>, N>& lanes,
                        timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
    const int first = row * Groups + first_lane / G;
WRITE_GROUPS:
    for (int g = 0; g < N / G; ++g) {
#pragma HLS UNROLL
        Vec<Int<16>, G> group;
        for (int i = 0; i < G; ++i) {
#pragma HLS UNROLL
            group[i] = lanes[g * G + i];
        }
        store(array, first + g, group, site);
    }
}

/// Which of a word's parts of N lanes holds `lane`: a constant where there is one, or every lane would get a multiplexer.
template <int N, int M>
inline int part_of(int lane) {
#pragma HLS INLINE
    return N == M ? 0 : lane / N % (M / N);
}

/// Words that pass lane by lane, first to last: shift registers.
template <class T, int N>
inline T shift_out(Vec<T, N>& word) {
#pragma HLS INLINE
    const T lane = word[0];
SHIFT_OUT:
    for (int i = 0; i + 1 < N; ++i) {
#pragma HLS UNROLL
        word[i] = word[i + 1];
    }
    return lane;
}

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

/// One lane of a row of WORK, within a bank.
template <class A>
inline Int<16> read_work_lane(const Memory<A>& memory, int bank, int row, int lane,
                              timing::Site site = timing::Site::here()) {
#pragma HLS INLINE
    return load(memory.work[bank], row * Memory<A>::kBankGroups + lane / A::kImageLanes, site)[lane % A::kImageLanes];
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
