// Arithmetic that CUDA's headers declare for device code only. Included by simt.h.
#pragma once

#include <bit>
#include <cmath>
#include <numbers>
#include <type_traits>

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline int __popc(unsigned value) {
  return std::popcount(value);
}
inline int __clz(int value) {
  return std::countl_zero(static_cast<unsigned>(value));
}
inline int __ffs(int value) {
  return __builtin_ffs(value);
}
inline float __int_as_float(int value) {
  return std::bit_cast<float>(value);
}
inline int __float_as_int(float value) {
  return std::bit_cast<int>(value);
}
inline unsigned __float_as_uint(float value) {
  return std::bit_cast<unsigned>(value);
}
inline float __uint_as_float(unsigned value) {
  return std::bit_cast<float>(value);
}
inline float rsqrtf(float value) {
  return 1.0f / std::sqrt(value);
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline void sincospi(double half_turns, double* sine, double* cosine) {
  const double angle = std::remainder(half_turns, 2.0) * std::numbers::pi;
  *sine = std::sin(angle);
  *cosine = std::cos(angle);
}

using std::isfinite;
using std::isinf;
using std::isnan;

template <class T>
T min(T a, std::type_identity_t<T> b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, std::type_identity_t<T> b) {
  return a < b ? b : a;
}
