#include "ops/cross_entropy.h"

#include "ops/check.h"

namespace mhmoe::ops {

void cross_entropy(Context& ctx, const CrossEntropy& args) {
  constexpr auto kOp = "cross_entropy";
  const int64_t rows = args.logits.rows(), vocabulary = args.logits.cols();
  Argument(ctx, kOp, "logits", args.logits).dtype(DType::kF32);
  MHMOE_CHECK(vocabulary > 0, "[{}] logits is {}, expected at least 1 column", kOp, args.logits.describe());
  Argument(ctx, kOp, "loss", args.loss).shape({rows}).dtype(DType::kF32);
  Argument(ctx, kOp, "targets", args.targets).count(rows).dtype(DType::kI32);
  if (!args.grad_logits.empty()) {
    Argument(ctx, kOp, "grad_logits", args.grad_logits).matrix(rows, vocabulary).floating().may_be(args.logits);
  }
  if (!args.scale.empty()) Argument(ctx, kOp, "scale", args.scale).shape({1}).dtype(DType::kF32);
  run(ctx, &KernelTable::cross_entropy, args);
}

}  // namespace mhmoe::ops
