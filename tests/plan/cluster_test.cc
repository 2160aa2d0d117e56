#include "plan/cluster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "plan/cluster_report.h"
#include "plan/small_run.h"
#include "plan/step_work.h"
#include "train/config.h"
#include "train/task.h"

namespace mhmoe::plan {
namespace {

constexpr auto kReduceScatter = static_cast<size_t>(Communicator::Kind::kReduceScatter);
constexpr auto kAllGather = static_cast<size_t>(Communicator::Kind::kAllGather);
constexpr auto kAllToAll = static_cast<size_t>(Communicator::Kind::kAllToAll);

// 4 experts in 2 of 4 layers, 3 heads, top-2; `micro_batches` of 2 x 24 tokens.
train::RunConfig run_of(int64_t micro_batches, int64_t experts = 4) {
  train::RunConfig config = small_run();
  config.model.moe.experts = experts;
  config.train.batch_tokens = micro_batches * 2 * 24;
  return config;
}

train::RunConfig paper2(const std::string& name) {
  train::RunConfig config = train::load_config(MHMOE_SOURCE_DIR "/configs/paper2/" + name + ".json", {});
  config.train.micro_batch_sequences = 1;
  return config;
}

comm::Layout layout(int world, int expert_parallel_size) {
  return {.world = world, .expert_parallel_size = expert_parallel_size, .rank = 0};
}

Cluster cluster(int ranks, int ranks_per_node) {
  return {.ranks = ranks, .ranks_per_node = ranks_per_node, .gpu = &find_gpu("h100")};
}

double bytes_of(const std::vector<TransferRow>& rows, bool inside) {
  return std::accumulate(rows.begin(), rows.end(), 0.0, [inside](double sum, const TransferRow& row) {
    return sum + (inside ? row.inside_bytes : row.between_bytes);
  });
}

std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// 2 x 24 tokens x 3 heads = 144 rows, so 2 * ceil(144 / 4) = 72 slots of 4 experts: a buffer of 288 rows of 16, of
// which half goes to the other rank.
TEST(Traffic, IsThatComputedByHand) {
  train::RunConfig config = run_of(2);
  const StepTraffic f32 = traffic_of_step(config, layout(2, 2), DType::kF32);
  const int64_t forward = 2 * 288 * 16 * 4 / 2 + 4 * 4 / 2 + 288 * 4 / 2, backward = 2 * 288 * 16 * 4 / 2 + 288 * 4 / 2;
  EXPECT_EQ(f32[kAllToAll], 2 * (forward + backward)) << "two layers, one micro-batch";
  // Embedding, norms, attention, dense feed-forwards, head and merge layers, routers.
  const int64_t dense = 101 * 48 + 9 * 48 + 4 * 4 * 48 * 48 + 2 * 3 * 48 * 40 + 2 * 2 * (48 * 48 + 48) + 2 * 4 * 16;
  EXPECT_EQ(f32[kReduceScatter], dense * 4 / 2) << "each expert lies on one rank only";
  EXPECT_EQ(f32[kAllGather], dense * 4 / 2);
  EXPECT_EQ(f32[static_cast<size_t>(Communicator::Kind::kAllReduce)], 0);

  const StepTraffic bf16 = traffic_of_step(config, layout(2, 2), DType::kBF16);
  EXPECT_EQ(f32[kAllToAll] - bf16[kAllToAll], 2 * 4 * 288 * 16 * 2 / 2) << "rows of half the bytes; gates stay f32";
  EXPECT_EQ(bf16[kReduceScatter], f32[kReduceScatter]);
  const int64_t others = 9 * 48 + 2 * 2 * 48 + 2 * 4 * 16;
  EXPECT_EQ(bf16[kAllGather], ((dense - others) * 2 + others * 4) / 2) << "norms, biases and routers stay f32";

  config.train.recompute = train::Recompute::kBlock;
  EXPECT_EQ(traffic_of_step(config, layout(2, 2), DType::kF32)[kAllToAll], 2 * (2 * forward + backward));
  config.train.recompute = train::Recompute::kNone;
  config.model.moe.experts = 5;  // 2 * ceil(144 / 5) = 58 slots each: 290 rows
  config.model.moe.capacity_factor = std::nullopt;
  EXPECT_EQ(layer_buffers(config, DType::kF32).rows, 288) << "dropless: as many as are routed";
}

TEST(Traffic, OfExpertsGoesAroundTheirReplicas) {
  const train::RunConfig config = run_of(8);
  const int64_t experts = 2 * 4 * 3 * 16 * 24;
  const StepTraffic all = traffic_of_step(config, layout(8, 1), DType::kF32);
  const StepTraffic halved = traffic_of_step(config, layout(8, 2), DType::kF32);
  EXPECT_EQ(all[kReduceScatter] - halved[kReduceScatter], 4 * experts * 7 / 8 - 4 * (experts / 2) * 3 / 4);
}

TEST(Traffic, IsNoneWhereThereIsNobody) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    EXPECT_EQ(traffic_of_step(run_of(2), layout(1, 1), compute), StepTraffic{});
    EXPECT_EQ(traffic_of_step(run_of(2), layout(2, 1), compute)[kAllToAll], 0);
  }
  EXPECT_TRUE(transfers_of_step(run_of(2), layout(1, 1), DType::kBF16, cluster(1, 8), {}).empty());
}

TEST(Traffic, DoesNotDependOnOverlap) {
  train::RunConfig config = run_of(4), other = config;
  config.parallel.overlap_chunks = 1;
  other.parallel.overlap_chunks = 2;
  EXPECT_EQ(traffic_of_step(config, layout(4, 2), DType::kBF16), traffic_of_step(other, layout(4, 2), DType::kBF16));
  const auto rows = transfers_of_step(config, layout(4, 2), DType::kBF16, cluster(4, 4), {});
  const auto more_calls = transfers_of_step(other, layout(4, 2), DType::kBF16, cluster(4, 4), {});
  EXPECT_DOUBLE_EQ(bytes_of(rows, true), bytes_of(more_calls, true));
  EXPECT_EQ(more_calls[0].calls, 2 * rows[0].calls);
}

// What tables show is what traffic_of_step says, inside and between nodes together, up to the whole bytes of a call.
TEST(Traffic, IsTheSumOfTheTable) {
  for (const bool recompute : {false, true}) {
    train::RunConfig config = paper2("mhmoe_h3");
    config.train.recompute = recompute ? train::Recompute::kBlock : train::Recompute::kNone;
    for (const int group : {1, 4, 8, 32}) {
      const comm::Layout of = layout(64, group);
      for (const Route& route : {Route{}, Route{has_two_hops(of, 8), 8}}) {
        const auto rows = transfers_of_step(config, of, DType::kBF16, cluster(64, 8), route);
        const StepTraffic traffic = traffic_of_step(config, of, DType::kBF16, route);
        const auto all = static_cast<double>(std::accumulate(traffic.begin(), traffic.end(), int64_t{0}));
        EXPECT_NEAR(bytes_of(rows, true) + bytes_of(rows, false), all, 8) << group;
      }
    }
  }
}

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
  EXPECT_TRUE(route_of(config, layout(64, 32), 8).two_hops);
  config.parallel.hierarchical_all_to_all = train::Hierarchical::kOff;
  EXPECT_FALSE(route_of(config, layout(64, 32), 8).two_hops);
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

// What the formula takes for matrices, and for experts, is what the layers add to the store.
TEST(HeldElements, AreThoseOfTheModel) {
  train::RunConfig config = run_of(2);
  for (const bool biases : {false, true}) {
    config.model.attention_bias = config.model.ffn.bias = biases;
    config.model.tie_embeddings = !biases;
    config.model.moe.shared_expert_hidden_size = biases ? 32 : 0;
    train::CausalLm task(config.model, false);
    HeldElements expected;
    for (const nn::Parameter& parameter : task.parameters().all()) {
      const bool expert = parameter.parts[0].name.find(".experts.") != std::string::npos;
      HeldElements::Of& of = expert ? expected.experts : expected.dense;
      (parameter.kind == nn::ParameterKind::kMatrix ? of.matrices : of.others) += parameter.count();
    }
    const HeldElements whole = held_elements(config.model, layout(4, 1));
    EXPECT_EQ(whole.dense.matrices, expected.dense.matrices);
    EXPECT_EQ(whole.dense.others, expected.dense.others);
    EXPECT_EQ(whole.experts.matrices, expected.experts.matrices);
    EXPECT_EQ(whole.experts.others, expected.experts.others);
    EXPECT_EQ(held_elements(config.model, layout(4, 4)).experts.total(), expected.experts.total() / 4);
  }
}

TEST(RankMemory, TwiceTheRanksHalveTheShard) {
  train::RunConfig config = paper2("mhmoe_h3");
  for (const int group : {1, 8}) {
    const RankMemory few = memory_of_rank(config, layout(32, group), DType::kBF16, {}, 0);
    const RankMemory many = memory_of_rank(config, layout(64, group), DType::kBF16, {}, 0);
    EXPECT_DOUBLE_EQ(few.masters, 2 * many.masters);
    EXPECT_DOUBLE_EQ(few.moments, 2 * many.moments);
    EXPECT_DOUBLE_EQ(few.gradients, many.gradients);
  }
  const RankMemory apart = memory_of_rank(config, layout(32, 8), DType::kBF16, {}, 0);
  const RankMemory together = memory_of_rank(config, layout(32, 1), DType::kBF16, {}, 0);
  EXPECT_DOUBLE_EQ(apart.moments, together.moments) << "the optimizer's state is divided over all ranks either way";
  EXPECT_LT(apart.copies, together.copies);
}

// On one rank the formula is what a run allocates, but for alignment, a step's tokens and copies of norms.
TEST(RankMemory, OfOneRankIsWhatTheSizingPassAllocates) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const train::RunConfig config = paper2("mhmoe_h3");
    const train::MemoryNeed need = train::measure_memory(config, DeviceKind::kCuda, nullptr, compute);
    const RankMemory memory = memory_of_rank(config, layout(1, 1), compute, {}, need.step_bytes);
    EXPECT_NEAR(memory.balanced() / static_cast<double>(need.state_bytes + need.step_bytes), 1, 0.001);
  }
}

TEST(RankMemory, OnlyDroplessRowsHaveAWorstCase) {
  train::RunConfig config = run_of(4);
  const auto imbalance = [&](int group) {
    return memory_of_rank(config, layout(4, group), DType::kBF16, {}, 0).imbalance;
  };
  EXPECT_EQ(imbalance(4), 0) << "capacity bounds it";
  config.model.moe.capacity_factor = std::nullopt;
  EXPECT_EQ(imbalance(1), 0);
  EXPECT_DOUBLE_EQ(imbalance(4), 3 * imbalance(2)) << "the rows of the three others";
  // Of a row: itself, its gate, and gates and factors of 24 before activation in two layers; at work 24 activations,
  // two gradients and the gate's.
  EXPECT_DOUBLE_EQ(imbalance(2), 288 * (2 * (16 * 2 + 4 + 48 * 2) + 24 * 2 + 2 * 16 * 2 + 4));
}

TEST(MicroBatches, ThatDoNotDivideSayWhatWould) {
  EXPECT_EQ(micro_batches_of_rank(run_of(12), 4), 3);
  EXPECT_EQ(message_of([] { micro_batches_of_rank(run_of(12), 8); }),
            "train.batch_tokens 576: 24 sequences in micro-batches of 2 (train.micro_batch_sequences) are 12 "
            "micro-batches, which 8 ranks cannot share evenly; possible are 1, 2, 3, 4, 6, 12 ranks; or on 8 ranks "
            "train.micro_batch_sequences 1, 3");
  EXPECT_NE(message_of([] { micro_batches_of_rank(run_of(12), 5); })
                .find("5 ranks need train.batch_tokens in multiples "
                      "of 120"),
            std::string::npos);
  EXPECT_NE(message_of([] { check_cluster(cluster(12, 8)); }).find("try 8 or 16"), std::string::npos);
  EXPECT_EQ(message_of([] { check_cluster(cluster(4, 8)); }), "");
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

// Experts' weights are read by the ranks that hold them.
TEST(ClusterTimes, ExpertParallelismDividesTheExpertsWeights) {
  const train::RunConfig config = paper2("mhmoe_h3");
  const RankWork alone = work_of_rank(config, layout(32, 1), DType::kBF16, find_gpu("h100"));
  const RankWork apart = work_of_rank(config, layout(32, 32), DType::kBF16, find_gpu("h100"));
  EXPECT_LT(apart.experts_seconds, alone.experts_seconds);
  EXPECT_NEAR(alone.micro_batch_seconds - apart.micro_batch_seconds, alone.experts_seconds - apart.experts_seconds,
              1e-12);
}

TEST(ExpertProduct, WarnsWhereItCannotFillAGpu) {
  train::RunConfig config = paper2("mhmoe_h3");
  // 2048 tokens x 3 heads over 96 experts, top-3: 192 slots. One expert of three in a chunk, from 32 sources; the
  // down-projection has 256 columns.
  const ExpertProduct product = expert_product(config, layout(64, 32));
  EXPECT_EQ(product.rows, 192);
  EXPECT_EQ(product.columns, 256);
  EXPECT_EQ(product.products, 32);
  EXPECT_EQ(product.tiles, 32 * 2 * 2);
  EXPECT_EQ(cluster_warnings(plan_cluster(config, cluster(64, 8), DType::kBF16)).size(), 1u) << "128 tiles";
  config.parallel.overlap_chunks = 1;
  EXPECT_TRUE(cluster_warnings(plan_cluster(config, cluster(64, 8), DType::kBF16)).empty());
  config.model.moe.experts = 192;
  const auto warnings = cluster_warnings(plan_cluster(config, cluster(64, 8), DType::kBF16));
  EXPECT_TRUE(
      std::ranges::any_of(warnings, [](const std::string& w) { return w.find("M is 96") != std::string::npos; }));
}

}  // namespace
}  // namespace mhmoe::plan
