#include "train/spike_guard.h"

#include <gtest/gtest.h>

#include <cmath>

#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

SpikeGuard guard_after(std::initializer_list<double> losses, double threshold, int64_t window = 128) {
  SpikeGuard guard({.threshold = threshold, .window_steps = window});
  for (const double loss : losses) guard.add(loss, 2 * loss);
  return guard;
}

TEST(SpikeGuard, HasNoLimitsWhileOffOrBeforeItHasSeenEnough) {
  SpikeGuard off({.threshold = 0, .window_steps = 128}), on({.threshold = 5, .window_steps = 128});
  for (size_t step = 1; step <= SpikeGuard::kFewestSteps; ++step) {
    EXPECT_EQ(on.limits().loss, kInfinity);
    EXPECT_EQ(on.limits().gradient_norm, kInfinity);
    off.add(3, 1);
    on.add(3, 1);
  }
  EXPECT_EQ(off.limits().loss, kInfinity);
  EXPECT_LT(on.limits().loss, kInfinity);
}

// Of 1 .. 17 the median is 9 and the distances' median is 4.
TEST(SpikeGuard, LimitsAreTheMedianAndTheThresholdTimesTheDeviation) {
  const SpikeGuard guard = guard_after({17, 1, 16, 2, 15, 3, 14, 4, 13, 5, 12, 6, 11, 7, 10, 8, 9}, 2);
  EXPECT_DOUBLE_EQ(guard.limits().loss, 9 + 2 * 1.4826 * 4);
  EXPECT_DOUBLE_EQ(guard.limits().gradient_norm, 2 * (9 + 2 * 1.4826 * 4));
}

TEST(SpikeGuard, EqualStepsLeaveAHundredthOfTheMedianForADeviation) {
  SpikeGuard guard({.threshold = 3, .window_steps = 32});
  for (int i = 0; i < 20; ++i) guard.add(4, 4);
  EXPECT_DOUBLE_EQ(guard.limits().loss, 4 + 3 * 0.04);
}

TEST(SpikeGuard, ForgetsWhatHasLeftItsWindow) {
  SpikeGuard guard({.threshold = 3, .window_steps = 16});
  for (int i = 0; i < 16; ++i) guard.add(100, 100);
  for (int i = 0; i < 16; ++i) guard.add(4, 4);
  EXPECT_DOUBLE_EQ(guard.limits().loss, 4 + 3 * 0.04);
}

TEST(SpikeGuard, StateGoesThroughJsonUnchanged) {
  SpikeGuard guard({.threshold = 3, .window_steps = 16});
  for (int i = 0; i < 20; ++i) guard.add(std::exp(-0.1 * i), 1.0 / (i + 1));
  const json::Value state = json::parse(json::to_line(guard.state()), "state", ExitCode::kBadData);
  SpikeGuard restored({.threshold = 3, .window_steps = 16});
  restored.restore(state);
  EXPECT_EQ(restored.limits().loss, guard.limits().loss);
  EXPECT_EQ(restored.limits().gradient_norm, guard.limits().gradient_norm);
  EXPECT_THROW(restored.restore(json::parse(R"({"losses": ["x"]})", "state", ExitCode::kBadData)), Error);
}

// A trainer that has seen ordinary steps, whose weights can be spoilt and mended; tiny, so that a second thread would
// only wait.
class GuardedTrainer : public testing::Test {
 protected:
  GuardedTrainer() : run_(config()) {
    for (uint64_t i = 0; i < 20; ++i) run_.trainer->step(random_batch(run_.config, i));
    good_ = run_.weights();
  }

  static RunConfig config() {
    RunConfig config = tiny_config();
    config.train.spike_guard.threshold = 6;
    return config;
  }

  Refusal step_with_first_weight_times(float factor) {
    std::vector<float> weights = good_;
    for (float& weight : weights) weight *= factor;
    run_.ctx->upload(run_.parameters().master(), weights.data());
    const Refusal refusal = run_.trainer->step(random_batch(run_.config, 99)).refusal;
    if (refusal != Refusal::kNone) {
      EXPECT_EQ(std::memcmp(run_.weights().data(), weights.data(), weights.size() * sizeof(float)), 0);
    }
    run_.ctx->upload(run_.parameters().master(), good_.data());
    return refusal;
  }

  ThreadCount one_thread_{1};
  CpuTrainer run_;
  std::vector<float> good_;
};

TEST_F(GuardedTrainer, ASpikeIsRefusedAlsoAfterANan) {
  EXPECT_EQ(step_with_first_weight_times(20), Refusal::kSpike);
  EXPECT_EQ(step_with_first_weight_times(std::numeric_limits<float>::quiet_NaN()), Refusal::kNotFinite);
  for (uint64_t i = 0; i < 40; ++i) EXPECT_FALSE(run_.trainer->step(random_batch(run_.config, i)).refused()) << i;
  good_ = run_.weights();
  EXPECT_EQ(step_with_first_weight_times(20), Refusal::kSpike);
}

// The first tensor with a NaN is the parameter that holds it; every layer is tried.
TEST_F(GuardedTrainer, TheFirstBadTensorIsNamed) {
  EXPECT_EQ(run_.trainer->first_not_finite(random_batch(run_.config, 1)), "");
  run_.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    std::vector<float> weights = good_;
    weights[parameter.offset + part.offset] = std::numeric_limits<float>::quiet_NaN();
    run_.ctx->upload(run_.parameters().master(), weights.data());
    EXPECT_EQ(run_.trainer->first_not_finite(random_batch(run_.config, 1)), "weight." + part.name);
  });
  run_.ctx->upload(run_.parameters().master(), good_.data());
  EXPECT_FALSE(run_.trainer->step(random_batch(run_.config, 1)).refused()) << "the probe left a gradient behind";
}

// Gradients add up on what the store holds: a NaN put there is one that the step's own backward pass made.
TEST_F(GuardedTrainer, ANanInAnyTensorsGradientIsRefusedAnyExpertsToo) {
  const float bad = std::numeric_limits<float>::quiet_NaN();
  int experts = 0;
  run_.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    run_.ctx->upload(run_.parameters().gradient().slice(parameter.offset + part.offset + part.count() - 1, 1), &bad);
    EXPECT_EQ(run_.trainer->step(random_batch(run_.config, 1)).refusal, Refusal::kNotFinite) << part.name;
    EXPECT_EQ(run_.weights(), good_) << part.name;
    experts += part.name.find(".experts.") != std::string::npos ? 1 : 0;
  });
  EXPECT_EQ(experts, 3 * 4) << "gate, up and down of four experts";
  EXPECT_FALSE(run_.trainer->step(random_batch(run_.config, 1)).refused());
}

// A product that overflows: weights are finite, the first activation that is not is named.
TEST_F(GuardedTrainer, OverflowIsTracedToItsLayer) {
  run_.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    if (part.name != "layers.1.attention.v.weight") return;
    std::vector<float> weights = good_;
    const auto begin = weights.begin() + parameter.offset + part.offset;
    std::fill(begin, begin + part.count(), 1e38F);
    run_.ctx->upload(run_.parameters().master(), weights.data());
    EXPECT_EQ(run_.trainer->first_not_finite(random_batch(run_.config, 1)), "layers.1.attention.qkv");
  });
}

}  // namespace
}  // namespace mhmoe::train
