// What `mhmoe bench comm` measures, and that it checks what arrives: mpirun -np 4 test_comm_ranks.
#include "ranks.h"

#include "comm/bench.h"
#include "comm/faulty_communicator.h"
#include "cpu/backend.h"

namespace mhmoe::comm {
namespace {

std::vector<BenchRow> bench(test::Fault fault) {
  const std::unique_ptr<Context> ctx = cpu::backend().create_context(0);
  test::FaultyCommunicator world(job().create_host_communicator(ranks_from(0, kRanks)), fault);
  return bench_collectives(*ctx, job(), world, {.min_bytes = 1000, .max_bytes = 5000, .warmup = 1, .calls = 2});
}

TEST(Bench, EverySizeOfEveryCollectiveArrives) {
  const std::vector<BenchRow> rows = bench({});
  ASSERT_EQ(rows.size(), 8u);  // four kinds, two sizes
  for (const BenchRow& row : rows) {
    EXPECT_EQ(row.wrong, 0) << row.collective;
    EXPECT_GT(row.seconds, 0) << row.collective;
    const bool all_reduce = row.collective == "all_reduce";
    EXPECT_EQ(row.bus_factor, all_reduce ? 1.5 : 0.75) << row.collective;  // nccl-tests' factors for 4 ranks
    EXPECT_EQ(row.count * 4 * (all_reduce ? 1 : kRanks), row.bytes) << row.collective;
  }
  EXPECT_EQ(rows[0].bytes, 992);  // 248 elements: the most that 4 ranks can share
}

// Call 4 of each size is the one that is looked at.
TEST(Bench, OneFlippedBitIsCounted) {
  const bool faulty = job().rank() == 1;
  const auto kind = faulty ? test::Fault::Kind::kFlipBit : test::Fault::Kind::kNone;
  const std::vector<BenchRow> rows = bench({.kind = kind, .call = 4, .bit = 2 * 32 + 25});
  EXPECT_EQ(rows[0].wrong, 1);
  for (size_t i = 1; i < rows.size(); ++i) EXPECT_EQ(rows[i].wrong, 0) << rows[i].collective;
}

}  // namespace
}  // namespace mhmoe::comm
