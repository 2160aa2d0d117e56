// Attention to kept keys and values: against plain loops and against attention over the whole sequence at once.
#include "ops/attention.h"
#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

class AttentionCachedTest : public OpTest {
 protected:
  struct Sizes {
    int64_t batch, length, heads, head_size, capacity;
  };

  struct Cache {
    Tensor keys, values;
  };
  Cache cache(const Sizes& s, DType dtype) {
    return {garbage(dtype, {s.batch, s.heads, s.capacity, s.head_size}),
            garbage(dtype, {s.batch, s.heads, s.capacity, s.head_size})};
  }

  // Rows [first, first + count) of every sequence of a tensor of `length` rows a sequence.
  Tensor rows_of(const Sizes& s, const Tensor& all, int64_t first, int64_t count) {
    const Tensor out = garbage(all.dtype, {s.batch * count, all.cols()});
    for (int64_t b = 0; b < s.batch; ++b) {
      ctx().copy(out.slice_rows(b * count, count), all.slice_rows(b * s.length + first, count));
    }
    return out;
  }

  // The whole of `qkv`, brought in calls of these sizes; the result in the order of qkv's rows.
  Tensor attend(const Sizes& s, const Tensor& qkv, const Cache& kept, const std::vector<int64_t>& calls) {
    const Tensor all = garbage(qkv.dtype, {qkv.rows(), s.heads * s.head_size});
    int64_t first = 0;
    for (const int64_t count : calls) {
      const Tensor out = garbage(qkv.dtype, {s.batch * count, all.cols()});
      ops::attention_cached(
          ctx(),
          {out, kept.keys, kept.values, rows_of(s, qkv, first, count), {s.batch, count, s.heads, s.head_size}, first});
      for (int64_t b = 0; b < s.batch; ++b) {
        ctx().copy(all.slice_rows(b * s.length + first, count), out.slice_rows(b * count, count));
      }
      first += count;
    }
    return all;
  }

  // softmax(q k^T / sqrt(D)) v of one row in double.
  static std::vector<double> expected_row(const Sizes& s, const std::vector<double>& qkv, int64_t b, int64_t t,
                                          int64_t h) {
    const int64_t width = s.heads * s.head_size;
    const auto at = [&](int64_t row, int64_t part, int64_t c) {
      return qkv[(b * s.length + row) * 3 * width + part * width + h * s.head_size + c];
    };
    std::vector<double> out(static_cast<size_t>(s.head_size));
    double sum = 0;
    for (int64_t j = 0; j <= t; ++j) {
      double score = 0;
      for (int64_t c = 0; c < s.head_size; ++c) score += at(t, 0, c) * at(j, 1, c);
      const double p = std::exp(score / std::sqrt(static_cast<double>(s.head_size)));
      sum += p;
      for (int64_t c = 0; c < s.head_size; ++c) out[c] += p * at(j, 2, c);
    }
    for (double& value : out) value /= sum;
    return out;
  }
};

TEST_F(AttentionCachedTest, MatchesPlainLoops) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Sizes& s :
         {Sizes{1, 1, 1, 2, 1}, Sizes{1, 7, 2, 4, 9}, Sizes{2, 33, 3, 5, 40}, Sizes{2, 70, 1, 64, 70}}) {
      const Tensor qkv = random(dtype, {s.batch * s.length, 3 * s.heads * s.head_size});
      const Tensor found = attend(s, qkv, cache(s, dtype), {s.length});
      const std::vector<double> inputs = values(qkv);
      for (int64_t b = 0; b < s.batch; ++b) {
        for (int64_t t = 0; t < s.length; ++t) {
          for (int64_t h = 0; h < s.heads; ++h) {
            const auto expected = expected_row(s, inputs, b, t, h);
            const Tensor row = found.slice_rows(b * s.length + t, 1).view({s.heads, s.head_size}).slice_rows(h, 1);
            std::vector<double> tolerance;
            for (const double value : expected) {
              tolerance.push_back(100 * 0x1p-24 * (1 + std::abs(value)) + unit_roundoff(dtype) * std::abs(value));
            }
            expect_close(fmt::format("sequence {} position {} head {} {}", b, t, h, to_string(dtype)), row, expected,
                         tolerance);
          }
        }
      }
    }
  }
}

TEST_F(AttentionCachedTest, BitsDoNotDependOnHowManyPositionsOneCallBrings) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Sizes s{2, 75, 3, 20, 80};
    const Tensor qkv = random(dtype, {s.batch * s.length, 3 * s.heads * s.head_size});
    const auto whole = values(attend(s, qkv, cache(s, dtype), {s.length}));
    expect_equal("one by one", attend(s, qkv, cache(s, dtype), std::vector<int64_t>(75, 1)), whole);
    expect_equal("a prompt, then one by one", attend(s, qkv, cache(s, dtype), {71, 1, 1, 1, 1}), whole);
    expect_equal("uneven", attend(s, qkv, cache(s, dtype), {1, 64, 7, 3}), whole);
    const ThreadCount threads(1);
    expect_equal("one thread", attend(s, qkv, cache(s, dtype), {s.length}), whole);
  }
}

TEST_F(AttentionCachedTest, AgreesWithAttentionOverWholeSequences) {
  const Sizes s{2, 130, 2, 32, 130};
  const Tensor qkv = random(DType::kF32, {s.batch * s.length, 3 * s.heads * s.head_size});
  const Tensor whole = garbage(DType::kF32, {qkv.rows(), s.heads * s.head_size});
  ops::attention_forward(
      ctx(),
      {whole, garbage(DType::kF32, {s.batch, s.heads, s.length}), qkv, {s.batch, s.length, s.heads, s.head_size}});
  expect_close("cached", attend(s, qkv, cache(s, DType::kF32), {100, 30}), values(whole), 200 * 0x1p-24);
}

TEST_F(AttentionCachedTest, KeepsKeysAndValuesOfNewPositionsAndLeavesTheOthersAlone) {
  const Sizes s{1, 5, 2, 3, 6};
  const Tensor qkv = random(DType::kF32, {s.length, 18});
  const Cache kept = cache(s, DType::kF32);
  attend(s, qkv, kept, {2, 3});
  for (int64_t h = 0; h < s.heads; ++h) {
    for (int64_t t = 0; t < s.capacity; ++t) {
      for (int64_t c = 0; c < s.head_size; ++c) {
        const int64_t at = (h * s.capacity + t) * s.head_size + c;
        if (t == s.length) {
          EXPECT_TRUE(std::isnan(read_value(kept.keys, at)) && std::isnan(read_value(kept.values, at)));
          continue;
        }
        EXPECT_EQ(read_value(kept.keys, at), read_value(qkv, t * 18 + 6 + h * 3 + c));
        EXPECT_EQ(read_value(kept.values, at), read_value(qkv, t * 18 + 12 + h * 3 + c));
      }
    }
  }
}

TEST_F(AttentionCachedTest, NoSequences) {
  const Sizes s{0, 1, 2, 3, 4};
  attend(s, zeros(DType::kF32, {0, 18}), cache(s, DType::kF32), {1});
}

}  // namespace
}  // namespace mhmoe::test
