// Loops whose schedule is known, for the scheduler's tests. Nothing runs them.
#include "hls_stream.h"

using Stream = hls::stream<int>;

void sum_of_a_stream(Stream& in, Stream& out, int n) {
    int sum = 0;
REGISTER_SUM:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        sum += in.read();
        out.write(sum);
    }
}

void count(Stream& in, int n) {
    static int bins[1024];
HISTOGRAM:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const int value = in.read() & 1023;
        bins[value] = bins[value] + 1;
    }
}

void count_apart(Stream& in, int n) {
    static int bins[1024];
HISTOGRAM_DISTANCE:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = bins inter true distance = 2
        const int value = in.read() & 1023;
        bins[value] = bins[value] + 1;
    }
}

// What one iteration reads behind its own write decides what the next one writes.
void read_behind_write(Stream& in, Stream& other, int n) {
    static int memory[1024];
    int carried = 0;
READ_BEHIND_WRITE:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory inter false
        memory[in.read() & 1023] = carried + 1;
        carried = memory[other.read() & 1023];
    }
}

void read_before_write(Stream& in, Stream& other, int n) {
    static int memory[1024];
    int carried = 0;
READ_BEFORE_WRITE:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory inter false
        const int read = memory[other.read() & 1023];
        memory[in.read() & 1023] = carried + 1;
        carried = read;
    }
}

static const unsigned short kNext[2048] = {1, 2, 3, 5, 8, 9, 4, 7};
static const unsigned short kOther[2048] = {7, 1, 6, 4, 4, 3, 2, 5};

void walk(Stream& out, int n) {
    int at = 0;
ROM:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        at = kNext[at];
        out.write(at);
    }
}

void walk_far(Stream& out, int n) {
    int at = 0;
TWO_ROMS:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        at = kNext[kOther[at]];
        out.write(at);
    }
}

void many_reads(Stream& in, Stream& out, int n) {
    static int memory[1024];
PORTS:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const int first = in.read() & 255;
        out.write(memory[first * 4] + memory[first * 4 + 1] + memory[first * 4 + 2] + memory[first * 4 + 3]);
    }
}

void many_banks(Stream& in, Stream& out, int n) {
    static int memory[1024];
#pragma HLS ARRAY_PARTITION variable = memory cyclic factor = 4
BANKS:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const int first = in.read() & 255;
        out.write(memory[first * 4] + memory[first * 4 + 1] + memory[first * 4 + 2] + memory[first * 4 + 3]);
    }
}

// The same, but for anything that shows where a word begins.
void many_unknown_banks(Stream& in, Stream& out, int n) {
    static int memory[1024];
#pragma HLS ARRAY_PARTITION variable = memory cyclic factor = 4
UNKNOWN_BANKS:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const int first = in.read() & 1023;
        out.write(memory[first] + memory[first + 1] + memory[first + 2] + memory[first + 3]);
    }
}

void two_reads_and_a_write(Stream& in, Stream& out, int n) {
    static int memory[1024];
#pragma HLS BIND_STORAGE variable = memory type = ram_s2p
ONE_READ_PORT:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
#pragma HLS DEPENDENCE variable = memory inter false
        const int at = in.read() & 511;
        out.write(memory[at] + memory[at + 512]);
    }
}

void shift(Stream& in, Stream& out, int n) {
    ap_uint<32> x = 1;
SHIFT:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const ap_uint<5> by = in.read();
        x = (x << by) ^ 1;
        out.write(x.to_int());
    }
}

void shift_three_times(Stream& in, Stream& out, int n) {
    ap_uint<32> x = 1;
SHIFTS:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const ap_uint<5> by = in.read();
        x = (x << by) ^ 1;
        x = (x >> by) ^ 3;
        x = (x << by) ^ 5;
        out.write(x.to_int());
    }
}

// A product takes several states: in a recurrence, as many intervals.
void power(Stream& out, int n) {
    ap_int<16> x = 3;
PRODUCT:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        x = ap_int<16>(x * x);
        out.write(x.to_int());
    }
}

// What is used two iterations later has two to be computed in.
void delayed_product(Stream& out, int n) {
    ap_int<16> delayed[8] = {3, 3, 3, 3, 3, 3, 3, 3};
DELAY_LINE:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const ap_int<16> x = delayed[7];
        for (int k = 7; k > 0; --k) {
#pragma HLS UNROLL
            delayed[k] = delayed[k - 1];
        }
        delayed[0] = ap_int<16>(x * x);
        out.write(x.to_int());
    }
}

// A stream that is read where the word before said so.
void on_demand(Stream& in, Stream& out, int n) {
    bool wants = true;
    int word = 0;
ON_DEMAND:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        if (wants && (i & 3) != 1) {
            const bool came = in.read_nb(word);
            wants = !came || word != 12345;
        }
        out.write(word);
    }
}

// Registers that a run-time index chooses among.
void accumulate_by_lane(Stream& in, Stream& out, int n) {
    static int sums[8];
#pragma HLS ARRAY_PARTITION variable = sums complete
LANES:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        const int lane = in.read() & 7;
        sums[lane] = sums[lane] + 1;
        out.write(sums[0]);
    }
}

// A pipeline of its own, called by one: a part of it.
static int twice(int x) {
#pragma HLS INLINE off
#pragma HLS PIPELINE II = 1
    return x * 3 + x;
}

void call(Stream& in, Stream& out, int n) {
CALL:
    for (int i = 0; i < n; ++i) {
#pragma HLS PIPELINE II = 1
        out.write(twice(in.read()));
    }
}
