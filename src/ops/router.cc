#include "ops/router.h"

#include "ops/check.h"

namespace mhmoe::ops {
namespace {

void check_choices(const char* op, const Tensor& expert_index, int64_t experts) {
  MHMOE_CHECK(expert_index.cols() >= 1 && expert_index.cols() <= experts,
              "[{}] expert_index is {}, expected between 1 and {} choices a row", op, expert_index.describe(), experts);
}

}  // namespace

void router_forward(Context& ctx, const RouterForward& args) {
  constexpr auto kOp = "router_forward";
  const int64_t rows = args.logits.rows(), experts = args.logits.cols(), k = args.expert_index.cols();
  Argument(ctx, kOp, "logits", args.logits).dtype(DType::kF32);
  Argument(ctx, kOp, "probabilities", args.probabilities).matrix(rows, experts).dtype(DType::kF32);
  Argument(ctx, kOp, "expert_index", args.expert_index).matrix(rows, k).dtype(DType::kI32);
  check_choices(kOp, args.expert_index, experts);
  Argument(ctx, kOp, "gate_weight", args.gate_weight).matrix(rows, k).dtype(DType::kF32);
  Argument(ctx, kOp, "share", args.share).shape({experts}).dtype(DType::kF32);
  Argument(ctx, kOp, "balance_loss", args.balance_loss).shape({1}).dtype(DType::kF32);
  run(ctx, &KernelTable::router_forward, args);
}

void router_backward(Context& ctx, const RouterBackward& args) {
  constexpr auto kOp = "router_backward";
  const int64_t rows = args.probabilities.rows(), experts = args.probabilities.cols(), k = args.expert_index.cols();
  Argument(ctx, kOp, "probabilities", args.probabilities).dtype(DType::kF32);
  Argument(ctx, kOp, "grad_logits", args.grad_logits).matrix(rows, experts).dtype(DType::kF32);
  Argument(ctx, kOp, "expert_index", args.expert_index).matrix(rows, k).dtype(DType::kI32);
  check_choices(kOp, args.expert_index, experts);
  Argument(ctx, kOp, "grad_gate", args.grad_gate).matrix(rows, k).dtype(DType::kF32);
  Argument(ctx, kOp, "share", args.share).shape({experts}).dtype(DType::kF32);
  run(ctx, &KernelTable::router_backward, args);
}

}  // namespace mhmoe::ops
