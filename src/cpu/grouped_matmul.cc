#include "ops/grouped_matmul.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "cpu/tiles.h"

namespace mhmoe::cpu {
namespace {

// Blocks of fixed size, whatever the number of threads: results do not depend on it. A thread's operands should fit its
// second-level cache.
constexpr int64_t kRowBlock = 80 * kTileRows;
constexpr int64_t kColumnBlock = 256;
constexpr int64_t kInnerBlock = 512;
constexpr int64_t kGradColumns = 1024, kGradRows = 192;
constexpr int64_t kPanelBytes = int64_t{1} << 19;

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

// Columns of a right operand of `inner` units that share a thread's cache.
int64_t columns_in_cache(int64_t inner) {
  const int64_t fitting =
      kPanelBytes / static_cast<int64_t>(sizeof(float)) / std::max<int64_t>(inner, 1) / kTileCols * kTileCols;
  return std::clamp<int64_t>(fitting, kTileCols, kColumnBlock);
}

template <class T, class Out>
void multiply_rows(const ops::GroupedMatmul& args) {
  const int64_t inner = args.a.cols(), width = args.out.cols(), ld = args.weight.cols();
  const auto *begin = args.groups.begin.as<const int32_t>(), *rows = args.groups.rows.as<const int32_t>();
  const auto& blocks = blocks_of(
      args.groups.rows.count(), [&](int64_t e) { return rows[e]; }, kRowBlock, width,
      columns_in_cache(units<T>(inner)));
  const auto weight_of = [&](const Block& block) {
    const T* weight = args.weight.as<const T>() + block.expert * inner * width;
    return Stored<T>{weight + block.col * (args.transpose_weight ? ld : 1), ld, args.transpose_weight};
  };
  parallel_blocks(blocks, [&](const Block& block, const Block* next) {
    thread_local Scratch left_room, right_room;
    const int64_t row = begin[block.expert] + block.row;
    const Left<T> left = left_operand<T>(left_room, {args.a.as<const T>() + row * inner, inner}, block.rows, inner);
    const Right<T> right = right_operand<T>(right_room, weight_of(block), inner, block.cols);
    const float* bias = args.bias.empty() ? nullptr : args.bias.as<const float>() + block.expert * width + block.col;
    Ahead ahead;
    if (next != nullptr) {
      const Stored<T> weight = weight_of(*next);
      ahead.add(weight.data, weight.transposed ? next->cols : inner, weight.transposed ? inner : next->cols, ld);
      ahead.add(args.out.as<Out>() + (begin[next->expert] + next->row) * width + next->col, next->rows, next->cols,
                width);
    }
    multiply<T, Out>({args.out.as<Out>() + row * width + block.col, width, bias}, left, right, block.rows, block.cols,
                     inner, ahead);
  });
}

// A block is some columns of grad_out and some of x; its sums run over the expert's rows in fixed pieces.
template <class T>
void multiply_weight_grad(const ops::GroupedWeightGrad& args) {
  const int64_t n = args.grad_out.cols(), k = args.x.cols();
  const auto *begin = args.groups.begin.as<const int32_t>(), *rows = args.groups.rows.as<const int32_t>();
  const auto& blocks = blocks_of(
      args.groups.rows.count(), [&](int64_t e) { return rows[e] > 0 ? n : 0; }, kGradRows, k, kGradColumns);
  const auto out_of = [&](const Block& block) {
    return args.grad_weight.as<float>() + (block.expert * n + block.row) * k + block.col;
  };
  const auto *grads = args.grad_out.as<const T>(), *xs = args.x.as<const T>();
  parallel_blocks(blocks, [&](const Block& block, const Block* next) {
    thread_local Scratch left_room, right_room;
    for (int64_t done = 0; done < rows[block.expert]; done += kInnerBlock) {
      const int64_t row = begin[block.expert] + done;
      const int64_t count = std::min<int64_t>(kInnerBlock, rows[block.expert] - done);
      const Left<T> left = left_operand<T>(left_room, {grads + row * n + block.row, n, true}, block.rows, count);
      const Right<T> right = right_operand<T>(right_room, {xs + row * k + block.col, k}, count, block.cols);
      Ahead ahead;
      if (next != nullptr && done == 0) {
        const int64_t next_row = begin[next->expert], next_count = std::min<int64_t>(kInnerBlock, rows[next->expert]);
        ahead.add(grads + next_row * n + next->row, next_count, next->rows, n);
        ahead.add(xs + next_row * k + next->col, next_count, next->cols, k);
      }
      multiply<T, float>({.data = out_of(block), .ld = k, .add = true}, left, right, block.rows, block.cols, count,
                         ahead);
    }
  });
}

}  // namespace

void grouped_matmul(Context& ctx, const ops::GroupedMatmul& args) {
  dispatch_float(args.a.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (args.out.dtype == DType::kF32) return multiply_rows<T, float>(args);
    if constexpr (std::is_same_v<T, bfloat16>) multiply_rows<T, bfloat16>(args);
  });
  if (!args.activated.empty()) {
    activation_forward(ctx, {.out = args.activated, .pre = args.out, .kind = args.activation});
  }
}

void grouped_weight_grad(Context& /*ctx*/, const ops::GroupedWeightGrad& args) {
  dispatch_float(args.x.dtype, [&](auto zero) { multiply_weight_grad<decltype(zero)>(args); });
}

namespace {

// Where a buffer row's gate lies.
int64_t gate_of(const ops::GroupedBiasBackward& args, int64_t row) {
  return args.row_assignment.empty() ? row : args.row_assignment.as<const int32_t>()[row];
}

template <class T>
void add_bias_gradient(const ops::GroupedBiasBackward& args, const Block& block) {
  const int64_t n = args.grad_out.cols();
  const int32_t begin = args.groups.begin.as<const int32_t>()[block.expert];
  const int32_t rows = args.groups.rows.as<const int32_t>()[block.expert];
  const auto* grad_out = args.grad_out.as<const T>() + begin * n + block.col;
  const auto* gate = args.gate.empty() ? nullptr : args.gate.as<const float>();
  std::array<double, kColumnBlock> sums{};
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = gate == nullptr ? 1.0f : gate[gate_of(args, begin + r)];
    const T* row = grad_out + r * n;
#pragma omp simd
    for (int64_t c = 0; c < block.cols; ++c) sums[c] += scale * static_cast<float>(row[c]);
  }
  float* grad_bias = args.grad_bias.as<float>() + block.expert * n + block.col;
  for (int64_t c = 0; c < block.cols; ++c) grad_bias[c] += static_cast<float>(sums[c]);
}

template <class T>
void add_gate_gradient(const ops::GroupedBiasBackward& args, const Block& block) {
  const int64_t n = args.grad_out.cols();
  const auto* bias = args.bias.as<const float>() + block.expert * n;
  auto* grad_gate = args.grad_gate.as<float>();
  const int64_t first = args.groups.begin.as<const int32_t>()[block.expert] + block.row;
  for (int64_t r = first; r < first + block.rows; ++r) {
    const T* row = args.grad_out.as<const T>() + r * n;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; ++c) sum += bias[c] * static_cast<float>(row[c]);
    grad_gate[gate_of(args, r)] += sum;
  }
}

}  // namespace

void grouped_bias_backward(Context& /*ctx*/, const ops::GroupedBiasBackward& args) {
  dispatch_float(args.grad_out.dtype, [&](auto zero) {
    using T = decltype(zero);
    const int64_t experts = args.groups.rows.count();
    const auto* rows = args.groups.rows.as<const int32_t>();
    const auto run = [](const std::vector<Block>& blocks, auto kernel) {
      parallel_tasks(static_cast<int64_t>(blocks.size()), [&](int64_t task, int /*thread*/) { kernel(blocks[task]); });
    };
    run(blocks_of(
            experts, [&](int64_t e) { return rows[e] > 0 ? 1 : 0; }, 1, args.grad_out.cols(), kColumnBlock),
        [&](const Block& block) { add_bias_gradient<T>(args, block); });
    if (args.grad_gate.empty()) return;
    run(blocks_of(
            experts, [&](int64_t e) { return rows[e]; }, kRowBlock, 1, 1),
        [&](const Block& block) { add_gate_gradient<T>(args, block); });
  });
}

}  // namespace mhmoe::cpu
