// Matrix products on the calling thread, made of tiles that stay in registers: for the many small ones of experts and
// attention heads, whose bits must not depend on where a row lies or on how many there are.
//
// The trick is BLIS's: a tile of kTileRows x kTileCols sums lives in vector registers while it runs over the inner
// dimension. Each step takes kTileCols neighbouring values of the right operand, which was laid out in just that order
// (panels), and one value of each of the tile's rows. Every sum is added up in the order of the inner dimension.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "cpu/scratch.h"

namespace mhmoe::cpu {

#if defined(__AVX512F__)
inline constexpr int kVectorFloats = 16, kTileRows = 12;
#else
inline constexpr int kVectorFloats = 8, kTileRows = 6;
#endif
inline constexpr int kTileCols = 2 * kVectorFloats;

// Whether tiles multiply T as pairs of bf16 that are neighbours in the inner dimension (the second of an odd last one
// is zero); otherwise they multiply floats, to which bf16 is converted.
#if defined(__AVX512BF16__)
template <class T>
inline constexpr bool kPaired = std::is_same_v<T, bfloat16>;
#else
template <class T>
inline constexpr bool kPaired = false;
#endif

// What is multiplied at a time.
using Pair = int32_t;
template <class T>
using Unit = std::conditional_t<kPaired<T>, Pair, float>;
// Units along an inner dimension of k.
template <class T>
constexpr int64_t units(int64_t k) {
  return kPaired<T> ? (k + 1) / 2 : k;
}

// A matrix in memory, row-major, its rows `ld` elements apart; transposed: its transpose is meant.
template <class T>
struct Stored {
  const T* data;
  int64_t ld;
  bool transposed = false;
};

// The left operand [m, k]: unit (i, p) at data[i * row + p * inner].
template <class T>
struct Left {
  const Unit<T>* data;
  int64_t row, inner;
};

// The right operand [k, n]: panels of kTileCols columns, each [units][kTileCols], the last one filled up with zeros.
template <class T>
struct Right {
  const Unit<T>* data;
  int64_t units;
};

// Operands in the form that tiles read; a left one stays where it is if it can. `room` is used as long as the result.
template <class T>
Left<T> left_operand(Scratch& room, Stored<T> a, int64_t m, int64_t k);
template <class T>
Right<T> right_operand(Scratch& room, Stored<T> b, int64_t k, int64_t n);

// Where a product goes: out[m, n], rows `ld` elements apart.
template <class Out>
struct Product2d {
  Out* data;
  int64_t ld;
  const float* bias = nullptr;  // [n], added to every row
  bool add = false;             // to what out holds; only where that is f32
};

// Memory that the next product of this thread will touch, asked for while the present one computes: a cache line a
// step of a tile. Processors fetch ahead only what is read in order, and blocks of matrices are not.
class Ahead {
 public:
  // Rows of `row_bytes`, `stride` bytes apart; none are nothing. At most kRegions of them.
  void add(const void* data, int64_t rows, int64_t row_bytes, int64_t stride);
  template <class T>
  void add(const T* data, int64_t rows, int64_t cols, int64_t ld) {
    add(static_cast<const void*>(data), rows, cols * static_cast<int64_t>(sizeof(T)),
        ld * static_cast<int64_t>(sizeof(T)));
  }
  int64_t lines() const { return lines_; }
  // The next line, as long as there are any.
  const void* next();

 private:
  static constexpr int64_t kRegions = 3, kLine = 64;
  struct Region {
    const std::byte* row;
    int64_t rows, row_bytes, stride;
  };

  std::array<Region, kRegions> regions_{};
  int64_t count_ = 0, lines_ = 0;
  int64_t region_ = 0, offset_ = 0;
};

// out = left[m, k] right[k, n], m and n at least 1, where right may have more rows than k: it is its first ones then,
// and with pairs k is even. A sum's bits depend on its row, its column and k alone.
template <class T, class Out>
void multiply(Product2d<Out> out, Left<T> left, Right<T> right, int64_t m, int64_t n, int64_t k, Ahead ahead = {});

}  // namespace mhmoe::cpu
