// ap_int<W> and ap_uint<W> as the scheduler compiles them: W-bit integers of LLVM, with the widths of results and the
// shifts in both directions that AMD's ap_int has. For reading the design's data flow; nothing is ever run with it.
#ifndef SPVIT_SCHEDULE_AP_INT_H
#define SPVIT_SCHEDULE_AP_INT_H

#include <stddef.h>
#include <stdint.h>

namespace hls_schedule {

template <int W, bool Signed>
struct Bits;
template <int W>
struct Bits<W, true> {
    using type = _BitInt(W);
};
template <>
struct Bits<1, true> {
    using type = _BitInt(2);  // clang has no signed integer of one bit
};
template <int W>
struct Bits<W, false> {
    using type = unsigned _BitInt(W);
};

template <bool Condition, class T>
struct EnableIf {};
template <class T>
struct EnableIf<true, T> {
    using type = T;
};

constexpr int larger(int a, int b) { return a > b ? a : b; }

}  // namespace hls_schedule

template <int W, bool Signed>
struct ap_int_base;
template <int W>
struct ap_int;
template <int W>
struct ap_uint;

namespace hls_schedule {

/// What is an integer: its width and sign.
template <class T>
struct Integer {
    static constexpr bool is = false;
    static constexpr bool is_ap = false;
    static constexpr int width = 1;
    static constexpr bool sign = true;
};
#define SPVIT_INTEGER(T, W, S)                  \
    template <>                                 \
    struct Integer<T> {                         \
        static constexpr bool is = true;        \
        static constexpr bool is_ap = false;    \
        static constexpr int width = W;         \
        static constexpr bool sign = S;         \
        using bits = typename Bits<W, S>::type; \
        static bits get(T x) { return x; }      \
    };
SPVIT_INTEGER(bool, 1, false)
SPVIT_INTEGER(char, 8, true)
SPVIT_INTEGER(signed char, 8, true)
SPVIT_INTEGER(unsigned char, 8, false)
SPVIT_INTEGER(short, 16, true)
SPVIT_INTEGER(unsigned short, 16, false)
SPVIT_INTEGER(int, 32, true)
SPVIT_INTEGER(unsigned int, 32, false)
SPVIT_INTEGER(long, 64, true)
SPVIT_INTEGER(unsigned long, 64, false)
SPVIT_INTEGER(long long, 64, true)
SPVIT_INTEGER(unsigned long long, 64, false)
#undef SPVIT_INTEGER

template <class T, int W, bool S>
struct ApInteger {
    static constexpr bool is = true;
    static constexpr bool is_ap = true;
    static constexpr int width = W;
    static constexpr bool sign = S;
    using bits = typename Bits<W, S>::type;
    static bits get(const T& x) { return x.V; }
};
template <int W, bool S>
struct Integer<ap_int_base<W, S>> : ApInteger<ap_int_base<W, S>, W, S> {};
template <int W>
struct Integer<ap_int<W>> : ApInteger<ap_int<W>, W, true> {};
template <int W>
struct Integer<ap_uint<W>> : ApInteger<ap_uint<W>, W, false> {};

/// Two integers of which one is an ap_int.
template <class A, class B, class Result>
using IfMixed =
    typename EnableIf<Integer<A>::is && Integer<B>::is && (Integer<A>::is_ap || Integer<B>::is_ap), Result>::type;

template <class A, class B>
struct Widths {
    static constexpr int a = Integer<A>::width;
    static constexpr int b = Integer<B>::width;
    static constexpr bool sign_a = Integer<A>::sign;
    static constexpr bool sign_b = Integer<B>::sign;
    static constexpr bool sign = sign_a || sign_b;
    /// That holds either.
    static constexpr int both = larger(a + (sign && !sign_a ? 1 : 0), b + (sign && !sign_b ? 1 : 0));
    static constexpr int sum = both + 1;
    static constexpr int product = a + b;
};

}  // namespace hls_schedule

template <int W, bool Signed>
struct ap_int_base {
    static constexpr int width = W;
    using Raw = typename hls_schedule::Bits<W, Signed>::type;
    Raw V;

    ap_int_base() = default;
    template <class T, class = typename hls_schedule::EnableIf<hls_schedule::Integer<T>::is, int>::type>
    ap_int_base(T x) : V(static_cast<Raw>(hls_schedule::Integer<T>::get(x))) {}

    operator typename hls_schedule::EnableIf<true, long long>::type() const { return static_cast<long long>(V); }
    int to_int() const { return static_cast<int>(V); }
    unsigned to_uint() const { return static_cast<unsigned>(V); }
    long long to_int64() const { return static_cast<long long>(V); }
    unsigned long long to_uint64() const { return static_cast<unsigned long long>(V); }
    int length() const { return W; }

    int countLeadingZeros() const {
        using Whole = typename hls_schedule::Bits<W, false>::type;
        return __builtin_clzg(static_cast<Whole>(V), W);
    }
    ap_int_base<W, false> range(int high, int low) const {
        using Whole = typename hls_schedule::Bits<W, false>::type;
        ap_int_base<W, false> result;
        result.V = (static_cast<Whole>(V) >> low) & (static_cast<Whole>(~Whole(0)) >> (W - 1 - (high - low)));
        return result;
    }
    ap_int_base<W, false> operator()(int high, int low) const { return range(high, low); }
    bool operator[](int bit) const { return static_cast<bool>((V >> bit) & 1); }
    bool get_bit(int bit) const { return (*this)[bit]; }
    bool operator!() const { return V == 0; }
    ap_int_base operator~() const {
        ap_int_base result;
        result.V = static_cast<Raw>(~V);
        return result;
    }
    ap_int_base<W + 1, true> operator-() const {
        ap_int_base<W + 1, true> result;
        using Wide = typename hls_schedule::Bits<W + 1, true>::type;
        result.V = static_cast<Wide>(-static_cast<Wide>(V));
        return result;
    }
    ap_int_base& operator++() {
        V = static_cast<Raw>(V + 1);
        return *this;
    }
    ap_int_base& operator--() {
        V = static_cast<Raw>(V - 1);
        return *this;
    }
};

#define SPVIT_ASSIGN(Type, op)            \
    template <class T>                    \
    Type& operator op## = (T x) {         \
        return *this = Type((*this)op x); \
    }

template <int W>
struct ap_int : ap_int_base<W, true> {
    using Base = ap_int_base<W, true>;
    ap_int() = default;
    template <class T, class = typename hls_schedule::EnableIf<hls_schedule::Integer<T>::is, int>::type>
    ap_int(T x) : Base(x) {}
    SPVIT_ASSIGN(ap_int, +)
    SPVIT_ASSIGN(ap_int, -)
    SPVIT_ASSIGN(ap_int, *)
    SPVIT_ASSIGN(ap_int, &)
    SPVIT_ASSIGN(ap_int, |)
    SPVIT_ASSIGN(ap_int, ^)
    SPVIT_ASSIGN(ap_int, <<)
    SPVIT_ASSIGN(ap_int, >>)
};

template <int W>
struct ap_uint : ap_int_base<W, false> {
    using Base = ap_int_base<W, false>;
    ap_uint() = default;
    template <class T, class = typename hls_schedule::EnableIf<hls_schedule::Integer<T>::is, int>::type>
    ap_uint(T x) : Base(x) {}
    SPVIT_ASSIGN(ap_uint, +)
    SPVIT_ASSIGN(ap_uint, -)
    SPVIT_ASSIGN(ap_uint, *)
    SPVIT_ASSIGN(ap_uint, &)
    SPVIT_ASSIGN(ap_uint, |)
    SPVIT_ASSIGN(ap_uint, ^)
    SPVIT_ASSIGN(ap_uint, <<)
    SPVIT_ASSIGN(ap_uint, >>)
};
#undef SPVIT_ASSIGN

#define SPVIT_BINARY(op, W)                                                                                          \
    template <class A, class B>                                                                                      \
    inline hls_schedule::IfMixed<A, B, ap_int_base<hls_schedule::Widths<A, B>::W, hls_schedule::Widths<A, B>::sign>> \
    operator op(A a, B b) {                                                                                          \
        using Result = ap_int_base<hls_schedule::Widths<A, B>::W, hls_schedule::Widths<A, B>::sign>;                 \
        using Raw = typename Result::Raw;                                                                            \
        Result result;                                                                                               \
        result.V = static_cast<Raw>(static_cast<Raw>(hls_schedule::Integer<A>::get(a))                               \
                                        op static_cast<Raw>(hls_schedule::Integer<B>::get(b)));                      \
        return result;                                                                                               \
    }
SPVIT_BINARY(+, sum)
SPVIT_BINARY(*, product)
SPVIT_BINARY(&, both)
SPVIT_BINARY(|, both)
SPVIT_BINARY(^, both)
SPVIT_BINARY(/, both)
SPVIT_BINARY(%, both)
#undef SPVIT_BINARY

/// A difference has a sign.
template <class A, class B>
inline hls_schedule::IfMixed<A, B, ap_int_base<hls_schedule::Widths<A, B>::sum, true>> operator-(A a, B b) {
    using Result = ap_int_base<hls_schedule::Widths<A, B>::sum, true>;
    using Raw = typename Result::Raw;
    Result result;
    result.V = static_cast<Raw>(static_cast<Raw>(hls_schedule::Integer<A>::get(a)) -
                                static_cast<Raw>(hls_schedule::Integer<B>::get(b)));
    return result;
}

#define SPVIT_COMPARISON(op)                                                                                       \
    template <class A, class B>                                                                                    \
    inline hls_schedule::IfMixed<A, B, bool> operator op(A a, B b) {                                               \
        using Raw =                                                                                                \
            typename hls_schedule::Bits<hls_schedule::Widths<A, B>::both, hls_schedule::Widths<A, B>::sign>::type; \
        return static_cast<Raw>(hls_schedule::Integer<A>::get(a))                                                  \
            op static_cast<Raw>(hls_schedule::Integer<B>::get(b));                                                 \
    }
SPVIT_COMPARISON(==)
SPVIT_COMPARISON(!=)
SPVIT_COMPARISON(<)
SPVIT_COMPARISON(>)
SPVIT_COMPARISON(<=)
SPVIT_COMPARISON(>=)
#undef SPVIT_COMPARISON

namespace hls_schedule {

template <class A, class Amount>
using IfShift =
    typename EnableIf<Integer<A>::is_ap && Integer<Amount>::is, ap_int_base<Integer<A>::width, Integer<A>::sign>>::type;

/// A signed amount may be negative: both directions are built, as AMD's ap_int builds them.
template <bool Left, class A, class Amount>
inline ap_int_base<Integer<A>::width, Integer<A>::sign> shifted(A a, Amount amount) {
    using Result = ap_int_base<Integer<A>::width, Integer<A>::sign>;
    using Raw = typename Result::Raw;
    const auto n = Integer<Amount>::get(amount);
    const Raw x = a.V;
    Result result;
    if (Integer<Amount>::sign && n < 0) {
        const Raw back = static_cast<Raw>(-n);
        result.V = Left ? static_cast<Raw>(x >> back) : static_cast<Raw>(x << back);
    } else {
        result.V = Left ? static_cast<Raw>(x << static_cast<Raw>(n)) : static_cast<Raw>(x >> static_cast<Raw>(n));
    }
    return result;
}

}  // namespace hls_schedule

template <class A, class Amount>
inline hls_schedule::IfShift<A, Amount> operator<<(A a, Amount amount) {
    return hls_schedule::shifted<true>(a, amount);
}
template <class A, class Amount>
inline hls_schedule::IfShift<A, Amount> operator>>(A a, Amount amount) {
    return hls_schedule::shifted<false>(a, amount);
}

#endif  // SPVIT_SCHEDULE_AP_INT_H
