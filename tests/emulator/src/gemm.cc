#include "gemm.h"

#include <algorithm>
#include <bit>

namespace emulator {
namespace {

// A block of c is kept in float while panels of k are packed beside it: small enough for the caches of any CPU.
constexpr int64_t kBlockRows = 64, kBlockCols = 64, kPanel = 256;
constexpr int64_t kLanes = 4, kTileCols = 4;
static_assert(kBlockRows % (2 * kLanes) == 0 && kBlockCols % kTileCols == 0);
using Vector = float __attribute__((vector_size(kLanes * sizeof(float)), may_alias));

struct Buffers {
  alignas(64) float a[kPanel][kBlockRows];
  alignas(64) float b[kPanel][kBlockCols];
  alignas(64) float c[kBlockCols][kBlockRows];
};

float widen(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t narrow(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float tf32(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return value != value ? value : std::bit_cast<float>((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu);
}

float element(const void* data, Element type, int64_t i) {
  return type == Element::kF32 ? static_cast<const float*>(data)[i] : widen(static_cast<const uint16_t*>(data)[i]);
}

struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// to[p][i] = the operand's element (outer.begin + i, inner.begin + p); zero beyond the range up to kWidth. `inner` is
// the dimension that is summed over.
template <int64_t kWidth>
void pack(float (*to)[kWidth], const Product& product, const Operand& from, bool inner_is_stored_row, Range outer,
          Range inner) {
  const int64_t inner_step = inner_is_stored_row ? 1 : from.stride, outer_step = inner_is_stored_row ? from.stride : 1;
  for (int64_t p = 0; p < inner.size(); ++p) {
    for (int64_t i = 0; i < outer.size(); ++i) {
      to[p][i] = element(from.data, product.in, (inner.begin + p) * inner_step + (outer.begin + i) * outer_step);
    }
    std::fill(to[p] + outer.size(), to[p] + kWidth, 0.0f);
  }
  if (!product.round_to_tf32) return;
  for (int64_t p = 0; p < inner.size(); ++p) std::transform(to[p], to[p] + kWidth, to[p], tf32);
}

// c[col..][row..] += a's rows times b's columns, one tile of 8 x 4 in registers.
void multiply_tile(Buffers& buffers, int64_t row, int64_t col, int64_t depth) {
  Vector sums[kTileCols][2];
  for (int64_t j = 0; j < kTileCols; ++j) {
    for (int64_t h = 0; h < 2; ++h) sums[j][h] = *reinterpret_cast<Vector*>(&buffers.c[col + j][row + h * kLanes]);
  }
  for (int64_t p = 0; p < depth; ++p) {
    const auto* a = reinterpret_cast<const Vector*>(&buffers.a[p][row]);
    const Vector low = a[0], high = a[1];
    for (int64_t j = 0; j < kTileCols; ++j) {
      const float b = buffers.b[p][col + j];
      sums[j][0] += low * b;
      sums[j][1] += high * b;
    }
  }
  for (int64_t j = 0; j < kTileCols; ++j) {
    for (int64_t h = 0; h < 2; ++h) *reinterpret_cast<Vector*>(&buffers.c[col + j][row + h * kLanes]) = sums[j][h];
  }
}

void multiply_panel(Buffers& buffers, const Product& product, Range rows, Range cols, Range inner) {
  pack(buffers.a, product, product.a, product.a.transposed, rows, inner);
  pack(buffers.b, product, product.b, !product.b.transposed, cols, inner);
  for (int64_t col = 0; col < cols.size(); col += kTileCols) {
    for (int64_t row = 0; row < rows.size(); row += 2 * kLanes) multiply_tile(buffers, row, col, inner.size());
  }
  if (!product.reduce_narrow || product.out == Element::kF32) return;
  for (auto& column : buffers.c) {
    for (float& sum : column) sum = widen(narrow(sum));
  }
}

void store(const Buffers& buffers, const Product& product, Range rows, Range cols) {
  for (int64_t j = 0; j < cols.size(); ++j) {
    for (int64_t i = 0; i < rows.size(); ++i) {
      const int64_t at = (cols.begin + j) * product.c_stride + rows.begin + i;
      float value = product.alpha * buffers.c[j][i];
      if (product.beta != 0) value += product.beta * element(product.c, product.out, at);
      if (product.out == Element::kF32) {
        static_cast<float*>(product.c)[at] = value;
      } else {
        static_cast<uint16_t*>(product.c)[at] = narrow(value);
      }
    }
  }
}

}  // namespace

void multiply(const Product& product) {
  // Not of each thread, which would be shared memory of every kernel: one product runs at a time.
  static Buffers buffers;
  for (int64_t col = 0; col < product.n; col += kBlockCols) {
    const Range cols = {col, std::min(col + kBlockCols, product.n)};
    for (int64_t row = 0; row < product.m; row += kBlockRows) {
      const Range rows = {row, std::min(row + kBlockRows, product.m)};
      std::fill(&buffers.c[0][0], &buffers.c[0][0] + kBlockCols * kBlockRows, 0.0f);
      for (int64_t p = 0; p < product.k; p += kPanel) {
        multiply_panel(buffers, product, rows, cols, {p, std::min(p + kPanel, product.k)});
      }
      store(buffers, product, rows, cols);
    }
  }
}

}  // namespace emulator
