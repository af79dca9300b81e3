// From DDR to the engine: one reader per AXI port, joined into one FIFO of wide words, far ahead of their use.
// The order of the words is the order of use (hw/weights.py); each port carries its own stripe of every word.
#ifndef SPVIT_WEIGHT_STREAM_HPP
#define SPVIT_WEIGHT_STREAM_HPP

#include "timing.hpp"
#include "trace.hpp"
#include "types.hpp"

namespace spvit {

#if defined(__SYNTHESIS__) || defined(SPVIT_EXACT_WIDTHS)

/// Packed by hand to the port's full width: automatic widening is off in the Vivado flow and fails on structs.
template <int Lanes, int Bits>
using PortWord = ap_uint<Lanes * Bits>;

template <int Lanes, int Bits>
inline Vec<Int<16>, Lanes> unpack(const ap_uint<Lanes * Bits>& word) {
#pragma HLS INLINE
    Vec<Int<16>, Lanes> lanes;
    for (int i = 0; i < Lanes; ++i) {
#pragma HLS UNROLL
        const ap_uint<Bits> bits = word.range(Bits * i + Bits - 1, Bits * i);
        lanes[i] = Bits == 16 ? Int<16>(ap_int<16>(bits)) : Int<16>(bits);
    }
    return lanes;
}

#else

template <int Bits>
struct PortLane;
template <>
struct PortLane<8> {
    using type = std::uint8_t;
};
template <>
struct PortLane<16> {
    using type = std::int16_t;
};

template <int Lanes, int Bits>
using PortWord = Vec<typename PortLane<Bits>::type, Lanes>;

template <int Lanes, int Bits>
inline Vec<Int<16>, Lanes> unpack(const PortWord<Lanes, Bits>& word) {
    Vec<Int<16>, Lanes> lanes;
    for (int i = 0; i < Lanes; ++i) lanes[i] = word[i];
    return lanes;
}

#endif

/// A beat of a weight port, and its way to the others'.
template <class A>
using StripeWord = PortWord<A::kPortLanes, 16>;
template <class A>
using PortStream = Stream<StripeWord<A>>;

/// Beats of each port that make a word: a fill may take more weights per cycle than the ports bring.
template <class A>
constexpr int beats_per_word() {
    return A::kFillLanes / (A::kWeightPorts * A::kPortLanes);
}

template <class A>
using FillWord = Vec<Int<16>, A::kFillLanes>;

template <class A>
using WeightFifo = Stream<FillWord<A>>;

/// The FIFO's first word, in a register: whether there is one is known when an iteration begins, and nothing that the
/// iteration decides waits for the FIFO. Below narrow weights, words bring the bits of others (hw/weights.py), which gather
/// in `rest` until their turn comes.
template <class A>
struct FrontWord {
    FillWord<A> lanes;
    Vec<UInt<12>, A::kFillLanes> rest;
    bool there;

    /// Keeps what lies below the weights.
    ///   bytes  weights have 8 bits, not 12
    void keep(bool bytes) {
#pragma HLS INLINE
    KEEP_REST:
        for (int i = 0; i < A::kFillLanes; ++i) {
#pragma HLS UNROLL
            const int word = to_int(lanes[i]);
            rest[i] = bytes ? (word & 0xFF) << 4 : (to_int(rest[i]) << 4 & 0xFF0) | (word & 0xF);
        }
    }

    /// The next one comes. Never waits: a stalled read would stop the whole array.
    void follow(bool taken, WeightFifo<A>& fifo) {
#pragma HLS INLINE
        if (taken || !there) there = fifo.read_nb(lanes);
    }
};

/// On their way to the checksum; with two words, a FIFO whose words take two cycles would pass two in three.
template <class A>
using ArrivingWords = Stream<FillWord<A>>;

/// One port's stripe, in bursts.
template <class A>
inline void read_port(const StripeWord<A>* port, PortStream<A>& stripe, int num_words) {
    const int num_beats = num_words * beats_per_word<A>();
    const timing::Process process("read_port");
    timing::Pipeline loop("READ_PORT");
READ_PORT:
    for (int i = 0; loop.runs(i < num_beats); ++i) {
#pragma HLS PIPELINE II = 1
        stripe.write(axi_read(port, i));
    }
}

/// Stripes side by side: each port brings its share of a word, beat by beat.
template <class A, class Fifo>
inline void join_ports(PortStream<A> (&stripes)[A::kWeightPorts], Fifo& fifo, int num_words) {
    constexpr int kBeats = beats_per_word<A>();
    static_assert(A::kFillLanes == A::kWeightPorts * A::kPortLanes * kBeats, "a word must be whole beats of all ports");
    const int num_beats = num_words * kBeats;
    FillWord<A> word;
#pragma HLS ARRAY_PARTITION variable = word.lane complete
    timing::registers(word.lane, "word.lane");
    Counter<kBeats> beat;
    const timing::Process process("join_ports");
    timing::Pipeline loop("JOIN_PORTS");
JOIN_PORTS:
    for (int i = 0; loop.runs(i < num_beats); ++i) {
#pragma HLS PIPELINE II = 1
        for (int port = 0; port < A::kWeightPorts; ++port) {
#pragma HLS UNROLL
            trace::expect_data(stripes[port]);
            const Vec<Int<16>, A::kPortLanes> lanes = unpack<A::kPortLanes, 16>(stripes[port].read());
            for (int place = 0; place < kBeats * A::kPortLanes; ++place) {
#pragma HLS UNROLL
                const bool arrives = place / A::kPortLanes == to_int(beat.value);
                const int lane = port * kBeats * A::kPortLanes + place;
                if (arrives) word[lane] = lanes[place % A::kPortLanes];
            }
        }
        if (beat.last) fifo.write(word);
        beat.advance();
    }
}

template <class A>
using PixelWord = PortWord<A::kImageLanes, 8>;

template <class A>
using PixelStream = Stream<PixelWord<A>>;

/// The image, line by line.
template <class A>
void read_image(const PixelWord<A>* image, PixelStream<A>& pixels, int num_words) {
    const timing::Process process("read_image");
    timing::Pipeline loop("READ_IMAGE");
READ_IMAGE:
    for (int i = 0; loop.runs(i < num_words); ++i) {
#pragma HLS PIPELINE II = 1
        pixels.write(axi_read(image, i));
    }
}

}  // namespace spvit

#endif  // SPVIT_WEIGHT_STREAM_HPP
