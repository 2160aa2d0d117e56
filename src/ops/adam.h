// Adam and AdamW over flat parameter vectors, with the per-step scalars in device memory.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// Elements of the f32 step-scalar tensor.
enum StepScalar : int {
  kLearningRate,
  kBiasCorrection1,
  kBiasCorrection2,
  kLossLimit,  // infinity for no limit
  kNormLimit,  // infinity for no limit
  kClipScale,
  kRefuse,
  kStepScalarCount
};

// scalars[kClipScale] = min(1, clip_norm / sqrt(sum_squares[0])) (1 when clip_norm is 0); scalars[kRefuse] = 1 when
// sum_squares[0] or loss[0] is not finite, loss[0] > scalars[kLossLimit] or sqrt(sum_squares[0]) > scalars[kNormLimit],
// else 0. sum_squares, loss: f32 [1].
struct ClipScale {
  Tensor scalars, sum_squares, loss;
  float clip_norm;
};

// With g = kClipScale * grad (+ weight_decay * master unless `decoupled`):
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
//   master -= lr * ((m / kBiasCorrection1) / (sqrt(v / kBiasCorrection2) + eps) + weight_decay * master if decoupled).
// Bias corrections are 1 - beta^t. Does nothing at all when scalars[kRefuse] is set.
// master, moment1, moment2: f32 [n], updated; copy: bf16 [n], overwritten with master, or absent; grad: f32 [n].
struct AdamUpdate {
  Tensor master, moment1, moment2, grad, scalars;
  Tensor copy = {};
  float beta1, beta2, eps, weight_decay;
  bool decoupled = true;
};

void clip_scale(Context& ctx, const ClipScale& args);
void adam_update(Context& ctx, const AdamUpdate& args);

}  // namespace mhmoe::ops
