#include "ops/attention.h"

#include <fmt/ranges.h>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using ops::AttentionMask;
using ops::AttentionShape;
using test::kRoundoff;
using test::Twin;

// Runs the plain kernels in place of those on tensor cores until the end of a scope.
struct WithPlainKernels : test::WithMode {
  WithPlainKernels() : WithMode("MHMOE_ATTENTION", "plain") {}
};

struct Case {
  AttentionShape shape;
  std::vector<double> prefix = {}, keys = {};

  std::string describe() const {
    return fmt::format("[{}, {}, {}, {}] mask {}, prefixes {}, keys {}", shape.batch, shape.sequence_length,
                       shape.heads, shape.head_size, static_cast<int>(shape.mask), fmt::join(prefix, " "),
                       fmt::join(keys, " "));
  }
};

class AttentionKernels : public test::EmulatedTest {
 protected:
  struct Tensors {
    Twin out, log_sum_exp, grad_qkv, grad_out, qkv, prefix, keys;
  };

  Twin lengths(const std::vector<double>& values) {
    return values.empty() ? Twin{} : given(DType::kI32, {static_cast<int64_t>(values.size())}, values);
  }

  Tensors tensors(const Case& c, DType dtype) {
    const int64_t tokens = c.shape.batch * c.shape.sequence_length, width = c.shape.heads * c.shape.head_size;
    return {.out = garbage(dtype, {tokens, width}),
            .log_sum_exp = garbage(DType::kF32, {c.shape.batch, c.shape.heads, c.shape.sequence_length}),
            .grad_qkv = garbage(dtype, {tokens, 3 * width}),
            .grad_out = random(dtype, {tokens, width}),
            .qkv = random(dtype, {tokens, 3 * width}),
            .prefix = lengths(c.prefix),
            .keys = lengths(c.keys)};
  }

  void run(Context& ctx, const Case& c, const Tensors& t, Tensor Twin::*side) {
    const Tensor prefix = t.prefix.*side, keys = t.keys.*side;
    ops::attention_forward(ctx, {t.out.*side, t.log_sum_exp.*side, t.qkv.*side, c.shape, prefix, keys});
    ops::attention_backward(ctx, {t.grad_qkv.*side, t.grad_out.*side, t.qkv.*side, t.out.*side, t.log_sum_exp.*side,
                                  c.shape, prefix, keys});
  }

  // Against the CPU, and the same bytes in every order. Values, scores and their sums are of order 1, and up to 4 at
  // their largest; p sum up to 1. Beside the rounding of results to bf16, tensor cores round p: an error of |v| *
  // roundoff / 2 in `out` at most, since p is rounded to nearest, so |v| <= 4 gives 2 roundoffs. Gradients add ds,
  // rounded too, whose delta has a rounded `out` on both sides: twice that.
  void check(const Case& c, DType dtype) {
    SCOPED_TRACE(c.describe() + " " + std::string(to_string(dtype)));
    const Tensors t = tensors(c, dtype);
    run(cpu(), c, t, &Twin::cpu);
    const double roundoff = dtype == DType::kBF16 ? test::unit_roundoff(dtype) : 0;
    for (const char* copies : {"wait", "issue"}) {
      const test::WithCopies arrive_at(copies);
      expect_same_bytes_in_every_order({t.out.emulated, t.log_sum_exp.emulated, t.grad_qkv.emulated},
                                       [&] { run(emulated(), c, t, &Twin::emulated); });
      expect_agreement("out", t.out, 2 * roundoff, 2 * roundoff + 100 * kRoundoff);
      expect_log_sum_exp(t);
      expect_agreement("grad_qkv", t.grad_qkv, 2 * roundoff, 4 * roundoff + 400 * kRoundoff);
    }
  }

  // -infinity or close.
  void expect_log_sum_exp(const Tensors& t) {
    const auto expected = test::values(t.log_sum_exp.cpu);
    const auto found = test::values(downloaded(t.log_sum_exp.emulated));
    for (size_t i = 0; i < expected.size(); ++i) {
      if (std::isinf(expected[i])) {
        ASSERT_EQ(found[i], expected[i]) << "log_sum_exp " << i;
      } else {
        ASSERT_NEAR(found[i], expected[i], 100 * kRoundoff) << "log_sum_exp " << i;
      }
    }
  }
};

constexpr int64_t kHeadSizes[] = {32, 64, 96, 128};

// A block owns 64 or 128 rows, and tiles of the other side have 32 or 64.
TEST_F(AttentionKernels, TensorCoresAgreeWithTheCpuAtLengthsAroundTheTiles) {
  for (const int64_t length : {1, 31, 32, 33, 63, 64, 65, 127, 128, 129}) {
    check({{1, length, 1, 32, AttentionMask::kCausal}}, DType::kBF16);
  }
  for (const int64_t length : {1, 64, 65}) check({{1, length, 1, 128, AttentionMask::kCausal}}, DType::kBF16);
  for (const int64_t size : {64, 96}) check({{1, 129, 1, size, AttentionMask::kCausal}}, DType::kBF16);
}

TEST_F(AttentionKernels, TensorCoresAgreeWithTheCpuUnderEveryMask) {
  for (const int64_t size : kHeadSizes) {
    check({{2, 67, 2, size, AttentionMask::kCausal}}, DType::kBF16);
    check({.shape = {4, 75, 1, size, AttentionMask::kPrefix}, .prefix = {0, 33, 64, 75}, .keys = {64, 75, 65, 40}},
          DType::kBF16);
    check({.shape = {3, 70, 1, size, AttentionMask::kFull}, .keys = {0, 70, 1}}, DType::kBF16);
  }
  check({.shape = {3, 140, 1, 64, AttentionMask::kCausal}, .keys = {0, 70, 139}}, DType::kBF16);
  check({.shape = {2, 140, 1, 32, AttentionMask::kPrefix}, .prefix = {70, 131}}, DType::kBF16);
  check({.shape = {2, 130, 1, 32, AttentionMask::kFull}, .keys = {0, 130}}, DType::kBF16);
}

TEST_F(AttentionKernels, PlainKernelsAgreeWithTheCpu) {
  const WithPlainKernels plain;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check({{2, 33, 3, 20, AttentionMask::kCausal}}, dtype);
    check({.shape = {3, 40, 1, 33, AttentionMask::kPrefix}, .prefix = {0, 20, 40}, .keys = {40, 35, 0}}, dtype);
    check({{1, 65, 1, 64, AttentionMask::kFull}}, dtype);
  }
}

// Rows that begin at no 16-byte address: the plain kernels, whatever the head size.
TEST_F(AttentionKernels, UnalignedTensorsAreFine) {
  unalign();
  for (const DType dtype : {DType::kF32, DType::kBF16}) check({{1, 40, 2, 32, AttentionMask::kCausal}}, dtype);
}

TEST_F(AttentionKernels, TensorCoresAreWhatRunsUnlessThePlainKernelsAreAskedFor) {
  const Case c{{1, 40, 1, 32, AttentionMask::kCausal}};
  const Tensors t = tensors(c, DType::kBF16);
  const auto bytes = [&] {
    run(emulated(), c, t, &Twin::emulated);
    return test::values(downloaded(t.grad_qkv.emulated));
  };
  const auto fast = bytes();
  const WithPlainKernels plain;
  EXPECT_NE(bytes(), fast);
}

TEST_F(AttentionKernels, AnUnknownChoiceOfKernelsIsRefused) {
  const Case c{{1, 4, 1, 32, AttentionMask::kCausal}};
  const Tensors t = tensors(c, DType::kBF16);
  const test::WithMode with("MHMOE_ATTENTION", "fast");
  try {
    run(emulated(), c, t, &Twin::emulated);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_STREQ(error.what(), "MHMOE_ATTENTION=fast: allowed: auto, plain");
  }
}

TEST_F(AttentionKernels, LargeScoresStayFinite) {
  const Case c{{1, 80, 1, 32, AttentionMask::kCausal}};
  Tensors t = tensors(c, DType::kBF16);
  t.qkv = random(DType::kBF16, {80, 96}, 60);
  run(emulated(), c, t, &Twin::emulated);
  for (const Twin& result : {t.out, t.log_sum_exp, t.grad_qkv}) {
    for (const double value : test::values(downloaded(result.emulated))) ASSERT_TRUE(std::isfinite(value));
  }
}

// Keys that nobody sees have no influence, whatever they hold.
TEST_F(AttentionKernels, KeysThatNobodySeesAreNotRead) {
  for (const int64_t size : kHeadSizes) {
    const Case c{.shape = {1, 70, 1, size, AttentionMask::kFull}, .keys = {33}};
    const Tensors t = tensors(c, DType::kBF16);
    const auto results = [&] {
      run(emulated(), c, t, &Twin::emulated);
      return std::pair{test::values(downloaded(t.out.emulated)), test::values(downloaded(t.grad_qkv.emulated))};
    };
    const auto before = results();
    for (int64_t row = 33; row < 70; ++row) {
      for (int64_t col = size; col < 3 * size; ++col) test::write_value(t.qkv.cpu, row * 3 * size + col, std::nan(""));
    }
    refresh(t.qkv);
    EXPECT_EQ(results(), before);
  }
}

}  // namespace
}  // namespace mhmoe
