#include "train/schedule.h"

#include <gtest/gtest.h>

namespace mhmoe::train {
namespace {

const LearningRateConfig kLinear{.peak = 1.0, .final = 0.25, .warmup_steps = 10, .decay = Decay::kLinear};
const LearningRateConfig kCosine{.peak = 1.0, .final = 0.25, .warmup_steps = 10, .decay = Decay::kCosine};

TEST(Schedule, WarmUpIsALineThroughZeroAndThePeak) {
  for (int64_t step = 0; step <= 10; ++step) {
    EXPECT_DOUBLE_EQ(learning_rate_at(kLinear, 110, step), static_cast<double>(step) / 10);
    EXPECT_DOUBLE_EQ(learning_rate_at(kCosine, 110, step), static_cast<double>(step) / 10);
  }
}

TEST(Schedule, LastStepHasTheFinalRate) {
  EXPECT_DOUBLE_EQ(learning_rate_at(kLinear, 110, 110), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate_at(kCosine, 110, 110), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate_at(kLinear, 110, 500), 0.25);
}

TEST(Schedule, HalfWayDownIsTheMeanOfPeakAndFinal) {
  EXPECT_DOUBLE_EQ(learning_rate_at(kLinear, 110, 60), 0.625);
  EXPECT_NEAR(learning_rate_at(kCosine, 110, 60), 0.625, 1e-12);
}

TEST(Schedule, LinearFallsByEqualStepsAndCosineStartsSlower) {
  const double fall = learning_rate_at(kLinear, 110, 10) - learning_rate_at(kLinear, 110, 11);
  for (int64_t step = 10; step < 110; ++step) {
    EXPECT_NEAR(learning_rate_at(kLinear, 110, step) - learning_rate_at(kLinear, 110, step + 1), fall, 1e-12);
  }
  EXPECT_GT(learning_rate_at(kCosine, 110, 20), learning_rate_at(kLinear, 110, 20));
  EXPECT_LT(learning_rate_at(kCosine, 110, 100), learning_rate_at(kLinear, 110, 100));
}

TEST(Schedule, WorksWithoutWarmUpAndWithoutDecay) {
  LearningRateConfig config = kLinear;
  config.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 4, 2), 0.625);
  config.warmup_steps = 10;
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 10, 10), 1.0);
}

}  // namespace
}  // namespace mhmoe::train
