// Softmax cross-entropy of rows of logits, and its gradient in place.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// loss[n] = log sum exp(logits[n]) - logits[n, targets[n]] in nats, 0 where targets[n] is -1.
// grad_logits (optional) = scale[0] * (softmax(logits[n]) - onehot), zero where targets[n] is -1; f32 or bf16, may be
// `logits` itself when f32. loss: f32 [N], overwritten; logits: f32 [N, V]; targets: i32 [N] in [-1, V).
// scale: f32 [1], or absent for 1. It lies on the device because it changes with every step.
struct CrossEntropy {
  Tensor loss, logits, targets;
  Tensor grad_logits = {};
  Tensor scale = {};
};

void cross_entropy(Context& ctx, const CrossEntropy& args);

}  // namespace mhmoe::ops
