#include "ops/attention.h"

#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

using ops::AttentionMask;
using ops::AttentionShape;

// Plain loops in double on what the tensors hold, with sums of absolute values for tolerances.
struct Reference {
  Reference(const AttentionShape& s, const Tensor& qkv, const Tensor& grad_out);

  int64_t at(int64_t part, int64_t b, int64_t t, int64_t h, int64_t c) const {
    return ((b * s.sequence_length + t) * parts_of(part) + h) * s.head_size + c;
  }
  int64_t parts_of(int64_t part) const { return part < 0 ? s.heads : 3 * s.heads; }
  double q(int64_t part, int64_t b, int64_t t, int64_t h, int64_t c) const {
    return qkv[at(part, b, t, part * s.heads + h, c)];
  }
  void head(int64_t b, int64_t h);

  AttentionShape s;
  std::vector<double> qkv, grad_out;
  std::vector<double> out, log_sum_exp, grad_qkv;
};

Reference::Reference(const AttentionShape& shape, const Tensor& qkv_tensor, const Tensor& grad_out_tensor)
    : s(shape), qkv(values(qkv_tensor)), grad_out(values(grad_out_tensor)) {
  out.resize(grad_out.size());
  grad_qkv.resize(qkv.size());
  log_sum_exp.resize(static_cast<size_t>(s.batch * s.heads * s.sequence_length));
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) head(b, h);
  }
}

void Reference::head(int64_t b, int64_t h) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_size));
  for (int64_t i = 0; i < s.sequence_length; ++i) {
    const int64_t visible = s.mask == AttentionMask::kCausal ? i + 1 : s.sequence_length;
    std::vector<double> p(static_cast<size_t>(visible)), dp(static_cast<size_t>(visible));
    double sum = 0, delta = 0;
    for (int64_t j = 0; j < visible; ++j) {
      for (int64_t c = 0; c < s.head_size; ++c) p[j] += scale * q(0, b, i, h, c) * q(1, b, j, h, c);
      p[j] = std::exp(p[j]);
      sum += p[j];
    }
    log_sum_exp[(b * s.heads + h) * s.sequence_length + i] = std::log(sum);
    for (int64_t j = 0; j < visible; ++j) {
      p[j] /= sum;
      for (int64_t c = 0; c < s.head_size; ++c) {
        const double g = grad_out[at(-1, b, i, h, c)];
        out[at(-1, b, i, h, c)] += p[j] * q(2, b, j, h, c);
        dp[j] += g * q(2, b, j, h, c);
        grad_qkv[at(2, b, j, 2 * s.heads + h, c)] += p[j] * g;
      }
      delta += p[j] * dp[j];
    }
    for (int64_t j = 0; j < visible; ++j) {
      const double ds = scale * p[j] * (dp[j] - delta);
      for (int64_t c = 0; c < s.head_size; ++c) {
        grad_qkv[at(0, b, i, h, c)] += ds * q(1, b, j, h, c);
        grad_qkv[at(1, b, j, s.heads + h, c)] += ds * q(0, b, i, h, c);
      }
    }
  }
}

class AttentionTest : public OpTest {
 protected:
  struct Results {
    Tensor out, log_sum_exp, grad_qkv;
  };

  Results run(const AttentionShape& s, const Tensor& qkv, const Tensor& grad_out) {
    const int64_t tokens = s.batch * s.sequence_length, width = s.heads * s.head_size;
    const Results results{garbage(qkv.dtype, {tokens, width}),
                          garbage(DType::kF32, {s.batch, s.heads, s.sequence_length}),
                          garbage(qkv.dtype, {tokens, 3 * width})};
    ops::attention_forward(ctx(), {results.out, results.log_sum_exp, qkv, s});
    ops::attention_backward(ctx(), {results.grad_qkv, grad_out, qkv, results.out, results.log_sum_exp, s});
    return results;
  }

  // Float error: sums over head_size and keys of numbers of order 1, so some tens of roundings of numbers below about
  // 10; bf16 rounds results, and the backward pass reads a rounded `out`.
  void check(const AttentionShape& s, DType dtype) {
    const int64_t tokens = s.batch * s.sequence_length, width = s.heads * s.head_size;
    const Tensor qkv = random(dtype, {tokens, 3 * width}), grad_out = random(dtype, {tokens, width});
    const Reference expected(s, qkv, grad_out);
    const Results found = run(s, qkv, grad_out);
    const auto tolerances = [&](const std::vector<double>& reference, double floats, double roundings) {
      std::vector<double> result;
      for (const double value : reference) {
        result.push_back(floats * 0x1p-24 * (1 + std::abs(value)) + roundings * unit_roundoff(dtype) * std::abs(value));
      }
      return result;
    };
    const auto what = fmt::format("length {}, head size {}, {}, {}", s.sequence_length, s.head_size, to_string(dtype),
                                  s.mask == AttentionMask::kCausal ? "causal" : "full");
    expect_close("out: " + what, found.out, expected.out, tolerances(expected.out, 100, 1));
    expect_close("log_sum_exp: " + what, found.log_sum_exp, expected.log_sum_exp,
                 tolerances(expected.log_sum_exp, 40, 0));
    // delta = grad_out . out carries the rounding of out: sqrt(head_size) * |g||o| of roundings, times |k|.
    const double from_out = dtype == DType::kBF16 ? 4 * 0x1p-8 : 0;
    auto grad_tolerance = tolerances(expected.grad_qkv, 400, 1);
    for (double& tolerance : grad_tolerance) tolerance += from_out;
    expect_close("grad_qkv: " + what, found.grad_qkv, expected.grad_qkv, grad_tolerance);
  }
};

TEST_F(AttentionTest, ForwardAndBackwardAgreeWithPlainLoops) {
  for (const AttentionMask mask : {AttentionMask::kCausal, AttentionMask::kFull}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      check({1, 1, 1, 1, mask}, dtype);
      check({2, 5, 3, 7, mask}, dtype);
      check({1, 63, 2, 16, mask}, dtype);
      check({1, 64, 1, 8, mask}, dtype);
      check({2, 130, 2, 33, mask}, dtype);
    }
  }
}

TEST_F(AttentionTest, NoSequencesAreFine) {
  check({0, 4, 2, 8, AttentionMask::kCausal}, DType::kF32);
}

TEST_F(AttentionTest, EqualKeysAverageTheValuesSeen) {
  const int64_t length = 70, size = 4;
  for (const AttentionMask mask : {AttentionMask::kCausal, AttentionMask::kFull}) {
    const Tensor qkv = random(DType::kF32, {length, 3 * size});
    for (int64_t t = 0; t < length; ++t) {
      for (int64_t c = 0; c < size; ++c) write_value(qkv, t * 3 * size + size + c, 0.5);
    }
    const Results found = run({1, length, 1, size, mask}, qkv, zeros(DType::kF32, {length, size}));
    for (int64_t t = 0; t < length; ++t) {
      const int64_t visible = mask == AttentionMask::kCausal ? t + 1 : length;
      for (int64_t c = 0; c < size; ++c) {
        double mean = 0;
        for (int64_t j = 0; j < visible; ++j) mean += read_value(qkv, j * 3 * size + 2 * size + c) / visible;
        EXPECT_NEAR(read_value(found.out, t * size + c), mean, 1e-6) << "token " << t;
      }
    }
  }
}

TEST_F(AttentionTest, LaterTokensChangeNothingEarlierBitForBit) {
  const int64_t length = 100, size = 16, kept = 71;
  const Tensor qkv = random(DType::kF32, {length, 3 * size}), grad_out = random(DType::kF32, {length, size});
  const AttentionShape shape{1, length, 1, size, AttentionMask::kCausal};
  const Tensor before = run(shape, qkv, grad_out).out.slice_rows(0, kept);
  for (int64_t i = kept * 3 * size; i < qkv.count(); ++i) write_value(qkv, i, 50);
  expect_equal("earlier rows", run(shape, qkv, grad_out).out.slice_rows(0, kept), values(before));
}

TEST_F(AttentionTest, LargeScoresStayFinite) {
  const AttentionShape shape{1, 80, 1, 16, AttentionMask::kCausal};
  const Tensor qkv = random(DType::kF32, {80, 48}, 60), grad_out = random(DType::kF32, {80, 16});
  const Results found = run(shape, qkv, grad_out);
  for (const Tensor& tensor : {found.out, found.log_sum_exp, found.grad_qkv}) {
    for (const double value : values(tensor)) ASSERT_TRUE(std::isfinite(value));
  }
}

TEST_F(AttentionTest, ThreadsDoNotMatterBitForBit) {
  const AttentionShape shape{2, 90, 3, 16, AttentionMask::kCausal};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor qkv = random(dtype, {180, 144}), grad_out = random(dtype, {180, 48});
    const auto with = [&](int count) {
      const WithThreads threads(count);
      return run(shape, qkv, grad_out);
    };
    const Results one = with(1), two = with(2);
    expect_equal("out", two.out, values(one.out));
    expect_equal("grad_qkv", two.grad_qkv, values(one.grad_qkv));
  }
}

}  // namespace
}  // namespace mhmoe::test
