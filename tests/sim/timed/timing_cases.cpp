// Small kernels for the timed C-simulation: some right, whose cycles one can count by hand, some wrong, each in one way.
#include <cstdio>
#include <exception>
#include <string>

#include "timing.hpp"

using namespace spvit;

namespace {

constexpr int kWords = 40;
int port[kWords];

template <class Out>
void produce(Out& out, int count) {
    const timing::Process process("produce");
    timing::Pipeline loop("PRODUCE");
    for (int i = 0; loop.runs(i < count); ++i) out.write(i);
}

template <class Fifo>
void consume_every(Fifo& fifo, int count, int every) {
    timing::Pipeline loop("CONSUME");
    for (int i = 0; loop.runs(i < count * every); ++i) {
        if (i % every == 0) fifo.read();
    }
}

// reads 40 words, one per cycle
void stream_through() {
    Stream<int, 4> fifo("fifo");
    produce(fifo, kWords);
    const timing::LastProcess process("consume");
    consume_every(fifo, kWords, 1);
}

// a slow consumer holds the producer back; what it reads late is not late for itself
void slow_consumer() {
    Stream<int, 4> fifo("fifo");
    produce(fifo, kWords);
    const timing::LastProcess process("consume");
    consume_every(fifo, kWords, 5);
}

// a relay behind a FIFO of one word: write, wait for the read, write: a word in latency + 1 cycles
void shallow_fifo() {
    Stream<int, 1> narrow("narrow");
    Stream<int, 64> wide("wide");
    produce(narrow, kWords);
    {
        const timing::Process process("relay");
        timing::Pipeline loop("PRODUCE");
        for (int i = 0; loop.runs(i < kWords); ++i) wide.write(narrow.read());
    }
    const timing::LastProcess process("consume");
    consume_every(wide, kWords, 1);
}

// polls: an iteration per cycle until all words have come
void polling() {
    Stream<int, 4> fifo("fifo");
    produce(fifo, kWords);
    const timing::LastProcess process("consume");
    timing::Pipeline loop("CONSUME");
    int taken = 0;
    int word = 0;
    while (loop.runs(taken < kWords)) taken += fifo.read_nb(word) ? 1 : 0;
}

// one port, 40 beats: three bursts
void bursts() {
    Stream<int, 64> fifo("fifo");
    {
        const timing::Process process("read_port");
        timing::Pipeline loop("PRODUCE");
        for (int i = 0; loop.runs(i < kWords); ++i) fifo.write(axi_read(port, i));
    }
    const timing::LastProcess process("consume");
    consume_every(fifo, kWords, 1);
}

// all of a before any of b, into a FIFO that holds two: the reader wants both
void two_streams(bool live_reader) {
    Stream<int, 2> a("a");
    Stream<int, 2> b("b");
    Stream<int, 64> sums("sums");
    {
        const timing::Process process("writer");
        timing::Pipeline loop("PRODUCE");
        for (int i = 0; loop.runs(i < 16); ++i) {
            if (i < 8) {
                a.write(i);
            } else {
                b.write(i);
            }
        }
    }
    if (live_reader) {
        const timing::LastProcess process("reader");
        timing::Pipeline loop("CONSUME");
        for (int i = 0; loop.runs(i < 8); ++i) {
            a.read();
            b.read();
        }
        return;
    }
    {
        const timing::Process process("reader");
        timing::Pipeline loop("CONSUME");
        for (int i = 0; loop.runs(i < 8); ++i) sums.write(a.read() + b.read());
    }
    const timing::LastProcess process("sink");
    consume_every(sums, 8, 1);
}
void deadlock() { two_streams(false); }
void deadlock_with_last() { two_streams(true); }

void starvation() {
    Stream<int, 64> few("few");
    Stream<int, 64> many("many");
    produce(few, 3);
    {
        const timing::Process process("relay");
        timing::Pipeline loop("PRODUCE");
        for (int i = 0; loop.runs(i < 5); ++i) {
            if (i < 3) few.read();
            many.write(i);
        }
    }
    const timing::LastProcess process("consume");
    timing::clock().poll(1);  // so that the relay is placed
    timing::Pipeline loop("CONSUME");
    for (int i = 0; loop.runs(i < 6); ++i) timing::clock().read(1);
}

int memory[16];

template <class Body>
void loop_over(int count, Body body) {
    timing::memory(memory, "memory", 4);
    const timing::LastProcess process("consume");
    timing::Pipeline loop("CONSUME");
    for (int i = 0; loop.runs(i < count); ++i) body(i);
}

void one_port() {
    loop_over(8, [](int i) {
        for (int bank = 0; bank < 4; ++bank) load(memory, 4 * (i % 4) + bank);  // one of each bank
    });
}
void bank_twice() {
    loop_over(8, [](int) {
        for (int step = 0; step < 2; ++step) load(memory, 4 * step + 1);
    });
}
void two_sites() {
    loop_over(8, [](int i) {
        if (i < 4) {
            load(memory, 0);
        } else {
            load(memory, 1);
        }
    });
}
void two_write_sites() {
    loop_over(8, [](int i) {
        if (i < 4) {
            store(memory, 0, i);
        } else {
            store(memory, 1, i);
        }
    });
}
void gather(int distance) {
    loop_over(32, [distance](int i) {
        const int place = i % distance;
        store(memory, place, load(memory, place) + 1);
    });
}
void gathers_in_time() { gather(10); }
void gathers_too_soon() { gather(9); }
void another_run_of_the_loop() {
    timing::memory(memory, "memory", 4);
    const timing::LastProcess process("consume");
    for (int run = 0; run < 2; ++run) {
        timing::Pipeline loop("CONSUME");
        for (int i = 0; loop.runs(i < 4); ++i) store(memory, i, load(memory, i) + 1);
    }
}
void false_claim() {
    timing::memory(memory, "memory", 4);
    timing::claim_distance(memory, 8);
    const timing::LastProcess process("consume");
    timing::Pipeline loop("ENGINE");
    for (int i = 0; loop.runs(i < 32); ++i) store(memory, i % 7, load(memory, i % 7) + 1);
}
void too_small_a_claim() {
    timing::memory(memory, "memory", 4);
    timing::claim_distance(memory, 2);
    const timing::LastProcess process("consume");
    timing::Pipeline loop("ENGINE");
    for (int i = 0; loop.runs(i < 32); ++i) store(memory, i % 7, load(memory, i % 7) + 1);
}
int unknown[4];
void undescribed() {
    loop_over(1, [](int) { load(unknown, 0); });
}
void unknown_loop() {
    const timing::LastProcess process("consume");
    timing::Pipeline loop("NOWHERE");
    loop.runs(false);
}
void waits_for_a_response() {
    const timing::LastProcess process("consume");
    axi_write(port, 0, 1);
}

struct Case {
    const char* name;
    void (*run)();
};
#define CASE(name) {#name, name}
const Case kCases[] = {
    CASE(stream_through),
    CASE(slow_consumer),
    CASE(shallow_fifo),
    CASE(polling),
    CASE(bursts),
    CASE(deadlock),
    CASE(deadlock_with_last),
    CASE(starvation),
    CASE(one_port),
    CASE(bank_twice),
    CASE(two_sites),
    CASE(two_write_sites),
    CASE(gathers_in_time),
    CASE(gathers_too_soon),
    CASE(another_run_of_the_loop),
    CASE(false_claim),
    CASE(too_small_a_claim),
    CASE(undescribed),
    CASE(unknown_loop),
    CASE(waits_for_a_response),
};

}  // namespace

/// 0; or 1 with a sentence; 2 when there is no such case.
extern "C" int run_case(const char* name, char* sentence, int size) {
    for (const Case& one : kCases) {
        if (std::string(one.name) != name) continue;
        try {
            one.run();
            return 0;
        } catch (const std::exception& failure) {
            std::snprintf(sentence, static_cast<std::size_t>(size), "%s", failure.what());
            return 1;
        }
    }
    return 2;
}
