// The list of kernels a backend must supply: one entry an op, without a default, so that a missing one does not
// compile.
#pragma once

#include "ops/activation.h"
#include "ops/adam.h"
#include "ops/attention.h"
#include "ops/cross_entropy.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/grouped_matmul.h"
#include "ops/matmul.h"
#include "ops/rms_norm.h"
#include "ops/rotary.h"
#include "ops/router.h"
#include "ops/routing.h"

namespace mhmoe::ops {

// A function that computes one op on checked arguments; and, where it takes scratch from ctx.step(), one that makes the
// same allocations and nothing else, so that a sizing pass counts them.
template <class Args>
class Required {
 public:
  using Function = void (*)(Context&, const Args&);
  Required() = delete;
  constexpr Required(Function compute, Function scratch = nullptr)  // NOLINT(google-explicit-constructor)
      : compute_(compute), scratch_(scratch) {}
  void operator()(Context& ctx, const Args& args) const { compute_(ctx, args); }
  void count_scratch(Context& ctx, const Args& args) const {
    const ArenaScope scope(ctx.step());
    if (scratch_ != nullptr) scratch_(ctx, args);
  }

 private:
  Function compute_, scratch_;
};

struct KernelTable {
  Required<EmbeddingForward> embedding_forward;
  Required<EmbeddingBackward> embedding_backward;
  Required<RmsNormForward> rms_norm_forward;
  Required<RmsNormBackward> rms_norm_backward;
  Required<Matmul> matmul;
  Required<BiasBackward> bias_backward;
  Required<Rotary> rotary;
  Required<AttentionForward> attention_forward;
  Required<AttentionBackward> attention_backward;
  Required<AttentionCached> attention_cached;
  Required<ActivationForward> activation_forward;
  Required<ActivationBackward> activation_backward;
  Required<RouterForward> router_forward;
  Required<RouterBackward> router_backward;
  Required<AssignSlots> assign_slots;
  Required<GatherRows> gather_rows;
  Required<CombineRows> combine_rows;
  Required<GroupedMatmul> grouped_matmul;
  Required<GroupedWeightGrad> grouped_weight_grad;
  Required<GroupedBiasBackward> grouped_bias_backward;
  Required<CrossEntropy> cross_entropy;
  Required<Cast> cast;
  Required<Add> add;
  Required<Reduce> reduce;
  Required<ClipScale> clip_scale;
  Required<AdamUpdate> adam_update;
};

}  // namespace mhmoe::ops
