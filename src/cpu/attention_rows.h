// What attention kernels do row by row.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/simd_math.h"

namespace mhmoe::cpu {

// scores[0, visible) becomes exp(score - max), the rest of the strip zero. Returns the sum and, in `max`, the maximum.
inline float softmax_numerators(float* scores, int64_t visible, int64_t strip, float& max) {
  max = scores[0];
#pragma omp simd reduction(max : max)
  for (int64_t i = 0; i < visible; ++i) max = scores[i] > max ? scores[i] : max;
  const float largest = max;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < visible; ++i) {
    scores[i] = fast_exp(scores[i] - largest);
    sum += scores[i];
  }
  std::fill(scores + visible, scores + strip, 0.0f);
  return sum;
}

inline float dot(const float* a, const float* b, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace mhmoe::cpu
