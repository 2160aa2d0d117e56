#include "ops/matmul.h"

#include "ops/check.h"

namespace mhmoe::ops {

void matmul(Context& ctx, const Matmul& args) {
  constexpr auto kOp = "matmul";
  Argument(ctx, kOp, "a", args.a).floating();
  const int64_t m = args.transpose_a ? args.a.cols() : args.a.rows();
  const int64_t k = args.transpose_a ? args.a.rows() : args.a.cols();
  const int64_t n = args.transpose_b ? args.b.rows() : args.b.cols();
  Argument(ctx, kOp, "b", args.b).matrix(args.transpose_b ? n : k, args.transpose_b ? k : n).same_dtype(args.a);
  const Argument out(ctx, kOp, "out", args.out);
  out.matrix(m, n);
  if (args.out.dtype != DType::kF32) out.same_dtype(args.a);
  if (!args.bias.empty()) Argument(ctx, kOp, "bias", args.bias).shape({n}).dtype(DType::kF32);
  if (!args.addend.empty()) {
    Argument(ctx, kOp, "addend", args.addend).matrix(m, n).dtype(DType::kF32).same_dtype(args.out);
  }
  run(ctx, &KernelTable::matmul, args);
}

void bias_backward(Context& ctx, const BiasBackward& args) {
  constexpr auto kOp = "bias_backward";
  Argument(ctx, kOp, "grad_out", args.grad_out).floating();
  Argument(ctx, kOp, "grad_bias", args.grad_bias).shape({args.grad_out.cols()}).dtype(DType::kF32);
  run(ctx, &KernelTable::bias_backward, args);
}

}  // namespace mhmoe::ops
