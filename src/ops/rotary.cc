#include "ops/rotary.h"

#include "ops/check.h"

namespace mhmoe::ops {

void rotary(Context& ctx, const Rotary& args) {
  constexpr auto kOp = "rotary";
  Argument(ctx, kOp, "qkv", args.qkv).floating();
  MHMOE_CHECK(args.sequence_length > 0, "[{}] sequence_length is {}, expected at least 1", kOp, args.sequence_length);
  MHMOE_CHECK(args.heads > 0, "[{}] heads is {}, expected at least 1", kOp, args.heads);
  MHMOE_CHECK(args.first_position >= 0, "[{}] first_position is {}, expected at least 0", kOp, args.first_position);
  MHMOE_CHECK(args.base > 0, "[{}] base is {}, expected more than 0", kOp, args.base);
  MHMOE_CHECK(args.qkv.cols() % (6 * args.heads) == 0,
              "[{}] qkv is {}, expected 3 x {} heads x an even head size as its columns", kOp, args.qkv.describe(),
              args.heads);
  run(ctx, &KernelTable::rotary, args);
}

}  // namespace mhmoe::ops
