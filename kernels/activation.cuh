// The non-linearities of feed-forward networks, unit by unit.
#pragma once

#include <cuda_runtime.h>

namespace mhmoe::cuda {

// The functions of one unit. A gated one takes two pre-activations, `a` through the non-linearity and `b` as a factor;
// a plain one ignores b.
struct Unit {
  float out, grad_a, grad_b;
};

struct Swiglu {
  static constexpr bool kGated = true;
  static __device__ Unit unit(float a, float b) {
    const float sigmoid = 1.0f / (1.0f + expf(-a)), silu = a * sigmoid;
    return {silu * b, b * (sigmoid + silu * (1.0f - sigmoid)), silu};
  }
};

struct Relu {
  static constexpr bool kGated = false;
  static __device__ Unit unit(float a, float /*b*/) { return {a > 0 ? a : 0.0f, a > 0 ? 1.0f : 0.0f, 0}; }
};

struct Gelu {
  static constexpr bool kGated = false;
  static __device__ Unit unit(float a, float /*b*/) {
    const float cdf = 0.5f * (1.0f + erff(a * 0.707106781f));
    const float density = 0.398942280f * expf(-0.5f * a * a);
    return {a * cdf, cdf + a * density, 0};
  }
};

}  // namespace mhmoe::cuda
