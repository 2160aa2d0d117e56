// How operands are laid out for tiles.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "cpu/simd_math.h"
#include "cpu/tile_vectors.h"
#include "cpu/tiles.h"

namespace mhmoe::cpu {
namespace {

// kVectorFloats units of a row, from its element `from` on.
template <class T>
VectorOfUnits<Unit<T>> load_units(const T* from) {
  if constexpr (kPaired<T> || std::is_same_v<T, float>) {
    return load<VectorOfUnits<Unit<T>>>(from);
  } else {
    std::array<float, kVectorFloats> row;
    load_row(row.data(), from, kVectorFloats);
    return load<Floats>(row.data());
  }
}

// The unit at inner position p of a row.
template <class T>
Unit<T> unit_at(const T* row, int64_t p, int64_t k) {
  if constexpr (kPaired<T>) {
    const uint32_t low = row[2 * p].bits;
    const uint32_t high = 2 * p + 1 < k ? row[2 * p + 1].bits : 0;
    return static_cast<int32_t>(low | high << 16);
  } else {
    return static_cast<float>(row[p]);
  }
}

// One unit of each of `count` neighbouring columns, from two rows (one, where units are no pairs).
template <class T>
void interleave_rows(Unit<T>* out, const T* first, const T* second, int64_t count) {
  if constexpr (kPaired<T>) {
#pragma omp simd
    for (int64_t c = 0; c < count; ++c) {
      out[c] = static_cast<int32_t>(first[c].bits | static_cast<uint32_t>(second[c].bits) << 16);
    }
  } else {
    load_row(out, first, count);
  }
}

// Row p of units of a matrix stored with the inner dimension along its rows.
template <class T>
void unit_row(Unit<T>* out, const T* data, int64_t ld, int64_t p, int64_t k, int64_t count) {
  if constexpr (kPaired<T>) {
    if (2 * p + 1 == k) {
      for (int64_t c = 0; c < count; ++c) out[c] = data[2 * p * ld + c].bits;
      return;
    }
    interleave_rows(out, data + 2 * p * ld, data + (2 * p + 1) * ld, count);
  } else {
    interleave_rows(out, data + p * ld, data, count);
  }
}

// One round of transposing a square matrix whose rows are vectors: in every square of 2 kBit rows and columns, the
// kBit x kBit block at the upper right and the one at the lower left change places. After the rounds 1, 2, 4 ... up to
// half the matrix, element (r, c) is at (c, r): round kBit has exchanged that bit of r and of c.
template <int kBit, class Vector, int... kLanes>
void exchange_blocks(std::array<Vector, kVectorFloats>& rows, std::integer_sequence<int, kLanes...> /*lanes*/) {
#pragma GCC unroll 16
  for (int r = 0; r < kVectorFloats; ++r) {
    if ((r & kBit) != 0) continue;
    const Vector upper = rows[r], lower = rows[r + kBit];
    rows[r] = __builtin_shufflevector(upper, lower, ((kLanes & kBit) != 0 ? kVectorFloats + kLanes - kBit : kLanes)...);
    rows[r + kBit] =
        __builtin_shufflevector(upper, lower, ((kLanes & kBit) != 0 ? kVectorFloats + kLanes : kLanes + kBit)...);
  }
}

template <class Vector>
void transpose(std::array<Vector, kVectorFloats>& rows) {
  constexpr auto kLanes = std::make_integer_sequence<int, kVectorFloats>();
  exchange_blocks<1>(rows, kLanes);
  exchange_blocks<2>(rows, kLanes);
  exchange_blocks<4>(rows, kLanes);
  if constexpr (kVectorFloats == 16) exchange_blocks<8>(rows, kLanes);
}

// A panel of columns that lie along rows in memory. Gathered one by one, the units of a panel's row would each come
// from a cache line of its own; so squares of kVectorFloats columns and as many units are read as whole vectors, turned
// round in registers, and written as whole vectors. Only what is left beside the squares goes one by one.
template <class T>
void panel_of_rows(Unit<T>* panel, const T* data, int64_t ld, int64_t k, int64_t cols) {
  constexpr int64_t kPerUnit = kPaired<T> ? 2 : 1;
  const int64_t whole = k / kPerUnit / kVectorFloats * kVectorFloats;
  for (int64_t first = 0; first < kTileCols; first += kVectorFloats) {
    const int64_t here = std::clamp<int64_t>(cols - first, 0, kVectorFloats);
    int64_t p = 0;
    for (; here == kVectorFloats && p < whole; p += kVectorFloats) {
      std::array<VectorOfUnits<Unit<T>>, kVectorFloats> square;
      for (int r = 0; r < kVectorFloats; ++r) square[r] = load_units(data + (first + r) * ld + p * kPerUnit);
      transpose(square);
      for (int r = 0; r < kVectorFloats; ++r) {
        std::memcpy(panel + (p + r) * kTileCols + first, &square[r], sizeof(square[r]));
      }
    }
    for (; p < units<T>(k); ++p) {
      Unit<T>* to = panel + p * kTileCols + first;
      for (int64_t c = 0; c < here; ++c) to[c] = unit_at(data + (first + c) * ld, p, k);
      std::fill(to + here, to + kVectorFloats, Unit<T>{});
    }
  }
}

}  // namespace

template <class T>
Left<T> left_operand(Scratch& room, Stored<T> a, int64_t m, int64_t k) {
  const int64_t count = units<T>(k);
  if (a.transposed) {
    // Rows a cache line longer than needed: powers of two would all fall into the same places of the cache.
    const int64_t stride = m + kVectorFloats;
    auto* out = static_cast<Unit<T>*>(room.bytes(static_cast<size_t>(count * stride) * sizeof(Unit<T>)));
    for (int64_t p = 0; p < count; ++p) unit_row(out + p * stride, a.data, a.ld, p, k, m);
    return {out, 1, stride};
  }
  if constexpr (std::is_same_v<T, float>) {
    return {a.data, a.ld, 1};
  } else {
    if (kPaired<T> && k % 2 == 0 && a.ld % 2 == 0 && reinterpret_cast<uintptr_t>(a.data) % sizeof(Pair) == 0) {
      return {reinterpret_cast<const Unit<T>*>(a.data), a.ld / 2, 1};
    }
    auto* out = static_cast<Unit<T>*>(room.bytes(static_cast<size_t>(count * m) * sizeof(Unit<T>)));
    for (int64_t i = 0; i < m; ++i) {
      const T* row = a.data + i * a.ld;
      if constexpr (kPaired<T>) {
        for (int64_t p = 0; p < count; ++p) out[i * count + p] = unit_at(row, p, k);
      } else {
        load_row(out + i * count, row, k);
      }
    }
    return {out, count, 1};
  }
}

template <class T>
Right<T> right_operand(Scratch& room, Stored<T> b, int64_t k, int64_t n) {
  const int64_t count = units<T>(k), panels = (n + kTileCols - 1) / kTileCols;
  auto* out = static_cast<Unit<T>*>(room.bytes(static_cast<size_t>(panels * count) * kTileCols * sizeof(Unit<T>)));
  for (int64_t panel = 0; panel < panels; ++panel) {
    const int64_t first = panel * kTileCols, cols = std::min<int64_t>(kTileCols, n - first);
    Unit<T>* to = out + panel * count * kTileCols;
    if (b.transposed) {
      panel_of_rows(to, b.data + first * b.ld, b.ld, k, cols);
      continue;
    }
    for (int64_t p = 0; p < count; ++p, to += kTileCols) {
      if (cols == kTileCols) {  // apart for speed: the compiler knows how long the loop is
        unit_row(to, b.data + first, b.ld, p, k, kTileCols);
      } else {
        unit_row(to, b.data + first, b.ld, p, k, cols);
        std::fill(to + cols, to + kTileCols, Unit<T>{});
      }
    }
  }
  return {out, count};
}

template Left<float> left_operand(Scratch&, Stored<float>, int64_t, int64_t);
template Left<bfloat16> left_operand(Scratch&, Stored<bfloat16>, int64_t, int64_t);
template Right<float> right_operand(Scratch&, Stored<float>, int64_t, int64_t);
template Right<bfloat16> right_operand(Scratch&, Stored<bfloat16>, int64_t, int64_t);

}  // namespace mhmoe::cpu
