#include "ops/rms_norm.h"

#include "ops/complex_step.h"
#include "ops/op_test.h"

namespace mhmoe {
namespace {

using test::Complex;
using RmsNorm = test::OpTest;

constexpr float kEps = 1e-5f;

// sum over the row of grad_y * y, for one row.
template <class T>
T weighted_output(const std::vector<T>& x, const std::vector<T>& weight, const std::vector<double>& grad_y) {
  T squares = 0, sum = 0;
  for (const T& value : x) squares += value * value;
  const T inv_rms = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(kEps));
  for (size_t c = 0; c < x.size(); ++c) sum += grad_y[c] * x[c] * inv_rms * weight[c];
  return sum;
}

TEST_F(RmsNorm, ConstantRowBecomesSignTimesWeight) {
  const int64_t width = 300;
  const Tensor x = filled(DType::kF32, {2, width}, 0.5);
  for (int64_t c = 0; c < width; ++c) test::host<float>(x)[c] = -4;
  const Tensor weight = random(DType::kF32, {width}), inv_rms = garbage(DType::kF32, {2});
  const Tensor y = garbage(DType::kF32, {2, width});
  ops::rms_norm_forward(ctx(), {y, inv_rms, x, weight, 0});
  test::expect_equal("inv_rms", inv_rms, std::vector<double>{0.25, 2});
  std::vector<double> expected = test::values(weight);
  test::expect_equal("y of 0.5", y.slice_rows(1, 1), expected);
  for (double& value : expected) value = -value;
  test::expect_equal("y of -4", y.slice_rows(0, 1), expected);
}

TEST_F(RmsNorm, ForwardIsWithinRoundingOfPlainLoops) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {1, 3, 31, 32, 33, 768}) {
      const int64_t rows = 5;
      const Tensor x = random(DType::kF32, {rows, width}, 3), weight = random(DType::kF32, {width});
      const Tensor y = garbage(dtype, {rows, width}), inv_rms = garbage(DType::kF32, {rows});
      ops::rms_norm_forward(ctx(), {y, inv_rms, x, weight, kEps});
      const auto xs = test::values(x), weights = test::values(weight);
      std::vector<double> expected, tolerance, inverse;
      for (int64_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (int64_t c = 0; c < width; ++c) squares += xs[r * width + c] * xs[r * width + c];
        inverse.push_back(1 / std::sqrt(squares / static_cast<double>(width) + static_cast<double>(kEps)));
        for (int64_t c = 0; c < width; ++c) expected.push_back(xs[r * width + c] * inverse[r] * weights[c]);
      }
      for (const double value : expected) {
        tolerance.push_back(std::abs(value) * (16 * 0x1p-24 + test::unit_roundoff(dtype)));
      }
      test::expect_close("y", y, expected, tolerance);
      test::expect_close("inv_rms", inv_rms, inverse, 16 * 0x1p-24 * inverse[0] * 10);
    }
  }
}

TEST_F(RmsNorm, BackwardIsTheComplexStepAndAccumulates) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {1, 9, 64}) {
      const int64_t rows = 3;
      const Tensor x = random(DType::kF32, {rows, width}), weight = random(DType::kF32, {width});
      const Tensor grad_y = random(dtype, {rows, width});
      const Tensor y = garbage(DType::kF32, {rows, width}), inv_rms = garbage(DType::kF32, {rows});
      const Tensor grad_x = random(DType::kF32, {rows, width}), grad_weight = random(DType::kF32, {width});
      std::vector<double> expected_x = test::values(grad_x), expected_weight = test::values(grad_weight);
      ops::rms_norm_forward(ctx(), {y, inv_rms, x, weight, kEps});
      ops::rms_norm_backward(ctx(), {grad_x, grad_weight, grad_y, x, inv_rms, weight});
      const auto weights = test::values(weight);
      for (int64_t r = 0; r < rows; ++r) {
        const auto row = test::values(x.slice_rows(r, 1)), grads = test::values(grad_y.slice_rows(r, 1));
        const auto by_x = test::complex_step(row, [&](const std::vector<Complex>& v) {
          return weighted_output<Complex>(v, {weights.begin(), weights.end()}, grads);
        });
        const auto by_weight = test::complex_step(weights, [&](const std::vector<Complex>& v) {
          return weighted_output<Complex>({row.begin(), row.end()}, v, grads);
        });
        for (int64_t c = 0; c < width; ++c) {
          expected_x[r * width + c] += by_x[c];
          expected_weight[c] += by_weight[c];
        }
      }
      // Sums of magnitude about 10 in at most some tens of roundings.
      test::expect_close("grad_x", grad_x, expected_x, 3e-5);
      test::expect_close("grad_weight", grad_weight, expected_weight, 3e-6);
    }
  }
}

TEST_F(RmsNorm, GradientsHaveTheSameBitsAtAnyNumberOfThreads) {
  const int64_t rows = 1500, width = 33;
  const Tensor x = random(DType::kF32, {rows, width}), weight = random(DType::kF32, {width});
  const Tensor grad_y = random(DType::kBF16, {rows, width}), y = garbage(DType::kBF16, {rows, width});
  const Tensor inv_rms = garbage(DType::kF32, {rows});
  ops::rms_norm_forward(ctx(), {y, inv_rms, x, weight, kEps});
  std::vector<double> first_x, first_weight;
  for (const int threads : {1, 2, 7}) {
    const ThreadCount with(threads);
    const Tensor grad_x = zeros(DType::kF32, {rows, width}), grad_weight = zeros(DType::kF32, {width});
    ops::rms_norm_backward(ctx(), {grad_x, grad_weight, grad_y, x, inv_rms, weight});
    if (first_x.empty()) first_x = test::values(grad_x), first_weight = test::values(grad_weight);
    test::expect_equal("grad_x", grad_x, first_x);
    test::expect_equal("grad_weight", grad_weight, first_weight);
  }
}

TEST_F(RmsNorm, NoRowsLeaveTheGradientAlone) {
  const Tensor x = zeros(DType::kF32, {0, 5}), weight = random(DType::kF32, {5}), inv_rms = zeros(DType::kF32, {0});
  const Tensor grad_weight = copy_of(weight);
  ops::rms_norm_forward(ctx(), {x, inv_rms, x, weight, kEps});
  ops::rms_norm_backward(ctx(), {x, grad_weight, x, x, inv_rms, weight});
  test::expect_equal("grad_weight", grad_weight, test::values(weight));
}

}  // namespace
}  // namespace mhmoe
