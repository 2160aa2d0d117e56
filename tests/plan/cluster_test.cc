#include "plan/cluster.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <tuple>

#include "comm/dispatch.h"
#include "plan/cluster_report.h"
#include "plan/cluster_runs.h"
#include "plan/cluster_time.h"
#include "train/task.h"
#include "train/trainer.h"

namespace mhmoe::plan {
namespace {

constexpr auto kReduceScatter = static_cast<size_t>(Communicator::Kind::kReduceScatter);
constexpr auto kAllGather = static_cast<size_t>(Communicator::Kind::kAllGather);
constexpr auto kAllToAll = static_cast<size_t>(Communicator::Kind::kAllToAll);

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

// Elements that a trainer's buckets really have.
HeldElements padded(const nn::ParameterStore& parameters) {
  HeldElements held;
  for (const nn::Bucket& bucket : parameters.buckets()) {
    HeldElements::Of& of = bucket.placement == nn::Placement::kWithExperts ? held.experts : held.dense;
    (bucket.kind == nn::ParameterKind::kMatrix ? of.matrices : of.others) += bucket.count;
  }
  return held;
}

// What a trainer hands to its communicators in a step, which a sizing pass counts, is what the formula says, to the
// byte. The losses and records of micro-batches that all ranks see, and the parts of the gradient norm, come on top.
TEST(Traffic, IsWhatATrainerSends) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    for (const auto& [world, group, recompute, dropless, chunks] : {std::tuple(1, 1, false, false, 2),
                                                                    {2, 1, false, false, 2},
                                                                    {2, 2, false, false, 1},
                                                                    {4, 4, false, false, 2},
                                                                    {8, 2, false, false, 2},
                                                                    {8, 4, true, false, 2},
                                                                    {8, 2, false, true, 2}}) {
      const comm::Layout of = layout(world, group);
      train::RunConfig config = with_micro_batches(run_of(1), of, 2);
      config.train.recompute = recompute ? train::Recompute::kBlock : train::Recompute::kNone;
      config.parallel.overlap_chunks = chunks;
      if (dropless) config.model.moe.capacity_factor = std::nullopt;
      const auto ctx = make_sizing_context(DeviceKind::kCuda, nullptr);
      const comm::ParallelGroups groups = comm::make_sizing_groups(*ctx, of);
      train::Trainer trainer(*ctx, config, compute, groups);
      trainer.step(train::HostBatch(trainer.local_sequences(), config.data.sequence_length));
      const nn::ParameterStore& parameters = trainer.task().parameters();
      const StepTraffic said = traffic_of_step(config, of, compute, {}, padded(parameters));
      const auto counted = [&](Communicator::Kind kind) {
        return groups.world->traffic(kind).bytes + groups.expert->traffic(kind).bytes +
               groups.replica->traffic(kind).bytes;
      };
      const std::string where = fmt::format("{} of {} ranks, {}", group, world, to_string(compute));
      EXPECT_EQ(counted(Communicator::Kind::kAllToAll), said[kAllToAll]) << where;
      EXPECT_EQ(counted(Communicator::Kind::kReduceScatter), said[kReduceScatter]) << where;
      const int64_t micro_batches = 2, losses = 1, record = 2 * (1 + config.model.moe.experts);
      const auto buckets = static_cast<int64_t>(parameters.buckets().size());
      const int64_t small = 4 * (world - 1) * (micro_batches * (losses + record) + 1);
      EXPECT_EQ(counted(Communicator::Kind::kAllGather), said[kAllGather] + small) << where << ", buckets " << buckets;
    }
  }
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
    const RankMemory few = memory_of_rank(config, layout(32, group), DType::kBF16, {}, {});
    const RankMemory many = memory_of_rank(config, layout(64, group), DType::kBF16, {}, {});
    EXPECT_DOUBLE_EQ(few.masters, 2 * many.masters);
    EXPECT_DOUBLE_EQ(few.moments, 2 * many.moments);
    EXPECT_DOUBLE_EQ(few.gradients, many.gradients);
  }
  const RankMemory apart = memory_of_rank(config, layout(32, 8), DType::kBF16, {}, {});
  const RankMemory together = memory_of_rank(config, layout(32, 1), DType::kBF16, {}, {});
  EXPECT_DOUBLE_EQ(apart.moments, together.moments) << "the optimizer's state is divided over all ranks either way";
  EXPECT_LT(apart.copies, together.copies);
}

// The formula is what a rank really allocates, but for alignment, a step's tokens, and bf16 copies of what is f32.
TEST(RankMemory, IsWhatTheSizingPassAllocates) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    for (const comm::Layout of : {layout(1, 1), layout(4, 1), layout(8, 4), layout(32, 32)}) {
      const train::RunConfig config = with_micro_batches(paper2("mhmoe_h3"), of, 1);
      const train::MemoryNeed need = train::measure_memory(config, DeviceKind::kCuda, nullptr, compute, of);
      const RankMemory memory = memory_of_rank(config, of, compute, {}, need);
      const double state = memory.balanced() - memory.received - memory.activations;
      EXPECT_NEAR(state / static_cast<double>(need.state_bytes), 1, 0.005)
          << of.world << " " << of.expert_parallel_size;
      EXPECT_DOUBLE_EQ(memory.received + memory.activations, static_cast<double>(need.step_bytes));
      EXPECT_EQ(memory.received > 0, of.expert_parallel_size > 1);
    }
  }
}

// To the byte, of every layout: the formula, of the elements that the buckets have, is by how much a rank's state
// grows.
TEST(RankMemory, WidthInvarianceTakesWhatTrainersReserve) {
  for (const auto& [world, group, micro_batches] : {std::tuple(1, 1, 4), {2, 1, 2}, {2, 2, 4}, {4, 2, 1}, {4, 4, 8}}) {
    const comm::Layout of = layout(world, group);
    train::RunConfig config = with_micro_batches(run_of(1), of, micro_batches);
    const auto state_bytes = [&](bool on, HeldElements& held) {
      config.parallel.width_invariant = on;
      const auto ctx = make_sizing_context(DeviceKind::kCpu, nullptr);
      const comm::ParallelGroups groups = comm::make_sizing_groups(*ctx, of);
      train::Trainer trainer(*ctx, config, DType::kF32, groups);
      held = padded(trainer.task().parameters());
      return static_cast<int64_t>(ctx->state().peak_bytes());
    };
    HeldElements held;
    const int64_t more = state_bytes(true, held) - state_bytes(false, held);
    EXPECT_EQ(4 * invariant_gradients(held, of, micro_batches), more) << group << " of " << world;
    EXPECT_EQ(more > 0, micro_batches > 1 || group > 1);
    const RankMemory memory = memory_of_rank(config, of, DType::kF32, {}, {});
    EXPECT_NEAR(memory.invariant, static_cast<double>(more), 0.05 * static_cast<double>(more)) << "without padding";
  }
  EXPECT_EQ(invariant_gradients({}, layout(2, 1), 3), 0) << "it is refused there";
}

// What the communicator of two hops allocates, whether rows come in one piece or in chunks.
TEST(RankMemory, TwoHopsTakeWhatTheCommunicatorAllocates) {
  const comm::Layout of = layout(8, 8);
  for (const int64_t chunks : {1, 2, 3}) {
    train::RunConfig config = with_micro_batches(run_of(1, 32), of, 1);
    config.parallel.overlap_chunks = chunks;
    const auto ctx = make_sizing_context(DeviceKind::kCuda, nullptr);
    const comm::ParallelGroups groups = comm::make_sizing_groups(
        *ctx, of, {.nodes = {0, 0, 1, 1, 2, 2, 3, 3}, .hierarchical = train::Hierarchical::kOn, .message_bytes = 1});
    ASSERT_TRUE(groups.hierarchical);
    const LayerBuffers layer = layer_buffers(config, DType::kF32);
    const auto places = comm::RowPlaces::equal_shares(32, 4, layer.rows / 32);
    const CommunicationScope scope(*ctx);
    const auto rows = [&] { return ctx->step().allocate("ends", DType::kF32, {layer.rows, layer.row_bytes / 4}); };
    const Tensor home = rows(), away = rows();
    comm::Dispatch dispatch(*ctx, *groups.expert, places, "layer", false);
    dispatch.round_trip(
        {.away = away, .home = home, .results_away = away, .results_home = home, .there = "", .back = ""}, chunks, {},
        [](comm::ExpertRange) {});
    const auto taken = static_cast<double>(ctx->step().peak_bytes()) - 2 * static_cast<double>(layer.buffer());
    const double said = hop_buffers(config, of, DType::kF32, {.two_hops = true, .ranks_per_node = 2});
    EXPECT_NEAR(taken, said, 4 * 256) << chunks << " chunks; alignment";
    EXPECT_GT(said, 16 * 256);
  }
  const Cluster nodes = cluster(16, 4);
  train::RunConfig config = with_micro_batches(paper2("mhmoe_h3"), layout(16, 16), 1);
  config.parallel.expert_parallel_size = 16;
  config.model.vocab_size = 64;  // else the peak lies at the logits
  const auto activations = [&](train::Hierarchical asked) {
    config.parallel.hierarchical_all_to_all = asked;
    return plan_cluster(config, nodes, DType::kBF16).memory.activations;
  };
  EXPECT_GT(activations(train::Hierarchical::kOn), activations(train::Hierarchical::kOff))
      << "the sizing pass sees them";
}

TEST(RankMemory, OnlyDroplessRowsHaveAWorstCase) {
  train::RunConfig config = run_of(4);
  const auto imbalance = [&](int group) {
    return memory_of_rank(config, layout(4, group), DType::kBF16, {}, {}).imbalance;
  };
  EXPECT_EQ(imbalance(4), 0) << "capacity bounds it";
  config.model.moe.capacity_factor = std::nullopt;
  EXPECT_EQ(imbalance(1), 0);
  // Of a row of the others: itself, its gate, and gates and factors of 24 before activation in two layers; at work two
  // gradients and the gate's. Of one source's rows: activations for all, not for a rank's chunk of them.
  const double row = 2 * (16 * 2 + 4 + 48 * 2) + 2 * 16 * 2 + 4, activation = 24 * 2;
  EXPECT_DOUBLE_EQ(imbalance(2), 288 * row + 288 * 3 / 4.0 * activation) << "two chunks";
  EXPECT_DOUBLE_EQ(imbalance(4), 3 * 288 * row + 288 * 3 / 4.0 * activation) << "one expert a rank";
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

}  // namespace
}  // namespace mhmoe::plan
