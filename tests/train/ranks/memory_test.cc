// What `mhmoe plan` calls the worst case of dropless routing, against a run in which it happens: every rank runs it.
#include <gtest/gtest.h>

#include "comm/job.h"
#include "cpu/context.h"
#include "plan/cluster.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

// Every choice names one of the first experts, which the first rank has.
void choose_the_first(Context& ctx, const ops::RouterForward& args) {
  cpu::backend().kernels.router_forward(ctx, args);
  auto* chosen = args.expert_index.as<int32_t>();
  for (int64_t i = 0; i < args.expert_index.count(); ++i) {
    chosen[i] = static_cast<int32_t>(i % args.expert_index.cols());
  }
}

RunConfig dropless_config(int ranks) {
  RunConfig config = tiny_config();
  config.data.sequence_length = 64;
  config.model.layers = 4;
  config.model.hidden_size = 64;
  config.model.moe.experts = 2 * ranks;
  config.model.moe.expert_hidden_size = 48;
  config.model.moe.capacity_factor = std::nullopt;
  config.train.batch_tokens = ranks * config.train.micro_batch_sequences * config.data.sequence_length;
  return config;
}

TEST(DroplessMemory, TheWorstCaseIsWhatAllRowsOnOneRankTake) {
  Job& job = comm::job();
  ops::KernelTable kernels = cpu::backend().kernels;
  kernels.router_forward = {choose_the_first};
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock}) {
    RunConfig config = dropless_config(job.size());
    config.train.recompute = recompute;
    const comm::Layout layout = {.world = job.size(), .expert_parallel_size = job.size(), .rank = job.rank()};
    const MemoryNeed need = measure_memory(config, DeviceKind::kCpu, &kernels, DType::kF32, layout);
    const auto ctx = cpu::create_context(kernels);
    const comm::ParallelGroups groups = comm::make_groups(cpu::backend(), *ctx, job, layout);
    reserve_memory(*ctx, need);
    Trainer trainer(*ctx, config, DType::kF32, groups);
    HostBatch batch(trainer.local_sequences(), config.data.sequence_length);
    std::ranges::fill(batch.targets, 1);
    trainer.step(batch);
    const plan::RankMemory said = plan::memory_of_rank(config, layout, DType::kF32, {}, need);
    const double worst = said.received + said.activations + said.imbalance;
    const auto taken = static_cast<double>(ctx->step().peak_bytes());
    if (job.rank() == 0) {
      EXPECT_GT(taken, static_cast<double>(need.step_bytes)) << "rows came that no sizing pass sees";
      EXPECT_LE(taken, worst);
      EXPECT_GT(taken, 0.95 * worst);
    } else {
      EXPECT_LE(taken, static_cast<double>(need.step_bytes));
    }
  }
}

}  // namespace
}  // namespace mhmoe::train
