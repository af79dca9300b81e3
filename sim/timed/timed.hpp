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
#include <type_traits>
#include <vector>

#include "clock.hpp"

namespace spvit {

template <class T>
class Stream {
  public:
    /// Of an array of streams, each has the default's name.
    explicit Stream(const char* name = "stripes") : channel_(timing::clock().dataflow.channel(name)) {}

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

struct Lanes {
    int first = 0;
    int count = 1 << 30;
    Lanes() {}
    Lanes(int first_lane, int num_lanes) : first(first_lane), count(num_lanes) {}
    bool overlap(int lane, int num_lanes) const { return lane < first + count && first < lane + num_lanes; }
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
    const Loop& loop_;
    bool first_ = true;
};

template <class T, std::size_t Size>
inline void rows_of(const T (&array)[Size], std::vector<const void*>& rows, std::vector<std::int64_t>&) {
    rows.push_back(&array);
}
template <class T, std::size_t Size, std::size_t Inner>
inline void rows_of(const T (&array)[Size][Inner], std::vector<const void*>& rows, std::vector<std::int64_t>& outer) {
    std::vector<std::int64_t> within;
    for (const auto& part : array) {
        within.assign(1, static_cast<std::int64_t>(Size));
        rows_of(part, rows, within);
    }
    outer.insert(outer.end(), within.begin(), within.end());
}

template <class T, std::size_t Size>
inline void memory(const T (&array)[Size], const char* name) {
    using Element = typename std::remove_all_extents<T>::type;
    std::vector<const void*> rows;
    std::vector<std::int64_t> outer;
    rows_of(array, rows, outer);
    const std::size_t columns = sizeof(array) / sizeof(Element) / rows.size();
    clock().memories.declare(name, outer, rows, static_cast<std::int64_t>(columns), std::is_class<Element>::value);
}
template <class T, std::size_t Size>
inline void registers(const T (&)[Size], const char* name) {
    clock().memories.expect_registers(name);
}

inline void begin_step(int step) { clock().begin_step(step); }
inline void spend(bool ends_tile, bool starves, Cycle cycle) { clock().spend(ends_tile, starves, cycle); }
inline int cycles(int count) { return clock().scaled(count); }

}  // namespace timing

template <class T, std::size_t Size>
inline T load(const T (&array)[Size], int index, timing::Site site = timing::Site::here(), bool is_used = true) {
    timing::clock().access(&array, index, site.line, false, is_used);
    return array[index];
}

template <class T, std::size_t Size, class Value>
inline void store(T (&array)[Size], int index, const Value& value, timing::Site site = timing::Site::here()) {
    timing::clock().access(&array, index, site.line, true, true);
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
