// What C-simulation sees: each value a step leaves, and streams that run dry or over. In synthesis these calls are empty.
#ifndef SPVIT_TRACE_HPP
#define SPVIT_TRACE_HPP

#include "types.hpp"

namespace spvit {
namespace trace {

#ifdef SPVIT_TRACE

/// Where step s may write: `rows` x `lanes` integers from `sinks[s].base`.
struct Sink {
    std::int32_t* base;
    std::int32_t rows;
    std::int32_t lanes;
};
extern const Sink* sinks;

/// Ends the C-simulation with a sentence; sim/bridge.cpp defines it.
[[noreturn]] void fail(const char* what, int step, int row, int lane);

template <class T, int N>
inline void record(int step, int row, int first_lane, const Vec<T, N>& values) {
    const Sink& sink = sinks[step];
    if (sink.base == nullptr) return;
    if (row < 0 || row >= sink.rows || first_lane < 0 || first_lane + N > sink.lanes) {
        fail("a step wrote outside its destination", step, row, first_lane);
    }
    std::int32_t* out = sink.base + static_cast<std::int64_t>(row) * sink.lanes + first_lane;
    for (int i = 0; i < N; ++i) out[i] = to_int(values[i]);
}

/// C-simulation's streams return garbage when they are read empty: here that is a failure.
template <class Stream>
inline void expect_data(Stream& stream) {
    if (stream.empty()) fail("a stream was read while it was empty: more words are taken than were sent", 0, 0, 0);
}

template <class Stream>
inline void expect_drained(Stream& stream) {
    if (!stream.empty()) fail("words are left in a stream: fewer are taken than were sent", 0, 0, 0);
}

/// As for a stream, of the word that stands in a register before its reader.
inline void expect_taken(bool word_there) {
    if (word_there) fail("words are left in a stream: fewer are taken than were sent", 0, 0, 0);
}

#else

template <class T, int N>
inline void record(int, int, int, const Vec<T, N>&) {}
template <class Stream>
inline void expect_data(Stream&) {}
template <class Stream>
inline void expect_drained(Stream&) {}
inline void expect_taken(bool) {}

#endif

}  // namespace trace
}  // namespace spvit

#endif  // SPVIT_TRACE_HPP
