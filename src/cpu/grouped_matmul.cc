#include "ops/grouped_matmul.h"

#include <algorithm>
#include <vector>

#include "core/parallel_for.h"
#include "cpu/blocks.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/scratch.h"
#include "cpu/tiles.h"
#include "cpu/weight_grad.h"

namespace mhmoe::cpu {
namespace {

// Blocks of fixed size, whatever the number of threads: results do not depend on it. A thread's operands should fit its
// second-level cache.
constexpr int64_t kRowBlock = 80 * kTileRows;
constexpr int64_t kColumnBlock = 256;
constexpr int64_t kPanelBytes = int64_t{1} << 19;

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
  const RowRanges ranges = {args.groups.begin.as<const int32_t>(), args.groups.rows.as<const int32_t>(),
                            args.groups.rows.count()};
  dispatch_float(args.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    add_weight_gradients<T>(args.grad_weight.as<float>(), {args.grad_out.as<const T>(), args.grad_out.cols()},
                            {args.x.as<const T>(), args.x.cols()}, ranges);
  });
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
  float* grad_bias = args.grad_bias.as<float>() + block.expert * n + block.col;
  add_column_sums<kColumnBlock>(grad_bias, grad_out, n, rows, block.cols,
                                [&](int64_t r) { return gate == nullptr ? 1.0f : gate[gate_of(args, begin + r)]; });
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
