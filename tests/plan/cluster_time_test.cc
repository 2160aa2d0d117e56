#include "plan/cluster_time.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "nn/parameters.h"
#include "plan/cluster_report.h"
#include "plan/cluster_runs.h"
#include "plan/step_work.h"

namespace mhmoe::plan {
namespace {

TEST(AllToAll, InTwoHopsSendsFewerMessagesAndTheSameBetweenNodes) {
  const comm::Layout of = layout(64, 32);
  const Exchange flat = all_to_all(32e6, of, cluster(64, 8), {});
  const Exchange hops = all_to_all(32e6, of, cluster(64, 8), {.two_hops = true, .ranks_per_node = 8});
  EXPECT_DOUBLE_EQ(flat.between_bytes, 24e6);
  EXPECT_DOUBLE_EQ(hops.between_bytes, flat.between_bytes);
  EXPECT_EQ(flat.between_messages, 24);
  EXPECT_EQ(hops.between_messages, 3);
  EXPECT_EQ(flat.inside_messages, 7);
  EXPECT_DOUBLE_EQ(flat.inside_bytes, 7e6);
  EXPECT_DOUBLE_EQ(hops.inside_bytes, 28e6) << "everything for other local ranks, of all nodes";
  EXPECT_DOUBLE_EQ(flat.seconds, 24 * kBetweenLatency + 24e6 / 50e9);
  EXPECT_DOUBLE_EQ(hops.seconds, 7 * kInsideLatency + 28e6 / 450e9 + 3 * kBetweenLatency + 24e6 / 50e9);
}

TEST(AllToAll, HasTwoHopsOnlyForGroupsOfWholeNodes) {
  EXPECT_TRUE(has_two_hops(layout(64, 32), 8));
  EXPECT_FALSE(has_two_hops(layout(64, 8), 8));
  EXPECT_FALSE(has_two_hops(layout(12, 6), 4));
  EXPECT_FALSE(has_two_hops(layout(64, 32), 1));
  train::RunConfig config = paper2("mhmoe_h3");
  const auto hops = [&](train::Hierarchical asked, std::optional<double> capacity_factor) {
    config.parallel.hierarchical_all_to_all = asked;
    config.model.moe.capacity_factor = capacity_factor;
    return route_of(config, layout(64, 32), DType::kBF16, 8).two_hops;
  };
  EXPECT_TRUE(hops(train::Hierarchical::kOn, 1));
  EXPECT_FALSE(hops(train::Hierarchical::kOff, 1));
  EXPECT_FALSE(hops(train::Hierarchical::kOn, std::nullopt)) << "rows of unequal counts go straight to their rank";
  config.train.micro_batch_sequences = 8;  // 512 KiB or more a message
  EXPECT_FALSE(hops(train::Hierarchical::kAuto, 1));
  config.train.micro_batch_sequences = 1;
  EXPECT_TRUE(hops(train::Hierarchical::kAuto, 1));
}

// Ranks 0 to 5 on nodes of 4: ranks 4 and 5 have one neighbour each and send most to other nodes.
TEST(AllToAll, CountsTheRankWithTheFewestNeighbours) {
  const Exchange exchange = all_to_all(6e6, layout(12, 6), cluster(12, 4), {});
  EXPECT_EQ(exchange.inside_messages, 1);
  EXPECT_EQ(exchange.between_messages, 4);
  EXPECT_DOUBLE_EQ(exchange.between_bytes, 4e6);
}

TEST(Ring, LeavesANodeOnceForAllOfItsRanks) {
  const Exchange dense = ring(16e6, 16, 1, cluster(16, 8));
  EXPECT_DOUBLE_EQ(dense.between_bytes, 15e6 / 8);
  EXPECT_DOUBLE_EQ(dense.inside_bytes, 15e6 * 7 / 8);
  EXPECT_EQ(dense.inside_messages, 14);
  EXPECT_EQ(dense.between_messages, 1);
  const Exchange alone = ring(16e6, 4, 8, cluster(32, 8));
  EXPECT_DOUBLE_EQ(alone.between_bytes, 12e6) << "every replica on a node of its own";
  EXPECT_EQ(ring(16e6, 8, 1, cluster(8, 8)).between_bytes, 0);
  EXPECT_EQ(ring(16e6, 1, 1, cluster(8, 8)).seconds, 0);
}

TEST(ClusterTimes, OfOneRankAreTheStepsFloor) {
  const train::RunConfig config = run_of(4);
  const ClusterTimes times = times_of_step(config, layout(1, 1), DType::kBF16, cluster(1, 8), {});
  const auto work = work_of_step(config, DeviceKind::kCuda, DType::kBF16);
  const double floor = floor_of_step(work, config, find_gpu("h100")).seconds;
  // A step's record of statistics, copied once a micro-batch, is all that grows otherwise.
  EXPECT_NEAR(times.sequential_seconds() / floor, 1, 1e-9);
  EXPECT_DOUBLE_EQ(times.overlapped_seconds(), times.sequential_seconds());
  EXPECT_GT(times.work.experts_seconds, 0);
}

TEST(ClusterTimes, OverlapHidesNoMoreThanThereIs) {
  train::RunConfig config = paper2("mhmoe_h3");
  for (const int group : {2, 8, 32}) {
    const auto times_with = [&](int64_t chunks) {
      config.parallel.overlap_chunks = chunks;
      return times_of_step(config, layout(64, group), DType::kBF16, cluster(64, 8), {});
    };
    const ClusterTimes one = times_with(1), two = times_with(2);
    EXPECT_NEAR(one.exposed_seconds, one.all_to_all_seconds, 1e-12) << "one chunk overlaps with nothing";
    EXPECT_LT(two.exposed_seconds, two.all_to_all_seconds);
    EXPECT_GE(two.exposed_seconds, two.all_to_all_seconds - two.work.experts_seconds);
    EXPECT_GT(two.all_to_all_seconds, one.all_to_all_seconds) << "twice the messages";
    EXPECT_LE(two.exposed_reduce_seconds, two.reduce_scatter_seconds);
    EXPECT_GT(two.exposed_reduce_seconds, 0);
    EXPECT_LT(two.overlapped_seconds(), two.sequential_seconds());
    EXPECT_LT(two.whole_reduction_seconds, two.reduce_scatter_seconds + two.all_gather_seconds) << "fewer messages";
  }
}

// Larger buckets make the steps shorter that the model predicts, wherever there are many ranks.
TEST(Buckets, GrowWithTheRanksThatShareThem) {
  EXPECT_EQ(nn::bucket_elements_for(1), int64_t{4} << 20);
  EXPECT_EQ(nn::bucket_elements_for(16), int64_t{4} << 20);
  EXPECT_EQ(nn::bucket_elements_for(128), int64_t{32} << 20);
  const train::RunConfig config = paper2("mhmoe_h3");
  for (const int ranks : {8, 32, 64, 128, 256}) {
    const ClusterTimes times = times_of_step(config, layout(ranks, 8), DType::kBF16, cluster(ranks, 8), {});
    EXPECT_LE(times.overlapped_seconds(), 1.05 * times.whole_reduction_step_seconds()) << ranks;
    EXPECT_LT(times.reduction_latency_seconds, times.reduce_scatter_seconds / 2) << ranks;
  }
}

TEST(ExpertProduct, WarnsWhereItCannotFillAGpu) {
  train::RunConfig config = paper2("mhmoe_h3");
  // 2048 tokens x 3 heads over 96 experts, top-3: 192 slots. Of 12 experts, 6 in a chunk, on the rows of one source;
  // the down-projection has 256 columns.
  const ExpertProduct product = expert_product(config, layout(64, 8));
  EXPECT_EQ(product.rows, 192);
  EXPECT_EQ(product.columns, 256);
  EXPECT_EQ(product.products, 6);
  EXPECT_EQ(product.tiles, 6 * 2 * 2);
  EXPECT_EQ(expert_product(config, layout(64, 1)).products, 96) << "nothing travels, nothing comes in chunks";
  const auto warnings = [&](int64_t group, const char* part) {
    config.parallel.expert_parallel_size = group;
    const auto all = cluster_warnings(plan_cluster(config, cluster(64, 8), DType::kBF16));
    return std::ranges::any_of(all, [part](const std::string& w) { return w.find(part) != std::string::npos; });
  };
  EXPECT_TRUE(warnings(8, "a launch of 6 products of M 192 x N 256 has 24 tiles"));
  EXPECT_FALSE(warnings(1, "a launch of"));
  EXPECT_FALSE(warnings(8, "M is"));
  config.model.moe.experts = 192;
  EXPECT_TRUE(warnings(8, "M is 96"));
}

}  // namespace
}  // namespace mhmoe::plan
