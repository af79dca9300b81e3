// What synthesis and the pipeline ask of on-chip memories, checked at each access in a pipelined loop. Banks, ports and what
// may be assumed of neighbouring iterations are what the sources' pragmas say:
//   ports      accesses per bank and iteration, and access sites per loop
//   staleness  no read before the write of what it should see has landed, nor before a DEPENDENCE pragma says
#ifndef SPVIT_MEMORIES_HPP
#define SPVIT_MEMORIES_HPP

#include <algorithm>
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

    /// An array: `outer` are the sizes of all its dimensions but the last, `rows` the addresses of its rows along the last,
    /// in order.
    void declare(const char* name, const std::vector<std::int64_t>& outer, const std::vector<const void*>& rows,
                 std::int64_t columns, bool of_structs) {
        if (of_structs && !is_aggregate(name)) {
            fail(std::string(name) + " is an array of structs without an AGGREGATE pragma: synthesis would split it");
        }
        const auto known = rows_.find(rows[0]);
        const std::size_t place = known == rows_.end() ? memories_.size() : known->second.memory;
        if (place == memories_.size()) memories_.emplace_back();
        Memory& memory = memories_[place];
        memory = Memory();
        memory.name = name;
        memory.columns = columns;
        std::vector<Split> splits;
        for (std::size_t i = 0; i < outer.size(); ++i) {
            splits.push_back(split(name, static_cast<std::int64_t>(i) + 1, outer[i]));
            memory.banks_of_rows *= splits.back().banks;
        }
        memory.by_column = split(name, static_cast<std::int64_t>(outer.size()) + 1, columns);
        for (const Ports& ports : settings_.ports) {
            if (memory.name == ports.memory) memory.ports = ports;
        }
        memory.written.assign(rows.size() * static_cast<std::size_t>(columns), -1);
        memory.visits.assign(static_cast<std::size_t>(memory.banks_of_rows * memory.by_column.banks), Visits());
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const std::int64_t row = static_cast<std::int64_t>(i);
            std::int64_t bank = 0;
            std::int64_t below = static_cast<std::int64_t>(rows.size());
            std::int64_t rest = row;
            for (std::size_t dim = 0; dim < outer.size(); ++dim) {
                below /= outer[dim];
                bank = bank * splits[dim].banks + splits[dim].bank(rest / below);
                rest %= below;
            }
            rows_[rows[i]] = {place, row, bank};
        }
        cached_ = nullptr;
    }

    /// An array whose elements are all used at once: each must be a register.
    void expect_registers(const char* name) const {
        for (const Partition& one : settings_.partitions) {
            if (std::string(one.memory) == name && one.factor == 0) return;
        }
        fail(std::string(name) + " is used whole in each iteration, and no ARRAY_PARTITION pragma makes it registers");
    }

    void begin_loop(const Loop& loop) {
        loop_ = loop;
        ++loop_run_;
    }
    void end_loop() { now_ = -1; }
    void begin_iteration(std::int64_t now) { now_ = now; }

    /// `is_used`: somebody looks at what is read.
    void access(const void* address, int index, int line, bool is_write, bool is_used) {
        const Row& row = find(address);
        Memory& memory = memories_[row.memory];
        if (memory.loop_run != loop_run_) enter(memory);
        if (memory.visits.size() != memory.written.size())
            check_ports(memory, row, index, line, is_write);  // no registers
        if (is_write) {
            memory.is_written = true;
        } else {
            memory.is_read = true;
        }
        if (memory.is_read && memory.is_written) check_dependence(memory);
        std::int64_t& written = memory.written[static_cast<std::size_t>(row.row * memory.columns + index)];
        if (is_write) {
            written = now_;
        } else if (is_used && written > memory.since && written < now_) {
            check_distance(memory, now_ - written);
        }
    }

  private:
    /// One dimension's banks.
    struct Split {
        std::int64_t banks = 1;
        std::int64_t factor = 1;  // 0: complete
        std::int64_t block = 0;   // elements per bank; 0: cyclic
        std::int64_t bank(std::int64_t index) const {
            return factor == 0 ? index : block > 0 ? index / block : index % banks;
        }
    };

    /// Of a bank, in the iteration that began at `at`.
    struct Visits {
        std::int64_t at = -1;
        std::int64_t reads = 0;
        std::int64_t writes = 0;
    };

    /// Lines that read, lines that write.
    struct Sites {
        std::vector<int> lines[2];
    };

    struct Memory {
        std::string name;
        std::int64_t columns = 0;
        std::int64_t banks_of_rows = 1;
        Split by_column;
        Ports ports = {"", 1, 1, 2};
        std::vector<std::int64_t> written;  // cycle of the last write of each element
        std::vector<Visits> visits;         // of each bank
        // in this run of a loop
        std::int64_t loop_run = -1;
        std::vector<Sites> sites;  // of each bank of rows
        std::int64_t since = -1;   // its begin: what was written before has landed
        std::int64_t span = 0;
        const Dependence* dependence = nullptr;
        bool is_read = false;
        bool is_written = false;
    };

    struct Row {
        std::size_t memory;
        std::int64_t row;
        std::int64_t bank;  // by the outer dimensions
    };

    bool is_aggregate(const std::string& name) const {
        return std::any_of(settings_.aggregates.begin(), settings_.aggregates.end(),
                           [&name](const Aggregate& one) { return name == one.memory; });
    }

    Split split(const std::string& name, std::int64_t dim, std::int64_t size) const {
        Split found;
        for (const Partition& one : settings_.partitions) {
            if (name != one.memory || (one.dim != dim && one.dim != 0)) continue;
            found.factor = one.factor;
            found.banks = one.factor == 0 ? size : std::min(one.factor, size);
            found.block = one.in_blocks ? (size + found.banks - 1) / found.banks : 0;
        }
        return found;
    }

    const Row& find(const void* address) {
        if (address == cached_) return *cached_row_;
        const auto found = rows_.find(address);
        if (found == rows_.end()) fail(in_loop() + " uses a memory whose ports are not described");
        cached_ = address;
        cached_row_ = &found->second;
        return found->second;
    }

    void enter(Memory& memory) {
        memory.loop_run = loop_run_;
        memory.since = now_ - 1;
        memory.sites.assign(static_cast<std::size_t>(memory.banks_of_rows), Sites());
        memory.is_read = memory.is_written = false;
        memory.span = loop_.depth;
        for (const MemorySpan& one : settings_.spans) {
            if (std::string(one.loop) == loop_.name && memory.name == one.memory) memory.span = one.span;
        }
        memory.dependence = nullptr;
        for (const Dependence& one : settings_.dependences) {
            if (std::string(one.loop) == loop_.name && memory.name == one.memory) memory.dependence = &one;
        }
        if (claim(memory) > 0 && memory.span > claim(memory)) {
            fail(in_loop() + " claims a distance of " + std::to_string(memory.dependence->distance) + " for " +
                 memory.name + ", whose read, change and write take " + std::to_string(memory.span) + " cycles");
        }
    }

    /// Cycles from a write to a read, at least, by a DEPENDENCE pragma; 0 where none says.
    std::int64_t claim(const Memory& memory) const {
        const Dependence* said = memory.dependence;
        if (said == nullptr || said->distance < 0) return 0;
        return said->distance * loop_.interval;
    }

    void check_dependence(const Memory& memory) const {
        if (memory.dependence == nullptr && memory.span > loop_.interval) {
            fail(in_loop() + " reads and writes " + memory.name + ", and no DEPENDENCE pragma says when they meet: " +
                 "synthesis would start an iteration every " + std::to_string(memory.span) + " cycles");
        }
    }

    void check_ports(Memory& memory, const Row& row, int index, int line, bool is_write) {
        const std::int64_t bank = row.bank * memory.by_column.banks + memory.by_column.bank(index);
        const std::int64_t ports = (is_write ? memory.ports.writes : memory.ports.reads) * loop_.interval;
        const char* verb = is_write ? " writes " : " reads ";
        std::vector<int>& sites = memory.sites[static_cast<std::size_t>(row.bank)].lines[is_write ? 1 : 0];
        if (std::find(sites.begin(), sites.end(), line) == sites.end()) {
            sites.push_back(line);
            if (static_cast<std::int64_t>(sites.size()) > ports) {
                std::string lines;
                for (int site : sites) lines += (lines.empty() ? "" : " and ") + std::to_string(site);
                fail(in_loop() + verb + memory.name + " at " + std::to_string(sites.size()) + " sites, lines " + lines +
                     "; its ports for that: " + std::to_string(ports));
            }
        }
        Visits& visits = memory.visits[static_cast<std::size_t>(bank)];
        if (visits.at != now_) {
            visits = Visits();
            visits.at = now_;
        }
        std::int64_t& count = is_write ? visits.writes : visits.reads;
        if (++count > ports || visits.reads + visits.writes > memory.ports.together * loop_.interval) {
            fail(in_loop() + ": an iteration" + verb + "bank " + std::to_string(bank) + " of " + memory.name + " " +
                 std::to_string(count) + " times, beside " + std::to_string(is_write ? visits.reads : visits.writes) +
                 (is_write ? " reads" : " writes") + "; its ports for that: " + std::to_string(ports));
        }
    }

    void check_distance(const Memory& memory, std::int64_t distance) const {
        if (distance < memory.span) {
            fail(in_loop() + ": " + memory.name + " is read " + std::to_string(distance) +
                 " cycles after it was written, its pipeline takes " + std::to_string(memory.span));
        }
        if (distance < claim(memory)) {
            fail(in_loop() + ": " + memory.name + " is read " + std::to_string(distance) +
                 " cycles after it was written, its DEPENDENCE pragma claims " + std::to_string(claim(memory)));
        }
    }

    std::string in_loop() const { return std::string("loop ") + loop_.name; }

    Settings settings_ = {};
    std::vector<Memory> memories_;
    std::unordered_map<const void*, Row> rows_;
    const void* cached_ = nullptr;
    const Row* cached_row_ = nullptr;
    Loop loop_ = {"", 0, 1};
    std::int64_t loop_run_ = 0;
    std::int64_t now_ = -1;
};

}  // namespace timing
}  // namespace spvit

#endif  // SPVIT_MEMORIES_HPP
