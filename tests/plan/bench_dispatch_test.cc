#include "plan/bench_dispatch.h"

#include <gtest/gtest.h>

#include "comm/faulty_communicator.h"
#include "cpu/backend.h"
#include "plan/cluster_runs.h"

namespace mhmoe::plan {
namespace {

std::vector<DispatchRow> bench(DType compute, test::Fault fault = {}) {
  const auto ctx = cpu::backend().create_context(0);
  comm::ParallelGroups groups = comm::make_single_groups(*ctx);
  groups.expert = std::make_unique<test::FaultyCommunicator>(std::move(groups.expert), fault);
  return bench_dispatch(*ctx, groups, run_of(1), compute, {.warmup = 0, .steps = 1});
}

// 2 x 24 tokens of 3 heads, top-2, 4 experts: 288 rows, as many as there are slots.
TEST(BenchDispatch, OfOneRankIsACopy) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const std::vector<DispatchRow> rows = bench(compute);
    ASSERT_EQ(rows.size(), 2u * 4 * 3) << "capacity, routing, and 1, 2 or 4 chunks";
    for (const DispatchRow& row : rows) {
      EXPECT_EQ(row.rows, 288);
      EXPECT_EQ(row.busiest_rows, 288);
      EXPECT_EQ(row.row_bytes, 16 * static_cast<int64_t>(size_of(compute)));
      EXPECT_EQ(row.sent_bytes + row.received_bytes, 0);
      EXPECT_EQ(row.wrong, 0) << row.routing;
      EXPECT_GT(row.algorithm_bandwidth(), 0);
      EXPECT_EQ(row.bus_bandwidth(), 0);
    }
  }
}

// Calls: counts, to learn the sizes; then counts, dispatch and combine.
TEST(BenchDispatch, WhatArrivesOtherwiseIsCounted) {
  const auto flipped = [](int64_t call) {
    return bench(DType::kF32, {.kind = test::Fault::Kind::kFlipBit, .call = call, .bit = 5 * 32 + 25})[0].wrong;
  };
  EXPECT_EQ(flipped(3), 2) << "there, and so also back";
  EXPECT_EQ(flipped(4), 1);
}

}  // namespace
}  // namespace mhmoe::plan
