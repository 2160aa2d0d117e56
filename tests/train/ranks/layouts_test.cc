// Training on the ranks of this job against training on one: every rank runs every test.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "comm/job.h"
#include "train/fixtures.h"
#include "train/global_state.h"

namespace mhmoe::train {
namespace {

constexpr int kSteps = 20;

// Eight experts and sixteen micro-batches, so that up to eight ranks can be laid out in every way.
RunConfig layout_config(std::optional<double> capacity_factor, bool width_invariant) {
  RunConfig config = tiny_config();
  config.model.moe.experts = 8;
  config.model.moe.capacity_factor = capacity_factor;
  config.train.batch_tokens = 16 * config.train.micro_batch_sequences * config.data.sequence_length;
  config.parallel.width_invariant = width_invariant;
  return config;
}

// Sequences of the global batch that this rank computes.
HostBatch part_of(const HostBatch& batch, int64_t first, int64_t count) {
  HostBatch part(count, batch.length);
  std::copy_n(batch.tokens.begin() + first * batch.length, part.tokens.size(), part.tokens.begin());
  std::copy_n(batch.targets.begin() + first * batch.length, part.targets.size(), part.targets.begin());
  return part;
}

// What came of a run; vectors are whole on rank 0 alone.
struct Trained {
  std::vector<double> losses, norms;
  std::vector<double> dropped, balance;
  std::vector<float> first_moments;  // after the first step: its gradient, scaled
  std::vector<float> weights;        // after the last
};

using Plant = std::function<void(comm::ParallelGroups&)>;

Trained train_on(Job& job, const RunConfig& config, int expert_parallel_size, const Plant& plant = {},
                 DType compute = DType::kF32) {
  const auto ctx = cpu::backend().create_context(0);
  const comm::Layout layout = comm::make_layout(job.size(), job.rank(), config.model.moe.experts, expert_parallel_size);
  comm::ParallelGroups groups = comm::make_groups(cpu::backend(), *ctx, job, layout);
  if (plant) plant(groups);
  reserve_memory(*ctx, measure_memory(config, DeviceKind::kCpu, &cpu::backend().kernels, compute, layout));
  Trainer trainer(*ctx, config, compute, groups);
  nn::ParameterStore& parameters = trainer.task().parameters();
  Trained out;
  for (int step = 0; step < kSteps; ++step) {
    const HostBatch batch = random_batch(config, static_cast<uint64_t>(step));
    const StepResult result = trainer.step(part_of(batch, trainer.first_sequence(), trainer.local_sequences()));
    out.losses.push_back(result.loss);
    out.norms.push_back(result.gradient_norm);
    out.dropped.push_back(result.moe.dropped_fraction);
    out.balance.push_back(result.moe.balance_loss);
    if (step == 0) out.first_moments = gather_global(job, parameters, to_host(*ctx, trainer.optimizer().moment1()));
  }
  out.weights = gather_global(job, parameters, download_masters(*ctx, parameters));
  return out;
}

double relative_difference(const std::vector<float>& found, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(found[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / norm);
}

class Layouts : public testing::TestWithParam<std::optional<double>> {
 protected:
  // Only rank 0 holds what is compared.
  static bool judges() { return comm::job().rank() == 0; }
  static std::vector<int> expert_parallel_sizes() {
    std::vector<int> sizes;
    for (int p = 1; p <= comm::job().size(); p *= 2) sizes.push_back(p);
    return sizes;
  }
};

TEST_P(Layouts, AgreeWithOneRankWithinRoundings) {
  const RunConfig config = layout_config(GetParam(), false);
  const Trained alone = train_on(single_job(), config, 1);
  for (const int p : expert_parallel_sizes()) {
    SCOPED_TRACE(fmt::format("{} ranks, expert parallel {}", comm::job().size(), p));
    const Trained shared = train_on(comm::job(), config, p);
    EXPECT_EQ(shared.dropped, alone.dropped);
    for (int step = 0; step < kSteps; ++step) {
      EXPECT_NEAR(shared.losses[step], alone.losses[step], 1e-6 * alone.losses[step]) << "step " << step + 1;
      EXPECT_NEAR(shared.norms[step], alone.norms[step], 1e-5 * alone.norms[step]) << "step " << step + 1;
      EXPECT_NEAR(shared.balance[step], alone.balance[step], 1e-5) << "step " << step + 1;
    }
    if (!judges()) continue;
    EXPECT_LE(relative_difference(shared.first_moments, alone.first_moments), 1e-6);
    EXPECT_LE(relative_difference(shared.weights, alone.weights), 1e-6);
  }
}

TEST_P(Layouts, AreTheSameBytesWhenWidthInvariant) {
  const RunConfig config = layout_config(GetParam(), true);
  const Trained alone = train_on(single_job(), config, 1);
  for (const int p : expert_parallel_sizes()) {
    SCOPED_TRACE(fmt::format("{} ranks, expert parallel {}", comm::job().size(), p));
    const Trained shared = train_on(comm::job(), config, p);
    EXPECT_EQ(shared.losses, alone.losses);
    EXPECT_EQ(shared.norms, alone.norms);
    EXPECT_EQ(shared.balance, alone.balance);
    if (!judges()) continue;
    EXPECT_TRUE(shared.first_moments == alone.first_moments) << "gradients of the first step differ";
    EXPECT_TRUE(shared.weights == alone.weights) << "weights differ";
  }
}

// In bf16 masters are sharded, and values travel rounded.
TEST_P(Layouts, AreTheSameBytesInBf16Too) {
  const RunConfig config = layout_config(GetParam(), true);
  const Trained alone = train_on(single_job(), config, 1, {}, DType::kBF16);
  for (const int p : expert_parallel_sizes()) {
    const Trained shared = train_on(comm::job(), config, p, {}, DType::kBF16);
    EXPECT_EQ(shared.losses, alone.losses) << "expert parallel " << p;
    if (judges()) EXPECT_TRUE(shared.weights == alone.weights) << "expert parallel " << p;
  }
}

INSTANTIATE_TEST_SUITE_P(Capacity, Layouts, testing::Values(std::optional(1.0), std::optional<double>()),
                         [](const auto& info) { return info.param ? "fixed" : "dropless"; });

// A communicator that leaves out one thing that it is asked for.
class Forgetful final : public Communicator {
 public:
  Forgetful(std::unique_ptr<Communicator> ranks, Kind forgotten, std::string purpose)
      : ranks_(std::move(ranks)), forgotten_(forgotten), purpose_(std::move(purpose)) {}
  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  std::span<const int> ranks() const override { return ranks_->ranks(); }
  Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) override {
    return forgets(Kind::kAllReduce, purpose) ? kNothing : ranks_->all_reduce_sum(values, purpose);
  }
  Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return forgets(Kind::kReduceScatter, purpose) ? kNothing : ranks_->reduce_scatter_sum(out, in, purpose);
  }
  Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return forgets(Kind::kAllGather, purpose) ? kNothing : ranks_->all_gather(out, in, purpose);
  }
  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return ranks_->all_to_all(out, in, purpose);
  }
  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    return ranks_->all_to_all_rows(rows, purpose);
  }
  void wait(Transfer transfer) override {
    if (transfer.number != kNothing.number) ranks_->wait(transfer);
  }
  Traffic traffic(Kind kind) const override { return ranks_->traffic(kind); }

 private:
  static constexpr Transfer kNothing{~uint64_t{0}};
  bool forgets(Kind kind, std::string_view purpose) const { return kind == forgotten_ && purpose == purpose_; }

  std::unique_ptr<Communicator> ranks_;
  Kind forgotten_;
  std::string purpose_;
};

// The comparison above must be able to fail.
class PlantedMistake : public testing::Test {
 protected:
  static void expect_seen(const Plant& plant, int expert_parallel_size) {
    RunConfig config = layout_config(1.0, false);
    const Trained alone = train_on(single_job(), config, 1);
    const Trained wrong = train_on(comm::job(), config, expert_parallel_size, plant);
    if (comm::job().rank() == 0) EXPECT_GT(relative_difference(wrong.weights, alone.weights), 1e-4);
  }
};

TEST_F(PlantedMistake, AMissingReductionOfExpertGradientsIsSeen) {
  expect_seen(
      [](comm::ParallelGroups& groups) {
        groups.replica =
            std::make_unique<Forgetful>(std::move(groups.replica), Communicator::Kind::kReduceScatter, "gradients");
      },
      1);
}

TEST_F(PlantedMistake, ANormOfOneRankIsSeen) {
  expect_seen(
      [](comm::ParallelGroups& groups) {
        groups.world =
            std::make_unique<Forgetful>(std::move(groups.world), Communicator::Kind::kAllGather, "gradient norm");
      },
      comm::job().size());
}

// What plan says is counted by sizing passes; what a run really sends must be the same.
TEST(Traffic, OfAStepIsWhatTheSizingPassCounts) {
  const RunConfig config = layout_config(1.0, false);
  Job& job = comm::job();
  for (int p = 1; p <= job.size(); p *= 2) {
    const comm::Layout layout = comm::make_layout(job.size(), job.rank(), 8, p);
    const auto sizing = make_sizing_context(DeviceKind::kCpu, nullptr);
    const comm::ParallelGroups counted = comm::make_sizing_groups(*sizing, layout);
    Trainer(*sizing, config, DType::kF32, counted).step(HostBatch(32 / job.size(), config.data.sequence_length));
    const auto ctx = cpu::backend().create_context(0);
    const comm::ParallelGroups real = comm::make_groups(cpu::backend(), *ctx, job, layout);
    Trainer trainer(*ctx, config, DType::kF32, real);
    trainer.step(part_of(random_batch(config, 1), trainer.first_sequence(), trainer.local_sequences()));
    for (auto group : {&comm::ParallelGroups::world, &comm::ParallelGroups::expert, &comm::ParallelGroups::replica}) {
      for (int kind = 0; kind < Communicator::kKinds; ++kind) {
        const auto of = static_cast<Communicator::Kind>(kind);
        EXPECT_EQ((real.*group)->traffic(of).bytes, (counted.*group)->traffic(of).bytes) << kind << " at " << p;
        EXPECT_EQ((real.*group)->traffic(of).calls, (counted.*group)->traffic(of).calls) << kind << " at " << p;
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe::train
