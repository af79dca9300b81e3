// hls::stream as the scheduler compiles it: each access one opaque call, its word in lanes behind that. And the marks
// that stand where pragmas stood.
#ifndef SPVIT_SCHEDULE_HLS_STREAM_H
#define SPVIT_SCHEDULE_HLS_STREAM_H

#include "ap_int.h"

extern "C" {
// a pragma of a loop or function; a pragma of a variable
void spvit_mark(int pragma);
void spvit_mark_variable(int pragma, const void* variable, long bytes, long value);
// an access, and the parts of the word that it brings or takes
int spvit_fifo_read(const void* stream, bool blocking);
bool spvit_fifo_success(int access);
void spvit_fifo_write(const void* stream, int access);
}

namespace hls_schedule {

template <int Bytes>
struct Lane;
#define SPVIT_LANE(Bytes, T)                                                                                 \
    extern "C" T spvit_fifo_get##Bytes(int access, int lane);                                                \
    extern "C" int spvit_fifo_put##Bytes(int access, int lane, T value);                                     \
    template <>                                                                                              \
    struct Lane<Bytes> {                                                                                     \
        using type = T;                                                                                      \
        static T get(int access, int lane) { return spvit_fifo_get##Bytes(access, lane); }                   \
        static int put(int access, int lane, T value) { return spvit_fifo_put##Bytes(access, lane, value); } \
    };
SPVIT_LANE(1, unsigned char)
SPVIT_LANE(2, unsigned short)
SPVIT_LANE(4, unsigned int)
SPVIT_LANE(8, unsigned long long)
#undef SPVIT_LANE

/// In what pieces a word passes: its lanes, if it has some, or the largest that divide it.
template <class T>
struct Pieces {
    static constexpr int bytes = sizeof(T) % 8 == 0 ? 8 : sizeof(T) % 4 == 0 ? 4 : sizeof(T) % 2 == 0 ? 2 : 1;
};
template <template <class, int> class Vector, class Element, int N>
struct Pieces<Vector<Element, N>> {
    static constexpr int bytes = sizeof(Element) > 8 ? 8 : sizeof(Element);
};

}  // namespace hls_schedule

namespace hls {

template <class T, int Depth = 0>
class stream {
    using Piece = hls_schedule::Lane<hls_schedule::Pieces<T>::bytes>;
    static constexpr int kPieces = sizeof(T) / sizeof(typename Piece::type);
    static_assert(sizeof(T) % sizeof(typename Piece::type) == 0, "a word must be whole pieces");

    static void take(int access, T& word) {
        typename Piece::type pieces[kPieces];
#pragma clang loop unroll(full)
        for (int i = 0; i < kPieces; ++i) pieces[i] = Piece::get(access, i);
        __builtin_memcpy(&word, pieces, sizeof(T));
    }

  public:
    stream() = default;
    stream(const char*) {}
    stream(const stream&) = delete;

    T read() {
        T word;
        take(spvit_fifo_read(this, true), word);
        return word;
    }
    void read(T& word) { word = read(); }
    bool read_nb(T& word) {
        const int access = spvit_fifo_read(this, false);
        const bool success = spvit_fifo_success(access);
        if (success) take(access, word);
        return success;
    }
    void write(const T& word) {
        typename Piece::type pieces[kPieces];
        __builtin_memcpy(pieces, &word, sizeof(T));
        int access = 0;
#pragma clang loop unroll(full)
        for (int i = 0; i < kPieces; ++i) access = Piece::put(access, i, pieces[i]);
        spvit_fifo_write(this, access);
    }
    bool write_nb(const T& word) {
        write(word);
        return true;
    }
    bool empty() const { return !spvit_fifo_success(spvit_fifo_read(this, false)); }

  private:
    int handle_;
};

}  // namespace hls

#endif  // SPVIT_SCHEDULE_HLS_STREAM_H
