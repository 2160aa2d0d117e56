#include "train/exact_norm.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>

#include "core/parallel_for.h"

namespace mhmoe::train {
namespace {

constexpr int64_t kGrain = 1 << 14;
constexpr int kLowBits = 31;

// Bits of floats that are not negative are in the order of their values, infinity and NaN last.
int64_t largest_bits(std::span<const Tensor> vectors) {
  std::atomic<uint32_t> largest_of_all = 0;
  for (const Tensor& vector : vectors) {
    const auto* values = vector.as<const float>();
    parallel_for(vector.count(), kGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
      uint32_t largest = 0;
      for (int64_t i = begin; i < end; ++i)
        largest = std::max(largest, std::bit_cast<uint32_t>(values[i]) & 0x7fffffffu);
      uint32_t known = largest_of_all;
      while (known < largest && !largest_of_all.compare_exchange_weak(known, largest)) {
      }
    });
  }
  return largest_of_all;
}

struct FixedPoint {
  int64_t high = 0, low = 0;
};

// A float's square is exact in double; scaled, its whole part and the next 31 bits are kept.
FixedPoint sum_scaled(const float* values, int64_t begin, int64_t end, double scale) {
  constexpr double kLowUnits = int64_t{1} << kLowBits;
  FixedPoint sum;
  for (int64_t i = begin; i < end; ++i) {
    const double square = static_cast<double>(values[i]) * values[i] * scale;
    const auto whole = static_cast<int64_t>(square);
    sum.high += whole;
    sum.low += static_cast<int64_t>((square - static_cast<double>(whole)) * kLowUnits);
  }
  return sum;
}

}  // namespace

float exact_sum_squares(Job& job, std::span<const Tensor> vectors, int64_t elements) {
  std::array<int64_t, 1> bits = {largest_bits(vectors)};
  job.maximum(bits);
  const auto largest = std::bit_cast<float>(static_cast<uint32_t>(bits[0]));
  if (!std::isfinite(largest)) return std::numeric_limits<float>::quiet_NaN();
  if (largest == 0) return 0;
  // The largest square, times all elements, stays below 2^62.
  const int exponent = 2 * (std::ilogb(largest) + 1);
  const int shift = 62 - static_cast<int>(std::bit_width(static_cast<uint64_t>(elements))) - exponent;
  const double scale = std::ldexp(1.0, shift);
  std::atomic<int64_t> high = 0, low = 0;
  for (const Tensor& vector : vectors) {
    const auto* values = vector.as<const float>();
    parallel_for(vector.count(), kGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
      const FixedPoint sum = sum_scaled(values, begin, end, scale);
      high += sum.high;
      low += sum.low;
    });
  }
  std::array<int64_t, 2> total = {high, low};
  job.sum(total);
  const double sum = static_cast<double>(total[0]) + std::ldexp(static_cast<double>(total[1]), -kLowBits);
  return static_cast<float>(std::ldexp(sum, -shift));
}

}  // namespace mhmoe::train
