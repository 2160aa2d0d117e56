// Branch-free elementary functions that compilers vectorise in loops marked `#pragma omp simd`.
// Relative errors are below 2e-7; not-a-number goes through.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/dtype.h"

namespace mhmoe::cpu {

// e^x. Results below the smallest normal number (x < -87.3) are 0, so that masked scores of -infinity vanish.
inline float fast_exp(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float clamped_low = x < -87.3365402f ? -87.3365402f : x;
  const float clamped = clamped_low > 89.0f ? 89.0f : clamped_low;
  const float shifted = clamped * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  // Minimax over [-ln2/2, ln2/2] of (e^r - 1 - r) / r^2, weighted for relative error.
  float p = 1.38145685e-3f;
  p = p * r + 8.36873055e-3f;
  p = p * r + 4.16683890e-2f;
  p = p * r + 1.66665211e-1f;
  p = p * r + 4.99999940e-1f;
  const float e = p * (r * r) + r + 1.0f;
  // 2^n in two factors, since n reaches 128 and a float's exponent does not.
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound);
  const int32_t half = exponent >> 1;
  const float scale = std::bit_cast<float>((half + 127) << 23);
  const float scale_rest = std::bit_cast<float>((exponent - half + 127) << 23);
  const float result = e * scale * scale_rest;
  return x < -87.3365402f ? 0.0f : result;
}

// 1 / (1 + e^-x).
inline float sigmoid(float x) {
  return 1.0f / (1.0f + fast_exp(-x));
}

// The error function: an odd polynomial within [-1, 1], 1 - exp(polynomial) outside.
inline float fast_erf(float x) {
  const float magnitude = std::fabs(x);
  const float t = magnitude > 4.0f ? 4.0f : magnitude;  // erf(4) rounds to 1
  const float s = t * t;
  float inner = 7.85385782e-5f;
  inner = inner * s - 8.01019254e-4f;
  inner = inner * s + 5.18832775e-3f;
  inner = inner * s - 2.68538110e-2f;
  inner = inner * s + 1.12835854e-1f;
  inner = inner * s - 3.76126260e-1f;
  inner = inner * s + 1.28379166e-1f;
  inner = inner * t + t;
  // -log(1 - erf(t)) over [1, 4].
  float outer = -1.86380086e-4f;
  outer = outer * t + 2.94766692e-3f;
  outer = outer * t - 2.18380969e-2f;
  outer = outer * t + 1.03106840e-1f;
  outer = outer * t + 6.38144732e-1f;
  outer = outer * t + 1.12708926e0f;
  outer = outer * t + 3.41512583e-4f;
  const float far = 1.0f - fast_exp(-outer);
  return std::copysign(t > 1.0f ? far : inner, x);
}

// Rows converted to and from the arithmetic type; T is float or bfloat16.
template <class T>
void load_row(float* out, const T* in, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]);
}

// Bit by bit for bfloat16: GCC does not vectorise the assignment of a class.
inline void store_value(float& out, float value) {
  out = value;
}
inline void store_value(bfloat16& out, float value) {
  out.bits = bfloat16(value).bits;
}

template <class T>
void store_row(T* out, const float* in, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) store_value(out[i], in[i]);
}

}  // namespace mhmoe::cpu
