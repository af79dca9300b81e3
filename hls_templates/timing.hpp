// What the timed C-simulation (-DSPVIT_TIMED, sim/timed/timed.hpp) hangs its clock on: the names of processes, pipelined
// loops and memories. Everywhere else, synthesis too, these are plain streams, plain array accesses and empty calls.
//   Process    a process of the DATAFLOW region
//   Pipeline   a pipelined loop:  while (loop.runs(condition))
//   load, store  one access site on an on-chip array
//   axi_read, axi_write  one beat of an m_axi port
#ifndef SPVIT_TIMING_HPP
#define SPVIT_TIMING_HPP

#include <cstddef>

#ifdef SPVIT_TIMED
#include "timed.hpp"
#else

#include "hls_stream.h"

namespace spvit {

/// A FIFO; a STREAM pragma says how many words it holds where the stream stands.
template <class T>
using Stream = hls::stream<T>;

namespace timing {

/// Where in the source an access stands: synthesis schedules sites.
struct Site {
    static Site here() { return {}; }
};

/// Lanes that somebody looks at, of a word that is read whole: the others may be out of date.
struct Lanes {
    Lanes() {}
    Lanes(int, int) {}
    bool overlap(int, int) const { return true; }
};

/// For whom a cycle of a tile passes.
enum class Cycle : unsigned char { TOKEN, FILL, DRAIN };

struct Process {
    explicit Process(const char*) {}
};
/// The one at the end of the data flow.
struct LastProcess {
    explicit LastProcess(const char*) {}
};

struct Pipeline {
    explicit Pipeline(const char*) {}
    bool runs(bool condition) const {
#pragma HLS INLINE
        return condition;
    }
};

/// An array's name in the pragmas that speak of it, for the timed C-simulation: they say its banks and ports.
template <class Array>
inline void memory(const Array&, const char*) {}
/// Likewise of one whose elements are all used at once.
template <class Array>
inline void registers(const Array&, const char*) {}
inline void begin_step(int) {}
inline void spend(bool, bool, Cycle) {}
inline int cycles(int count) {
#pragma HLS INLINE
    return count;
}

}  // namespace timing

template <class T, std::size_t Size>
inline T load(const T (&array)[Size], int index, timing::Site = timing::Site::here(), bool = true) {
#pragma HLS INLINE
    return array[index];
}

template <class T, std::size_t Size, class Value>
inline void store(T (&array)[Size], int index, const Value& value, timing::Site = timing::Site::here()) {
#pragma HLS INLINE
    array[index] = value;
}

template <class T>
inline T axi_read(const T* port, int index) {
#pragma HLS INLINE
    return port[index];
}

template <class T>
inline void axi_write(T* port, int index, T value) {
#pragma HLS INLINE
    port[index] = value;
}

}  // namespace spvit

#endif  // SPVIT_TIMED

#endif  // SPVIT_TIMING_HPP
