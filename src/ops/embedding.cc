#include "ops/embedding.h"

#include "ops/check.h"

namespace mhmoe::ops {

void embedding_forward(Context& ctx, const EmbeddingForward& args) {
  constexpr auto kOp = "embedding_forward";
  Argument(ctx, kOp, "table", args.table).floating();
  Argument(ctx, kOp, "out", args.out).matrix(args.out.rows(), args.table.cols()).dtype(DType::kF32);
  Argument(ctx, kOp, "tokens", args.tokens).count(args.out.rows()).dtype(DType::kI32);
  run(ctx, &KernelTable::embedding_forward, args);
}

void embedding_backward(Context& ctx, const EmbeddingBackward& args) {
  constexpr auto kOp = "embedding_backward";
  Argument(ctx, kOp, "grad_table", args.grad_table).dtype(DType::kF32);
  Argument(ctx, kOp, "grad_out", args.grad_out).matrix(args.grad_out.rows(), args.grad_table.cols()).dtype(DType::kF32);
  Argument(ctx, kOp, "tokens", args.tokens).count(args.grad_out.rows()).dtype(DType::kI32);
  run(ctx, &KernelTable::embedding_backward, args);
}

}  // namespace mhmoe::ops
