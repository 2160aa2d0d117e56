#include "ops/cross_entropy.h"

#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

class CrossEntropyTest : public OpTest {
 protected:
  struct Expected {
    std::vector<double> loss, grad;
  };

  static Expected plain_loops(const Tensor& logits, const Tensor& targets, double scale) {
    const int64_t rows = logits.rows(), vocabulary = logits.cols();
    Expected expected;
    for (int64_t n = 0; n < rows; ++n) {
      double sum = 0;
      for (int64_t v = 0; v < vocabulary; ++v) sum += std::exp(read_value(logits, n * vocabulary + v));
      const auto target = static_cast<int64_t>(read_value(targets, n));
      expected.loss.push_back(target < 0 ? 0 : std::log(sum) - read_value(logits, n * vocabulary + target));
      for (int64_t v = 0; v < vocabulary; ++v) {
        const double p = std::exp(read_value(logits, n * vocabulary + v)) / sum;
        expected.grad.push_back(target < 0 ? 0 : scale * (p - (v == target ? 1 : 0)));
      }
    }
    return expected;
  }

  Tensor random_targets(int64_t rows, int64_t vocabulary) {
    std::vector<double> targets;
    for (int64_t n = 0; n < rows; ++n) targets.push_back(n % 4 == 3 ? -1 : static_cast<double>(n * 7 % vocabulary));
    if (rows > 1) targets[1] = static_cast<double>(vocabulary - 1);
    return given(DType::kI32, {rows}, targets);
  }
};

TEST_F(CrossEntropyTest, LossAndGradientAgreeWithPlainLoops) {
  const float scale = 0.37F;
  for (const int64_t rows : {0, 1, 9}) {
    for (const int64_t vocabulary : {1, 2, 67, 2500}) {
      const Tensor logits = random(DType::kF32, {rows, vocabulary}, 3), targets = random_targets(rows, vocabulary);
      const Expected expected = plain_loops(logits, targets, scale);
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const Tensor loss = garbage(DType::kF32, {rows}), grad = garbage(dtype, {rows, vocabulary});
        ops::cross_entropy(ctx(), {loss, logits, targets, grad, given(DType::kF32, {1}, {scale})});
        std::vector<double> tolerance;
        for (const double g : expected.grad) {
          tolerance.push_back(8 * 0x1p-24 * (std::abs(g) + scale) + unit_roundoff(dtype) * std::abs(g));
        }
        expect_close(fmt::format("loss of {} x {}", rows, vocabulary), loss, expected.loss, 20 * 0x1p-24 * 16);
        expect_close(fmt::format("grad of {} x {}", rows, vocabulary), grad, expected.grad, tolerance);
      }
    }
  }
}

TEST_F(CrossEntropyTest, InPlaceAndWithoutGradientGiveTheSameBits) {
  const Tensor logits = random(DType::kF32, {6, 301}), targets = random_targets(6, 301);
  const Tensor loss = garbage(DType::kF32, {6}), grad = garbage(DType::kF32, {6, 301});
  const Tensor loss_alone = garbage(DType::kF32, {6}), loss_in_place = garbage(DType::kF32, {6});
  const std::vector<double> before = values(logits);
  const Tensor two = filled(DType::kF32, {1}, 2);
  ops::cross_entropy(ctx(), {loss, logits, targets, grad, two});
  ops::cross_entropy(ctx(), {.loss = loss_alone, .logits = logits, .targets = targets});
  expect_equal("logits are left alone", logits, before);
  const ThreadCount threads(1);
  ops::cross_entropy(ctx(), {loss_in_place, logits, targets, logits, two});
  expect_equal("loss without gradient", loss_alone, values(loss));
  expect_equal("loss in place", loss_in_place, values(loss));
  expect_equal("gradient in place", logits, values(grad));
}

TEST_F(CrossEntropyTest, UniformLogitsCostTheLogOfTheVocabulary) {
  for (const int64_t vocabulary : {2, 1000, 50257}) {
    const Tensor logits = filled(DType::kF32, {1, vocabulary}, -3.25), targets = zeros(DType::kI32, {1});
    const Tensor loss = garbage(DType::kF32, {1});
    ops::cross_entropy(ctx(), {.loss = loss, .logits = logits, .targets = targets});
    EXPECT_FLOAT_EQ(host<float>(loss)[0], std::log(static_cast<float>(vocabulary)));
  }
}

TEST_F(CrossEntropyTest, HugeLogitsStayFinite) {
  const Tensor logits = given(DType::kF32, {2, 3}, {1e4, -1e4, 0, -1e30, 1e30, 0});
  const Tensor targets = given(DType::kI32, {2}, {1, 1}), loss = garbage(DType::kF32, {2});
  const Tensor grad = garbage(DType::kF32, {2, 3});
  ops::cross_entropy(ctx(), {loss, logits, targets, grad});
  expect_equal("loss", loss, std::vector<double>{2e4, 0});
  expect_equal("grad", grad, std::vector<double>{1, -1, 0, 0, 0, 0});
}

}  // namespace
}  // namespace mhmoe::test
