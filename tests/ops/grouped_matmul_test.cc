#include "ops/grouped_matmul.h"

#include "ops/matmul.h"
#include "ops/op_test.h"

namespace mhmoe::test {
namespace {

// How the rows of a buffer belong to experts; `gap` rows between them belong to none.
struct Layout {
  std::vector<int64_t> rows;
  int64_t gap = 0;
};

class GroupedMatmulTest : public OpTest {
 protected:
  ops::RowGroups groups(const Layout& layout) {
    const auto experts = static_cast<int64_t>(layout.rows.size());
    std::vector<double> begin, rows(layout.rows.begin(), layout.rows.end());
    int64_t next = 0;
    for (const int64_t count : layout.rows) {
      begin.push_back(static_cast<double>(next));
      next += count + layout.gap;
    }
    total_ = next;
    expert_of_.assign(static_cast<size_t>(next), -1);
    for (size_t e = 0; e < layout.rows.size(); ++e) {
      for (int64_t r = 0; r < layout.rows[e]; ++r) expert_of_[static_cast<size_t>(begin[e]) + r] = static_cast<int>(e);
    }
    return {given(DType::kI32, {experts}, begin), given(DType::kI32, {experts}, rows)};
  }

  // Against plain loops in double; the tolerance is that of a float sum of so many products.
  void check_product(const Layout& layout, bool transpose_weight, bool with_bias, DType in, DType out_dtype,
                     int64_t n = 37, int64_t k = 21) {
    const ops::RowGroups row_groups = groups(layout);
    const auto experts = static_cast<int64_t>(layout.rows.size());
    const int64_t inner = transpose_weight ? k : n, width = transpose_weight ? n : k;
    const double kUntouched = 3;
    const Tensor a = random(in, {total_, inner}), weight = random(in, {experts, n, k});
    const Tensor out = filled(out_dtype, {total_, width}, kUntouched);
    const Tensor bias = with_bias ? random(DType::kF32, {experts, n}) : Tensor();
    for (int64_t r = 0; r < total_; ++r) {  // rows of no expert must not be read
      if (expert_of_[r] < 0) write_value(a, r * inner, std::numeric_limits<double>::quiet_NaN());
    }
    std::vector<double> expected, tolerance;
    for (int64_t i = 0; i < total_ * width; ++i) {
      const int64_t r = i / width, c = i % width, e = expert_of_[r];
      double sum = kUntouched, magnitude = 0;
      if (e >= 0) {
        sum = with_bias ? read_value(bias, e * n + c) : 0;
        magnitude = std::abs(sum);
        for (int64_t p = 0; p < inner; ++p) {
          const double product =
              read_value(a, r * inner + p) * read_value(weight, e * n * k + (transpose_weight ? c * k + p : p * k + c));
          sum += product, magnitude += std::abs(product);
        }
      }
      expected.push_back(sum);
      tolerance.push_back((inner + 2) * 0x1p-24 * magnitude + unit_roundoff(out_dtype) * std::abs(sum));
    }
    ops::grouped_matmul(ctx(), {out, a, weight, row_groups, transpose_weight, bias});
    expect_close(
        fmt::format("{} experts, transpose {}, bias {}, {}", experts, transpose_weight, with_bias, to_string(in)), out,
        expected, tolerance);
  }

  void check_weight_grad(const Layout& layout, DType dtype, int64_t n, int64_t k) {
    const ops::RowGroups row_groups = groups(layout);
    const auto experts = static_cast<int64_t>(layout.rows.size());
    const Tensor grad_out = random(dtype, {total_, n}), x = random(dtype, {total_, k});
    const Tensor grad = random(DType::kF32, {experts, n, k});
    std::vector<double> expected = values(grad), magnitude(expected.size()), tolerance(expected.size());
    for (size_t i = 0; i < expected.size(); ++i) magnitude[i] = std::abs(expected[i]);
    for (int64_t r = 0; r < total_; ++r) {
      if (expert_of_[r] < 0) continue;
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          const double product = read_value(grad_out, r * n + i) * read_value(x, r * k + j);
          const int64_t at = (expert_of_[r] * n + i) * k + j;
          expected[at] += product, magnitude[at] += std::abs(product);
        }
      }
    }
    for (size_t i = 0; i < expected.size(); ++i) {
      const auto rows = static_cast<double>(layout.rows[i / (n * k)]);
      tolerance[i] = rows == 0 ? 0 : (rows + 2) * 0x1p-24 * magnitude[i];  // without rows: the same bits
    }
    ops::grouped_weight_grad(ctx(), {grad, grad_out, x, row_groups});
    expect_close(fmt::format("weight gradient of {}", to_string(dtype)), grad, expected, tolerance);
  }

  int64_t total_ = 0;
  std::vector<int> expert_of_;
};

const std::vector<Layout> kLayouts = {
    {{3, 0, 1, 130, 7}, 0},  // uneven, one empty
    {{0, 0, 0}, 0},          // no rows at all
    {{0, 300, 0, 0}, 0},     // everything to one expert
    {{5, 0, 128, 2}, 4},     // rows of no expert between
    {{1}, 0},
};

// More rows, columns and inner elements than the CPU takes at a time.
TEST_F(GroupedMatmulTest, LargeProductsAreDividedIntoBlocks) {
  const Layout many = {{1001, 2}, 0}, few = {{20, 2}, 0};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check_product(many, true, true, dtype, dtype, 5, 3);
    check_product(few, true, true, dtype, dtype, 290, 3);
    check_product(many, false, false, dtype, dtype, 3, 5);
    check_product(few, false, false, dtype, dtype, 3, 290);
    check_weight_grad({{601, 2}, 0}, dtype, 200, 3);
    check_weight_grad(few, dtype, 2, 1030);
  }
}

TEST_F(GroupedMatmulTest, EachExpertsRowsAreMultipliedByItsMatrix) {
  for (const Layout& layout : kLayouts) {
    for (const bool transpose_weight : {true, false}) {
      check_product(layout, transpose_weight, false, DType::kF32, DType::kF32);
      check_product(layout, transpose_weight, false, DType::kBF16, DType::kBF16);
      check_product(layout, transpose_weight, false, DType::kBF16, DType::kF32);
    }
    check_product(layout, true, true, DType::kF32, DType::kF32);
    check_product(layout, true, true, DType::kBF16, DType::kBF16);
  }
}

TEST_F(GroupedMatmulTest, TheActivationOfTheResultIsThatOfTheOpForIt) {
  for (const auto kind : {ops::Activation::kSwiglu, ops::Activation::kRelu, ops::Activation::kGelu}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const ops::RowGroups row_groups = groups({{3, 0, 130, 7}});
      const int64_t hidden = 16, n = ops::pre_activation_width(kind, hidden), k = 24;
      const Tensor a = random(dtype, {total_, k}), weight = random(dtype, {4, n, k});
      const Tensor out = garbage(dtype, {total_, n}), activated = garbage(dtype, {total_, hidden});
      const Tensor expected = garbage(dtype, {total_, hidden});
      ops::grouped_matmul(ctx(), {out, a, weight, row_groups, true, {}, activated, kind});
      ops::activation_forward(ctx(), {expected, out, kind});
      expect_equal(fmt::format("activation {}, {}", static_cast<int>(kind), to_string(dtype)), activated,
                   values(expected));
    }
  }
}

TEST_F(GroupedMatmulTest, WeightGradientsAccumulateAndEmptyExpertsKeepTheirs) {
  for (const Layout& layout : kLayouts) {
    check_weight_grad(layout, DType::kF32, 37, 21);
    check_weight_grad(layout, DType::kBF16, 37, 21);
  }
}

TEST_F(GroupedMatmulTest, WeightGradientsOfManyRowsAndColumns) {
  check_weight_grad({{1025, 2}}, DType::kF32, 259, 3);
  check_weight_grad({{1025, 2}}, DType::kBF16, 259, 3);
}

// Else a later token, routed to the same expert, could change an earlier token's result.
TEST_F(GroupedMatmulTest, ARowsBitsDependNeitherOnItsPlaceNorOnTheNumberOfRows) {
  const int64_t most = 150, k = 61, n = 37;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor a = random(dtype, {most, k}), weight = random(dtype, {1, n, k});
    const auto product = [&](int64_t first, int64_t count) {
      const Tensor out = garbage(DType::kF32, {count, n});
      ops::grouped_matmul(ctx(), {out, a.slice_rows(first, count), weight, groups({{count}}), true});
      return out;
    };
    const Tensor all = product(0, most);
    for (const int64_t count : {1, 2, 5, 6, 7, 11, 12, 13, 15, 16, 23, 24, 25, 119, 120, 121, 133, 149}) {
      expect_equal(fmt::format("first {} rows", count), product(0, count), values(all.slice_rows(0, count)));
      expect_equal(fmt::format("last {} rows", count), product(most - count, count),
                   values(all.slice_rows(most - count, count)));
    }
  }
}

TEST_F(GroupedMatmulTest, OneExpertIsADenseProductAndThreadsDoNotMatter) {
  const Tensor a = random(DType::kF32, {200, 48}), weight = random(DType::kF32, {1, 32, 48});
  const ops::RowGroups row_groups = groups({{200}});
  const Tensor grouped = garbage(DType::kF32, {200, 32}), dense = garbage(DType::kF32, {200, 32});
  const Tensor single = garbage(DType::kF32, {200, 32});
  ops::grouped_matmul(ctx(), {grouped, a, weight, row_groups, true});
  ops::matmul(ctx(), {.out = dense, .a = a, .b = weight.view({32, 48}), .transpose_b = true});
  expect_close("grouped against dense", grouped, values(dense), 50 * 0x1p-24 * 48);
  const ThreadCount threads(1);
  ops::grouped_matmul(ctx(), {single, a, weight, row_groups, true});
  expect_equal("one thread", single, values(grouped));
}

TEST_F(GroupedMatmulTest, BiasGradientsSumScaledRowsAndGatesReceiveTheirs) {
  const Layout layout{{3, 0, 150, 1}, 2};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const ops::RowGroups row_groups = groups(layout);
    const int64_t n = 271, experts = 4, assignments = total_ + 3;
    std::vector<double> assignment(static_cast<size_t>(total_), -1);
    for (int64_t r = 0; r < total_; ++r) {
      if (expert_of_[r] >= 0) assignment[r] = static_cast<double>(total_ - r);  // any order, not the row's own number
    }
    const Tensor grad_out = random(dtype, {total_, n}), bias = random(DType::kF32, {experts, n});
    const Tensor gate = random(DType::kF32, {assignments}), row_assignment = given(DType::kI32, {total_}, assignment);
    const Tensor grad_bias = random(DType::kF32, {experts, n}), grad_gate = random(DType::kF32, {assignments});
    std::vector<double> expected_bias = values(grad_bias), expected_gate = values(grad_gate);
    for (int64_t r = 0; r < total_; ++r) {
      if (expert_of_[r] < 0) continue;
      for (int64_t c = 0; c < n; ++c) {
        const double g = read_value(grad_out, r * n + c);
        const auto a = static_cast<int64_t>(assignment[r]);
        expected_bias[expert_of_[r] * n + c] += read_value(gate, a) * g;
        expected_gate[a] += read_value(bias, expert_of_[r] * n + c) * g;
      }
    }
    const Tensor plain = zeros(DType::kF32, {experts, n});
    ops::grouped_bias_backward(ctx(), {grad_bias, grad_out, row_groups, bias, gate, grad_gate, row_assignment});
    expect_close("bias gradient", grad_bias, expected_bias, 150 * 0x1p-24 * 4);
    expect_close("gate gradient", grad_gate, expected_gate, n * 0x1p-24 * 300);
    ops::grouped_bias_backward(ctx(), {plain, grad_out, row_groups});
    std::vector<double> column_sums(static_cast<size_t>(experts * n));
    for (int64_t i = 0; i < total_ * n; ++i) {
      if (expert_of_[i / n] >= 0) column_sums[expert_of_[i / n] * n + i % n] += read_value(grad_out, i);
    }
    expect_close("bias gradient without gates", plain, column_sums, 150 * 0x1p-24 * 4);
  }
}

TEST_F(GroupedMatmulTest, BiasGradientsWithOneGateARowHaveTheBytesOfGatesByAssignment) {
  const ops::RowGroups row_groups = groups({{3, 0, 150, 1}, 2});
  const int64_t n = 271, experts = 4;
  std::vector<double> backwards, given_gates, row_gates;
  for (int64_t r = 0; r < total_; ++r) {
    backwards.push_back(static_cast<double>(total_ - 1 - r));
    given_gates.push_back(static_cast<double>(r) / 8);
    row_gates.insert(row_gates.begin(), given_gates.back());
  }
  const Tensor grad_out = random(DType::kF32, {total_, n}), bias = random(DType::kF32, {experts, n});
  const Tensor by_assignment = zeros(DType::kF32, {experts, n}), by_row = zeros(DType::kF32, {experts, n});
  const Tensor grad_gate = zeros(DType::kF32, {total_}), row_grad_gate = zeros(DType::kF32, {total_});
  ops::grouped_bias_backward(
      ctx(), {by_assignment, grad_out, row_groups, bias, given(DType::kF32, {total_}, given_gates), grad_gate,
              given(DType::kI32, {total_}, backwards)});
  ops::grouped_bias_backward(
      ctx(), {by_row, grad_out, row_groups, bias, given(DType::kF32, {total_}, row_gates), row_grad_gate});
  expect_equal("bias gradient", by_row, values(by_assignment));
  auto expected = values(grad_gate);
  std::reverse(expected.begin(), expected.end());
  expect_equal("gate gradient", row_grad_gate, expected);
}

}  // namespace
}  // namespace mhmoe::test
