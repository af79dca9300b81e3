// Door to what the kernels do with memories, tiles and tokens, on three small architectures. Arrays of int64.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "accelerator.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace spvit {
namespace trace {

Sink recording = {nullptr, 0, 0};  // of step 0
const Sink* sinks = &recording;
std::string failure;

void fail(const char* what, int step, int row, int lane) {
    failure = std::string(what) + " " + std::to_string(step) + " " + std::to_string(row) + " " + std::to_string(lane);
    throw std::runtime_error(failure);
}

}  // namespace trace
}  // namespace spvit

using namespace spvit;  // NOLINT(google-build-using-namespace): a test's door, one file
using In = const std::int64_t*;
using Out = std::int64_t*;

namespace {

template <int In, int Out, int Heads, int HeadDim, int Rows, int Prefix, Package P, bool Fast, int Ports, int Fill,
          int ScoreBits, int GeluBits>
struct TestArch {
    static constexpr int kTileIn = In;
    static constexpr int kTileOut = Out;
    static constexpr bool kFast = Fast;
    static constexpr int kWeightPorts = Ports;
    static constexpr int kPortLanes = 8;
    static constexpr int kFillLanes = Fill;
    static constexpr int kWord = In > Out ? In : Out;
    static constexpr int kGroup = In > Out ? Out : In;
    static constexpr int kChannels = Heads * HeadDim;
    static constexpr int kHeads = Heads;
    static constexpr int kNumClasses = 11;
    static constexpr int kSelectors = 2;
    static constexpr int kRows = Rows;
    static constexpr int kHeadLanes = round_up(HeadDim, kWord);
    static constexpr int kEmbedLanes = Heads * kHeadLanes;
    static constexpr int kBankLanes = round_up(larger(kEmbedLanes, Rows), kWord);
    static constexpr int kImageLanes = 2;
    static constexpr int kPipelineCycles = 20;
    static constexpr int kMaxSteps = 5;
    // of the tests' network and steps
    static constexpr int kImgSize = 6;
    static constexpr int kPatchSize = 3;
    static constexpr int kInChans = 2;
    static constexpr int kPrefix = Prefix;
    static constexpr int kHeadDim = HeadDim;
    static constexpr Package kPackage = P;
    static constexpr int kScoreFracBits = ScoreBits;
    static constexpr int kGeluFracBits = GeluBits;
};

using Narrow = TestArch<8, 16, 2, 12, 19, 1, Package::APPEND, true, 1, 8, 10, 12>;
using Wide = TestArch<32, 8, 3, 4, 40, 2, Package::ADD, false, 2, 32, 7, 14>;
using Square = TestArch<8, 8, 1, 8, 9, 1, Package::NONE, true, 1, 8, 0, 0>;

std::int64_t wide(const Int<55>& x) { return static_cast<std::int64_t>(x); }

template <class A>
struct World {
    static Memory<A> engine_memory;
    static Tile<A> active_tile;
    static Tokens tokens;

    static Memory<A>& memory() { return engine_memory; }

    static Network network(int num_rows) {
        Network network = {};
        network.num_rows = num_rows;
        network.num_prefix = A::kPrefix;
        network.num_heads = A::kHeads;
        network.package = A::kPackage;
        network.grid = A::kImgSize / A::kPatchSize;
        network.patch_lines = A::kPatchSize;
        network.line_words = A::kPatchSize * A::kInChans / A::kImageLanes;
        network.num_classes = A::kNumClasses;
        return network;
    }

    static Tokens tokens_of(std::int64_t num_tokens, std::int64_t num_packages) {
        return {static_cast<int>(num_tokens), static_cast<int>(num_packages), A::kPrefix};
    }

    static void sizes(Out out) {
        const int values[] = {A::kTileIn,    A::kTileOut,       A::kWord,         A::kGroup,
                              A::kFillLanes, A::kWeightPorts,   A::kRows,         A::kHeads,
                              A::kHeadDim,   A::kHeadLanes,     A::kEmbedLanes,   A::kBankLanes,
                              A::kPrefix,    A::kScoreFracBits, A::kGeluFracBits, A::kFast ? 1 : 0};
        int i = 0;
        for (const int value : values) out[i++] = value;
    }

    // x [kRows][kEmbedLanes], written whole words at a time; row statistics, head statistics [2 each]
    static void set_x(In x) {
        for (int row = 0; row < A::kRows; ++row) {
            for (int lane = 0; lane < A::kEmbedLanes; lane += A::kWord) {
                Vec<Int<16>, A::kWord> word;
                for (int i = 0; i < A::kWord; ++i) word[i] = Int<16>(x[row * A::kEmbedLanes + lane + i]);
                write_lanes<Memory<A>::kEmbedWords>(memory().x, row, lane, word);
            }
        }
    }

    // read kTileOut lanes at a time
    static void get_x(Out x, Out row_statistics, Out head_statistics) {
        for (int row = 0; row < A::kRows; ++row) {
            for (int lane = 0; lane < A::kEmbedLanes; lane += A::kTileOut) {
                const auto part = slice<A::kTileOut>(read_word<Memory<A>::kEmbedWords>(memory().x, row, lane), lane);
                for (int i = 0; i < A::kTileOut; ++i) x[row * A::kEmbedLanes + lane + i] = to_int(part[i]);
            }
            row_statistics[2 * row] = wide(memory().row_statistics[row].sum);
            row_statistics[2 * row + 1] = wide(memory().row_statistics[row].squares);
        }
        for (int i = 0; i < A::kRows * A::kHeads; ++i) {
            head_statistics[2 * i] = wide(memory().head_statistics[i].sum);
            head_statistics[2 * i + 1] = wide(memory().head_statistics[i].squares);
        }
    }

    static void set_statistics(In row_statistics, In head_statistics) {
        for (int i = 0; i < A::kRows; ++i) {
            memory().row_statistics[i] = {Int<27>(row_statistics[2 * i]), Int<42>(row_statistics[2 * i + 1])};
        }
        for (int i = 0; i < A::kRows * A::kHeads; ++i) {
            memory().head_statistics[i] = {Int<27>(head_statistics[2 * i]), Int<42>(head_statistics[2 * i + 1])};
        }
    }

    // values [kRows][kEmbedLanes] in; columns [kEmbedLanes][blocks * kTileIn] out
    static void transpose_values(In values, Out columns) {
        constexpr int kBlocks = ceil_div(A::kRows, A::kTileIn);
        for (int key = 0; key < A::kRows; ++key) {
            for (int dim = 0; dim < A::kEmbedLanes; dim += A::kTileOut) {
                Vec<Int<16>, A::kTileOut> part;
                for (int i = 0; i < A::kTileOut; ++i) part[i] = Int<16>(values[key * A::kEmbedLanes + dim + i]);
                write_value<A>(memory(), key, dim, part);
            }
        }
        for (int dim = 0; dim < A::kEmbedLanes; ++dim) {
            for (int block = 0; block < kBlocks; ++block) {
                const auto column = read_value_column<A>(memory(), dim, block * A::kTileIn);
                for (int i = 0; i < A::kTileIn; ++i) {
                    columns[(dim * kBlocks + block) * A::kTileIn + i] = to_int(column[i]);
                }
            }
        }
    }

    // how many words of each bank one write of kTileOut dimensions changes
    static void value_banks(std::int64_t key, std::int64_t dim, Out hits) {
        for (auto& bank : memory().v) {
            for (auto& value : bank) value = 0;
        }
        Vec<Int<16>, A::kTileOut> ones;
        for (auto& lane : ones.lane) lane = 1;
        write_value<A>(memory(), static_cast<int>(key), static_cast<int>(dim), ones);
        for (int bank = 0; bank < A::kWord; ++bank) {
            hits[bank] = 0;
            for (const auto& value : memory().v[bank]) hits[bank] += value == 1 ? 1 : 0;
        }
    }

    // [kBanks * kBankLanes][2]
    static void locate_all(Out out) {
        for (int lane = 0; lane < kBanks * A::kBankLanes; ++lane) {
            const BankLane<A> found = locate<A>(lane);
            out[2 * lane] = found.bank;
            out[2 * lane + 1] = found.lane;
        }
    }

    static Int<16>& work_lane(int bank, int row, int lane) {
        const int group = lane % A::kWord / A::kImageLanes;
        return memory().work[bank][group][row * Memory<A>::kBankWords + lane / A::kWord][lane % A::kImageLanes];
    }

    // work [kRows][kBanks * kBankLanes]
    static void set_work(In work) {
        for (int row = 0; row < A::kRows; ++row) {
            for (int lane = 0; lane < kBanks * A::kBankLanes; ++lane) {
                const int within = lane % A::kBankLanes;
                work_lane(lane / A::kBankLanes, row, within) = Int<16>(work[row * kBanks * A::kBankLanes + lane]);
            }
        }
    }

    static void get_work(Out work) {
        for (int row = 0; row < A::kRows; ++row) {
            for (int lane = 0; lane < kBanks * A::kBankLanes; ++lane) {
                const int within = lane % A::kBankLanes;
                work[row * kBanks * A::kBankLanes + lane] = to_int(work_lane(lane / A::kBankLanes, row, within));
            }
        }
    }

    static void run_decide(In parameters, std::int64_t num_tokens, std::int64_t num_packages, Out keep,
                           Out probability) {
        Step step = {};
        step.source_lane = static_cast<int>(parameters[0]);
        step.weights_lane = static_cast<int>(parameters[1]);
        step.frac_bits = static_cast<int>(parameters[2]);
        step.aux_frac_bits = static_cast<int>(parameters[3]);
        step.threshold = static_cast<int>(parameters[4]);
        for (int row = 0; row < A::kRows; ++row) {
            memory().keep[row] = 0;
            memory().probability[row] = -1;
        }
        decide<A>(step, 0, A::kHeads, tokens_of(num_tokens, num_packages), memory());
        for (int row = 0; row < A::kRows; ++row) {
            keep[row] = to_int(memory().keep[row]);
            probability[row] = to_int(memory().probability[row]);
        }
    }

    static void run_pool(In sums, std::int64_t num_tokens, std::int64_t num_packages, std::int64_t features,
                         Out pooled) {
        for (int lane = 0; lane < A::kHeadLanes; ++lane)
            memory().feature_sum[lane / A::kTileOut][lane % A::kTileOut] = Int<27>(sums[lane]);
        Step step = {};
        step.split = static_cast<int>(features);
        mean_features<A>(step, 0, tokens_of(num_tokens, num_packages), memory());
        for (int lane = 0; lane < A::kHeadLanes; ++lane)
            pooled[lane] = to_int(memory().pooled[lane / A::kTileIn][lane % A::kTileIn]);
    }

    // counts [2]: tokens and packages, in and out
    static void run_packager(In keep, In probability, Out counts) {
        for (int row = 0; row < A::kRows; ++row) {
            memory().keep[row] = static_cast<int>(keep[row]);
            memory().probability[row] = static_cast<int>(probability[row]);
        }
        tokens = tokens_of(counts[0], counts[1]);
        token_packager<A>(0, network(A::kRows), tokens, memory());
        counts[0] = tokens.num_tokens;
        counts[1] = tokens.num_packages;
    }

    // words [num_words][kFillLanes] fill tiles one after the other; after each, active weights [kTileOut][kTileIn],
    // biases and shifts [kTileOut]
    static std::int64_t fill_from_words(In words, std::int64_t num_words, std::int64_t in_tiles, Out active, Out bias,
                                        Out shift, std::int64_t width) {
        WeightFifo<A> fifo("fifo");
        for (std::int64_t w = 0; w < num_words; ++w) {
            FillWord<A> word;
            for (int i = 0; i < A::kFillLanes; ++i) word[i] = Int<16>(words[w * A::kFillLanes + i]);
            fifo.write(word);
        }
        Step step = {};
        step.weights = Weights::STREAM;
        step.weight_width = static_cast<WeightWidth>(width);
        FrontWord<A> front = {};
        for (int tile = 0; tile < in_tiles; ++tile) {
            Fill<A> fill = begin_fill<A>(step, 0, tile);
            while (!fill.done()) {
                if (fill.accesses(front.there)) {
                    const bool takes = fill.takes;
                    fill_column<A>(fill, {streamed_lanes<A>(fill, front), {}, {}}, A::kRows, active_tile);
                    if (takes) front.keep(fill.bytes);
                    fill.advance();
                    front.follow(takes, fifo);
                } else {
                    front.follow(false, fifo);
                }
            }
            swap_tiles<A>(active_tile, true, tile == 0);
            dump_tile(active + tile * A::kTileIn * A::kTileOut, bias + tile * A::kTileOut, shift + tile * A::kTileOut);
        }
        return fifo.empty() && !front.there ? 0 : 1;
    }

    // keys lie in WORK's second bank: tile (out_tile, in_tile) of the head whose first lane it is
    static void fill_from_keys(In at, Out active, Out bias) {
        Step step = {};
        step.weights = Weights::K;
        step.weights_lane = static_cast<int>(at[0]);
        const int num_tokens = static_cast<int>(at[3]);
        Fill<A> fill = begin_fill<A>(step, static_cast<int>(at[1]), static_cast<int>(at[2]));
        while (!fill.done()) {
            Vec<Int<16>, A::kWord> word = {};
            const int key = to_int(fill.index);
            if (key < num_tokens) {
                const int lane = to_int(fill.lane) / A::kWord * A::kWord;
                word = read_word<Memory<A>::kBankWords>(memory().work[kKeyBank], key, lane);
            }
            fill_column<A>(fill, {{}, word, {}}, num_tokens, active_tile);
            fill.advance();
        }
        swap_tiles<A>(active_tile, true, true);
        std::vector<std::int64_t> unused(A::kTileOut);
        dump_tile(active, bias, unused.data());
    }

    static void dump_tile(Out active, Out bias, Out shift) {
        for (int column = 0; column < A::kTileOut; ++column) {
            for (int i = 0; i < A::kTileIn; ++i) {
                active[column * A::kTileIn + i] = to_int(active_tile.active[column][i]);
            }
            bias[column] = wide(active_tile.bias[column]);
            shift[column] = to_int(active_tile.shift[column]);
        }
    }

    // stripes [ports][num_words][lanes of a port] as they lie in memory -> words [num_words][kFillLanes]; returns the checksum
    static std::int64_t join(In stripes, std::int64_t num_words, Out out) {
        PortStream<A> streams[A::kWeightPorts];
        for (int port = 0; port < A::kWeightPorts; ++port) {
            const std::int64_t num_beats = num_words * beats_per_word<A>();
            std::vector<StripeWord<A>> words(static_cast<std::size_t>(num_beats));
            for (std::int64_t w = 0; w < num_beats; ++w) {
                for (int i = 0; i < A::kPortLanes; ++i) {
                    const std::int64_t value = stripes[(port * num_beats + w) * A::kPortLanes + i];
#ifdef SPVIT_EXACT_WIDTHS
                    words[static_cast<std::size_t>(w)].range(16 * i + 15, 16 * i) = ap_int<16>(value);
#else
                    words[static_cast<std::size_t>(w)][i] = static_cast<std::int16_t>(value);
#endif
                }
            }
            read_port<A>(words.data(), streams[port], static_cast<int>(num_words));
        }
        WeightFifo<A> arriving("arriving");
        WeightFifo<A> fifo("fifo");
        ChecksumStream checksum("checksum");
        join_ports<A>(streams, arriving, static_cast<int>(num_words));
        checksum_words<A>(arriving, fifo, static_cast<int>(num_words), checksum);
        for (std::int64_t w = 0; w < num_words; ++w) {
            const FillWord<A> word = fifo.read();
            for (int i = 0; i < A::kFillLanes; ++i) out[w * A::kFillLanes + i] = to_int(word[i]);
        }
        return static_cast<std::int64_t>(checksum.read());
    }

    // x [num_rows][kEmbedLanes] streams in
    static void run_load_position(In x, std::int64_t num_rows) {
        WeightFifo<A> fifo("fifo");
        stream_rows(x, num_rows, fifo);
        load_position<A>(network(static_cast<int>(num_rows)), fifo, memory());
        trace::expect_drained(fifo);
    }

    // x [kRows][kEmbedLanes] and the image [6][6][2]
    static void run_load_inputs(In x, In image) {
        constexpr int kWords = A::kImgSize * A::kImgSize * A::kInChans / A::kImageLanes;
        PixelWord<A> words[kWords];
        for (int w = 0; w < kWords; ++w) {
            for (int i = 0; i < A::kImageLanes; ++i) {
#ifdef SPVIT_EXACT_WIDTHS
                words[w].range(8 * i + 7, 8 * i) = ap_uint<8>(image[w * A::kImageLanes + i]);
#else
                words[w][i] = static_cast<std::uint8_t>(image[w * A::kImageLanes + i]);
#endif
            }
        }
        WeightFifo<A> fifo("fifo");
        PixelStream<A> pixels("pixels");
        stream_rows(x, A::kRows, fifo);
        read_image<A>(words, pixels, kWords);
        load_inputs<A>(network(A::kRows), fifo, pixels, memory());
        trace::expect_drained(fifo);
        trace::expect_drained(pixels);
    }

    static void stream_rows(In x, std::int64_t num_rows, WeightFifo<A>& fifo) {
        stream_lanes(x, num_rows * A::kEmbedLanes, fifo);
    }

    static void stream_lanes(In lanes, std::int64_t count, WeightFifo<A>& fifo) {
        for (std::int64_t i = 0; i < count; i += A::kFillLanes) {
            FillWord<A> word;
            for (int j = 0; j < A::kFillLanes; ++j) word[j] = Int<16>(lanes[i + j]);
            fifo.write(word);
        }
    }

    static void run_store_logits(std::int64_t first_lane, Out out) {
        std::int16_t logits[A::kNumClasses];
        Network network = {};
        network.num_classes = A::kNumClasses;
        network.logits_lane = static_cast<int>(first_lane);
        store_logits<A>(network, memory(), logits);
        for (int i = 0; i < A::kNumClasses; ++i) out[i] = logits[i];
    }

    // words [num_words][kFillLanes] hold a step table; records [kMaxSteps][kRecordLanes] come out. Returns the Error
    static std::int64_t run_load_program(In words, std::int64_t num_words, Out records) {
        WeightFifo<A> fifo("fifo");
        stream_lanes(words, num_words * A::kFillLanes, fifo);
        Network network;
        int words_left = static_cast<int>(num_words);
        const Error error = load_program<A>(words_left, fifo, network, memory());
        discard(words_left, fifo);
        trace::expect_drained(fifo);
        for (int i = 0; i < A::kMaxSteps * kRecordLanes; ++i) {
            records[i] = to_int(memory().program[i / kRecordLanes][i % kRecordLanes]);
        }
        return static_cast<std::int64_t>(error);
    }

    // lanes [kRecordLanes] of a header. Returns the Error
    static std::int64_t run_check_image(In lanes, std::int64_t num_words) {
        Record header;
        for (int i = 0; i < kRecordLanes; ++i) header[i] = Int<16>(lanes[i]);
        return static_cast<std::int64_t>(check_image<A>(unpack_network(header), static_cast<int>(num_words)));
    }

    static void run_store_stage(In keep, In counts, std::int64_t stage, Out out) {
        for (int row = 0; row < A::kRows; ++row) memory().keep[row] = static_cast<int>(keep[row]);
        std::vector<std::int32_t> status(static_cast<std::size_t>(status_words<A>()), -1);
        store_stage<A>(static_cast<int>(stage), tokens_of(counts[0], counts[1]), tokens_of(counts[2], 0), memory(),
                       status.data());
        for (std::size_t i = 0; i < status.size(); ++i) out[i] = status[i];
    }

    // x [kTileIn]; statistics [2]; z [kTileIn]
    static void run_layer_norm(In x, In statistics, In parameters, Out z) {
        Step step = {};
        step.norm_channels = static_cast<int>(parameters[0]);
        step.norm_shift = static_cast<int>(parameters[1]);
        step.epsilon = parameters[2];
        Vec<Int<16>, A::kTileIn> row;
        for (int i = 0; i < A::kTileIn; ++i) row[i] = Int<16>(x[i]);
        const Statistics sums = {Int<27>(statistics[0]), Int<42>(statistics[1])};
        const auto result = layer_norm<A>(row, sums, step);
        for (int i = 0; i < A::kTileIn; ++i) z[i] = to_int(result[i]);
    }

    // the softmax of one row, tile after tile: scores [in_tiles * kTileIn] -> numerators, and their sum
    static std::int64_t run_softmax(In scores, std::int64_t in_tiles, std::int64_t num_tokens, std::int64_t row_max,
                                    Out numerators) {
        Step step = {};
        step.prologue = Prologue::SOFTMAX;
        step.frac_bits = A::kScoreFracBits;
        memory().score_max[3] = Int<16>(row_max);
        std::int64_t sum = 0;
        for (int out_tile = 0; out_tile < 2; ++out_tile) {
            for (int tile = 0; tile < in_tiles; ++tile) {
                Vec<Int<16>, A::kTileIn> raw;
                for (int i = 0; i < A::kTileIn; ++i) raw[i] = Int<16>(scores[tile * A::kTileIn + i]);
                const auto result = prologue<A>(step, raw, 3, tile, out_tile, static_cast<int>(num_tokens), memory());
                sum = to_int(result.exp_sum);
                for (int i = 0; i < A::kTileIn; ++i) numerators[tile * A::kTileIn + i] = to_int(result.factors[i]);
            }
        }
        return sum;
    }

    // one token's sums [kTileOut] through the epilogue; values out, and their sum and squares
    static void run_epilogue(In sums, In shift, In residual, In parameters, Out values, Out statistics) {
        Step step = {};
        step.epilogue = static_cast<Epilogue>(parameters[0]);
        step.weights = static_cast<Weights>(parameters[1]);
        step.shift = static_cast<int>(parameters[2]);
        step.residual_shift = static_cast<int>(parameters[3]);
        step.second_shift = static_cast<int>(parameters[4]);
        step.frac_bits = A::kGeluFracBits;
        Vec<Int<48>, A::kTileOut> accumulators;
        Vec<Int<16>, A::kTileOut> row;
        for (int i = 0; i < A::kTileOut; ++i) {
            accumulators[i] = Int<48>(sums[i]);
            active_tile.shift[i] = Int<5>(static_cast<int>(shift[i]));
            row[i] = Int<16>(residual[i]);
        }
        const auto result = epilogue<A>(step, accumulators, active_tile, row, reciprocal(Int<41>(parameters[5])));
        for (int i = 0; i < A::kTileOut; ++i) values[i] = to_int(result.value[i]);
        statistics[0] = wide(result.sums.sum);
        statistics[1] = wide(result.sums.squares);
    }

    static std::int64_t run_largest_score(In scores, std::int64_t first_key, std::int64_t num_tokens) {
        Vec<Int<16>, A::kTileOut> row;
        for (int i = 0; i < A::kTileOut; ++i) row[i] = Int<16>(scores[i]);
        return to_int(largest_score<A>(row, static_cast<int>(first_key), static_cast<int>(num_tokens)));
    }
};

template <class A>
Memory<A> World<A>::engine_memory;
template <class A>
Tile<A> World<A>::active_tile;
template <class A>
Tokens World<A>::tokens;

}  // namespace

namespace {

/// An argument as it came through the door: a number, or an address.
struct Argument {
    std::int64_t value;
    operator std::int64_t() const { return value; }                // NOLINT
    operator In() const { return reinterpret_cast<In>(value); }    // NOLINT
    operator Out() const { return reinterpret_cast<Out>(value); }  // NOLINT
};

template <class... Parameters, std::size_t... I>
std::int64_t spread(void (*function)(Parameters...), const std::int64_t* given, std::index_sequence<I...>) {
    function(static_cast<Parameters>(Argument{given[I]})...);
    return 0;
}

template <class... Parameters, std::size_t... I>
std::int64_t spread(std::int64_t (*function)(Parameters...), const std::int64_t* given, std::index_sequence<I...>) {
    return function(static_cast<Parameters>(Argument{given[I]})...);
}

template <class Result, class... Parameters>
std::int64_t call(Result (*function)(Parameters...), const std::int64_t* given) {
    return spread(function, given, std::index_sequence_for<Parameters...>());
}

}  // namespace

// Each of World's functions, on the architecture that `arch` counts.
#define ON_EACH(name)                                                                                           \
    EXPORT std::int64_t name(std::int64_t arch, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d, \
                             std::int64_t e, std::int64_t f, std::int64_t g) {                                  \
        const std::int64_t given[] = {a, b, c, d, e, f, g};                                                     \
        return arch == 0   ? call(World<Narrow>::name, given)                                                   \
               : arch == 1 ? call(World<Wide>::name, given)                                                     \
                           : call(World<Square>::name, given);                                                  \
    }

ON_EACH(sizes)
ON_EACH(set_x)
ON_EACH(get_x)
ON_EACH(set_statistics)
ON_EACH(transpose_values)
ON_EACH(value_banks)
ON_EACH(locate_all)
ON_EACH(set_work)
ON_EACH(get_work)
ON_EACH(run_decide)
ON_EACH(run_pool)
ON_EACH(run_packager)
ON_EACH(fill_from_words)
ON_EACH(fill_from_keys)
ON_EACH(join)
ON_EACH(run_load_position)
ON_EACH(run_load_inputs)
ON_EACH(run_load_program)
ON_EACH(run_check_image)
ON_EACH(run_store_logits)
ON_EACH(run_store_stage)
ON_EACH(run_layer_norm)
ON_EACH(run_softmax)
ON_EACH(run_epilogue)
ON_EACH(run_largest_score)

/// Records `count` values at a place of a trace of 4 rows and 8 lanes; 1 when that fails.
EXPORT std::int64_t record_into(std::int32_t* base, std::int64_t row, std::int64_t lane) {
    trace::recording = {base, 4, 8};
    int failed = 0;
    try {
        trace::record(0, static_cast<int>(row), static_cast<int>(lane), Vec<Int<16>, 2>{{Int<16>(-5), Int<16>(7)}});
    } catch (const std::runtime_error&) {
        failed = 1;
    }
    trace::recording = {nullptr, 0, 0};
    return failed;
}

EXPORT const char* last_failure() { return trace::failure.c_str(); }

/// Whether an empty stream may be read (bit 0), and one with a word be left (bit 1).
EXPORT std::int64_t stream_checks() {
    hls::stream<int> stream("stream");
    int failed = 0;
    try {
        trace::expect_data(stream);
    } catch (const std::runtime_error&) {
        failed |= 1;
    }
    trace::expect_drained(stream);
    stream.write(3);
    trace::expect_data(stream);
    try {
        trace::expect_drained(stream);
    } catch (const std::runtime_error&) {
        failed |= 2;
    }
    stream.read();
    return failed;
}
