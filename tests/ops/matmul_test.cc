#include "ops/matmul.h"

#include <array>

#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

struct Expected {
  std::vector<double> value, tolerance;
};

// Plain loops in double. A float sum of k products errs by at most about k * eps * sum |a||b|, in any order; one more
// rounding stores it.
Expected plain_product(const ops::Matmul& args) {
  const int64_t m = args.out.rows(), n = args.out.cols();
  const int64_t k = args.transpose_a ? args.a.rows() : args.a.cols();
  Expected expected;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = args.bias.empty() ? 0 : read_value(args.bias, j);
      if (!args.addend.empty()) sum += read_value(args.addend, i * n + j);
      double magnitude = std::abs(sum);
      for (int64_t p = 0; p < k; ++p) {
        const double product = read_value(args.a, args.transpose_a ? p * m + i : i * k + p) *
                               read_value(args.b, args.transpose_b ? j * k + p : p * n + j);
        sum += product;
        magnitude += std::abs(product);
      }
      expected.value.push_back(sum);
      expected.tolerance.push_back(static_cast<double>(k + 3) * 0x1p-24 * magnitude +
                                   unit_roundoff(args.out.dtype) * std::abs(sum));
    }
  }
  return expected;
}

class MatmulTest : public OpTest {
 protected:
  void check(const ops::Matmul& args, const std::string& what) {
    const Expected expected = plain_product(args);  // before the product: the addend may be overwritten
    ops::matmul(ctx(), args);
    expect_close(what, args.out, expected.value, expected.tolerance);
  }

  // Both transposes of a product of these sizes.
  void check_layouts(DType in, DType out, int64_t m, int64_t n, int64_t k) {
    for (const bool transpose_a : {false, true}) {
      for (const bool transpose_b : {false, true}) {
        const Tensor a = transpose_a ? random(in, {k, m}) : random(in, {m, k});
        const Tensor b = transpose_b ? random(in, {n, k}) : random(in, {k, n});
        check({garbage(out, {m, n}), a, b, transpose_a, transpose_b},
              fmt::format("{} x {} x {}, transposes {} {}, {}", m, n, k, transpose_a, transpose_b, to_string(in)));
      }
    }
  }
};

TEST_F(MatmulTest, EveryLayoutAndTypeAgreesWithPlainLoops) {
  for (const auto& [m, n, k] : {std::tuple{1, 1, 1}, {1, 17, 5}, {33, 1, 7}, {65, 31, 129}, {64, 64, 64}}) {
    check_layouts(DType::kF32, DType::kF32, m, n, k);
    check_layouts(DType::kBF16, DType::kBF16, m, n, k);
    check_layouts(DType::kBF16, DType::kF32, m, n, k);
  }
}

TEST_F(MatmulTest, BiasIsAddedToEveryRow) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check({.out = garbage(dtype, {19, 23}),
           .a = random(dtype, {19, 31}),
           .b = random(dtype, {23, 31}),
           .transpose_b = true,
           .bias = random(DType::kF32, {23})},
          "with bias");
  }
}

TEST_F(MatmulTest, AddendMayBeSeparateOrTheOutputItself) {
  for (const DType in : {DType::kF32, DType::kBF16}) {
    const Tensor a = random(in, {13, 40}), b = random(in, {40, 11}), bias = random(DType::kF32, {11});
    const Tensor addend = random(DType::kF32, {13, 11});
    const std::vector<double> before = values(addend);
    check({.out = garbage(DType::kF32, {13, 11}), .a = a, .b = b, .addend = addend}, "separate addend");
    check({.out = garbage(DType::kF32, {13, 11}), .a = a, .b = b, .bias = bias, .addend = addend}, "addend and bias");
    expect_equal("separate addend is left alone", addend, before);
    check({.out = addend, .a = a, .b = b, .bias = bias, .addend = addend}, "accumulation with bias");
    check({.out = addend, .a = a, .b = b, .addend = addend}, "accumulation");
  }
}

// On the CPU the first three are made another way than the rest: they add to more than twice of what they read.
TEST_F(MatmulTest, GradientsOfTablesAndOfSquareWeightsAddUp) {
  for (const DType in : {DType::kF32, DType::kBF16}) {
    for (const auto& [m, n, k] : {std::array{200, 36, 3}, {7, 1030, 1}, {16, 1026, 2}, {48, 45, 40}}) {
      const Tensor sum = random(DType::kF32, {m, n});
      check({.out = sum, .a = random(in, {k, m}), .b = random(in, {k, n}), .transpose_a = true, .addend = sum},
            fmt::format("{} x {} of {} rows", m, n, k));
      check({.out = garbage(DType::kF32, {m, n}),
             .a = random(in, {k, m}),
             .b = random(in, {k, n}),
             .transpose_a = true,
             .addend = sum},
            fmt::format("{} x {} of {} rows, separate addend", m, n, k));
    }
  }
}

TEST_F(MatmulTest, EmptySidesAndInnerDimension) {
  check({garbage(DType::kF32, {0, 3}), random(DType::kF32, {0, 5}), random(DType::kF32, {5, 3})}, "no rows");
  check({garbage(DType::kF32, {3, 0}), random(DType::kF32, {3, 5}), random(DType::kF32, {5, 0})}, "no columns");
  const Tensor a = zeros(DType::kF32, {3, 0}), b = zeros(DType::kF32, {0, 4});
  check({garbage(DType::kF32, {3, 4}), a, b}, "no inner elements");
  check({.out = garbage(DType::kF32, {3, 4}),
         .a = a,
         .b = b,
         .bias = random(DType::kF32, {4}),
         .addend = random(DType::kF32, {3, 4})},
        "epilogue alone");
}

TEST_F(MatmulTest, IdentityLeavesBf16UntouchedBitForBit) {
  const Tensor a = random(DType::kBF16, {29, 16}), identity = zeros(DType::kBF16, {16, 16});
  for (int64_t i = 0; i < 16; ++i) write_value(identity, i * 17, 1);
  const Tensor out = garbage(DType::kBF16, {29, 16});
  ops::matmul(ctx(), {out, a, identity});
  expect_equal("product with the identity", out, values(a));
}

TEST_F(MatmulTest, BiasBackwardAddsColumnSumsAtAnyNumberOfThreads) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t rows : {0, 1, 301}) {
      const int64_t cols = 131;
      const Tensor grad_out = random(dtype, {rows, cols}), before = random(DType::kF32, {cols});
      std::vector<double> expected = values(before), tolerance(cols);
      for (int64_t i = 0; i < rows * cols; ++i) expected[i % cols] += read_value(grad_out, i);
      for (int64_t c = 0; c < cols; ++c) tolerance[c] = 4 * 0x1p-24 * (std::abs(expected[c]) + 20);
      const Tensor one = copy_of(before), two = copy_of(before);
      {
        const ThreadCount threads(1);
        ops::bias_backward(ctx(), {one, grad_out});
      }
      const ThreadCount threads(2);
      ops::bias_backward(ctx(), {two, grad_out});
      expect_close("bias gradient", one, expected, tolerance);
      expect_equal("two threads", two, values(one));
    }
  }
}

// On every thread: enough rows that each gets some.
TEST_F(MatmulTest, DenormalsAreKept) {
  const double tiny = 1e-42;
  const Tensor a = filled(DType::kF32, {256, 8}, 0), b = filled(DType::kF32, {8, 16}, 1);
  for (int64_t r = 0; r < 256; ++r) write_value(a, r * 8 + r % 8, tiny);
  const Tensor out = garbage(DType::kF32, {256, 16});
  const ThreadCount threads(2);
  ops::matmul(ctx(), {.out = out, .a = a, .b = b});
  expect_equal("out", out, std::vector<double>(size_t{256} * 16, static_cast<float>(tiny)));
}

}  // namespace
}  // namespace mhmoe::test
