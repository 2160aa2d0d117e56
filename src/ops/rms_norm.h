// Root-mean-square normalisation over the last axis: y = x * inv_rms(x) * weight, inv_rms = 1/sqrt(mean(x^2) + eps).
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// y: f32 or bf16 [N, d], overwritten; inv_rms: f32 [N], overwritten, kept for backward; x: f32 [N, d]; weight: f32 [d].
struct RmsNormForward {
  Tensor y, inv_rms, x, weight;
  float eps;
};
// grad_x: f32 [N, d], *accumulated* (the gradient that flows past the norm on the residual stream is already there);
// grad_weight: f32 [d], accumulated; grad_y: f32 or bf16 [N, d]; x, inv_rms, weight as in forward.
struct RmsNormBackward {
  Tensor grad_x, grad_weight, grad_y, x, inv_rms, weight;
};

void rms_norm_forward(Context& ctx, const RmsNormForward& args);
void rms_norm_backward(Context& ctx, const RmsNormBackward& args);

}  // namespace mhmoe::ops
