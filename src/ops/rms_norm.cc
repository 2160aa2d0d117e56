#include "ops/rms_norm.h"

#include "ops/check.h"

namespace mhmoe::ops {

void rms_norm_forward(Context& ctx, const RmsNormForward& args) {
  constexpr auto kOp = "rms_norm_forward";
  const int64_t rows = args.x.rows(), cols = args.x.cols();
  Argument(ctx, kOp, "x", args.x).dtype(DType::kF32);
  Argument(ctx, kOp, "y", args.y).matrix(rows, cols).floating();
  Argument(ctx, kOp, "inv_rms", args.inv_rms).shape({rows}).dtype(DType::kF32);
  Argument(ctx, kOp, "weight", args.weight).shape({cols}).dtype(DType::kF32);
  MHMOE_CHECK(cols > 0, "[{}] x has no columns", kOp);
  run(ctx, &KernelTable::rms_norm_forward, args);
}

void rms_norm_backward(Context& ctx, const RmsNormBackward& args) {
  constexpr auto kOp = "rms_norm_backward";
  const int64_t rows = args.x.rows(), cols = args.x.cols();
  Argument(ctx, kOp, "x", args.x).dtype(DType::kF32);
  Argument(ctx, kOp, "grad_x", args.grad_x).matrix(rows, cols).dtype(DType::kF32);
  Argument(ctx, kOp, "grad_y", args.grad_y).matrix(rows, cols).floating();
  Argument(ctx, kOp, "inv_rms", args.inv_rms).shape({rows}).dtype(DType::kF32);
  Argument(ctx, kOp, "weight", args.weight).shape({cols}).dtype(DType::kF32);
  Argument(ctx, kOp, "grad_weight", args.grad_weight).shape({cols}).dtype(DType::kF32);
  run(ctx, &KernelTable::rms_norm_backward, args);
}

}  // namespace mhmoe::ops
