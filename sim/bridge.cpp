// C-simulation's door to Python: plain pointers in, the generated tops behind them.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "top.hpp"

#define SPVIT_EXPORT extern "C" __attribute__((visibility("default")))

namespace spvit {
namespace trace {

const Sink* sinks = nullptr;

void fail(const char* what, int step, int row, int lane) {
    char text[256];
    std::snprintf(text, sizeof text, "%s (step %d, row %d, lane %d)", what, step, row, lane);
    throw std::runtime_error(text);
}

}  // namespace trace
}  // namespace spvit

namespace {

using spvit::Arch;
using spvit::ImageWord;
using spvit::WeightPortWord;

/// Memory as the port sees it: words of `Lanes` little-endian integers.
template <class Word, class Lane>
std::vector<Word> port_words(const Lane* data, std::int64_t num_words, int lanes) {
    std::vector<Word> words(static_cast<std::size_t>(num_words));
#ifdef SPVIT_EXACT_WIDTHS
    const int bits = static_cast<int>(8 * sizeof(Lane));
    for (std::int64_t w = 0; w < num_words; ++w) {
        for (int i = 0; i < lanes; ++i) {
            words[static_cast<std::size_t>(w)].range(bits * i + bits - 1, bits * i) = data[w * lanes + i];
        }
    }
#else
    static_assert(sizeof(Word) % sizeof(Lane) == 0, "a port's word must be whole lanes");
    std::memcpy(words.data(), data, static_cast<std::size_t>(num_words * lanes) * sizeof(Lane));
#endif
    return words;
}

constexpr int kBeats = spvit::beats_per_word<Arch>();

using Stripes = std::vector<std::vector<WeightPortWord>>;

Stripes read_stripes(const std::int16_t* const* stripes, std::int64_t num_words) {
    Stripes ports;
    for (int port = 0; port < Arch::kWeightPorts; ++port) {
        ports.push_back(port_words<WeightPortWord>(stripes[port], num_words * kBeats, Arch::kPortLanes));
    }
    return ports;
}

/// Calls `top(weights_0, weights_1, ..., rest...)`.
template <class Top, std::size_t... Port, class... Rest>
void call_with_ports(Top top, const Stripes& ports, std::index_sequence<Port...>, Rest... rest) {
    top(ports[Port].data()..., rest...);
}

template <class Run>
int guarded(const spvit::trace::Sink* sinks, char* error, std::int32_t error_size, Run run) {
    static const spvit::trace::Sink kNoSinks[Arch::kMaxSteps] = {};
    spvit::trace::sinks = sinks != nullptr ? sinks : kNoSinks;
    try {
        run();
        return 0;
    } catch (const std::exception& failure) {
        std::snprintf(error, static_cast<std::size_t>(error_size), "%s", failure.what());
        return 1;
    }
}

using Ports = std::make_index_sequence<Arch::kWeightPorts>;

}  // namespace

#ifndef SPVIT_UNIT_TOP

/// The accelerator.
///   stripes                         [ports][words][a port's lanes of a word], stripe_bytes long each
///   image                           [image_lanes]
///   num_words, digest, image_words  what the host writes to these registers
///   sinks              where each step's values go, or null
/// Returns 0, or 1 with a sentence in `error` when the C-simulation stopped.
SPVIT_EXPORT int spvit_run(const std::int16_t* const* stripes, std::int64_t stripe_bytes, std::int32_t num_words,
                           std::uint32_t digest, const std::uint8_t* image, std::int64_t image_lanes,
                           std::int32_t image_words, std::int16_t* logits, std::int32_t* status,
                           const spvit::trace::Sink* sinks, char* error, std::int32_t error_size) {
    return guarded(sinks, error, error_size, [&] {
        constexpr std::int64_t kWordBytes = kBeats * Arch::kPortLanes * std::int64_t(sizeof(std::int16_t));
        Stripes ports = read_stripes(stripes, stripe_bytes / kWordBytes);
        const auto told = static_cast<std::size_t>(std::max(num_words, 0)) * kBeats;
        for (auto& port : ports) port.resize(std::max(port.size(), told));
        auto pixels = port_words<ImageWord>(image, image_lanes / Arch::kImageLanes, Arch::kImageLanes);
        pixels.resize(std::max(pixels.size(), static_cast<std::size_t>(std::max(image_words, 0))));
        call_with_ports(spvit_top, ports, Ports(), num_words, digest, pixels.data(), image_words, logits, status);
    });
}

#else

/// One kernel's own top.
SPVIT_EXPORT int spvit_run_unit(const std::int16_t* const* stripes, std::int64_t num_words, std::int32_t num_tokens,
                                std::int32_t num_packages, std::int32_t* selection, std::int16_t* x_out,
                                std::int32_t* tokens_out, const spvit::trace::Sink* sinks, char* error,
                                std::int32_t error_size) {
    return guarded(sinks, error, error_size, [&] {
        const Stripes ports = read_stripes(stripes, num_words);
        call_with_ports(SPVIT_UNIT_TOP, ports, Ports(), static_cast<int>(num_words), num_tokens, num_packages,
                        selection, x_out, tokens_out);
    });
}

#endif
