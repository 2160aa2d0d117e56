#include "ops/grouped_matmul.h"

#include "ops/check.h"

namespace mhmoe::ops {
namespace {

// rows: of the row buffers.
void check_groups(const Context& ctx, const char* op, const RowGroups& groups, int64_t experts, int64_t rows) {
  Argument(ctx, op, "groups.begin", groups.begin).shape({experts}).dtype(DType::kI32);
  Argument(ctx, op, "groups.rows", groups.rows).shape({experts}).dtype(DType::kI32);
  MHMOE_CHECK(groups.capacity >= 0, "[{}] groups.capacity is {}, expected none (0) or rows an expert", op,
              groups.capacity);
  MHMOE_CHECK(groups.capacity == 0 || rows == experts * groups.capacity,
              "[{}] row buffers have {} rows, expected {} experts times a capacity of {}", op, rows, experts,
              groups.capacity);
}

// [E, n, k]
void check_stack(const char* op, const char* name, const Tensor& stack) {
  MHMOE_CHECK(stack.rank == 3, "[{}] {} is {}, expected one matrix an expert: three dimensions", op, name,
              stack.describe());
}

}  // namespace

void grouped_matmul(Context& ctx, const GroupedMatmul& args) {
  constexpr auto kOp = "grouped_matmul";
  Argument(ctx, kOp, "weight", args.weight).floating();
  check_stack(kOp, "weight", args.weight);
  const auto& [experts, n, k, unused] = args.weight.dims;
  const int64_t rows = args.a.rows();
  Argument(ctx, kOp, "a", args.a).matrix(rows, args.transpose_weight ? k : n).same_dtype(args.weight);
  const Argument out(ctx, kOp, "out", args.out);
  out.matrix(rows, args.transpose_weight ? n : k);
  if (args.out.dtype != DType::kF32) out.same_dtype(args.weight);
  check_groups(ctx, kOp, args.groups, experts, rows);
  if (!args.bias.empty()) {
    MHMOE_CHECK(args.transpose_weight, "[{}] bias is given, expected none without transpose_weight", kOp);
    Argument(ctx, kOp, "bias", args.bias).shape({experts, n}).dtype(DType::kF32);
  }
  if (!args.activated.empty()) {
    MHMOE_CHECK(args.transpose_weight, "[{}] activated is given, expected none without transpose_weight", kOp);
    const int64_t hidden = args.activated.cols();
    Argument(ctx, kOp, "activated", args.activated).matrix(rows, hidden).same_dtype(args.out);
    MHMOE_CHECK(pre_activation_width(args.activation, hidden) == n, "[{}] activated is {}, out is {}: not its width",
                kOp, args.activated.describe(), args.out.describe());
  }
  run(ctx, &KernelTable::grouped_matmul, args);
}

void grouped_weight_grad(Context& ctx, const GroupedWeightGrad& args) {
  constexpr auto kOp = "grouped_weight_grad";
  Argument(ctx, kOp, "grad_weight", args.grad_weight).dtype(DType::kF32);
  check_stack(kOp, "grad_weight", args.grad_weight);
  const auto& [experts, n, k, unused] = args.grad_weight.dims;
  const int64_t rows = args.grad_out.rows();
  Argument(ctx, kOp, "grad_out", args.grad_out).matrix(rows, n).floating();
  Argument(ctx, kOp, "x", args.x).matrix(rows, k).same_dtype(args.grad_out);
  check_groups(ctx, kOp, args.groups, experts, rows);
  run(ctx, &KernelTable::grouped_weight_grad, args);
}

void grouped_bias_backward(Context& ctx, const GroupedBiasBackward& args) {
  constexpr auto kOp = "grouped_bias_backward";
  const int64_t rows = args.grad_out.rows(), n = args.grad_out.cols(), experts = args.grad_bias.rows();
  Argument(ctx, kOp, "grad_out", args.grad_out).floating();
  Argument(ctx, kOp, "grad_bias", args.grad_bias).shape({experts, n}).dtype(DType::kF32);
  check_groups(ctx, kOp, args.groups, experts, rows);
  if (!args.gate.empty() || !args.grad_gate.empty() || !args.row_assignment.empty()) {
    Argument(ctx, kOp, "bias", args.bias).shape({experts, n}).dtype(DType::kF32);
    check_gates(ctx, kOp, args.gate, args.grad_gate, args.row_assignment, rows);
  }
  run(ctx, &KernelTable::grouped_bias_backward, args);
}

}  // namespace mhmoe::ops
