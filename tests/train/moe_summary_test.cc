#include "train/moe_summary.h"

#include <gtest/gtest.h>

#include <array>

namespace mhmoe::train {
namespace {

nn::MoeConfig four_experts() {
  nn::MoeConfig moe;
  moe.experts = 4;
  moe.top_k = 2;
  return moe;
}

// 10 sub-tokens, k = 2: 20 assignments; capacity 2 * ceil(10 / 4) = 6.
TEST(MoeSummary, CountsWhatLiesBeyondCapacity) {
  const std::array<float, 2> balance{1.0F, 2.0F};
  const std::array<int32_t, 8> load{5, 5, 5, 5, 10, 9, 1, 0};
  const MoeSummary summary = summarize(four_experts(), 1.0, 10, balance, load);
  EXPECT_DOUBLE_EQ(summary.balance_loss, 1.5);
  EXPECT_DOUBLE_EQ(summary.load_max_over_mean, (1.0 + 2.0) / 2);
  EXPECT_DOUBLE_EQ(summary.dropped_fraction, (4.0 + 3.0) / 40);
  EXPECT_DOUBLE_EQ(summary.expert_activation, 7.0 / 8);
}

TEST(MoeSummary, NothingIsDroppedWithoutCapacityAndDenseModelsHaveNothingToSay) {
  const std::array<float, 1> balance{3.0F};
  const std::array<int32_t, 4> load{20, 0, 0, 0};
  EXPECT_EQ(summarize(four_experts(), std::nullopt, 10, balance, load).dropped_fraction, 0);
  EXPECT_DOUBLE_EQ(summarize(four_experts(), std::nullopt, 10, balance, load).expert_activation, 0.25);
  EXPECT_EQ(summarize(four_experts(), 1.0, 10, {}, {}).load_max_over_mean, 0);
}

}  // namespace
}  // namespace mhmoe::train
