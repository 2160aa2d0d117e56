#include "ops/adam.h"

#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class AdamTest : public OpTest {
 protected:
  // {clip scale, refuse} for these inputs.
  std::vector<double> clip(double sum_squares, double loss, float clip_norm, double loss_limit = kInfinity,
                           double norm_limit = kInfinity) {
    const Tensor scalars = filled(DType::kF32, {ops::kStepScalarCount}, 7);
    write_value(scalars, ops::kLossLimit, loss_limit);
    write_value(scalars, ops::kNormLimit, norm_limit);
    ops::clip_scale(ctx(), {scalars, filled(DType::kF32, {1}, sum_squares), filled(DType::kF32, {1}, loss), clip_norm});
    const std::vector<double> all = values(scalars);
    EXPECT_EQ(all[ops::kLearningRate], 7);
    EXPECT_EQ(all[ops::kBiasCorrection1], 7);
    EXPECT_EQ(all[ops::kBiasCorrection2], 7);
    return {all[ops::kClipScale], all[ops::kRefuse]};
  }

  Tensor scalars(double learning_rate, double correction1, double correction2, double clip_scale, double refuse) {
    return given(DType::kF32, {ops::kStepScalarCount},
                 {learning_rate, correction1, correction2, kInfinity, kInfinity, clip_scale, refuse});
  }
};

TEST_F(AdamTest, ClipScaleShrinksOnlyLargeNormsAndRefusesWhatIsNotFinite) {
  EXPECT_EQ(clip(4, 1, 1), (std::vector<double>{0.5, 0}));
  EXPECT_EQ(clip(0.25, 1, 1), (std::vector<double>{1, 0}));
  EXPECT_EQ(clip(0, 1, 1), (std::vector<double>{1, 0}));
  EXPECT_EQ(clip(1e8, 1, 0), (std::vector<double>{1, 0}));
  EXPECT_EQ(clip(kInfinity, 1, 1)[1], 1);
  EXPECT_EQ(clip(kNan, 1, 0)[1], 1);
  EXPECT_EQ(clip(4, kNan, 1)[1], 1);
  EXPECT_EQ(clip(4, -kInfinity, 1)[1], 1);
}

TEST_F(AdamTest, LossesAndNormsAboveTheirLimitsAreRefused) {
  EXPECT_EQ(clip(4, 3, 1, 3, 2)[1], 0);
  EXPECT_EQ(clip(4, 3.001, 1, 3, 2)[1], 1);
  EXPECT_EQ(clip(4.001, 3, 1, 3, 2)[1], 1);
  EXPECT_EQ(clip(4.001, 3, 1, 3)[1], 0);
  EXPECT_EQ(clip(kNan, 1, 1, 3, 2)[1], 1);
}

TEST_F(AdamTest, UpdatesFollowTheFormulaInDouble) {
  const double b1 = 0.9F, b2 = 0.98F, eps = 1e-6F, decay = 0.1F, lr = 0.01F, clip = 0.25, c1 = 0.19F, c2 = 0.0396F;
  for (const bool decoupled : {true, false}) {
    for (const int64_t n : {0, 1, 1003}) {
      const Tensor master = random(DType::kF32, {n}), m = random(DType::kF32, {n}, 0.1),
                   grad = random(DType::kF32, {n});
      const Tensor v = random(DType::kF32, {n}), copy = garbage(DType::kBF16, {n});
      for (int64_t i = 0; i < n; ++i) write_value(v, i, std::abs(read_value(v, i)));
      std::vector<double> new_master, new_m, new_v;
      for (int64_t i = 0; i < n; ++i) {
        const double p = read_value(master, i), g = clip * read_value(grad, i) + (decoupled ? 0 : decay * p);
        new_m.push_back(b1 * read_value(m, i) + (1 - b1) * g);
        new_v.push_back(b2 * read_value(v, i) + (1 - b2) * g * g);
        const double direction = new_m.back() / c1 / (std::sqrt(new_v.back() / c2) + eps);
        new_master.push_back(p - lr * (direction + (decoupled ? decay * p : 0)));
      }
      ops::adam_update(ctx(), {.master = master,
                               .moment1 = m,
                               .moment2 = v,
                               .grad = grad,
                               .scalars = scalars(lr, c1, c2, clip, 0),
                               .copy = copy,
                               .beta1 = static_cast<float>(b1),
                               .beta2 = static_cast<float>(b2),
                               .eps = static_cast<float>(eps),
                               .weight_decay = static_cast<float>(decay),
                               .decoupled = decoupled});
      // Numbers of order 1 (at most 5) and a handful of roundings each.
      expect_close("moment1", m, new_m, 8 * 0x1p-24);
      expect_close("moment2", v, new_v, 16 * 0x1p-24);
      expect_close("master", master, new_master, 16 * 0x1p-24);
      std::vector<double> rounded;
      for (const double value : values(master))
        rounded.push_back(static_cast<float>(bfloat16(static_cast<float>(value))));
      expect_equal("copy", copy, rounded);
    }
  }
}

TEST_F(AdamTest, TheFirstStepMovesByTheLearningRateAgainstTheGradient) {
  const Tensor master = zeros(DType::kF32, {2}), m = zeros(DType::kF32, {2}), v = zeros(DType::kF32, {2});
  const Tensor grad = given(DType::kF32, {2}, {1e-3, -40});
  ops::adam_update(ctx(), {.master = master,
                           .moment1 = m,
                           .moment2 = v,
                           .grad = grad,
                           .scalars = scalars(0.125, 1 - 0.9F, 1 - 0.999F, 1, 0),
                           .beta1 = 0.9F,
                           .beta2 = 0.999F,
                           .eps = 0,
                           .weight_decay = 0});
  expect_close("master", master, std::vector<double>{-0.125, 0.125}, 1e-6);
}

TEST_F(AdamTest, ARefusedStepLeavesEverythingBitForBit) {
  const Tensor master = random(DType::kF32, {50}), m = random(DType::kF32, {50}), v = filled(DType::kF32, {50}, 1);
  const Tensor copy = random(DType::kBF16, {50}), grad = filled(DType::kF32, {50}, kNan);
  const auto before_master = values(master), before_m = values(m), before_v = values(v), before_copy = values(copy);
  ops::adam_update(ctx(), {.master = master,
                           .moment1 = m,
                           .moment2 = v,
                           .grad = grad,
                           .scalars = scalars(0.1, 0.1, 0.1, kNan, 1),
                           .copy = copy,
                           .beta1 = 0.9F,
                           .beta2 = 0.98F,
                           .eps = 1e-6F,
                           .weight_decay = 0.1F});
  expect_equal("master", master, before_master);
  expect_equal("moment1", m, before_m);
  expect_equal("moment2", v, before_v);
  expect_equal("copy", copy, before_copy);
}

}  // namespace
}  // namespace mhmoe::test
