// Processes, the streams between them and the memory ports before them, as a max-plus graph.
//
// A process's iteration takes place when the one before is over, all words that it reads have arrived, and all streams
// that it writes have room:
//   read i of a stream  >=  write i + latency
//   write i + depth     >=  read i + 1
//   beat i of a port    >=  the memory's answer to its burst
// Iterations are placed when somebody asks, following these edges backwards. A path that returns to a process which is
// being placed is a cycle: a deadlock. A path that ends in a process with nothing left to do is starvation.
#ifndef SPVIT_DATAFLOW_HPP
#define SPVIT_DATAFLOW_HPP

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "settings.hpp"

namespace spvit {
namespace timing {

[[noreturn]] inline void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

class Dataflow {
  public:
    void configure(const Settings& settings) { settings_ = settings; }

    int begin_process(const char* name) {
        processes_.emplace_back();
        processes_.back().name = name;
        return static_cast<int>(processes_.size()) - 1;
    }

    void set_last(int process) { last_ = process; }

    int channel(const std::string& name) {
        for (const Depth& one : settings_.depths) {
            if (name != one.stream) continue;
            channels_.emplace_back();
            channels_.back().name = name;
            channels_.back().depth = one.words;
            return static_cast<int>(channels_.size()) - 1;
        }
        fail("stream " + name + " has no STREAM pragma: synthesis would give it two words");
    }

    const std::string& name(int channel) const { return at(channels_, channel).name; }

    // logs

    void log_iteration(int process, std::int64_t interval) { log(process, ITERATION, static_cast<int>(interval)); }
    void log_read(int process, int channel) {
        at(channels_, channel).reader = process;
        log(process, READ, channel);
    }
    void log_write(int process, int channel) {
        at(channels_, channel).writer = process;
        log(process, WRITE, channel);
    }
    void log_beat(int process, const void* address) {
        Process& reader = at(processes_, process);
        if (reader.port < 0) {
            reader.port = static_cast<int>(ports_.size());
            ports_.emplace_back();
            ports_.back().process = process;
            ports_.back().memory = memory_of(reader.name);
        }
        (void)address;
        ++at(ports_, reader.port).beats;
        log(process, BEAT, reader.port);
    }

    // the last process's side

    /// Whether its next word can be read at cycle `now`.
    bool arrived(int channel, std::int64_t now) {
        Channel& stream = at(channels_, channel);
        const std::size_t word = stream.reads.size();
        trail_.clear();
        return place_write(channel, word) && stream.writes[word] + settings_.stream_latency <= now;
    }

    /// The cycle, from `now` on, at which its next word can be read.
    std::int64_t wait(int channel, std::int64_t now) {
        Channel& stream = at(channels_, channel);
        const std::size_t word = stream.reads.size();
        stream.reader = last_;
        trail_.clear();
        if (!place_write(channel, word))
            deadlock(at(processes_, last_).name + " reads " + stream.name + ", which is empty");
        return std::max(now, stream.writes[word] + settings_.stream_latency);
    }

    void take(int channel, std::int64_t now) { at(channels_, channel).reads.push_back(now); }

  private:
    enum Kind : std::uint32_t { ITERATION, READ, WRITE, BEAT };

    struct Process {
        std::string name;
        std::vector<std::uint32_t> log;
        std::size_t next = 0;  // in the log: the iteration that is to be placed
        std::int64_t time = -1;
        bool busy = false;
        int port = -1;
    };

    struct Channel {
        std::string name;
        std::int64_t depth = 0;
        int writer = -1;
        int reader = -1;
        std::vector<std::int64_t> writes;
        std::vector<std::int64_t> reads;
    };

    /// An AXI port: bursts are requested as soon as their place among the outstanding ones is free.
    struct Port {
        int process = -1;
        int memory = -1;
        std::int64_t beats = 0;
        std::vector<std::int64_t> bursts;  // cycle of their first beat
        std::vector<std::int64_t> popped;  // cycle at which their last beat was taken
        std::int64_t last_beat = -1;
        std::int64_t last_request = -1;
        std::int64_t taken = 0;
    };

    /// What ports of equal name share. It serves them in turn, burst by burst.
    struct Memory {
        std::string name;
        std::int64_t free = 0;  // 1/256 cycles
        std::size_t burst = 0;
        std::size_t turn = 0;
    };

    static const std::uint32_t kKindBits = 2;

    template <class T>
    static T& at(std::vector<T>& items, int index) {
        return items[static_cast<std::size_t>(index)];
    }
    template <class T>
    static const T& at(const std::vector<T>& items, int index) {
        return items[static_cast<std::size_t>(index)];
    }

    void log(int process, Kind kind, int argument) {
        std::vector<std::uint32_t>& log = at(processes_, process).log;
        if (log.empty() && kind != ITERATION) log.push_back(ITERATION | (1U << kKindBits));
        log.push_back(kind | (static_cast<std::uint32_t>(argument) << kKindBits));
    }

    int memory_of(const std::string& name) {
        for (std::size_t i = 0; i < memories_.size(); ++i) {
            if (memories_[i].name == name) return static_cast<int>(i);
        }
        memories_.emplace_back();
        memories_.back().name = name;
        return static_cast<int>(memories_.size()) - 1;
    }

    [[noreturn]] void deadlock(const std::string& first) const {
        std::string sentence = "deadlock: " + first;
        for (const std::string& wait : trail_) sentence += "; " + wait;
        fail(sentence);
    }

    /// Places write `word` of a channel. False: it waits for the last process.
    bool place_write(int channel, std::size_t word) {
        Channel& stream = at(channels_, channel);
        while (stream.writes.size() <= word) {
            if (stream.writer < 0) fail("starvation: nobody writes " + stream.name);
            Process& writer = at(processes_, stream.writer);
            if (writer.busy) deadlock(writer.name + " waits for itself through " + stream.name);
            if (writer.next >= writer.log.size()) {
                fail("starvation: " + reader_name(stream) + " reads word " + std::to_string(word) + " of " +
                     stream.name + ", " + writer.name + " writes " + std::to_string(stream.writes.size()));
            }
            if (!place_iteration(stream.writer)) return false;
        }
        return true;
    }

    bool place_read(int channel, std::size_t word) {
        Channel& stream = at(channels_, channel);
        while (stream.reads.size() <= word) {
            if (stream.reader < 0 || stream.reader == last_) return false;
            Process& reader = at(processes_, stream.reader);
            if (reader.busy) deadlock(reader.name + " waits for itself through " + stream.name);
            if (reader.next >= reader.log.size()) {
                fail("deadlock: " + at(processes_, stream.writer).name + " writes " + stream.name +
                     ", which is full at " + std::to_string(stream.depth) + " words; " + reader.name + " has ended");
            }
            if (!place_iteration(stream.reader)) return false;
        }
        return true;
    }

    /// Places the next iteration of a process. False: it waits for the last process.
    bool place_iteration(int index) {
        Process& process = at(processes_, index);
        process.busy = true;
        const std::size_t begin = process.next;
        std::int64_t time = process.time + (process.log[begin] >> kKindBits);
        std::size_t end = begin + 1;
        bool placed = true;
        for (; placed && end < process.log.size(); ++end) {
            const std::uint32_t kind = process.log[end] & ((1U << kKindBits) - 1);
            const int argument = static_cast<int>(process.log[end] >> kKindBits);
            if (kind == ITERATION) break;
            if (kind == READ) {
                Channel& stream = at(channels_, argument);
                const std::size_t word = stream.reads.size();
                trail_.push_back(process.name + " reads " + stream.name + ", which is empty");
                placed = place_write(argument, word);
                if (placed) time = std::max(time, stream.writes[word] + settings_.stream_latency);
            } else if (kind == WRITE) {
                Channel& stream = at(channels_, argument);
                const std::int64_t over = static_cast<std::int64_t>(stream.writes.size()) - stream.depth;
                trail_.push_back(process.name + " writes " + stream.name + ", which is full at " +
                                 std::to_string(stream.depth) + " words");
                placed = over < 0 || place_read(argument, static_cast<std::size_t>(over));
                if (placed && over >= 0) time = std::max(time, stream.reads[static_cast<std::size_t>(over)] + 1);
            } else {
                trail_.push_back(process.name + " waits for memory");
                placed = place_beat(at(ports_, argument), time);
            }
            if (placed) trail_.pop_back();
        }
        if (placed) {
            commit(process, begin + 1, end, time);
            process.next = end;
            process.time = time;
        }
        process.busy = false;
        return placed;
    }

    void commit(const Process& process, std::size_t begin, std::size_t end, std::int64_t time) {
        for (std::size_t i = begin; i < end; ++i) {
            const std::uint32_t kind = process.log[i] & ((1U << kKindBits) - 1);
            const int argument = static_cast<int>(process.log[i] >> kKindBits);
            if (kind == READ) {
                at(channels_, argument).reads.push_back(time);
            } else if (kind == WRITE) {
                at(channels_, argument).writes.push_back(time);
            } else {
                Port& port = at(ports_, argument);
                if (++port.taken % settings_.burst_beats == 0) port.popped.push_back(time);
            }
        }
    }

    /// The next beat of a port: not before `time`, which it moves.
    bool place_beat(Port& port, std::int64_t& time) {
        const std::size_t burst = static_cast<std::size_t>(port.taken / settings_.burst_beats);
        while (port.bursts.size() <= burst) {
            if (!serve(at(memories_, port.memory), port.memory)) return false;
        }
        time = std::max(time, port.bursts[burst] + port.taken % settings_.burst_beats);
        return true;
    }

    /// The memory's next burst: its ports in turn.
    bool serve(Memory& memory, int index) {
        std::vector<Port*> sharing;
        for (Port& port : ports_) {
            if (port.memory == index) sharing.push_back(&port);
        }
        Port& port = *sharing[memory.turn];
        const std::int64_t first = static_cast<std::int64_t>(memory.burst) * settings_.burst_beats;
        const std::int64_t beats = std::min(settings_.burst_beats, port.beats - first);
        if (beats > 0) {
            std::int64_t request = port.last_request + 1;
            if (static_cast<std::int64_t>(memory.burst) >= settings_.outstanding) {
                const std::size_t before = memory.burst - static_cast<std::size_t>(settings_.outstanding);
                while (port.popped.size() <= before) {
                    if (at(processes_, port.process).busy)
                        deadlock(at(processes_, port.process).name + " waits for itself");
                    if (!place_iteration(port.process)) return false;
                }
                request = std::max(request, port.popped[before] + 1);
            }
            port.last_request = request;
            const std::int64_t start = std::max((request + settings_.read_latency) * 256, memory.free);
            memory.free = start + beats * settings_.beat_cost;
            const std::int64_t beat = std::max((start + 255) / 256, port.last_beat + 1);
            port.bursts.push_back(beat);
            port.last_beat = beat + beats - 1;
        }
        if (++memory.turn == sharing.size()) {
            memory.turn = 0;
            ++memory.burst;
        }
        return true;
    }

    std::string reader_name(const Channel& stream) const {
        return stream.reader >= 0 ? at(processes_, stream.reader).name
               : last_ >= 0       ? at(processes_, last_).name
                                  : "nobody";
    }

    Settings settings_ = {};
    std::vector<Process> processes_;
    std::vector<Channel> channels_;
    std::vector<Port> ports_;
    std::vector<Memory> memories_;
    std::vector<std::string> trail_;
    int last_ = -1;
};

}  // namespace timing
}  // namespace spvit

#endif  // SPVIT_DATAFLOW_HPP
