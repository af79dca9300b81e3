// The clock of the timed C-simulation, in the places of the kernels' streams, loops and memories (hls_templates/timing.hpp).
//
// C-simulation runs one process of the DATAFLOW region after the other. All but the last only leave a log of what each of
// their iterations reads and writes. The last one runs against its own clock: when it asks for a word, the log's iterations
// are placed in time, just as many as the answer needs (sim/timed/dataflow.hpp). So the last process sees at each cycle what
// it would see in hardware, its polling included.
#ifndef SPVIT_TIMED_HPP
#define SPVIT_TIMED_HPP

#include <cstddef>
#include <deque>
#include <string>

#include "clock.hpp"

namespace spvit {

template <class T, int Depth>
class Stream {
  public:
    explicit Stream(const char* name = "stripe") : channel_(timing::clock().dataflow.channel(name, Depth)) {}

    bool empty() const { return words_.empty(); }

    void write(const T& word) {
        words_.push_back(word);
        timing::clock().write(channel_);
    }

    T read() {
        timing::clock().read(channel_);
        return take();
    }

    /// False while the word has not arrived at this cycle, and behind the last one.
    bool read_nb(T& word) {
        if (words_.empty() || !timing::clock().poll(channel_)) return false;
        word = take();
        return true;
    }

  private:
    T take() {
        const T word = words_.front();
        words_.pop_front();
        return word;
    }

    std::deque<T> words_;
    int channel_;
};

namespace timing {

struct Site {
    int line;
    static Site here(int line = __builtin_LINE()) { return {line}; }
};

struct Process {
    explicit Process(const char* name) { clock().begin_process(name); }
};

struct LastProcess {
    explicit LastProcess(const char* name) { clock().begin_last_process(name); }
};

class Pipeline {
  public:
    explicit Pipeline(const char* name) : loop_(clock().loop(name)) {}
    bool runs(bool condition) { return clock().iterate(loop_, condition, first_); }

  private:
    int loop_;
    bool first_ = true;
};

template <class T, std::size_t Size>
inline void memory(const T (&array)[Size], const char* name, int banks = 1) {
    clock().memories.declare(&array, name, Size, banks);
}

template <class T, std::size_t Size>
inline void claim_distance(const T (&array)[Size], int distance) {
    clock().memories.claim(&array, distance);
}

inline void begin_step(int step) { clock().begin_step(step); }
inline void spend(bool ends_tile, bool starves, Cycle cycle) { clock().spend(ends_tile, starves, cycle); }
inline int cycles(int count) { return clock().scaled(count); }

}  // namespace timing

template <class T, std::size_t Size>
inline T load(const T (&array)[Size], int index, timing::Site site = timing::Site::here()) {
    timing::clock().access(&array, index, site.line, false);
    return array[index];
}

template <class T, std::size_t Size, class Value>
inline void store(T (&array)[Size], int index, const Value& value, timing::Site site = timing::Site::here()) {
    timing::clock().access(&array, index, site.line, true);
    array[index] = value;
}

template <class T>
inline T axi_read(const T* port, int index) {
    timing::clock().beat(port);
    return port[index];
}

template <class T>
inline void axi_write(T* port, int index, T value) {
    timing::clock().axi_write();
    port[index] = value;
}

}  // namespace spvit

#endif  // SPVIT_TIMED_HPP
