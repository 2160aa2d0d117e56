#include "cpu/simd_math.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace mhmoe {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

template <class Fast, class Exact>
void expect_relative_error(float low, float high, Fast fast, Exact exact) {
  double worst = 0, at = 0;
  const int steps = 400000;
  for (int i = 0; i <= steps; ++i) {
    const float x = low + (high - low) * static_cast<float>(i) / steps;
    const double expected = exact(static_cast<double>(x));
    const double error = std::abs(fast(x) - expected) / std::max(std::abs(expected), 1e-37);
    if (error > worst) worst = error, at = x;
  }
  EXPECT_LE(worst, 2e-7) << "at " << at;
}

TEST(SimdMath, ExpIsWithinItsBoundAndSaturates) {
  expect_relative_error(-87.3f, 88.7f, cpu::fast_exp, [](double x) { return std::exp(x); });
  expect_relative_error(-1.0f, 1.0f, cpu::fast_exp, [](double x) { return std::exp(x); });
  EXPECT_EQ(cpu::fast_exp(0.0f), 1.0f);
  EXPECT_EQ(cpu::fast_exp(-kInfinity), 0.0f);
  EXPECT_EQ(cpu::fast_exp(-1000.0f), 0.0f);
  EXPECT_EQ(cpu::fast_exp(kInfinity), kInfinity);
  EXPECT_EQ(cpu::fast_exp(1000.0f), kInfinity);
  EXPECT_TRUE(std::isnan(cpu::fast_exp(kNan)));
}

TEST(SimdMath, SigmoidIsWithinItsBoundAndSaturates) {
  expect_relative_error(-80.0f, 80.0f, cpu::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); });
  EXPECT_EQ(cpu::sigmoid(-kInfinity), 0.0f);
  EXPECT_EQ(cpu::sigmoid(kInfinity), 1.0f);
  EXPECT_TRUE(std::isnan(cpu::sigmoid(kNan)));
}

TEST(SimdMath, ErfIsWithinItsBoundOddAndSaturates) {
  expect_relative_error(-6.0f, 6.0f, cpu::fast_erf, [](double x) { return std::erf(x); });
  expect_relative_error(-0.01f, 0.01f, cpu::fast_erf, [](double x) { return std::erf(x); });
  EXPECT_EQ(cpu::fast_erf(0.3f), -cpu::fast_erf(-0.3f));
  EXPECT_EQ(cpu::fast_erf(kInfinity), 1.0f);
  EXPECT_TRUE(std::isnan(cpu::fast_erf(kNan)));
}

TEST(SimdMath, RowsConvertLikeElements) {
  std::vector<float> in{1.0f, -2.5f, 1.00390625f, 3.0e38f, kInfinity, kNan, 0.0f, 1e-40f, 7.7f};
  std::vector<bfloat16> rounded(in.size());
  std::vector<float> back(in.size());
  cpu::store_row(rounded.data(), in.data(), static_cast<int64_t>(in.size()));
  cpu::load_row(back.data(), rounded.data(), static_cast<int64_t>(in.size()));
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_EQ(rounded[i].bits, bfloat16(in[i]).bits);
    if (std::isnan(in[i])) continue;
    EXPECT_EQ(back[i], static_cast<float>(bfloat16(in[i])));
  }
}

}  // namespace
}  // namespace mhmoe
