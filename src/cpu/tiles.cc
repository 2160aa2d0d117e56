#include "cpu/tiles.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "cpu/simd_math.h"
#include "cpu/tile_vectors.h"

namespace mhmoe::cpu {
namespace {

Floats multiply_add(Floats sum, Floats a, Floats b) {
  return sum + a * b;
}
#if defined(__AVX512BF16__)
Floats multiply_add(Floats sum, Ints a, Ints b) {
  return reinterpret_cast<Floats>(
      _mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
}
#endif

void store(float* to, Floats values) {
  std::memcpy(to, &values, sizeof(values));
}
// As bfloat16's constructor does it.
void store(bfloat16* to, Floats values) {
  using Bits = VectorOf<uint32_t>;
  const auto bits = reinterpret_cast<Bits>(values);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const auto out = (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded;
  using Halves __attribute__((vector_size(kVectorFloats * sizeof(uint16_t)))) = uint16_t;
  const auto halves = __builtin_convertvector(out, Halves);
  std::memcpy(static_cast<void*>(to), &halves, sizeof(halves));
}

// A vector of sums, with what is added to them, to where they go.
template <class Out>
[[gnu::always_inline]] inline void finish(Out* to, const float* bias, bool add, Floats sums) {
  if (bias != nullptr) sums += load<Floats>(bias);
  if constexpr (std::is_same_v<Out, float>) {
    if (add) sums += load<Floats>(to);
  }
  store(to, sums);
}

}  // namespace

[[gnu::always_inline]] inline const void* Ahead::next() {
  Region& region = regions_[region_];
  const std::byte* line = region.row + offset_;
  offset_ += kLine;
  if (offset_ >= region.row_bytes) {
    offset_ = 0;
    region.row += region.stride;
    if (--region.rows == 0) ++region_;
  }
  return line;
}

namespace {

// kRows x kTileCols sums over all of the inner dimension, of whole panels.
template <class T, class Out, int kRows>
void tile(const Product2d<Out>& out, Left<T> left, const Unit<T>* panel, int64_t count, Ahead& ahead, int64_t lines,
          const Out* soon) {
  using Vector = VectorOfUnits<Unit<T>>;
  // Plain arrays, all loops over rows unrolled: the compiler then keeps every sum in a register.
  Floats sums[kRows][2] = {};
  const Unit<T>* a = left.data;
  const auto step = [&]() __attribute__((always_inline)) {
    const auto first = load<Vector>(panel), second = load<Vector>(panel + kVectorFloats);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      Unit<T> unit;
      std::memcpy(&unit, a + r * left.row, sizeof(unit));  // its memory may hold bf16
      const Vector value = unit - Vector{};  // the same in all lanes: a scalar beside a vector becomes one
      sums[r][0] = multiply_add(sums[r][0], value, first);
      sums[r][1] = multiply_add(sums[r][1], value, second);
    }
    a += left.inner;
    panel += kTileCols;
  };
  int64_t p = 0;
  if (out.add) {
    for (; p < std::min<int64_t>(count, 2 * kRows); ++p) {
      __builtin_prefetch(soon + (p >> 1) * out.ld + (p & 1) * kVectorFloats, 0, 2);
      if (p < lines) __builtin_prefetch(ahead.next(), 0, 2);
      step();
    }
  }
  for (; p < lines; ++p) {
    __builtin_prefetch(ahead.next(), 0, 2);
    step();
  }
  for (; p < count; ++p) step();
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
    Out* to = out.data + r * out.ld;
    finish(to, out.bias, out.add, sums[r][0]);
    finish(to + kVectorFloats, out.bias == nullptr ? nullptr : out.bias + kVectorFloats, out.add, sums[r][1]);
  }
}

template <class T, class Out>
using Tile = void (*)(const Product2d<Out>&, Left<T>, const Unit<T>*, int64_t, Ahead&, int64_t, const Out*);

template <class T, class Out, int... kRows>
constexpr std::array<Tile<T, Out>, sizeof...(kRows)> tiles_of(std::integer_sequence<int, kRows...> /*rows*/) {
  return {tile<T, Out, kRows + 1>...};
}

// Tiles of 1, 2 ... kTileRows rows.
template <class T, class Out>
constexpr auto kTiles = tiles_of<T, Out>(std::make_integer_sequence<int, kTileRows>());

// A tile of fewer columns than a panel has: made apart, and copied.
template <class T, class Out>
void narrow_tile(Tile<T, float> whole, const Product2d<Out>& out, Left<T> left, const Unit<T>* panel, int64_t count,
                 int64_t rows, int64_t cols) {
  std::array<float, kTileRows * kTileCols> sums{};
  Ahead nothing;
  whole({sums.data(), kTileCols}, left, panel, count, nothing, 0, sums.data());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      Out& to = out.data[r * out.ld + c];
      float sum = sums[r * kTileCols + c];
      if (out.bias != nullptr) sum += out.bias[c];
      if constexpr (std::is_same_v<Out, float>) {
        if (out.add) sum += to;
      }
      store_value(to, sum);
    }
  }
}

}  // namespace

void Ahead::add(const void* data, int64_t rows, int64_t row_bytes, int64_t stride) {
  if (rows == 0) return;
  MHMOE_CHECK(count_ < kRegions, "too many regions to fetch ahead");
  regions_[count_++] = {static_cast<const std::byte*>(data), rows, row_bytes, stride};
  lines_ += rows * ((row_bytes + kLine - 1) / kLine);
}

template <class T, class Out>
void multiply(Product2d<Out> out, Left<T> left, Right<T> right, int64_t m, int64_t n, int64_t k, Ahead ahead) {
  constexpr int64_t kTilesAhead = 4;
  // Tiles of nearly the same height: a low last one would use the registers badly.
  const int64_t count = units<T>(k), tiles = (m + kTileRows - 1) / kTileRows, panels = (n + kTileCols - 1) / kTileCols;
  const int64_t lines = std::min(count, ahead.lines() / (tiles * std::max<int64_t>(n / kTileCols, 1)));
  // A panel stays in the first cache for all rows; but sums that are added to what memory holds are taken along its
  // rows, as processors fetch ahead.
  const int64_t row_step = out.add ? panels : 1, col_step = out.add ? 1 : tiles;
  const auto first_row = [&](int64_t i) { return m * (i / row_step % tiles) / tiles; };
  const auto first_col = [&](int64_t i) { return i / col_step % panels * kTileCols; };
  for (int64_t i = 0; i < tiles * panels; ++i) {
    const int64_t row = first_row(i), col = first_col(i), t = i / row_step % tiles;
    const int64_t rows = m * (t + 1) / tiles - row;
    const Unit<T>* panel = right.data + col * right.units;
    const Product2d<Out> part = {out.data + row * out.ld + col, out.ld, out.bias == nullptr ? nullptr : out.bias + col,
                                 out.add};
    const Left<T> some = {left.data + row * left.row, left.row, left.inner};
    if (n - col >= kTileCols) {
      const Out* soon = out.data + first_row(i + kTilesAhead) * out.ld + first_col(i + kTilesAhead);
      kTiles<T, Out>[rows - 1](part, some, panel, count, ahead, lines, soon);
    } else {
      narrow_tile<T, Out>(kTiles<T, float>[rows - 1], part, some, panel, count, rows, n - col);
    }
  }
}

template void multiply(Product2d<float>, Left<float>, Right<float>, int64_t, int64_t, int64_t, Ahead);
template void multiply(Product2d<float>, Left<bfloat16>, Right<bfloat16>, int64_t, int64_t, int64_t, Ahead);
template void multiply(Product2d<bfloat16>, Left<bfloat16>, Right<bfloat16>, int64_t, int64_t, int64_t, Ahead);

}  // namespace mhmoe::cpu
