#include "ops/elementwise.h"

#include "ops/check.h"

namespace mhmoe::ops {

void cast(Context& ctx, const Cast& args) {
  constexpr auto kOp = "cast";
  Argument(ctx, kOp, "in", args.in).floating();
  Argument(ctx, kOp, "out", args.out).count(args.in.count()).floating().may_be(args.in);
  run(ctx, &KernelTable::cast, args);
}

void add(Context& ctx, const Add& args) {
  constexpr auto kOp = "add";
  Argument(ctx, kOp, "a", args.a).floating();
  Argument(ctx, kOp, "b", args.b).count(args.a.count()).floating();
  Argument(ctx, kOp, "out", args.out).count(args.a.count()).floating().may_be(args.a).may_be(args.b);
  run(ctx, &KernelTable::add, args);
}

void reduce(Context& ctx, const Reduce& args) {
  constexpr auto kOp = "reduce";
  Argument(ctx, kOp, "in", args.in).dtype(DType::kF32);
  Argument(ctx, kOp, "out", args.out).shape({1}).dtype(DType::kF32);
  if (!args.scale.empty()) Argument(ctx, kOp, "scale", args.scale).shape({1}).dtype(DType::kF32);
  run(ctx, &KernelTable::reduce, args);
}

}  // namespace mhmoe::ops
