// Door to the kernels' pure functions: arrays of int64 in and out, one call for many values.
#include <cstdint>

#include "ap_fixed.h"
#include "functions.hpp"
#include "inner_product.hpp"
#include "memory.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

using spvit::Int;
using spvit::to_int;
using spvit::Vec;
using In = const std::int64_t*;
using Out = std::int64_t*;

namespace {

std::int64_t wide(const Int<48>& x) { return static_cast<std::int64_t>(x); }

/// The vendor's own rounding: `Shift` fraction bits dropped by assignment.
template <int Shift>
std::int64_t assign_to_ap_fixed(std::int64_t acc) {
    ap_fixed<48, 48 - Shift> x;
    x.range(47, 0) = ap_int<48>(acc).range(47, 0);
    const ap_fixed<16, 16, AP_RND_CONV, AP_SAT> y = x;
    return y.to_int();
}

template <int Shift>
struct ApFixed {
    static std::int64_t assign(std::int64_t acc, int shift) {
        return shift == Shift ? assign_to_ap_fixed<Shift>(acc) : ApFixed<Shift - 1>::assign(acc, shift);
    }
};
template <>
struct ApFixed<-1> {
    static std::int64_t assign(std::int64_t, int) { return 0; }
};

template <int N>
Vec<Int<16>, N> lanes(In values) {
    Vec<Int<16>, N> vec;
    for (int i = 0; i < N; ++i) vec[i] = Int<16>(values[i]);
    return vec;
}

template <int N>
void inner_products(In a, In w, Out out, std::int64_t n) {
    using Fast = spvit::InnerProduct<true>;
    using Direct = spvit::InnerProduct<false>;
    for (std::int64_t i = 0; i < n; ++i) {
        const Vec<Int<16>, N> left = lanes<N>(a + i * N);
        const Vec<Int<16>, N> right = lanes<N>(w + i * N);
        out[i] = wide(Int<48>(Direct::sum(left, right) - Direct::term(left) - Direct::term(right)));
        out[n + i] = wide(Int<48>(Fast::sum(left, right) - Fast::term(left) - Fast::term(right)));
    }
}

template <int N>
void rotations(In values, In amount, Out out, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Vec<Int<16>, N> turned = spvit::rotate<N>(lanes<N>(values + i * N), static_cast<int>(amount[i]));
        for (int j = 0; j < N; ++j) out[i * N + j] = to_int(turned[j]);
    }
}

}  // namespace

EXPORT void requantize_16(In acc, In shift, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
        out[i] = to_int(spvit::requantize<16>(Int<48>(acc[i]), static_cast<int>(shift[i])));
    }
}

EXPORT void requantize_27(In acc, In shift, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
        out[i] = to_int(spvit::requantize<27>(Int<48>(acc[i]), static_cast<int>(shift[i])));
    }
}

EXPORT void saturate_16(In x, In, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = to_int(spvit::saturate<16>(Int<48>(x[i])));
}

EXPORT void ap_fixed_16(In acc, In shift, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = ApFixed<31>::assign(acc[i], static_cast<int>(shift[i]));
}

EXPORT void shift_left_48(In x, In shift, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
        out[i] = wide(spvit::shift_left<48>(Int<16>(x[i]), static_cast<int>(shift[i])));
    }
}

EXPORT void exp2_negative(In t, In, Out out, std::int64_t n, std::int64_t frac_bits) {
    for (std::int64_t i = 0; i < n; ++i) {
        out[i] = to_int(spvit::exp2_negative(Int<17>(t[i]), static_cast<int>(frac_bits)));
    }
}

EXPORT void gelu(In x, In, Out out, std::int64_t n, std::int64_t frac_bits) {
    const int bits = static_cast<int>(frac_bits);
    for (std::int64_t i = 0; i < n; ++i) {
        const spvit::GeluSegment s = spvit::gelu_segment(Int<16>(x[i]), bits);
        const Int<45> product = Int<45>(s.slope) * s.remainder;
        out[i] = wide(Int<48>(spvit::gelu_addend(s) + product));
    }
}

EXPORT void sigmoid(In x, In, Out out, std::int64_t n, std::int64_t frac_bits) {
    for (std::int64_t i = 0; i < n; ++i) {
        out[i] = to_int(spvit::sigmoid(Int<16>(x[i]), static_cast<int>(frac_bits)));
    }
}

EXPORT void reciprocal(In s, In, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
        const spvit::Reciprocal r = spvit::reciprocal(Int<41>(s[i]));
        out[i] = to_int(r.mantissa);
        out[n + i] = r.exponent;
    }
}

EXPORT void reciprocal_sqrt(In v, In, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
        const spvit::Reciprocal r = spvit::reciprocal_sqrt(Int<55>(v[i]));
        out[i] = to_int(r.mantissa);
        out[n + i] = r.exponent;
    }
}

EXPORT void divide_15(In dividend, In divisor, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
        out[i] = to_int(spvit::divide<15, 16>(Int<48>(dividend[i]), spvit::reciprocal(Int<41>(divisor[i]))));
    }
}

EXPORT void divide_22(In dividend, In divisor, Out out, std::int64_t n, std::int64_t) {
    for (std::int64_t i = 0; i < n; ++i) {
        out[i] = to_int(spvit::divide<22, 24>(Int<48>(dividend[i]), spvit::reciprocal(Int<41>(divisor[i]))));
    }
}

EXPORT void inner_product(In a, In w, Out out, std::int64_t n, std::int64_t tile_in) {
    tile_in == 8    ? inner_products<8>(a, w, out, n)
    : tile_in == 16 ? inner_products<16>(a, w, out, n)
                    : inner_products<128>(a, w, out, n);
}

EXPORT void rotate(In values, In amount, Out out, std::int64_t n, std::int64_t size) {
    size == 8 ? rotations<8>(values, amount, out, n) : rotations<64>(values, amount, out, n);
}
