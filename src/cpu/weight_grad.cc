#include "cpu/weight_grad.h"

#include <algorithm>

#include "cpu/blocks.h"

namespace mhmoe::cpu {
namespace {

// A block is some columns of grad_out, which are rows of the gradient, and some of x, mostly all: gradients are much
// more than caches hold, and memory is fastest read and written in one piece.
constexpr int64_t kRowBlock = 16 * kTileRows, kColumnBlock = 1024;

// Apart from what it is called by: what a thread keeps would else be one for all kernel levels.
template <class T>
void add_all(float* grad, Stored<T> grad_out, Stored<T> x, const RowRanges& ranges) {
  const int64_t n = grad_out.ld, k = x.ld;
  const auto *begin = ranges.begin, *rows = ranges.rows;
  const auto& blocks = blocks_of(
      ranges.groups, [&](int64_t e) { return rows[e] > 0 ? n : 0; }, kRowBlock, k, kColumnBlock);
  const auto operands = [&](const Block& block, int64_t row) {
    return std::pair(grad_out.data + row * n + block.row, x.data + row * k + block.col);
  };
  parallel_blocks(blocks, [&](const Block& block, const Block* next) {
    thread_local Scratch left_room, right_room;
    float* out = grad + (block.expert * n + block.row) * k + block.col;
    for (int64_t done = 0; done < rows[block.expert]; done += kWeightGradPiece) {
      const int64_t count = std::min<int64_t>(kWeightGradPiece, rows[block.expert] - done);
      const auto [grads, xs] = operands(block, begin[block.expert] + done);
      const Left<T> left = left_operand<T>(left_room, {grads, n, true}, block.rows, count);
      const Right<T> right = right_operand<T>(right_room, {xs, k}, count, block.cols);
      Ahead ahead;
      if (next != nullptr && done == 0) {
        const int64_t next_count = std::min<int64_t>(kWeightGradPiece, rows[next->expert]);
        const auto [next_grads, next_xs] = operands(*next, begin[next->expert]);
        ahead.add(next_grads, next_count, next->rows, n);
        ahead.add(next_xs, next_count, next->cols, k);
      }
      multiply<T, float>({.data = out, .ld = k, .add = true}, left, right, block.rows, block.cols, count, ahead);
    }
  });
}

}  // namespace

template <class T>
void add_weight_gradients(float* grad, Stored<T> grad_out, Stored<T> x, const RowRanges& ranges) {
  add_all(grad, grad_out, x, ranges);
}

template void add_weight_gradients(float*, Stored<float>, Stored<float>, const RowRanges&);
template void add_weight_gradients(float*, Stored<bfloat16>, Stored<bfloat16>, const RowRanges&);

}  // namespace mhmoe::cpu
