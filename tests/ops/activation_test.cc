#include "ops/activation.h"

#include "ops/complex_step.h"
#include "ops/op_test.h"

namespace mhmoe {
namespace {

using ops::Activation;
using test::Complex;

constexpr Activation kKinds[] = {Activation::kSwiglu, Activation::kRelu, Activation::kGelu};

// The definitions, for exact derivatives; b is ignored by the kinds that have no gate.
Complex define(Activation kind, Complex a, Complex b) {
  switch (kind) {
    case Activation::kSwiglu:
      return a / (1.0 + std::exp(-a)) * b;
    case Activation::kRelu:
      return a.real() > 0 ? a : 0;
    case Activation::kGelu:
      return 0.5 * a * (1.0 + test::erf(a / std::sqrt(2.0)));
  }
  return {};
}

struct Oracle {
  std::vector<double> out, grad_pre;  // grad_pre for an upstream gradient of grad_out
};

Oracle oracle(Activation kind, const Tensor& pre, const Tensor& grad_out) {
  const int64_t rows = grad_out.rows(), hidden = grad_out.cols(), width = pre.cols();
  const auto values = test::values(pre), upstream = test::values(grad_out);
  Oracle result{std::vector<double>(rows * hidden), std::vector<double>(rows * width)};
  for (int64_t i = 0; i < rows * hidden; ++i) {
    const int64_t a = i / hidden * width + i % hidden, b = width > hidden ? a + hidden : a;
    result.out[i] = define(kind, values[a], values[b]).real();
    const auto slope = test::complex_step({values[a], values[b]},
                                          [kind](const std::vector<Complex>& v) { return define(kind, v[0], v[1]); });
    if (width > hidden) result.grad_pre[b] = slope[1] * upstream[i];
    result.grad_pre[a] = slope[0] * upstream[i];
  }
  return result;
}

// Some roundings of f32 at the size of the values, and one to the element type.
std::vector<double> tolerance(const std::vector<double>& expected, DType dtype) {
  std::vector<double> result;
  for (const double value : expected) result.push_back(2e-6 + test::unit_roundoff(dtype) * std::abs(value));
  return result;
}

class ActivationOp : public test::OpTest {
 protected:
  // f(kind, dtype, hidden, pre) over all of them, odd widths among them.
  template <class F>
  void for_each(F f) {
    for (const Activation kind : kKinds) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        for (const int64_t hidden : {1, 7, 64, 65}) {
          SCOPED_TRACE(fmt::format("kind {}, {}, hidden {}", static_cast<int>(kind), to_string(dtype), hidden));
          f(kind, dtype, hidden, random(dtype, {6, ops::pre_activation_width(kind, hidden)}, 2));
        }
      }
    }
  }
};

TEST_F(ActivationOp, ForwardAndBackwardAreTheDefinitionAndItsComplexStep) {
  for_each([&](Activation kind, DType dtype, int64_t hidden, const Tensor& pre) {
    const Tensor grad_out = random(dtype, {6, hidden}), out = garbage(dtype, {6, hidden});
    const Tensor grad_pre = garbage(dtype, {6, pre.cols()});
    const Oracle expected = oracle(kind, pre, grad_out);
    ops::activation_forward(ctx(), {out, pre, kind});
    test::expect_close("out", out, expected.out, tolerance(expected.out, dtype));
    ops::activation_backward(ctx(), {grad_pre, grad_out, pre, kind});
    test::expect_close("grad_pre", grad_pre, expected.grad_pre, tolerance(expected.grad_pre, dtype));
  });
}

TEST_F(ActivationOp, RoutedRowsScaleByTheirGatesAndGiveTheGatesGradients) {
  for_each([&](Activation kind, DType dtype, int64_t hidden, const Tensor& pre) {
    const std::vector<double> assignments{4, -1, 0, 6, -1, 2};
    const Tensor row_assignment = given(DType::kI32, {6}, assignments);
    const Tensor gate = random(DType::kF32, {8}), grad_gate = filled(DType::kF32, {8}, 77);
    const Tensor grad_out = random(dtype, {6, hidden});
    Oracle expected = oracle(kind, pre, grad_out);
    std::vector<double> gates(8, 77), gate_tolerance(8, 0), scaled_out = expected.out;
    const auto upstream = test::values(grad_out);
    for (int64_t r = 0; r < 6; ++r) {
      const auto a = static_cast<int64_t>(assignments[r]);
      const double scale = a < 0 ? 0 : test::read_value(gate, a);
      if (a >= 0) gates[a] = 0;
      for (int64_t c = 0; c < hidden && a >= 0; ++c) {
        const double term = expected.out[r * hidden + c] * upstream[r * hidden + c];
        gates[a] += term, gate_tolerance[a] += 2e-6 * (1 + std::abs(term));
      }
      for (int64_t c = 0; c < hidden; ++c) scaled_out[r * hidden + c] *= scale;
      for (int64_t c = 0; c < pre.cols(); ++c) expected.grad_pre[r * pre.cols() + c] *= scale;
    }
    // In place, as the expert layer does it: grad_pre over pre, scaled_out over grad_out.
    ops::activation_backward(ctx(), {pre, grad_out, pre, kind, grad_out, gate, grad_gate, row_assignment});
    test::expect_close("grad_pre", pre, expected.grad_pre, tolerance(expected.grad_pre, dtype));
    test::expect_close("scaled_out", grad_out, scaled_out, tolerance(scaled_out, dtype));
    test::expect_close("grad_gate", grad_gate, gates, gate_tolerance);
  });
}

// As rows arrive that other ranks have routed.
TEST_F(ActivationOp, OneGateARowGivesTheBytesOfThatGateByItsAssignment) {
  for_each([&](Activation kind, DType dtype, int64_t hidden, const Tensor& pre) {
    const std::vector<double> assignments{4, 1, 0, 6, 5, 2};
    const Tensor row_assignment = given(DType::kI32, {6}, assignments);
    const Tensor gate = random(DType::kF32, {7}), grad_gate = garbage(DType::kF32, {7});
    const Tensor grad_out = random(dtype, {6, hidden});
    const Tensor grad_pre = garbage(dtype, {6, pre.cols()}), scaled_out = garbage(dtype, {6, hidden});
    ops::activation_backward(ctx(), {grad_pre, grad_out, pre, kind, scaled_out, gate, grad_gate, row_assignment});

    const Tensor row_gate = garbage(DType::kF32, {6}), row_grad_gate = garbage(DType::kF32, {6});
    std::vector<double> expected;
    for (int64_t r = 0; r < 6; ++r) {
      const auto a = static_cast<int64_t>(assignments[r]);
      test::write_value(row_gate, r, test::read_value(gate, a));
      expected.push_back(test::read_value(grad_gate, a));
    }
    const auto grad_pre_values = test::values(grad_pre), scaled_values = test::values(scaled_out);
    ops::activation_backward(ctx(), {pre, grad_out, pre, kind, grad_out, row_gate, row_grad_gate});
    test::expect_equal("grad_pre", pre, grad_pre_values);
    test::expect_equal("scaled_out", grad_out, scaled_values);
    test::expect_equal("grad_gate", row_grad_gate, expected);
  });
}

TEST_F(ActivationOp, EmptyRowsBecomeZeroWhateverTheyHeld) {
  const Tensor pre = garbage(DType::kF32, {2, 10}), grad_out = garbage(DType::kF32, {2, 5});
  const Tensor gate = filled(DType::kF32, {1}, 1), grad_gate = zeros(DType::kF32, {1});
  const Tensor nothing = given(DType::kI32, {2}, {-1, -1});
  ops::activation_backward(ctx(), {pre, grad_out, pre, Activation::kSwiglu, grad_out, gate, grad_gate, nothing});
  test::expect_equal("grad_pre", pre, std::vector<double>(20, 0));
  test::expect_equal("scaled_out", grad_out, std::vector<double>(10, 0));
}

TEST_F(ActivationOp, SaturatesWithoutNotANumber) {
  const Tensor pre = given(DType::kF32, {1, 6}, {-1e4, 1e4, -200, 200, 90, -90});
  const Tensor ones = filled(DType::kF32, {1, 6}, 1), out = garbage(DType::kF32, {1, 6});
  ops::activation_forward(ctx(), {out, pre, Activation::kGelu});
  test::expect_equal("gelu", out, std::vector<double>{0, 1e4, 0, 200, 90, 0});
  ops::activation_backward(ctx(), {out, ones, pre, Activation::kGelu});
  test::expect_equal("gelu's slope", out, std::vector<double>{0, 1, 0, 1, 1, 0});
  const Tensor gated = garbage(DType::kF32, {1, 12}), result = garbage(DType::kF32, {1, 6});
  for (int i = 0; i < 12; ++i) test::host<float>(gated)[i] = i < 6 ? test::host<float>(pre)[i] : 1;
  ops::activation_forward(ctx(), {result, gated, Activation::kSwiglu});
  test::expect_close("swiglu", result, std::vector<double>{0, 1e4, 0, 200, 90, 0}, 1e-30);
  ops::activation_backward(ctx(), {gated, ones, gated, Activation::kSwiglu});
  test::expect_close("swiglu's slopes", gated, std::vector<double>{0, 1, 0, 1, 1, 0, 0, 1e4, 0, 200, 90, 0}, 1e-30);
}

TEST_F(ActivationOp, NoRows) {
  const Tensor none = zeros(DType::kF32, {0, 4}), pre = zeros(DType::kF32, {0, 8});
  ops::activation_forward(ctx(), {none, pre, Activation::kSwiglu});
  ops::activation_backward(ctx(), {pre, none, pre, Activation::kSwiglu});
}

}  // namespace
}  // namespace mhmoe
