#include "ops/routing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "ops/op_test.h"

namespace mhmoe {
namespace {

constexpr int kDropless = 0;

class Routing : public test::OpTest {
 protected:
  ops::AssignSlots assign(const Tensor& expert_index, int64_t experts, int64_t capacity) {
    const int64_t s = expert_index.rows(), k = expert_index.cols();
    const ops::AssignSlots args{garbage(DType::kI32, {s, k}),
                                garbage(DType::kI32, {s, k}),
                                garbage(DType::kI32, {capacity > 0 ? experts * capacity : s * k}),
                                garbage(DType::kI32, {experts}),
                                garbage(DType::kI32, {experts}),
                                garbage(DType::kI32, {experts}),
                                expert_index,
                                capacity};
    ops::assign_slots(ctx(), args);
    return args;
  }
  // k different experts a row; skewed: every other row starts with expert 0.
  Tensor random_choices(int64_t rows, int64_t k, int64_t experts, bool skewed) {
    const Philox philox(3, "choices");
    std::vector<double> choices;
    for (int64_t s = 0; s < rows; ++s) {
      auto first = static_cast<int64_t>(philox.uniform(s) * static_cast<float>(experts));
      if (skewed && s % 2 == 0) first = 0;
      for (int64_t j = 0; j < k; ++j) choices.push_back(static_cast<double>((first + j * (1 + s % 2)) % experts));
    }
    return given(DType::kI32, {rows, k}, choices);
  }
};

// The contract, word by word, in quadratic time.
void expect_contract(const ops::AssignSlots& args) {
  const auto expert = test::values(args.expert_index), slot = test::values(args.slot);
  const auto row_of = test::values(args.row_of), row_assignment = test::values(args.row_assignment);
  const auto begin = test::values(args.begin), rows = test::values(args.rows), load = test::values(args.load);
  const auto k = static_cast<size_t>(args.expert_index.cols());
  size_t kept = 0, dropped = 0;
  double before = 0;
  for (size_t e = 0; e < load.size(); ++e) {
    EXPECT_EQ(load[e], std::count(expert.begin(), expert.end(), static_cast<double>(e)));
    EXPECT_EQ(rows[e], args.capacity > 0 ? std::min(load[e], static_cast<double>(args.capacity)) : load[e]);
    EXPECT_EQ(begin[e], args.capacity > 0 ? static_cast<double>(e) * static_cast<double>(args.capacity) : before);
    before += rows[e];
  }
  for (size_t a = 0; a < expert.size(); ++a) {
    size_t ahead = 0;  // earlier choices of any row, then the same choice of earlier rows
    for (size_t b = 0; b < expert.size(); ++b) {
      const bool earlier = b % k != a % k ? b % k < a % k : b / k < a / k;
      ahead += earlier && expert[b] == expert[a];
    }
    EXPECT_EQ(slot[a], ahead) << "assignment " << a;
    const bool fits = args.capacity == 0 || slot[a] < static_cast<double>(args.capacity);
    const double row = fits ? begin[static_cast<size_t>(expert[a])] + slot[a] : -1;
    EXPECT_EQ(row_of[a], row) << "assignment " << a;
    if (fits) {
      EXPECT_EQ(row_assignment[static_cast<size_t>(row)], a);
    }
    ++(fits ? kept : dropped);
  }
  EXPECT_EQ(kept + dropped, expert.size());
  EXPECT_EQ(kept, row_assignment.size() - std::count(row_assignment.begin(), row_assignment.end(), -1.0));
  EXPECT_EQ(kept, std::accumulate(rows.begin(), rows.end(), 0.0));
}

TEST_F(Routing, SlotsFollowTheContract) {
  for (const int64_t capacity : {kDropless, 1, 3, 1000}) {
    for (const auto& [rows, k, experts] : {std::array{1, 1, 1}, {1, 3, 4}, {50, 2, 5}, {64, 3, 8}, {7, 1, 30}}) {
      for (const bool skewed : {false, true}) {
        SCOPED_TRACE(fmt::format("capacity {} rows {} k {} experts {}", capacity, rows, k, experts));
        expect_contract(assign(random_choices(rows, k, experts, skewed), experts, capacity));
      }
    }
  }
}

TEST_F(Routing, FirstChoicesComeBeforeSecondChoicesOfEarlierRows) {
  // Row 0 wants experts 1, 0; row 1 wants 0, 1; row 2 wants 0, 1: both firsts of expert 0 precede row 0's second.
  const ops::AssignSlots got = assign(given(DType::kI32, {3, 2}, {1, 0, 0, 1, 0, 1}), 2, 2);
  test::expect_equal("slot", got.slot, std::vector<double>{0, 2, 0, 1, 1, 2});
  test::expect_equal("row_of", got.row_of, std::vector<double>{2, -1, 0, 3, 1, -1});
  test::expect_equal("row_assignment", got.row_assignment, std::vector<double>{2, 4, 0, 3});
  test::expect_equal("load", got.load, std::vector<double>{3, 3});
}

TEST_F(Routing, EverythingToOneExpertLeavesTheOthersEmpty) {
  const Tensor choices = filled(DType::kI32, {9, 1}, 2);
  const ops::AssignSlots bounded = assign(choices, 4, 4), dropless = assign(choices, 4, kDropless);
  expect_contract(bounded);
  expect_contract(dropless);
  test::expect_equal("rows", bounded.rows, std::vector<double>{0, 0, 4, 0});
  test::expect_equal("begin", dropless.begin, std::vector<double>{0, 0, 0, 9});
}

TEST_F(Routing, NoRows) {
  const Tensor none = zeros(DType::kI32, {0, 2});
  const ops::AssignSlots bounded = assign(none, 3, 2);
  expect_contract(bounded);
  expect_contract(assign(none, 3, kDropless));
  const Tensor out = garbage(DType::kF32, {6, 5}), x = zeros(DType::kF32, {0, 5});
  ops::gather_rows(ctx(), {out, x, bounded.row_assignment, 2});
  test::expect_equal("out", out, std::vector<double>(30, 0));
  ops::combine_rows(ctx(), {x, out, bounded.row_of});
}

TEST_F(Routing, GatherThenCombineIsTheIdentityBitForBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t width : {1, 7, 256, 600}) {
      const Tensor x = random(dtype, {40, width});
      test::write_value(x, 0, -0.0);
      const ops::AssignSlots slots = assign(random_choices(40, 1, 6, true), 6, kDropless);
      const Tensor buffer = garbage(dtype, {40, width}), y = garbage(dtype, {40, width});
      ops::gather_rows(ctx(), {buffer, x, slots.row_assignment, 1});
      ops::combine_rows(ctx(), {y, buffer, slots.row_of});
      ctx().synchronize();
      EXPECT_EQ(std::memcmp(y.data, x.data, x.bytes()), 0) << to_string(dtype) << " " << width;
    }
  }
}

TEST_F(Routing, GatherFillsEmptyRowsWithZeroAndRoundsToBf16) {
  const Tensor x = random(DType::kF32, {3, 17});
  const Tensor row_assignment = given(DType::kI32, {4}, {5, -1, 0, 3});
  const Tensor out = garbage(DType::kBF16, {4, 17});
  ops::gather_rows(ctx(), {out, x, row_assignment, 2});
  std::vector<double> expected(4 * 17, 0);
  for (const auto& [row, from] : {std::pair{0, 2}, {2, 0}, {3, 1}}) {
    for (int c = 0; c < 17; ++c) {
      expected[row * 17 + c] = static_cast<float>(bfloat16(test::host<float>(x)[from * 17 + c]));
    }
  }
  test::expect_equal("out", out, expected);
}

TEST_F(Routing, CombineIsPlainLoopsForEveryMixOfTypesAndOptions) {
  const int64_t s_count = 13, k = 3, width = 300;
  const ops::AssignSlots slots = assign(random_choices(s_count, k, 4, true), 4, 5);  // some are dropped
  const Tensor gate = random(DType::kF32, {s_count, k});
  for (const DType y_type : {DType::kF32, DType::kBF16}) {
    for (const DType row_type : {DType::kF32, DType::kBF16}) {
      for (const int options : {0, 1, 2, 3}) {
        const Tensor rows = random(row_type, {20, width}), y = random(y_type, {s_count, width});
        const Tensor addend = (options & 1) == 0 ? Tensor{} : y;  // in place
        const Tensor used_gate = (options & 2) == 0 ? Tensor{} : gate;
        std::vector<double> expected((options & 1) == 0 ? std::vector<double>(s_count * width, 0) : test::values(y));
        std::vector<double> tolerance;
        for (int64_t i = 0; i < s_count * width; ++i) {
          for (int64_t j = 0; j < k; ++j) {
            const int64_t a = i / width * k + j;
            const int32_t row = test::host<int32_t>(slots.row_of)[a];
            if (row < 0) continue;
            expected[i] +=
                (used_gate.empty() ? 1 : test::read_value(gate, a)) * test::read_value(rows, row * width + i % width);
          }
          tolerance.push_back(1e-6 + test::unit_roundoff(y_type) * std::abs(expected[i]));
        }
        ops::combine_rows(ctx(), {y, rows, slots.row_of, used_gate, addend});
        test::expect_close(fmt::format("y with options {}", options), y, expected, tolerance);
      }
    }
  }
}

TEST_F(Routing, CombineOfRowsThatWereAllDroppedIsTheAddendOrZero) {
  const Tensor nowhere = filled(DType::kI32, {2, 2}, -1), rows = garbage(DType::kF32, {3, 5});
  const Tensor y = garbage(DType::kF32, {2, 5}), addend = random(DType::kBF16, {2, 5});
  ops::combine_rows(ctx(), {y, rows, nowhere});
  test::expect_equal("y", y, std::vector<double>(10, 0));
  ops::combine_rows(ctx(), {.y = y, .rows = rows, .row_of = nowhere, .addend = addend});
  test::expect_equal("y", y, test::values(addend));
}

}  // namespace
}  // namespace mhmoe
