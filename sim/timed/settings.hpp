// What the clock assumes (hw/model/latency.py, the target) and what it reports. sim/timed/timing.py has the same layout.
#ifndef SPVIT_SETTINGS_HPP
#define SPVIT_SETTINGS_HPP

#include <cstdint>

namespace spvit {
namespace timing {

struct LoopDepth {
    const char* name;
    std::int64_t depth;
};

/// Cycles from a read to when what that iteration writes can be read.
struct MemorySpan {
    const char* loop;
    const char* memory;
    std::int64_t span;
};

struct Settings {
    std::int64_t beat_cost;     // 1/256 cycles that memory takes for a beat of one weight port
    std::int64_t read_latency;  // from a burst's request to its first beat
    std::int64_t write_latency;
    std::int64_t burst_beats;
    std::int64_t outstanding;     // bursts per port
    std::int64_t stream_latency;  // from a write to when the word can be read
    std::int64_t loop_entry;
    std::int64_t scale_percent;  // of kPipelineCycles and kRmwCycles
    std::int64_t fifo_words;     // depth of `weights`
    std::int64_t num_loops;
    const LoopDepth* loops;
    std::int64_t num_spans;
    const MemorySpan* spans;
};

/// One step of the program, or loading (before the first), or storing (after the last).
struct StepCycles {
    std::int64_t begin;   // its first cycle
    std::int64_t tokens;  // a token enters the array
    std::int64_t fill;    // waiting for the next tile, which takes a column or a word per cycle
    std::int64_t fifo;    // waiting for it longer, since words were missing
    std::int64_t drain;   // waiting for the pipeline
    std::int64_t other;   // loops other than the engine's
};

}  // namespace timing
}  // namespace spvit

#endif  // SPVIT_SETTINGS_HPP
