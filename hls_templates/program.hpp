// The program, as data: the head of the weight stream, checked before anything runs by it.
//   enters  the network's header and a record for each of its steps (hw/step_table.py)
//   leaves  memory.program, or why there is none
#ifndef SPVIT_PROGRAM_HPP
#define SPVIT_PROGRAM_HPP

#include "engine.hpp"
#include "status.hpp"

namespace spvit {

/// How records travel: side by side in a word of the stream, or one over several; the header's words are its own.
template <class A>
struct Table {
    static constexpr int kPieceLanes = A::kFillLanes < kRecordLanes ? A::kFillLanes : kRecordLanes;  // taken at once
    static constexpr int kPiecesPerRecord = kRecordLanes / kPieceLanes;
    static constexpr int kPiecesPerWord = A::kFillLanes / kPieceLanes;
    static constexpr int kHeaderWords = ceil_div(kRecordLanes, A::kFillLanes);

    static constexpr int words(int num_steps) {
        return kHeaderWords + ceil_div(num_steps * kRecordLanes, A::kFillLanes);
    }
};

/// The next record of the stream, piece by piece.
///   word  of the stream, whose lanes move down as they are taken
template <class A>
inline void take_piece(int piece, WeightFifo<A>& fifo, FillWord<A>& word, Record& record) {
#pragma HLS INLINE
    using T = Table<A>;
    if (piece % T::kPiecesPerWord == 0) {
        trace::expect_data(fifo);
        word = fifo.read();
    }
SHIFT_RECORD:
    for (int i = 0; i < kRecordLanes; ++i) {
#pragma HLS UNROLL
        const int from = i + T::kPieceLanes;
        record[i] = from < kRecordLanes ? record[from % kRecordLanes] : word[from % kRecordLanes];
    }
SHIFT_WORD:
    for (int i = 0; i + T::kPieceLanes < A::kFillLanes; ++i) {
#pragma HLS UNROLL
        word[i] = word[i + T::kPieceLanes];
    }
}

template <class A>
Record load_header(WeightFifo<A>& fifo) {
#pragma HLS INLINE off
    FillWord<A> word = {};
    Record header;
    timing::Pipeline loop("LOAD_HEADER");
LOAD_HEADER:
    for (int piece = 0; loop.runs(piece < Table<A>::kPiecesPerRecord); ++piece) {
#pragma HLS PIPELINE II = 1
        take_piece<A>(piece, fifo, word, header);
    }
    return header;
}

/// The steps' records, into memory. Returns the table's checksum.
template <class A>
std::uint32_t load_steps(const Record& header, int num_steps, WeightFifo<A>& fifo, Memory<A>& memory) {
#pragma HLS INLINE off
    using T = Table<A>;
    FillWord<A> word = {};
    Record record;
    std::uint32_t checksum = add_to_checksum(0, header, true);
    timing::Pipeline loop("LOAD_PROGRAM");
LOAD_PROGRAM:
    for (int piece = 0; loop.runs(piece < num_steps * T::kPiecesPerRecord); ++piece) {
#pragma HLS PIPELINE II = 1
        take_piece<A>(piece, fifo, word, record);
        if (piece % T::kPiecesPerRecord == T::kPiecesPerRecord - 1) {
            checksum = add_to_checksum(checksum, record, false);
            store(memory.program, piece / T::kPiecesPerRecord, record);
        }
    }
    return checksum;
}

/// Whether `lanes` from `first` on, whole tiles of `tile`, lie within `room`.
inline bool lies_within(int first, int lanes, int tile, int room) {
#pragma HLS INLINE
    return first % tile == 0 && first + lanes <= room;
}

/// Of WORK's first row, where it stands alone: the last bank's other rows are free for the logits.
template <class A>
constexpr int first_row_lanes() {
    return (kBanks - 1 + A::kRows) * A::kBankLanes;
}

/// Whether an engine step stays within the memories, and the units beside the array have bits for its formats, whatever
/// the number of tokens.
template <class A>
inline bool pass_fits(const Step& step, const Network& network) {
#pragma HLS INLINE
    const bool streams = step.weights == Weights::STREAM;
    const bool normalises = step.prologue == Prologue::LAYER_NORM || step.prologue == Prologue::HEAD_LAYER_NORM;
    const bool has_function = step.epilogue == Epilogue::GELU || step.epilogue == Epilogue::CONTEXT;
    const int in_lanes = step.in_tiles != 0 ? to_int(step.in_tiles) * A::kTileIn : round_up(A::kRows, A::kTileIn);
    const int out_lanes = step.out_tiles != 0 ? to_int(step.out_tiles) * A::kTileOut : round_up(A::kRows, A::kTileOut);
    const int rows_at_once = step.rows == Rows::FIRST ? to_int(network.num_prefix) : 1;
    const int source_room = step.source == Buffer::X ? rows_at_once * A::kEmbedLanes : kBanks * A::kBankLanes;
    const int work_lanes = step.rows == Rows::FIRST ? first_row_lanes<A>() : kBanks * A::kBankLanes;
    const int dest_room = step.dest == Buffer::WORK ? work_lanes : A::kEmbedLanes;
    const int weights_lane = to_int(step.weights_lane);
    bool fits = step.source != Buffer::V && step.source <= Buffer::V && step.dest <= Buffer::V;
    fits &= step.prologue <= Prologue::CONCAT && step.weights <= Weights::V && step.weight_width <= WeightWidth::W8 &&
            step.epilogue <= Epilogue::CONTEXT;
    fits &= lies_within(to_int(step.source_lane), in_lanes, A::kTileIn, source_room);
    fits &= lies_within(to_int(step.dest_lane), out_lanes, A::kTileOut, dest_room);
    fits &= !streams || (step.in_tiles != 0 && step.out_tiles != 0);
    fits &= step.weights != Weights::K || lies_within(weights_lane, in_lanes, A::kTileIn, A::kBankLanes);
    fits &= (step.weights != Weights::V ||
             (weights_lane + out_lanes <= A::kEmbedLanes && in_lanes <= Memory<A>::kKeyBlocks * A::kWord));
    fits &= step.epilogue != Epilogue::RESIDUAL || step.dest == Buffer::X;
    fits &= (!normalises || step.source == Buffer::X) && to_int(step.head) < A::kHeads;
    fits &= !normalises || (to_int(step.norm_shift) >= kMinNormShift && step.norm_channels <= A::kChannels);
    fits &= (!has_function || (to_int(step.second_shift) >= kMinSecondShift &&
                               to_int(step.second_shift) < kMinSecondShift + (1 << kSecondShiftBits)));
    fits &= step.prologue != Prologue::SOFTMAX || to_int(step.frac_bits) <= kExpFracBits;
    fits &= step.epilogue != Epilogue::GELU || to_int(step.frac_bits) <= kGeluMaxFracBits;
    return fits;
}

/// Whether the token selector's decision finds its scores and head weights where they can be read.
template <class A>
inline bool decision_fits(const Step& step, const Network& network) {
#pragma HLS INLINE
    const int num_heads = to_int(network.num_heads);
    const int scores = to_int(step.source_lane) - kTokenScoreBank * A::kBankLanes;
    const int branch = to_int(step.weights_lane) - kBranchBank * A::kBankLanes;
    return scores >= 0 && scores + num_heads * A::kWord <= A::kBankLanes && branch >= 0 &&
           branch + num_heads <= A::kBankLanes && to_int(step.frac_bits) <= kSigmoidMaxFracBits &&
           to_int(step.aux_frac_bits) <= kSigmoidMaxFracBits;
}

template <class A>
inline bool step_fits(const Step& step, int index, const Network& network) {
#pragma HLS INLINE
    const int next = to_int(step.next_engine);
    bool fits = step.op <= Op::PACKAGE && next > index && next <= to_int(network.num_steps);
    fits &= step.op != Op::ENGINE || pass_fits<A>(step, network);
    fits &= step.op != Op::DECIDE || decision_fits<A>(step, network);
    return fits;
}

/// Words that a step takes from the weight stream.
template <class A>
inline int streamed_words(const Step& step) {
#pragma HLS INLINE
    if (step.op != Op::ENGINE || step.weights != Weights::STREAM) return 0;
    // a tile is so many quarters of one of 16 bits
    const int in_tiles = to_int(step.in_tiles);
    const int quarters = step.weight_width == WeightWidth::W8    ? in_tiles << 1
                         : step.weight_width == WeightWidth::W12 ? (in_tiles << 1) + in_tiles
                                                                 : in_tiles << 2;
    const int words_per_output_tile = Fill<A>::kParamWords + quarters * (A::kTileOut * Fill<A>::kWordsPerColumn / 4);
    return to_int(step.out_tiles) * words_per_output_tile;
}

/// Whether every step can run, and all together take the words that follow the table and the rows of X.
template <class A>
Error check_steps(const Network& network, int num_words, const Memory<A>& memory) {
#pragma HLS INLINE off
    const int num_steps = to_int(network.num_steps);
    const int words_per_row = to_int(network.num_heads) * (A::kHeadLanes / A::kFillLanes);
    int words = Table<A>::words(num_steps) + to_int(network.num_rows) * words_per_row;
    int selectors = 0;
    bool fits = true;
    timing::Pipeline loop("CHECK_PROGRAM");
CHECK_PROGRAM:
    for (int index = 0; loop.runs(index < num_steps); ++index) {
#pragma HLS PIPELINE II = 1
        const Step step = unpack_step(load(memory.program, index));
        const bool can_run = step_fits<A>(step, index, network);
        fits = fits & can_run;  // nothing of a step's check waits for the step before
        if (step.op == Op::PACKAGE) ++selectors;
        words += streamed_words<A>(step);
    }
    if (!fits || selectors > A::kSelectors) return Error::STEP;
    return words == num_words ? Error::NONE : Error::NUM_WORDS;
}

/// Whether the header is one of this design's, and its table no longer than the stream.
template <class A>
Error check_header(const Network& network, int num_words) {
#pragma HLS INLINE off
    const int num_steps = to_int(network.num_steps);
    const int last_lane = to_int(network.logits_lane) + to_int(network.num_classes);
    if (network.version != kTableVersion) return Error::TABLE_VERSION;
    if (num_steps == 0 || num_steps > A::kMaxSteps) return Error::SIZES;
    const bool rows_fit =
        network.num_rows <= A::kRows && network.num_prefix != 0 && network.num_prefix <= network.num_rows;
    const bool heads_fit = network.num_heads != 0 && network.num_heads <= A::kHeads;
    if (!rows_fit || !heads_fit || network.package > Package::NONE) return Error::SIZES;
    if (to_int(network.num_classes) > A::kNumClasses || last_lane > first_row_lanes<A>()) return Error::SIZES;
    return Table<A>::words(num_steps) <= num_words ? Error::NONE : Error::NUM_WORDS;
}

/// Whether the image's patches are the rows behind the prefix, fit WORK's rows, and are all that the host sends.
///   num_words  of the image
template <class A>
Error check_image(const Network& network, int num_words) {
#pragma HLS INLINE off
    const int patches = to_int(network.grid) * to_int(network.grid);
    const int patch_words = to_int(network.patch_lines) * to_int(network.line_words);
    const bool fits = patches != 0 && patches == network.num_rows - network.num_prefix && patch_words != 0 &&
                      patch_words * A::kImageLanes <= kBanks * A::kBankLanes;
    return fits && patches * patch_words == num_words ? Error::NONE : Error::IMAGE_WORDS;
}

/// Takes the table from the stream. Unless it returns NONE, nothing may run by it.
///   num_words  of the whole stream, as the host says; gets what is left of it
template <class A>
Error load_program(int& num_words, WeightFifo<A>& fifo, Network& network, Memory<A>& memory) {
#pragma HLS INLINE off
    const int all_words = num_words;
    const Record header = load_header<A>(fifo);
    network = unpack_network(header);
    num_words -= Table<A>::kHeaderWords;
    const Error error = check_header<A>(network, all_words);
    if (error != Error::NONE) return error;
    const int num_steps = to_int(network.num_steps);
    const std::uint32_t checksum = load_steps<A>(header, num_steps, fifo, memory);
    num_words = all_words - Table<A>::words(num_steps);
    if (network.checksum != checksum) return Error::TABLE_CHECKSUM;
    return check_steps<A>(network, all_words, memory);
}

}  // namespace spvit

#endif  // SPVIT_PROGRAM_HPP
