// What the host learns beside the logits: whether this is the design that it takes it for, how far a run has come, which
// tokens each selector kept, and whether the weights arrived as they were sent. hw/interface.py has the same layout.
#ifndef SPVIT_STATUS_HPP
#define SPVIT_STATUS_HPP

#include "engine.hpp"

namespace spvit {

enum class Error : std::uint8_t {
    NONE,
    NUM_WORDS,       // the weight stream is not as long as its steps, or the host, say
    DIGEST,          // the network was packed for another design
    TABLE_VERSION,   // the step table has another layout
    TABLE_CHECKSUM,  // it did not arrive as it was sent
    STEP,            // a step would leave the memories, or has a format that no unit has bits for
    SIZES,           // the network is larger than the memories
    IMAGE_WORDS      // the image is not as large as the host says, or its patches are not the network's rows
};

// Words of the status buffer.
constexpr int kStatusError = 0;     // Error, written last
constexpr int kStatusStages = 1;    // token selectors passed so far
constexpr int kStatusChecksum = 2;  // of the weight stream, as it arrived
constexpr int kStatusNetwork = 3;   // digest of the network that ran
constexpr int kStatusHeader = 4;    // then one record per token selector: tokens after it, keep flags
constexpr int kKeepRowsPerWord = 32;

template <class A>
constexpr int stage_words() {
    return 1 + ceil_div(A::kRows, kKeepRowsPerWord);
}

template <class A>
constexpr int status_words() {
    return kStatusHeader + A::kSelectors * stage_words<A>();
}

using ChecksumStream = Stream<std::uint32_t>;

/// Passes the weight stream on, and sums it up: rotate by one, XOR 32 bits. A flipped bit always shows.
template <class A>
void checksum_words(ArrivingWords<A>& arriving, WeightFifo<A>& fifo, int num_words, ChecksumStream& checksum) {
    const timing::Process process("checksum_words");
    timing::Pipeline loop("CHECKSUM");
    std::uint32_t sum = 0;
CHECKSUM:
    for (int i = 0; loop.runs(i < num_words); ++i) {
#pragma HLS PIPELINE II = 1
        trace::expect_data(arriving);
        const FillWord<A> word = arriving.read();
        std::uint32_t folded = 0;
    FOLD:
        for (int lane = 0; lane < A::kFillLanes; ++lane) {
#pragma HLS UNROLL
            folded ^= (static_cast<std::uint32_t>(to_int(word[lane])) & 0xFFFFU) << (16 * (lane % 2));
        }
        sum = ((sum << 1) | (sum >> 31)) ^ folded;
        fifo.write(word);
    }
    checksum.write(sum);
}

/// What a token selector decided, as soon as it is known: the host can look while the image is still running.
///   before, after  the token packager
template <class A>
void store_stage(int stage, const Tokens& before, const Tokens& after, const Memory<A>& memory, std::int32_t* status) {
#pragma HLS INLINE off
    const RowRange candidates = row_range<A>(Rows::CANDIDATES, before);
    std::int32_t* record = status + kStatusHeader + stage * stage_words<A>();
    std::uint32_t flags = 0;
    axi_write(record, 0, std::int32_t(after.num_tokens));
    timing::Pipeline loop("KEEP_FLAGS");
KEEP_FLAGS:
    for (int row = 0; loop.runs(row < (stage_words<A>() - 1) * kKeepRowsPerWord); ++row) {
#pragma HLS PIPELINE II = 1
        const bool candidate = row >= candidates.first && row < candidates.first + candidates.count;
        const bool keep = candidate ? load(memory.keep, row) != 0 : row < before.num_tokens;
        flags = (flags >> 1) | (keep ? 1U << (kKeepRowsPerWord - 1) : 0U);
        if (row % kKeepRowsPerWord == kKeepRowsPerWord - 1) {
            axi_write(record, 1 + row / kKeepRowsPerWord, static_cast<std::int32_t>(flags));
        }
    }
    axi_write(status, kStatusStages, std::int32_t(stage + 1));
}

}  // namespace spvit

#endif  // SPVIT_STATUS_HPP
