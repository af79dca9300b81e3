// What synthesis and the pipeline ask of on-chip memories, checked at each access in a pipelined loop:
//   ports    one read and one write per bank and iteration, and one read and one write site per loop
//   staleness  no read before the write of what it should see has landed
#ifndef SPVIT_MEMORIES_HPP
#define SPVIT_MEMORIES_HPP

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "dataflow.hpp"
#include "settings.hpp"

namespace spvit {
namespace timing {

class Memories {
  public:
    void configure(const Settings& settings) { settings_ = settings; }

    /// `size` elements; element i lies in bank i mod `banks`.
    void declare(const void* array, const char* name, std::size_t size, int banks) {
        Memory& memory = memories_[array];
        memory = Memory();
        memory.name = name;
        memory.banks = banks;
        memory.written.assign(size, -1);
        memory.visits[0].assign(static_cast<std::size_t>(banks), -1);
        memory.visits[1].assign(static_cast<std::size_t>(banks), -1);
        cached_ = nullptr;
    }

    /// What a DEPENDENCE pragma says: no value is read sooner than this after it was written.
    void claim(const void* array, int distance) { memories_.at(array).claim = distance; }

    void begin_loop(const std::string& name, std::int64_t depth) {
        loop_ = name;
        depth_ = depth;
        ++loop_run_;
    }
    void end_loop() { now_ = -1; }
    void begin_iteration(std::int64_t now) { now_ = now; }

    void access(const void* array, int index, int line, bool is_write) {
        Memory& memory = find(array);
        if (memory.loop_run != loop_run_) enter(memory);
        check_site(memory, line, is_write);
        std::int64_t& visit = memory.visits[is_write ? 1 : 0][static_cast<std::size_t>(index % memory.banks)];
        if (visit == now_) {
            fail("loop " + loop_ + ": an iteration " + (is_write ? "writes" : "reads") + " bank " +
                 std::to_string(index % memory.banks) + " of " + memory.name + " twice, which has one port for that");
        }
        visit = now_;
        std::int64_t& written = memory.written[static_cast<std::size_t>(index)];
        if (is_write) {
            written = now_;
        } else if (written > memory.since && written < now_) {
            check_distance(memory, now_ - written);
        }
    }

  private:
    struct Memory {
        std::string name;
        int banks = 1;
        int claim = 0;
        std::vector<std::int64_t> written;    // cycle of the last write of each element
        std::vector<std::int64_t> visits[2];  // cycle of the last read and write of each bank
        int sites[2] = {0, 0};                // lines
        std::int64_t loop_run = -1;
        std::int64_t since = -1;  // begin of this run of the loop: what was written before has landed
        std::int64_t span = 0;
    };

    Memory& find(const void* array) {
        if (array == cached_) return *cached_memory_;
        const auto found = memories_.find(array);
        if (found == memories_.end()) fail("loop " + loop_ + " uses a memory whose ports are not described");
        cached_ = array;
        cached_memory_ = &found->second;
        return found->second;
    }

    void enter(Memory& memory) {
        memory.loop_run = loop_run_;
        memory.since = now_ - 1;
        memory.sites[0] = memory.sites[1] = 0;
        memory.span = depth_;
        for (std::int64_t i = 0; i < settings_.num_spans; ++i) {
            if (loop_ == settings_.spans[i].loop && memory.name == settings_.spans[i].memory) {
                memory.span = settings_.spans[i].span;
            }
        }
        if (memory.claim > 0 && loop_ == "ENGINE" && memory.span > memory.claim) {
            fail("loop " + loop_ + " claims a distance of " + std::to_string(memory.claim) + " for " + memory.name +
                 ", whose read, change and write take " + std::to_string(memory.span) + " cycles");
        }
    }

    void check_site(Memory& memory, int line, bool is_write) {
        int& site = memory.sites[is_write ? 1 : 0];
        if (site == line) return;
        if (site != 0) {
            fail("loop " + loop_ + " " + (is_write ? "writes " : "reads ") + memory.name + " at two sites, lines " +
                 std::to_string(site) + " and " + std::to_string(line) + "; it has one port for that");
        }
        site = line;
    }

    void check_distance(const Memory& memory, std::int64_t distance) {
        if (distance < memory.span) {
            fail("loop " + loop_ + ": " + memory.name + " is read " + std::to_string(distance) +
                 " cycles after it was written, its pipeline takes " + std::to_string(memory.span));
        }
        if (memory.claim > 0 && loop_ == "ENGINE" && distance < memory.claim) {
            fail("loop " + loop_ + ": " + memory.name + " is read " + std::to_string(distance) +
                 " cycles after it was written, its DEPENDENCE pragma claims " + std::to_string(memory.claim));
        }
    }

    Settings settings_ = {};
    std::unordered_map<const void*, Memory> memories_;
    const void* cached_ = nullptr;
    Memory* cached_memory_ = nullptr;
    std::string loop_;
    std::int64_t depth_ = 0;
    std::int64_t loop_run_ = 0;
    std::int64_t now_ = -1;
};

}  // namespace timing
}  // namespace spvit

#endif  // SPVIT_MEMORIES_HPP
