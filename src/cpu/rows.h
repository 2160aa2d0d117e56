// Helpers of the kernels that work row by row: how finely to split, and sums whose order never changes.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/tensor.h"

namespace mhmoe::cpu {

// The value of an op's optional scale, f32 [1].
inline float scale_or_one(const Tensor& scale) {
  return scale.empty() ? 1.0F : scale.as<const float>()[0];
}

// Rows a thread must at least get for its start to be worth it.
inline int64_t row_grain(int64_t cols) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(cols, 1));
}

// A split of rows that depends on nothing but their number: sums over rows are kept chunk by chunk and then added in
// order, so that they have the same bits at any number of threads.
struct RowChunks {
  static constexpr int64_t kMost = 64;
  static constexpr int64_t kFewestRows = 16;

  explicit RowChunks(int64_t all_rows)
      : rows(all_rows), size(std::max(kFewestRows, (all_rows + kMost - 1) / kMost)), count((rows + size - 1) / size) {}
  int64_t begin(int64_t chunk) const { return chunk * size; }
  int64_t end(int64_t chunk) const { return std::min(rows, (chunk + 1) * size); }

  int64_t rows, size, count;
};

// The sum of term(0) ... term(n - 1), in four interleaved chains: one would wait for each addition.
template <class Term>
float chained_sum(int64_t n, Term term) {
  const int64_t quarter = n / 4;
  float a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
  for (int64_t i = 0; i < quarter; ++i) {
    a += term(i);
    b += term(quarter + i);
    c += term(2 * quarter + i);
    d += term(3 * quarter + i);
  }
  for (int64_t i = 4 * quarter; i < n; ++i) a += term(i);
  return (a + b) + (c + d);
}

// sums[c] += the sum over rows of scale_of(row) * data[row][c], for at most kMostCols columns: rows are added in order
// and in double, so that the bits do not depend on how columns are divided.
template <int64_t kMostCols, class T, class ScaleOf>
void add_column_sums(float* sums, const T* data, int64_t ld, int64_t rows, int64_t cols, ScaleOf scale_of) {
  std::array<double, kMostCols> added{};
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = scale_of(r);
    const T* row = data + r * ld;
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) added[c] += scale * static_cast<float>(row[c]);
  }
  for (int64_t c = 0; c < cols; ++c) sums[c] += static_cast<float>(added[c]);
}

}  // namespace mhmoe::cpu
