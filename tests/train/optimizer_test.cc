#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

constexpr int kSteps = 5;

struct Case {
  OptimizerKind kind;
  WeightDecayOn decay_on;
  double clip_norm;
  DType compute = DType::kF32;
};

// A matrix, a norm weight and a router whose counts are no multiples of the alignment.
class OptimizerTest : public testing::TestWithParam<Case> {
 protected:
  OptimizerTest() : ctx_(cpu::backend().create_context(0)), groups_(comm::make_single_groups(*ctx_)) {
    store_.add(nn::ParameterKind::kMatrix, "matrix", {5, 7}, nn::Init::normal(1));
    store_.add(nn::ParameterKind::kVector, "norm", {9}, nn::Init::ones());
    store_.add(nn::ParameterKind::kRouter, "router", {3, 4}, nn::Init::uniform(0.5));
    store_.allocate(*ctx_, GetParam().compute);
    store_.initialize(*ctx_, 3);
  }

  static OptimizerConfig config() {
    return {.kind = GetParam().kind,
            .beta1 = 0.8,
            .beta2 = 0.9,
            .eps = 1e-3,
            .weight_decay = 0.1,
            .weight_decay_on = GetParam().decay_on};
  }

  void upload_gradients(int step, float scale) {
    for (nn::Parameter& parameter : store_.all()) {
      const Philox random(static_cast<uint64_t>(step), parameter.parts[0].name);
      std::vector<float> values(static_cast<size_t>(parameter.count()));
      for (size_t i = 0; i < values.size(); ++i) values[i] = scale * random.normal(i);
      ctx_->upload(parameter.gradient, values.data());
    }
  }

  std::vector<double> host(Tensor nn::Parameter::*member) {
    std::vector<double> out;
    for (const nn::Parameter& parameter : store_.all()) {
      const auto values = to_host(*ctx_, parameter.*member);
      out.insert(out.end(), values.begin(), values.end());
    }
    return out;
  }

  StepScalars allocate_scalars() {
    return StepScalars(ctx_->state().allocate("scalars", DType::kF32, {StepScalars::kCount}));
  }

  Optimizer::Outcome step(Optimizer& optimizer, const StepScalars& scalars, double rate) {
    ctx_->upload(scalars.update, optimizer.inputs(rate, {}).data());
    optimizer.update(*ctx_, scalars);
    return optimizer.finish(to_host(*ctx_, scalars.words));
  }

  std::unique_ptr<Context> ctx_;
  comm::ParallelGroups groups_;
  nn::ParameterStore store_;
};

// Adam as its paper writes it (Kingma & Ba, algorithm 1), decay as in Loshchilov & Hutter, algorithm 2; in double.
struct Oracle {
  std::vector<double> weight, first, second;

  explicit Oracle(const std::vector<double>& start) : weight(start), first(start.size()), second(start.size()) {}

  double update(std::vector<double> gradient, const OptimizerConfig& config, double clip_norm, double rate, int t) {
    double squares = 0;
    for (const double g : gradient) squares += g * g;
    const double norm = std::sqrt(squares);
    const double clip = clip_norm > 0 ? std::min(1.0, clip_norm / norm) : 1;
    for (size_t i = 0; i < weight.size(); ++i) {
      const bool is_norm = i >= 35 && i < 44;  // the vector stands between matrix and router
      const bool decays = config.weight_decay_on == WeightDecayOn::kAll || !is_norm;
      const double decay = decays ? config.weight_decay : 0;
      const bool decoupled = config.kind == OptimizerKind::kAdamW;
      const double g = clip * gradient[i] + (decoupled ? 0 : decay * weight[i]);
      first[i] = config.beta1 * first[i] + (1 - config.beta1) * g;
      second[i] = config.beta2 * second[i] + (1 - config.beta2) * g * g;
      const double m = first[i] / (1 - std::pow(config.beta1, t));
      const double v = second[i] / (1 - std::pow(config.beta2, t));
      weight[i] -= rate * (m / (std::sqrt(v) + config.eps) + (decoupled ? decay * weight[i] : 0));
    }
    return norm;
  }
};

TEST_P(OptimizerTest, FollowsTheOracleForFiveSteps) {
  const StepScalars scalars = allocate_scalars();
  Optimizer optimizer(*ctx_, store_, config(), {.clip_norm = GetParam().clip_norm}, groups_);
  Oracle oracle(host(&nn::Parameter::master));
  ctx_->fill_zero(scalars.loss);
  for (int t = 1; t <= kSteps; ++t) {
    upload_gradients(t, static_cast<float>(t) / 3);
    const double rate = 0.1 / t;
    const double norm = oracle.update(host(&nn::Parameter::gradient), config(), GetParam().clip_norm, rate, t);
    const Optimizer::Outcome outcome = step(optimizer, scalars, rate);
    EXPECT_FALSE(outcome.refused);
    EXPECT_NEAR(outcome.gradient_norm, norm, 1e-5 * norm);
    const std::vector<double> weights = host(&nn::Parameter::master);
    for (size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(weights[i], oracle.weight[i], 2e-6) << "element " << i;
  }
  EXPECT_EQ(optimizer.updates(), kSteps);
}

TEST_P(OptimizerTest, RefusedStepChangesNothingAndIsNoUpdate) {
  const StepScalars scalars = allocate_scalars();
  Optimizer optimizer(*ctx_, store_, config(), {.clip_norm = GetParam().clip_norm}, groups_);
  ctx_->fill_zero(scalars.loss);
  upload_gradients(1, 1);
  step(optimizer, scalars, 0.1);

  const std::vector<double> before = host(&nn::Parameter::master);
  upload_gradients(2, 1);
  const float bad = std::numeric_limits<float>::quiet_NaN();
  ctx_->upload(Tensor(store_.gradient().as<float>() + 3, DType::kF32, {1}), &bad);
  EXPECT_TRUE(step(optimizer, scalars, 0.1).refused);
  EXPECT_EQ(host(&nn::Parameter::master), before);
  EXPECT_EQ(optimizer.updates(), 1);

  const float infinite = std::numeric_limits<float>::infinity();
  upload_gradients(3, 1);
  ctx_->upload(scalars.loss, &infinite);
  EXPECT_TRUE(step(optimizer, scalars, 0.1).refused);
  EXPECT_EQ(host(&nn::Parameter::master), before);

  // The moments were left alone too: the next good step is the one that would have come without the bad ones.
  ctx_->fill_zero(scalars.loss);
  upload_gradients(4, 1);
  step(optimizer, scalars, 0.1);
  const std::vector<double> resumed = host(&nn::Parameter::master);
  store_.initialize(*ctx_, 3);
  Optimizer fresh(*ctx_, store_, config(), {.clip_norm = GetParam().clip_norm}, groups_);
  upload_gradients(1, 1);
  step(fresh, scalars, 0.1);
  upload_gradients(4, 1);
  step(fresh, scalars, 0.1);
  EXPECT_EQ(host(&nn::Parameter::master), resumed);
}

TEST_P(OptimizerTest, ComputeCopiesFollowTheMasters) {
  const StepScalars scalars = allocate_scalars();
  Optimizer optimizer(*ctx_, store_, config(), {.clip_norm = GetParam().clip_norm}, groups_);
  ctx_->fill_zero(scalars.loss);
  upload_gradients(1, 1);
  step(optimizer, scalars, 0.1);
  const nn::Parameter& matrix = store_.all()[0];
  const std::vector<float> masters = to_host(*ctx_, matrix.master);
  if (GetParam().compute == DType::kF32) {
    EXPECT_EQ(matrix.value.data, matrix.master.data);
    return;
  }
  std::vector<bfloat16> copies(masters.size());
  ctx_->download(copies.data(), matrix.value);
  for (size_t i = 0; i < masters.size(); ++i) EXPECT_EQ(copies[i].bits, bfloat16(masters[i]).bits);
}

INSTANTIATE_TEST_SUITE_P(Kinds, OptimizerTest,
                         testing::Values(Case{OptimizerKind::kAdamW, WeightDecayOn::kAll, 0},
                                         Case{OptimizerKind::kAdamW, WeightDecayOn::kMatrices, 1.5},
                                         Case{OptimizerKind::kAdam, WeightDecayOn::kAll, 1.5},
                                         Case{OptimizerKind::kAdam, WeightDecayOn::kMatrices, 0},
                                         Case{OptimizerKind::kAdamW, WeightDecayOn::kMatrices, 1e9, DType::kBF16}));

}  // namespace
}  // namespace mhmoe::train
