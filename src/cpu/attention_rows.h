// What attention kernels do row by row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "cpu/simd_math.h"

namespace mhmoe::cpu {

// Loops over keys run in steps of so many, also the last one: what is left over would be taken one by one, and an
// exponential costs as much alone as among sixteen.
inline constexpr int64_t kKeyStep = 16;
inline int64_t whole_steps(int64_t keys) {
  return (keys + kKeyStep - 1) / kKeyStep * kKeyStep;
}

// scores[0, visible) becomes exp(scale * (score - maximum)), the rest of the strip zero. Returns the sum and, in `max`,
// scale * maximum. There is room for whole_steps(visible) scores.
inline float softmax_numerators(float* scores, float scale, int64_t visible, int64_t strip, float& max) {
  const int64_t count = whole_steps(visible);
  std::fill(scores + visible, scores + count, -std::numeric_limits<float>::infinity());
  float largest = scores[0];
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) largest = scores[i] > largest ? scores[i] : largest;
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    scores[i] = fast_exp(scale * (scores[i] - largest));
    sum += scores[i];
  }
  std::fill(scores + std::min(count, strip), scores + strip, 0.0f);
  max = scale * largest;
  return sum;
}

inline float dot(const float* a, const float* b, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace mhmoe::cpu
