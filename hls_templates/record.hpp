// A record of the step table: 256 bits as they travel in the weight stream, sixteen lanes, the lowest bits first.
// hw/step_table.py packs it; step.hpp, which is rendered from there, unpacks it.
#ifndef SPVIT_RECORD_HPP
#define SPVIT_RECORD_HPP

#include "types.hpp"

namespace spvit {

constexpr int kRecordLanes = 16;
using Record = Vec<Int<16>, kRecordLanes>;

/// Bits First .. First + Bits - 1 of a record: wires.
template <int First, int Bits>
inline UInt<Bits> field(const Record& record) {
#pragma HLS INLINE
    UInt<64> value = 0;
FIELD_LANES:
    for (int lane = First / 16; 16 * lane < First + Bits; ++lane) {
#pragma HLS UNROLL
        const UInt<64> bits = UInt<64>(to_int(record[lane]) & 0xffff);
        value |= 16 * lane < First ? UInt<64>(bits >> (First - 16 * lane)) : UInt<64>(bits << (16 * lane - First));
    }
    return UInt<Bits>(value & ((UInt<64>(1) << Bits) - 1));
}

/// The table's checksum, a record further: rotate by one, XOR 32 bits at a time. Of the header its own bits are left out.
inline std::uint32_t add_to_checksum(std::uint32_t checksum, const Record& record, bool is_header) {
#pragma HLS INLINE
    std::uint32_t folded = 0;
FOLD_RECORD:
    for (int lane = 0; lane < kRecordLanes; ++lane) {
#pragma HLS UNROLL
        const std::uint32_t bits = static_cast<std::uint32_t>(to_int(record[lane])) & 0xffffU;
        if (lane >= 2 || !is_header) folded ^= bits << (16 * (lane % 2));
    }
    return ((checksum << 1) | (checksum >> 31)) ^ folded;
}

}  // namespace spvit

#endif  // SPVIT_RECORD_HPP
