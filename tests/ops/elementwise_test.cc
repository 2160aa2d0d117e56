#include "ops/elementwise.h"

#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

class ElementwiseTest : public OpTest {};

TEST_F(ElementwiseTest, CastRoundsToBf16AndBackExactly) {
  for (const int64_t count : {0, 1, 33, 70001}) {
    const Tensor in = random(DType::kF32, {count}), narrow = garbage(DType::kBF16, {count});
    const Tensor wide = garbage(DType::kF32, {count}), same = garbage(DType::kBF16, {count});
    ops::cast(ctx(), {narrow, in});
    ops::cast(ctx(), {wide, narrow});
    ops::cast(ctx(), {same, narrow});
    std::vector<double> expected;
    for (const double value : values(in)) {
      expected.push_back(static_cast<float>(bfloat16(static_cast<float>(value))));
    }
    expect_equal("narrow", narrow, expected);
    expect_equal("wide", wide, expected);
    expect_equal("same type", same, expected);
  }
}

TEST_F(ElementwiseTest, CastOntoItselfChangesNothing) {
  const Tensor tensor = random(DType::kF32, {17});
  const std::vector<double> before = values(tensor);
  ops::cast(ctx(), {tensor, tensor});
  expect_equal("tensor", tensor, before);
}

TEST_F(ElementwiseTest, ReduceAddsScaledSums) {
  for (const int64_t count : {0, 1, 16384, 16385, 100003}) {
    const Tensor in = random(DType::kF32, {count});
    for (const bool squares : {false, true}) {
      double sum = 0, magnitude = 0;
      for (const double value : values(in)) {
        const double term = squares ? value * value : value;
        sum += term, magnitude += std::abs(term);
      }
      const Tensor out = filled(DType::kF32, {1}, 5);
      ops::reduce(ctx(), {out, in, squares, filled(DType::kF32, {1}, 0.5)});
      const double expected = 5 + 0.5 * sum;
      // Double sums: what is left is the rounding to float, before and after the addition.
      expect_close(fmt::format("sum of {}, squares {}", count, squares), out, std::vector<double>{expected},
                   2 * 0x1p-24 * (5 + std::abs(sum)) + 1e-12 * magnitude);
    }
  }
}

// Numbers of very different sizes that cancel leave nothing but rounding errors, which another order would change.
TEST_F(ElementwiseTest, ReduceAddsInAnOrderThatThreadsDoNotChange) {
  int with_errors = 0;
  for (const int64_t half : {40000, 50001, 60000}) {
    const Tensor in = random(DType::kF32, {2 * half}), one = zeros(DType::kF32, {1}), three = zeros(DType::kF32, {1});
    for (int64_t i = 0; i < half; ++i) {
      const double value = read_value(in, i) * std::pow(10.0, static_cast<double>(i % 20));
      write_value(in, i, value);
      write_value(in, 2 * half - 1 - i, -value);
    }
    {
      const ThreadCount threads(1);
      ops::reduce(ctx(), {one, in});
    }
    const ThreadCount threads(3);
    ops::reduce(ctx(), {three, in});
    with_errors += read_value(one, 0) != 0 ? 1 : 0;
    expect_equal("three threads", three, values(one));
  }
  EXPECT_GT(with_errors, 0) << "the test has nothing to see";
}

TEST_F(ElementwiseTest, ReduceLetsNotANumberThrough) {
  const Tensor in = random(DType::kF32, {20000}), out = zeros(DType::kF32, {1});
  write_value(in, 19999, std::numeric_limits<double>::quiet_NaN());
  ops::reduce(ctx(), {out, in, true});
  EXPECT_TRUE(std::isnan(host<float>(out)[0]));
}

}  // namespace
}  // namespace mhmoe::test
