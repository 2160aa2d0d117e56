#include "ops/attention.h"

#include <fmt/ranges.h>

#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

using ops::AttentionMask;
using ops::AttentionShape;

// Absent where empty.
struct Lengths {
  std::vector<double> prefix, keys;
};

// Plain loops in double on what the tensors hold.
struct Reference {
  Reference(const AttentionShape& s, const Lengths& lengths, const Tensor& qkv, const Tensor& grad_out);

  int64_t at(int64_t part, int64_t b, int64_t t, int64_t h, int64_t c) const {
    return ((b * s.sequence_length + t) * parts_of(part) + h) * s.head_size + c;
  }
  int64_t parts_of(int64_t part) const { return part < 0 ? s.heads : 3 * s.heads; }
  double q(int64_t part, int64_t b, int64_t t, int64_t h, int64_t c) const {
    return qkv[at(part, b, t, part * s.heads + h, c)];
  }
  bool sees(int64_t b, int64_t query, int64_t key) const {
    if (!lengths.keys.empty() && static_cast<double>(key) >= lengths.keys[b]) return false;
    if (s.mask == AttentionMask::kFull || key <= query) return true;
    return s.mask == AttentionMask::kPrefix && static_cast<double>(key) < lengths.prefix[b];
  }
  void head(int64_t b, int64_t h);
  void query(int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& seen);

  AttentionShape s;
  Lengths lengths;
  std::vector<double> qkv, grad_out;
  std::vector<double> out, log_sum_exp, grad_qkv;
  std::vector<double> magnitude;  // of what out is the sum of
};

Reference::Reference(const AttentionShape& shape, const Lengths& both, const Tensor& qkv_tensor,
                     const Tensor& grad_out_tensor)
    : s(shape), lengths(both), qkv(values(qkv_tensor)), grad_out(values(grad_out_tensor)) {
  out.resize(grad_out.size());
  magnitude.resize(out.size());
  grad_qkv.resize(qkv.size());
  log_sum_exp.resize(static_cast<size_t>(s.batch * s.heads * s.sequence_length));
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) head(b, h);
  }
}

void Reference::head(int64_t b, int64_t h) {
  for (int64_t i = 0; i < s.sequence_length; ++i) {
    std::vector<int64_t> seen;
    for (int64_t j = 0; j < s.sequence_length; ++j) {
      if (sees(b, i, j)) seen.push_back(j);
    }
    query(b, h, i, seen);
  }
}

void Reference::query(int64_t b, int64_t h, int64_t i, const std::vector<int64_t>& seen) {
  const double scale = 1 / std::sqrt(static_cast<double>(s.head_size));
  std::vector<double> p(seen.size()), dp(seen.size());
  double sum = 0, delta = 0;
  for (size_t n = 0; n < seen.size(); ++n) {
    for (int64_t c = 0; c < s.head_size; ++c) p[n] += scale * q(0, b, i, h, c) * q(1, b, seen[n], h, c);
    p[n] = std::exp(p[n]);
    sum += p[n];
  }
  log_sum_exp[(b * s.heads + h) * s.sequence_length + i] = std::log(sum);
  for (size_t n = 0; n < seen.size(); ++n) {
    p[n] /= sum;
    for (int64_t c = 0; c < s.head_size; ++c) {
      const double g = grad_out[at(-1, b, i, h, c)];
      out[at(-1, b, i, h, c)] += p[n] * q(2, b, seen[n], h, c);
      magnitude[at(-1, b, i, h, c)] += p[n] * std::abs(q(2, b, seen[n], h, c));
      dp[n] += g * q(2, b, seen[n], h, c);
      grad_qkv[at(2, b, seen[n], 2 * s.heads + h, c)] += p[n] * g;
    }
    delta += p[n] * dp[n];
  }
  for (size_t n = 0; n < seen.size(); ++n) {
    const double ds = scale * p[n] * (dp[n] - delta);
    for (int64_t c = 0; c < s.head_size; ++c) {
      grad_qkv[at(0, b, i, h, c)] += ds * q(1, b, seen[n], h, c);
      grad_qkv[at(1, b, seen[n], s.heads + h, c)] += ds * q(0, b, i, h, c);
    }
  }
}

class AttentionTest : public OpTest {
 protected:
  struct Results {
    Tensor out, log_sum_exp, grad_qkv;
  };

  Results run(const AttentionShape& s, const Tensor& qkv, const Tensor& grad_out, const Lengths& lengths = {}) {
    const auto tensor = [&](const std::vector<double>& elements) {
      return elements.empty() ? Tensor() : given(DType::kI32, {s.batch}, elements);
    };
    const Tensor prefix = tensor(lengths.prefix), keys = tensor(lengths.keys);
    const int64_t tokens = s.batch * s.sequence_length, width = s.heads * s.head_size;
    const Results results{garbage(qkv.dtype, {tokens, width}),
                          garbage(DType::kF32, {s.batch, s.heads, s.sequence_length}),
                          garbage(qkv.dtype, {tokens, 3 * width})};
    ops::attention_forward(ctx(), {results.out, results.log_sum_exp, qkv, s, prefix, keys});
    ops::attention_backward(ctx(),
                            {results.grad_qkv, grad_out, qkv, results.out, results.log_sum_exp, s, prefix, keys});
    return results;
  }

  // Float error: sums over head_size and keys of numbers of order 1, so some tens of roundings of numbers below about
  // 10; bf16 rounds results, and the backward pass reads a rounded `out`. Probabilities may be rounded to bf16 too
  // before they are multiplied with values, as tensor cores want it.
  void check(const AttentionShape& s, DType dtype, const Lengths& lengths = {}) {
    const int64_t tokens = s.batch * s.sequence_length, width = s.heads * s.head_size;
    const Tensor qkv = random(dtype, {tokens, 3 * width}), grad_out = random(dtype, {tokens, width});
    const Reference expected(s, lengths, qkv, grad_out);
    const Results found = run(s, qkv, grad_out, lengths);
    const auto tolerances = [&](const std::vector<double>& reference, double floats, double roundings) {
      std::vector<double> result;
      for (const double value : reference) {
        result.push_back(floats * 0x1p-24 * (1 + std::abs(value)) + roundings * unit_roundoff(dtype) * std::abs(value));
      }
      return result;
    };
    const char* const masks[] = {"causal", "full", "prefix"};
    const auto what = fmt::format("length {}, head size {}, {}, {}, prefix lengths {}, key lengths {}",
                                  s.sequence_length, s.head_size, to_string(dtype), masks[static_cast<int>(s.mask)],
                                  fmt::join(lengths.prefix, " "), fmt::join(lengths.keys, " "));
    auto out_tolerance = tolerances(expected.out, 100, 1);
    for (size_t i = 0; i < out_tolerance.size() && dtype == DType::kBF16; ++i) {
      out_tolerance[i] += unit_roundoff(dtype) * expected.magnitude[i];
    }
    expect_close("out: " + what, found.out, expected.out, out_tolerance);
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

TEST_F(AttentionTest, PrefixesAndKeyLengthsAgreeWithPlainLoops) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check({3, 70, 1, 9, AttentionMask::kPrefix}, dtype, {.prefix = {0, 70, 33}, .keys = {}});
    check({3, 70, 1, 9, AttentionMask::kPrefix}, dtype, {.prefix = {66, 5, 40}, .keys = {65, 70, 10}});
    check({3, 66, 1, 9, AttentionMask::kCausal}, dtype, {.prefix = {}, .keys = {1, 65, 66}});
    check({3, 66, 1, 9, AttentionMask::kFull}, dtype, {.prefix = {}, .keys = {1, 64, 7}});
    check({2, 5, 1, 9, AttentionMask::kPrefix}, dtype, {.prefix = {-3, 9}, .keys = {6, 3}});
  }
}

TEST_F(AttentionTest, QueriesThatSeeNoKeyGiveAndGetNothing) {
  for (const AttentionMask mask : {AttentionMask::kCausal, AttentionMask::kFull, AttentionMask::kPrefix}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Lengths lengths{
          .prefix = mask == AttentionMask::kPrefix ? std::vector<double>{4, 4} : std::vector<double>{},
          .keys = {0, -1}};
      const Results found = run({2, 67, 1, 8, mask}, random(dtype, {134, 24}), random(dtype, {134, 8}), lengths);
      for (const double value : values(found.out)) ASSERT_EQ(value, 0);
      for (const double value : values(found.grad_qkv)) ASSERT_EQ(value, 0);
      for (const double value : values(found.log_sum_exp)) ASSERT_EQ(value, -std::numeric_limits<double>::infinity());
    }
  }
}

TEST_F(AttentionTest, KeysThatNobodySeesHaveNoInfluenceWhateverTheyHold) {
  const int64_t length = 70, size = 32, kept = 33;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor qkv = random(dtype, {length, 3 * size}), grad_out = random(dtype, {length, size});
    const AttentionShape shape{1, length, 1, size, AttentionMask::kFull};
    const Lengths lengths{.prefix = {}, .keys = {kept}};
    const Results before = run(shape, qkv, grad_out, lengths);
    for (int64_t t = kept; t < length; ++t) {
      for (int64_t c = size; c < 3 * size; ++c) write_value(qkv, t * 3 * size + c, std::nan(""));
    }
    const Results after = run(shape, qkv, grad_out, lengths);
    expect_equal("out", after.out, values(before.out));
    expect_equal("grad_qkv", after.grad_qkv, values(before.grad_qkv));
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
      const ThreadCount threads(count);
      return run(shape, qkv, grad_out);
    };
    const Results one = with(1), two = with(2);
    expect_equal("out", two.out, values(one.out));
    expect_equal("grad_qkv", two.grad_qkv, values(one.grad_qkv));
  }
}

}  // namespace
}  // namespace mhmoe::test
