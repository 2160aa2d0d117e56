#include "ops/routing.h"

#include <limits>

#include "ops/check.h"

namespace mhmoe::ops {
namespace {

constexpr int64_t kMostRows = std::numeric_limits<int32_t>::max();

}  // namespace

void assign_slots(Context& ctx, const AssignSlots& args) {
  constexpr auto kOp = "assign_slots";
  Argument(ctx, kOp, "expert_index", args.expert_index).dtype(DType::kI32);
  Argument(ctx, kOp, "load", args.load).dtype(DType::kI32);
  const int64_t rows = args.expert_index.rows(), k = args.expert_index.cols(), experts = args.load.count();
  MHMOE_CHECK(args.capacity >= 0, "[{}] capacity is {}, expected 0 (none) or more", kOp, args.capacity);
  MHMOE_CHECK(args.capacity <= kMostRows, "[{}] capacity is {}, expected at most {}", kOp, args.capacity, kMostRows);
  const int64_t buffer_rows = args.capacity > 0 ? experts * args.capacity : rows * k;
  MHMOE_CHECK(rows * k <= kMostRows, "[{}] expert_index is {}, expected at most {} assignments", kOp,
              args.expert_index.describe(), kMostRows);
  MHMOE_CHECK(buffer_rows <= kMostRows, "[{}] capacity is {} for {} experts, expected at most {} buffer rows", kOp,
              args.capacity, experts, kMostRows);
  Argument(ctx, kOp, "load", args.load).shape({experts});
  Argument(ctx, kOp, "begin", args.begin).shape({experts}).dtype(DType::kI32);
  Argument(ctx, kOp, "rows", args.rows).shape({experts}).dtype(DType::kI32);
  Argument(ctx, kOp, "slot", args.slot).matrix(rows, k).dtype(DType::kI32);
  Argument(ctx, kOp, "row_of", args.row_of).matrix(rows, k).dtype(DType::kI32);
  Argument(ctx, kOp, "row_assignment", args.row_assignment).shape({buffer_rows}).dtype(DType::kI32);
  run(ctx, &KernelTable::assign_slots, args);
}

void gather_rows(Context& ctx, const GatherRows& args) {
  constexpr auto kOp = "gather_rows";
  Argument(ctx, kOp, "x", args.x).floating();
  const Argument out(ctx, kOp, "out", args.out);
  out.matrix(args.out.rows(), args.x.cols()).floating();
  if (args.x.dtype == DType::kBF16) out.same_dtype(args.x);
  Argument(ctx, kOp, "row_assignment", args.row_assignment).shape({args.out.rows()}).dtype(DType::kI32);
  MHMOE_CHECK(args.k > 0, "[{}] k is {}, expected at least 1", kOp, args.k);
  run(ctx, &KernelTable::gather_rows, args);
}

void combine_rows(Context& ctx, const CombineRows& args) {
  constexpr auto kOp = "combine_rows";
  const int64_t rows = args.y.rows(), width = args.y.cols(), k = args.row_of.cols();
  Argument(ctx, kOp, "y", args.y).floating();
  Argument(ctx, kOp, "rows", args.rows).matrix(args.rows.rows(), width).floating();
  Argument(ctx, kOp, "row_of", args.row_of).matrix(rows, k).dtype(DType::kI32);
  if (!args.gate.empty()) Argument(ctx, kOp, "gate", args.gate).matrix(rows, k).dtype(DType::kF32);
  if (!args.addend.empty()) {
    Argument(ctx, kOp, "addend", args.addend).matrix(rows, width).floating().may_be(args.y);
  }
  run(ctx, &KernelTable::combine_rows, args);
}

}  // namespace mhmoe::ops
