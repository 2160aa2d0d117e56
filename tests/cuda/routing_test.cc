#include "ops/routing.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::kRoundoff;
using test::Twin;

constexpr int64_t kDropless = 0;

struct Slots {
  Twin slot, row_of, row_assignment, begin, rows, load, expert_index;
};

class RoutingKernels : public test::EmulatedTest {
 protected:
  Slots tensors_for(const Twin& expert_index, int64_t experts, int64_t capacity) {
    const int64_t s = expert_index.cpu.rows(), k = expert_index.cpu.cols();
    return {garbage(DType::kI32, {s, k}),
            garbage(DType::kI32, {s, k}),
            garbage(DType::kI32, {capacity > 0 ? experts * capacity : s * k}),
            garbage(DType::kI32, {experts}),
            garbage(DType::kI32, {experts}),
            garbage(DType::kI32, {experts}),
            expert_index};
  }
  static ops::AssignSlots arguments(const Slots& slots, int64_t capacity, Tensor Twin::*side) {
    return {slots.slot.*side, slots.row_of.*side, slots.row_assignment.*side, slots.begin.*side,
            slots.rows.*side, slots.load.*side,   slots.expert_index.*side,   capacity};
  }
  Slots expect_the_cpus_slots(const Twin& expert_index, int64_t experts, int64_t capacity) {
    SCOPED_TRACE(fmt::format("{} experts of {}, capacity {}", expert_index.cpu.describe(), experts, capacity));
    const Slots slots = tensors_for(expert_index, experts, capacity);
    const Twin outputs[] = {slots.slot, slots.row_of, slots.row_assignment, slots.begin, slots.rows, slots.load};
    std::vector<Tensor> on_device;
    for (const Twin& output : outputs) on_device.push_back(output.emulated);
    ops::assign_slots(cpu(), arguments(slots, capacity, &Twin::cpu));
    expect_same_bytes_in_every_order(
        on_device, [&] { ops::assign_slots(emulated(), arguments(slots, capacity, &Twin::emulated)); });
    for (const Twin& output : outputs) expect_agreement("output", output, 0, 0);
    return slots;
  }
  // The experts of a row follow each other, from a random one (skewed: every other row, from expert 0).
  Twin choices(int64_t rows, int64_t k, int64_t experts, bool skewed) {
    const Philox philox(3, "choices");
    std::vector<double> index;
    for (int64_t s = 0; s < rows; ++s) {
      const auto first = static_cast<int64_t>(philox.uniform(s) * static_cast<float>(experts));
      for (int64_t j = 0; j < k; ++j) {
        index.push_back(static_cast<double>(((skewed && s % 2 == 0 ? 0 : first) + j) % experts));
      }
    }
    return given(DType::kI32, {rows, k}, index);
  }
};

// Assignments around a chunk of 512; experts around a tile of 32 and around the 256 threads that join queues.
TEST_F(RoutingKernels, AssignSlotsEqualsTheCpu) {
  for (const auto& [rows, k, experts] : {std::array<int64_t, 3>{0, 2, 3},
                                         {1, 1, 1},
                                         {511, 1, 31},
                                         {256, 2, 32},
                                         {171, 3, 33},
                                         {9, 9, 9},
                                         {700, 4, 300}}) {
    for (const int64_t capacity : {kDropless, int64_t{1}, 2 * (rows * k / experts + 1)}) {
      expect_the_cpus_slots(choices(rows, k, experts, true), experts, capacity);
    }
  }
}

TEST_F(RoutingKernels, AssignSlotsTakesEverythingToOneExpert) {
  for (const int64_t capacity : {0, 40, 2000}) {
    expect_the_cpus_slots(filled(DType::kI32, {1025, 1}, 5), 70, capacity);
  }
}

TEST_F(RoutingKernels, AssignSlotsCutsManyRowsIntoLargerChunks) {
  const int64_t rows = 1024 * 512 + 7;
  const Slots slots = tensors_for(choices(rows, 1, 3, false), 3, kDropless);
  ops::assign_slots(cpu(), arguments(slots, kDropless, &Twin::cpu));
  ops::assign_slots(emulated(), arguments(slots, kDropless, &Twin::emulated));
  expect_agreement("slot", slots.slot, 0, 0);
  expect_agreement("row_assignment", slots.row_assignment, 0, 0);
}

// Widths around a pack of 8 and around what a block of 256 threads has packs for, at addresses that allow packs and
// not.
TEST_F(RoutingKernels, GatherRowsEqualsTheCpu) {
  for (const bool aligned : {true, false}) {
    unalign(!aligned);
    for (const auto& [from, to] :
         {std::array{DType::kF32, DType::kF32}, {DType::kF32, DType::kBF16}, {DType::kBF16, DType::kBF16}}) {
      for (const int64_t width : {1, 7, 8, 9, 264, 2056}) {
        const Twin x = random(from, {5, width});
        const Twin index = given(DType::kI32, {7}, {9, -1, 0, 4, 4, -1, 3}), out = garbage(to, {7, width});
        ops::gather_rows(cpu(), {out.cpu, x.cpu, index.cpu, 2});
        expect_same_bytes_in_every_order({out.emulated}, [&] {
          ops::gather_rows(emulated(), {out.emulated, x.emulated, index.emulated, 2});
        });
        expect_agreement("out", out, 0, 0);
      }
    }
  }
}

// Choices around a batch of 4 rows; some are dropped, and all of row 0's.
TEST_F(RoutingKernels, CombineRowsAgreesWithTheCpu) {
  for (const auto& [k, width, aligned] :
       {std::array<int64_t, 3>{1, 1, 1}, {3, 8, 1}, {4, 33, 1}, {5, 264, 1}, {9, 16, 0}}) {
    unalign(aligned == 0);
    std::vector<double> index;
    for (int64_t a = 0; a < 6 * k; ++a) index.push_back(a < k || a % 5 == 0 ? -1 : static_cast<double>(a % 11));
    const Twin row_of = given(DType::kI32, {6, k}, index), gate = random(DType::kF32, {6, k});
    for (const DType y_type : {DType::kF32, DType::kBF16}) {
      for (const DType row_type : {DType::kF32, DType::kBF16}) {
        for (const int options : {0, 1, 2, 3}) {
          const Twin rows = random(row_type, {11, width}), y = random(y_type, {6, width});
          const auto args = [&](Tensor Twin::*side) {
            return ops::CombineRows{.y = y.*side,
                                    .rows = rows.*side,
                                    .row_of = row_of.*side,
                                    .gate = (options & 1) == 0 ? Tensor{} : gate.*side,
                                    .addend = (options & 2) == 0 ? Tensor{} : y.*side};
          };
          expect_same_bytes_in_every_order({y.emulated}, [&] {
            refresh(y);
            ops::combine_rows(emulated(), args(&Twin::emulated));
          });
          ops::combine_rows(cpu(), args(&Twin::cpu));
          if (options < 2) {
            EXPECT_FALSE(std::signbit(test::read_value(downloaded(y.emulated), 0))) << "of nothing";
          }
          // Terms are products of two normals, at most about 16.
          const double terms = static_cast<double>(k) + 1;
          expect_agreement("y", y, test::unit_roundoff(y_type), terms * 16 * terms * kRoundoff);
        }
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe
