#include "ops/rotary.h"

#include <complex>

#include "ops/op_test.h"

namespace mhmoe {
namespace {

using Rotary = test::OpTest;

constexpr float kBase = 10000;

// One row's q and k pairs (i, i + D/2) as complex numbers, heads in order; then v.
std::vector<std::complex<double>> pairs(const std::vector<double>& qkv, int64_t row, int64_t heads, int64_t half) {
  std::vector<std::complex<double>> result;
  const int64_t start = row * 6 * heads * half;
  for (int64_t h = 0; h < 2 * heads; ++h) {
    for (int64_t i = 0; i < half; ++i) {
      const int64_t at = start + h * 2 * half + i;
      result.emplace_back(qkv[at], qkv[at + half]);
    }
  }
  return result;
}

TEST_F(Rotary, TurnsEveryPairByPositionTimesFrequencyAndLeavesValuesAlone) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t half : {1, 3, 8, 32}) {
      const int64_t heads = 2, rows = 11, length = 4;  // rows 0..3 are one sequence, 4..7 the next
      const Tensor qkv = random(dtype, {rows, 6 * heads * half});
      const auto before = test::values(qkv);
      ops::rotary(ctx(), {qkv, length, heads, kBase});
      const auto after = test::values(qkv);
      for (int64_t r = 0; r < rows; ++r) {
        const auto from = pairs(before, r, heads, half), to = pairs(after, r, heads, half);
        for (size_t p = 0; p < from.size(); ++p) {
          const double frequency = std::pow(kBase, -static_cast<double>(p % half) / static_cast<double>(half));
          const auto expected = from[p] * std::polar(1.0, static_cast<double>(r % length) * frequency);
          EXPECT_LE(std::abs(to[p] - expected), std::abs(expected) * (4 * 0x1p-24 + 2 * test::unit_roundoff(dtype)))
              << "row " << r << " pair " << p << " half " << half << " " << to_string(dtype);
        }
        for (int64_t c = 4 * heads * half; c < 6 * heads * half; ++c) {
          EXPECT_EQ(after[r * 6 * heads * half + c], before[r * 6 * heads * half + c])
              << "row " << r << " column " << c;
        }
      }
    }
  }
}

TEST_F(Rotary, PreservesNormsAndTheInverseRestores) {
  const int64_t heads = 3, half = 5, rows = 40;
  const Tensor qkv = random(DType::kF32, {rows, 6 * heads * half});
  const auto before = test::values(qkv);
  ops::rotary(ctx(), {qkv, rows, heads, kBase});
  const auto turned = test::values(qkv);
  for (int64_t r = 0; r < rows; ++r) {
    const auto from = pairs(before, r, heads, half), to = pairs(turned, r, heads, half);
    for (size_t p = 0; p < from.size(); ++p) EXPECT_NEAR(std::abs(to[p]), std::abs(from[p]), 4 * 0x1p-24 * 4);
  }
  EXPECT_NE(turned, before);
  ops::rotary(ctx(), {.qkv = qkv, .sequence_length = rows, .heads = heads, .base = kBase, .inverse = true});
  test::expect_close("restored", qkv, before, 8 * 0x1p-24 * 4);
}

TEST_F(Rotary, ScoresDependOnlyOnTheDistance) {
  const int64_t half = 4, rows = 64;
  const Tensor qkv = garbage(DType::kF32, {rows, 6 * half});
  const Tensor one = random(DType::kF32, {1, 6 * half});
  for (int64_t r = 0; r < rows; ++r) ctx().copy(qkv.slice_rows(r, 1), one);
  ops::rotary(ctx(), {qkv, rows, 1, kBase});
  const auto rotated = test::values(qkv);
  const auto score = [&](int64_t query, int64_t key) {
    double sum = 0;
    for (int64_t i = 0; i < 2 * half; ++i)
      sum += rotated[query * 6 * half + i] * rotated[key * 6 * half + 2 * half + i];
    return sum;
  };
  for (int64_t distance = 0; distance < 20; ++distance) {
    EXPECT_NEAR(score(distance, 0), score(40 + distance, 40), 1e-5) << distance;
  }
  EXPECT_GT(std::abs(score(3, 0) - score(0, 0)), 1e-3);
}

TEST_F(Rotary, ShorterAndLongerSequencesUseTheSameAngles) {
  const int64_t width = 6 * 4;
  const Tensor longer = random(DType::kF32, {300, width});
  const Tensor shorter = copy_of(longer.slice_rows(0, 5));
  ops::rotary(ctx(), {shorter, 5, 1, kBase});
  ops::rotary(ctx(), {longer, 300, 1, kBase});
  test::expect_equal("first rows", longer.slice_rows(0, 5), test::values(shorter));
  const Tensor other_base = random(DType::kF32, {2, width});
  const Tensor same = copy_of(other_base);
  ops::rotary(ctx(), {other_base, 2, 1, 50});
  ops::rotary(ctx(), {same, 2, 1, kBase});
  EXPECT_NE(test::values(other_base), test::values(same));
}

TEST_F(Rotary, LaterPositionsAreTurnedAsWithinTheWholeSequence) {
  const int64_t width = 6 * 5;
  const Tensor whole = random(DType::kF32, {2 * 90, width});  // two sequences
  const Tensor parts = garbage(DType::kF32, {2 * 7, width});
  for (const int64_t b : {0, 1}) ctx().copy(parts.slice_rows(7 * b, 7), whole.slice_rows(90 * b + 70, 7));
  ops::rotary(ctx(), {whole, 90, 1, kBase});
  ops::rotary(ctx(), {.qkv = parts, .sequence_length = 7, .heads = 1, .base = kBase, .first_position = 70});
  for (const int64_t b : {0, 1}) {
    test::expect_equal("sequence", parts.slice_rows(7 * b, 7), test::values(whole.slice_rows(90 * b + 70, 7)));
  }
}

TEST_F(Rotary, NoRows) {
  ops::rotary(ctx(), {zeros(DType::kF32, {0, 12}), 7, 1, kBase});
}

}  // namespace
}  // namespace mhmoe
