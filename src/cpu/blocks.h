// How products of several matrices are cut into pieces for threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/parallel_for.h"

namespace mhmoe::cpu {

// One thread's share of the work: some rows and some columns of one expert.
struct Block {
  int64_t expert, row, rows, col, cols;
};

// All experts' blocks of `rows_of` rows and `cols` columns, at most so large each. Rows count from the expert's first.
template <class RowsOf>
const std::vector<Block>& blocks_of(int64_t experts, RowsOf rows_of, int64_t row_block, int64_t cols,
                                    int64_t col_block) {
  thread_local std::vector<Block> blocks;
  blocks.clear();
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t rows = rows_of(e);
    for (int64_t row = 0; row < rows; row += row_block) {
      for (int64_t col = 0; col < cols; col += col_block) {
        blocks.push_back({e, row, std::min(row_block, rows - row), col, std::min(col_block, cols - col)});
      }
    }
  }
  return blocks;
}

// body(block, next) for every block; next: one that the same thread will probably get, or null.
template <class Body>
void parallel_blocks(const std::vector<Block>& blocks, Body body) {
  const auto count = static_cast<int64_t>(blocks.size());
  const int64_t threads = thread_count();
  parallel_tasks(count, [&](int64_t task, int /*thread*/) {
    body(blocks[task], task + threads < count ? &blocks[task + threads] : nullptr);
  });
}

}  // namespace mhmoe::cpu
