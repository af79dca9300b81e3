// What the clock goes by and what it reports. The assumptions are hw/model/latency.py's and the target's, the facts are read
// from the pragmas of the very sources (hw/facts.py). sim/timed/timing.py has the same layout.
#ifndef SPVIT_SETTINGS_HPP
#define SPVIT_SETTINGS_HPP

#include <cstdint>

namespace spvit {
namespace timing {

/// A table that Python holds.
template <class T>
struct Table {
    std::int64_t size;
    const T* rows;
    const T* begin() const { return rows; }
    const T* end() const { return rows + size; }
};

/// -1: no depth is assumed, 0: no PIPELINE pragma.
struct Loop {
    const char* name;
    std::int64_t depth;
    std::int64_t interval;  // II
};

/// Cycles from a read to when what that iteration writes can be read.
struct MemorySpan {
    const char* loop;
    const char* memory;
    std::int64_t span;
};

/// ARRAY_PARTITION, one dimension: 1, 2, or 0 for all.
struct Partition {
    const char* memory;
    std::int64_t dim;
    std::int64_t in_blocks;
    std::int64_t factor;  // 0: complete
};

/// Of a bank, per cycle.
struct Ports {
    const char* memory;
    std::int64_t reads;
    std::int64_t writes;
    std::int64_t together;
};

struct Aggregate {
    const char* memory;
};

/// DEPENDENCE between iterations. -1: none.
struct Dependence {
    const char* loop;
    const char* memory;
    std::int64_t distance;
};

struct Depth {
    const char* stream;
    std::int64_t words;
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
    Table<Loop> loops;
    Table<MemorySpan> spans;
    Table<Partition> partitions;
    Table<Ports> ports;
    Table<Aggregate> aggregates;
    Table<Dependence> dependences;
    Table<Depth> depths;
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
