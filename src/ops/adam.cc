#include "ops/adam.h"

#include "ops/check.h"

namespace mhmoe::ops {

void clip_scale(Context& ctx, const ClipScale& args) {
  constexpr auto kOp = "clip_scale";
  Argument(ctx, kOp, "scalars", args.scalars).shape({kStepScalarCount}).dtype(DType::kF32);
  Argument(ctx, kOp, "sum_squares", args.sum_squares).shape({1}).dtype(DType::kF32);
  Argument(ctx, kOp, "loss", args.loss).shape({1}).dtype(DType::kF32);
  MHMOE_CHECK(args.clip_norm >= 0, "[{}] clip_norm is {}, expected 0 (none) or more", kOp, args.clip_norm);
  run(ctx, &KernelTable::clip_scale, args);
}

void adam_update(Context& ctx, const AdamUpdate& args) {
  constexpr auto kOp = "adam_update";
  const int64_t n = args.master.count();
  Argument(ctx, kOp, "master", args.master).shape({n}).dtype(DType::kF32);
  Argument(ctx, kOp, "moment1", args.moment1).shape({n}).dtype(DType::kF32);
  Argument(ctx, kOp, "moment2", args.moment2).shape({n}).dtype(DType::kF32);
  Argument(ctx, kOp, "grad", args.grad).shape({n}).dtype(DType::kF32);
  Argument(ctx, kOp, "scalars", args.scalars).shape({kStepScalarCount}).dtype(DType::kF32);
  if (!args.copy.empty()) Argument(ctx, kOp, "copy", args.copy).shape({n}).dtype(DType::kBF16);
  run(ctx, &KernelTable::adam_update, args);
}

}  // namespace mhmoe::ops
