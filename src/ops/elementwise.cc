#include "ops/elementwise.h"

#include "ops/check.h"

namespace mhmoe::ops {

void cast(Context& ctx, const Cast& args) {
  constexpr auto kOp = "cast";
  Argument(ctx, kOp, "in", args.in).floating();
  const Argument out(ctx, kOp, "out", args.out);
  out.count(args.in.count()).floating();
  if (args.out.data == args.in.data && args.in.count() > 0) out.same_dtype(args.in);
  run(ctx, &KernelTable::cast, args);
}

void add(Context& ctx, const Add& args) {
  constexpr auto kOp = "add";
  Argument(ctx, kOp, "a", args.a).floating();
  Argument(ctx, kOp, "b", args.b).count(args.a.count()).floating();
  Argument(ctx, kOp, "out", args.out).count(args.a.count()).floating();
  run(ctx, &KernelTable::add, args);
}

void reduce(Context& ctx, const Reduce& args) {
  constexpr auto kOp = "reduce";
  Argument(ctx, kOp, "in", args.in).dtype(DType::kF32);
  Argument(ctx, kOp, "out", args.out).shape({1}).dtype(DType::kF32);
  run(ctx, &KernelTable::reduce, args);
}

}  // namespace mhmoe::ops
