// The cycles of the last process, step by step, and what it finds in streams and memories at each of them.
#ifndef SPVIT_CLOCK_HPP
#define SPVIT_CLOCK_HPP

#include <algorithm>
#include <cstdint>
#include <string>

#include "dataflow.hpp"
#include "memories.hpp"
#include "settings.hpp"

namespace spvit {
namespace timing {

enum class Cycle : unsigned char { TOKEN, FILL, DRAIN };

class Clock {
  public:
    Dataflow dataflow;
    Memories memories;

    void configure(const Settings& settings, StepCycles* steps, int num_steps) {
        settings_ = settings;
        steps_ = steps;
        num_steps_ = num_steps;
        step_ = 0;
        now_ = 0;
        process_ = -1;
        live_ = false;
        in_loop_ = false;
        dataflow = Dataflow();
        dataflow.configure(settings);
        memories = Memories();
        memories.configure(settings);
        for (int i = 0; i < num_steps; ++i) steps[i] = StepCycles();
    }

    std::int64_t now() const { return now_; }
    int scaled(int count) const { return static_cast<int>((count * settings_.scale_percent + 99) / 100); }

    // processes

    void begin_process(const char* name) { process_ = dataflow.begin_process(name); }

    void begin_last_process(const char* name) {
        process_ = dataflow.begin_process(name);
        dataflow.set_last(process_);
        live_ = true;
        now_ = 0;
    }

    // pipelined loops

    const Loop& loop(const char* name) const {
        for (const Loop& one : settings_.loops) {
            if (std::string(one.name) != name) continue;
            if (one.interval == 0) {
                fail(std::string("loop ") + name +
                     " has no PIPELINE pragma: synthesis would start an iteration where the one before ends");
            }
            if (one.depth >= 0) return one;
        }
        fail(std::string("loop ") + name + " has no depth in the table of latencies");
    }

    /// An iteration begins (`condition`), or the loop ends.
    bool iterate(const Loop& loop, bool condition, bool& first) {
        if (!live_) {
            if (condition) dataflow.log_iteration(process_, loop.interval);
            return condition;
        }
        if (first) {
            pass(settings_.loop_entry, &StepCycles::other);
            memories.begin_loop(loop);
            interval_ = loop.interval;
            in_loop_ = true;
        } else {
            end_iteration();
        }
        first = false;
        if (condition) {
            iteration_step_ = step_;
            kind_ = &StepCycles::other;
            memories.begin_iteration(now_);
        } else {
            const bool engine = std::string(loop.name) == "ENGINE";
            pass(loop.depth, engine ? &StepCycles::drain : &StepCycles::other);
            memories.end_loop();
            in_loop_ = false;
        }
        return condition;
    }

    /// For whom the iteration's cycle passes.
    ///   starves  the tile's fill waits for a word
    void spend(bool ends_tile, bool starves, Cycle cycle) {
        ends_tile_ = ends_tile;
        if (starves) ++stalls_;
        kind_ = cycle == Cycle::TOKEN  ? &StepCycles::tokens
                : cycle == Cycle::FILL ? &StepCycles::fill
                                       : &StepCycles::drain;
    }

    /// Steps count from -1, loading; what comes is this step's from the next iteration on.
    void begin_step(int step) {
        if (step < 0) return;  // the idle step fills the first tile: loading
        step_ = std::min(step + 1, num_steps_ - 1);
        steps_[step_].begin = in_loop_ ? now_ + interval_ : now_;
    }

    // streams and ports

    void write(int channel) {
        if (live_) fail("the last process may not write to " + dataflow.name(channel));
        dataflow.log_write(process_, channel);
    }

    void read(int channel) {
        if (live_) {
            const std::int64_t at = dataflow.wait(channel, now_);
            pass(at - now_, &StepCycles::other);
            dataflow.take(channel, now_);
        } else {
            dataflow.log_read(process_, channel);
        }
    }

    bool poll(int channel) {
        if (!live_) fail("only the last process may poll " + dataflow.name(channel));
        if (!dataflow.arrived(channel, now_)) return false;
        dataflow.take(channel, now_);
        return true;
    }

    void beat(const void* port) {
        if (live_) fail("the last process has no read port");
        dataflow.log_beat(process_, port);
    }

    /// Inside a pipelined loop the write rides along; alone, its response is waited for.
    void axi_write() {
        if (live_ && !in_loop_) pass(settings_.write_latency, &StepCycles::other);
    }

    void access(const void* array, int index, int line, bool is_write, bool is_used) {
        if (live_ && in_loop_) memories.access(array, index, line, is_write, is_used);
    }

  private:
    void pass(std::int64_t count, std::int64_t StepCycles::* kind) {
        now_ += count;
        steps_[step_].*kind += count;
    }

    void end_iteration() {
        // a wait is the stream's as far as the stream made it longer
        const bool waits = kind_ == &StepCycles::fill && stalls_ > 0;
        if (waits) --stalls_;
        steps_[iteration_step_].*(waits ? &StepCycles::fifo : kind_) += interval_;
        now_ += interval_;
        if (ends_tile_) stalls_ = 0;
    }

    Settings settings_ = {};
    StepCycles* steps_ = nullptr;
    int num_steps_ = 0;
    int step_ = 0;
    int iteration_step_ = 0;
    std::int64_t StepCycles::* kind_ = &StepCycles::other;
    std::int64_t now_ = 0;
    std::int64_t interval_ = 1;
    std::int64_t stalls_ = 0;
    bool ends_tile_ = false;
    int process_ = -1;
    bool live_ = false;
    bool in_loop_ = false;
};

Clock& clock();

}  // namespace timing
}  // namespace spvit

#endif  // SPVIT_CLOCK_HPP
