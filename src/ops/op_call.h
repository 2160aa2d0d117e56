// One op as it is dispatched, seen by whoever watches a context's work (device/context.h).
#pragma once

#include <variant>

#include "ops/kernel_table.h"

namespace mhmoe::ops {

// The arguments, of whichever op it is: one alternative an entry of KernelTable, or the op cannot be dispatched.
struct OpCall {
  std::variant<const EmbeddingForward*, const EmbeddingBackward*, const RmsNormForward*, const RmsNormBackward*,
               const Matmul*, const BiasBackward*, const Rotary*, const AttentionForward*, const AttentionBackward*,
               const AttentionCached*, const ActivationForward*, const ActivationBackward*, const RouterForward*,
               const RouterBackward*, const AssignSlots*, const GatherRows*, const CombineRows*, const GroupedMatmul*,
               const GroupedWeightGrad*, const GroupedBiasBackward*, const CrossEntropy*, const Cast*, const Add*,
               const Reduce*, const ClipScale*, const AdamUpdate*>
      arguments;
};

}  // namespace mhmoe::ops
