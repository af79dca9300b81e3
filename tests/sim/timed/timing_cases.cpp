// Small kernels for the timed C-simulation: some right, whose cycles one can count by hand, some wrong, each in one way.
// Their pragmas are read from this file.
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
PRODUCE:
    for (int i = 0; loop.runs(i < count); ++i) {
#pragma HLS PIPELINE II = 1
        out.write(i);
    }
}

template <class Fifo>
void consume_every(Fifo& fifo, int count, int every) {
    timing::Pipeline loop("CONSUME");
CONSUME:
    for (int i = 0; loop.runs(i < count * every); ++i) {
#pragma HLS PIPELINE II = 1
        if (i % every == 0) fifo.read();
    }
}

template <class Body>
void for_each_word(int count, Body body) {
    timing::Pipeline loop("CONSUME");
CONSUME:
    for (int i = 0; loop.runs(i < count); ++i) {
#pragma HLS PIPELINE II = 1
        body();
    }
}

// reads 40 words, one per cycle
void stream_through() {
#pragma HLS DATAFLOW
    Stream<int> fifo("fifo");
#pragma HLS STREAM variable = fifo depth = 4
    produce(fifo, kWords);
    const timing::LastProcess process("consume");
    consume_every(fifo, kWords, 1);
}

// a slow consumer holds the producer back; what it reads late is not late for itself
void slow_consumer() {
#pragma HLS DATAFLOW
    Stream<int> fifo("fifo");
#pragma HLS STREAM variable = fifo depth = 4
    produce(fifo, kWords);
    const timing::LastProcess process("consume");
    consume_every(fifo, kWords, 5);
}

// a relay behind a FIFO of one word: write, wait for the read, write: a word in latency + 1 cycles
void shallow_fifo() {
#pragma HLS DATAFLOW
    Stream<int> narrow("narrow");
#pragma HLS STREAM variable = narrow depth = 1
    Stream<int> wide("wide");
#pragma HLS STREAM variable = wide depth = 64
    produce(narrow, kWords);
    {
        const timing::Process process("relay");
        timing::Pipeline loop("PRODUCE");
    PRODUCE:
        for (int i = 0; loop.runs(i < kWords); ++i) {
#pragma HLS PIPELINE II = 1
            wide.write(narrow.read());
        }
    }
    const timing::LastProcess process("consume");
    consume_every(wide, kWords, 1);
}

// polls: an iteration per cycle until all words have come
void polling() {
#pragma HLS DATAFLOW
    Stream<int> fifo("fifo");
#pragma HLS STREAM variable = fifo depth = 4
    produce(fifo, kWords);
    const timing::LastProcess process("consume");
    timing::Pipeline loop("CONSUME");
    int taken = 0;
    int word = 0;
CONSUME:
    while (loop.runs(taken < kWords)) {
#pragma HLS PIPELINE II = 1
        taken += fifo.read_nb(word) ? 1 : 0;
    }
}

// one port, 40 beats: three bursts
void bursts() {
#pragma HLS DATAFLOW
    Stream<int> deep("deep");
#pragma HLS STREAM variable = deep depth = 64
    {
        const timing::Process process("read_port");
        timing::Pipeline loop("PRODUCE");
    PRODUCE:
        for (int i = 0; loop.runs(i < kWords); ++i) {
#pragma HLS PIPELINE II = 1
            deep.write(axi_read(port, i));
        }
    }
    const timing::LastProcess process("consume");
    consume_every(deep, kWords, 1);
}

// all of a before any of b, into a FIFO that holds two: the reader wants both
void two_streams(bool live_reader) {
#pragma HLS DATAFLOW
    Stream<int> a("a");
#pragma HLS STREAM variable = a depth = 2
    Stream<int> b("b");
#pragma HLS STREAM variable = b depth = 2
    Stream<int> sums("sums");
#pragma HLS STREAM variable = sums depth = 64
    {
        const timing::Process process("writer");
        timing::Pipeline loop("PRODUCE");
    PRODUCE:
        for (int i = 0; loop.runs(i < 16); ++i) {
#pragma HLS PIPELINE II = 1
            if (i < 8) {
                a.write(i);
            } else {
                b.write(i);
            }
        }
    }
    if (live_reader) {
        const timing::LastProcess process("reader");
        for_each_word(8, [&] {
            a.read();
            b.read();
        });
        return;
    }
    {
        const timing::Process process("reader");
        for_each_word(8, [&] { sums.write(a.read() + b.read()); });
    }
    const timing::LastProcess process("sink");
    consume_every(sums, 8, 1);
}
void deadlock() { two_streams(false); }
void deadlock_with_last() { two_streams(true); }

void starvation() {
#pragma HLS DATAFLOW
    Stream<int> few("few");
#pragma HLS STREAM variable = few depth = 64
    Stream<int> many("many");
#pragma HLS STREAM variable = many depth = 64
    produce(few, 3);
    {
        const timing::Process process("relay");
        timing::Pipeline loop("PRODUCE");
    PRODUCE:
        for (int i = 0; loop.runs(i < 5); ++i) {
#pragma HLS PIPELINE II = 1
            if (i < 3) few.read();
            many.write(i);
        }
    }
    const timing::LastProcess process("consume");
    timing::clock().poll(1);  // so that the relay is placed
    timing::Pipeline loop("CONSUME");
CONSUME:
    for (int i = 0; loop.runs(i < 6); ++i) {
#pragma HLS PIPELINE II = 1
        timing::clock().read(1);
    }
}

int memory[16];

void describe() {
#pragma HLS ARRAY_PARTITION variable = memory cyclic factor = 4
#pragma HLS BIND_STORAGE variable = memory type = ram_s2p
    timing::memory(memory, "memory");
}

template <class Body>
void loop_over(int count, Body body) {
    describe();
    const timing::LastProcess process("consume");
    timing::Pipeline loop("CONSUME");
CONSUME:
    for (int i = 0; loop.runs(i < count); ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory inter false
        body(i);
    }
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
    describe();
    const timing::LastProcess process("consume");
    for (int run = 0; run < 2; ++run) {
        timing::Pipeline loop("CONSUME");
    CONSUME:
        for (int i = 0; loop.runs(i < 4); ++i) {
#pragma HLS PIPELINE II = 1
            store(memory, i, load(memory, i) + 1);
        }
    }
}
// read again 7 iterations after it was written
void claims() {
    describe();
    const timing::LastProcess process("consume");
    timing::Pipeline loop("ENGINE");
ENGINE:
    for (int i = 0; loop.runs(i < 32); ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory inter true distance = 7
        store(memory, i % 7, load(memory, i % 7) + 1);
    }
}

// a word whose second half was written too recently is read whole
void half_of_a_word(int lane) {
    loop_over(8, [lane](int i) {
        const timing::Lanes used(lane, 1);
        for (int g = 0; g < 2; ++g) load(memory, 2 * i + g, timing::Site::here(), used.overlap(g, 1));
        if (i < 7) store(memory, 2 * i + 3, i);
    });
}
void drops_what_is_stale() { half_of_a_word(0); }
void uses_what_is_stale() { half_of_a_word(1); }

int deep_memory[2][2][8];

void four_banks() {
#pragma HLS ARRAY_PARTITION variable = deep_memory complete dim = 1
#pragma HLS ARRAY_PARTITION variable = deep_memory complete dim = 2
    timing::memory(deep_memory, "deep_memory");
    const timing::LastProcess process("consume");
    timing::Pipeline loop("CONSUME");
CONSUME:
    for (int i = 0; loop.runs(i < 8); ++i) {
#pragma HLS PIPELINE II = 1
        for (int bank = 0; bank < 4; ++bank) load(deep_memory[bank / 2][bank % 2], i);
    }
}

struct Pair {
    int first;
    int second;
};
Pair pairs[4];

void structs() {
#pragma HLS AGGREGATE variable = pairs compact = bit
    timing::memory(pairs, "pairs");
}

int taps[4];

void shift_register() {
#pragma HLS ARRAY_PARTITION variable = taps complete
    timing::registers(taps, "taps");
}

int unknown[4];
void undescribed() {
    loop_over(1, [](int) { load(unknown, 0); });
}
void unknown_loop() {
    const timing::LastProcess process("consume");
    timing::Pipeline loop("NOWHERE");
NOWHERE:
    while (loop.runs(false)) {
#pragma HLS PIPELINE II = 1
    }
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
    CASE(claims),
    CASE(drops_what_is_stale),
    CASE(uses_what_is_stale),
    CASE(four_banks),
    CASE(structs),
    CASE(shift_register),
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
