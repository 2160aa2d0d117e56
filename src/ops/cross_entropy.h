// Softmax cross-entropy of rows of logits, and its gradient in place.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// loss[n] = log sum exp(logits[n]) - logits[n, targets[n]] in nats, 0 where targets[n] is -1.
// grad_logits (optional) = scale * (softmax(logits[n]) - onehot), zero where targets[n] is -1; f32 or bf16, may be
// `logits` itself when f32. loss: f32 [N], overwritten; logits: f32 [N, V]; targets: i32 [N] in [-1, V).
struct CrossEntropy {
  Tensor loss, logits, targets;
  Tensor grad_logits = {};
  float scale = 1;
};

void cross_entropy(Context& ctx, const CrossEntropy& args);

}  // namespace mhmoe::ops
