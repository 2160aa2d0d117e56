// What tests of ops on experts' rows share: ways in which rows belong to experts.
#pragma once

#include <cmath>

#include "cuda/emulated_test.h"
#include "ops/grouped_matmul.h"

namespace mhmoe::test {

// How the rows of a buffer belong to experts: with a capacity, else one after the other with `gap` rows of none
// between.
struct Layout {
  std::vector<int64_t> rows;
  int64_t gap = 0;
  int64_t capacity = 0;
};

// Rows around a block's tile: 128 on tensor cores, 64 without.
inline const Layout kLayouts[] = {
    {{0, 1, 127, 0, 128, 129}, 0},
    {{5, 0, 64, 63, 65}, 3},
    {{0, 0, 0}, 2},  // all dropped
    {{0, 300, 0, 0}, 0},
    {{}, 0},
    {{130, 0, 1, 129}, 0, 130},
    {{0, 0}, 0, 64},
};
// Experts beyond the lanes of a warp.
inline Layout many_experts(int64_t experts) {
  Layout layout;
  for (int64_t e = 0; e < experts; ++e) layout.rows.push_back(e % 7 == 3 ? 0 : (e * 13) % 30);
  return layout;
}

struct Groups {
  ops::RowGroups cpu, emulated;
  int64_t rows;                      // of buffers
  std::vector<int64_t> without_use;  // rows of no expert
};

class GroupedTest : public EmulatedTest {
 protected:
  Groups groups(const Layout& layout) {
    const auto experts = static_cast<int64_t>(layout.rows.size());
    std::vector<double> begin, rows(layout.rows.begin(), layout.rows.end());
    Groups result{};
    for (const int64_t count : layout.rows) {
      begin.push_back(static_cast<double>(result.rows));
      const int64_t next = result.rows + (layout.capacity > 0 ? layout.capacity : count + layout.gap);
      for (int64_t r = result.rows + count; r < next; ++r) result.without_use.push_back(r);
      result.rows = next;
    }
    const Twin begins = given(DType::kI32, {experts}, begin), counts = given(DType::kI32, {experts}, rows);
    result.cpu = {begins.cpu, counts.cpu, layout.capacity};
    result.emulated = {begins.emulated, counts.emulated, layout.capacity};
    return result;
  }

  // Random rows; our own kernels must not read those of no expert.
  Twin random_rows(DType dtype, const Groups& groups, int64_t cols) {
    const Twin rows = random(dtype, {groups.rows, cols});
    for (const int64_t r : groups.without_use) {
      for (int64_t c = 0; c < cols; ++c) write_value(rows.cpu, r * cols + c, batched_ ? 0 : std::nan(""));
    }
    refresh(rows);
    return rows;
  }

  bool batched_ = false;  // a product runs as a strided batch, which reads the rows of no expert
};

}  // namespace mhmoe::test
