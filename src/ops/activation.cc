#include "ops/activation.h"

#include "ops/check.h"

namespace mhmoe::ops {

void activation_forward(Context& ctx, const ActivationForward& args) {
  constexpr auto kOp = "activation_forward";
  const int64_t rows = args.out.rows(), hidden = args.out.cols();
  Argument(ctx, kOp, "out", args.out).floating();
  Argument(ctx, kOp, "pre", args.pre).matrix(rows, pre_activation_width(args.kind, hidden)).same_dtype(args.out);
  run(ctx, &KernelTable::activation_forward, args);
}

void activation_backward(Context& ctx, const ActivationBackward& args) {
  constexpr auto kOp = "activation_backward";
  const int64_t rows = args.grad_out.rows(), hidden = args.grad_out.cols();
  const int64_t pre_width = pre_activation_width(args.kind, hidden);
  Argument(ctx, kOp, "grad_out", args.grad_out).floating();
  Argument(ctx, kOp, "pre", args.pre).matrix(rows, pre_width).same_dtype(args.grad_out);
  Argument(ctx, kOp, "grad_pre", args.grad_pre).matrix(rows, pre_width).same_dtype(args.pre);
  if (!args.scaled_out.empty()) {
    Argument(ctx, kOp, "scaled_out", args.scaled_out).matrix(rows, hidden).same_dtype(args.grad_out);
  }
  if (!args.gate.empty() || !args.grad_gate.empty() || !args.row_assignment.empty()) {
    check_gates(ctx, kOp, args.gate, args.grad_gate, args.row_assignment, rows);
  }
  run(ctx, &KernelTable::activation_backward, args);
}

}  // namespace mhmoe::ops
