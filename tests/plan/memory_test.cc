#include <gtest/gtest.h>

#include "cpu/backend.h"
#include "plan/report.h"
#include "plan/small_run.h"
#include "train/config.h"
#include "train/trainer.h"

namespace mhmoe::plan {
namespace {

train::HostBatch some_batch(int64_t sequences, const train::RunConfig& config) {
  train::HostBatch batch(sequences, config.data.sequence_length);
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    batch.tokens[i] = static_cast<int32_t>(i * 31 % 101);
    batch.targets[i] = static_cast<int32_t>(i * 17 % 101);
  }
  return batch;
}

std::vector<train::RunConfig> variants() {
  std::vector<train::RunConfig> all(6, small_run());
  all[1].model.moe.every_n_layers = 0;
  all[2].model.moe.capacity_factor = std::nullopt;
  all[3].train.recompute = train::Recompute::kBlock;
  all[4].model.moe.shared_expert_hidden_size = 32;
  all[4].model.tie_embeddings = false;
  all[5].parallel.width_invariant = true;
  return all;
}

// What `plan` prints is what a run takes: to the byte, and no block is added once the steps run.
TEST(Memory, PlanIsWhatIsReallyAllocated) {
  int variant = 0;
  for (const train::RunConfig& config : variants()) {
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      const train::MemoryNeed need = train::measure_memory(config, DeviceKind::kCpu, &cpu::backend().kernels, compute);
      const auto ctx = cpu::backend().create_context(0);
      train::reserve_memory(*ctx, need);
      train::Trainer trainer(*ctx, config, compute);
      for (int step = 0; step < 2; ++step) trainer.step(some_batch(trainer.batch_sequences(), config));
      EXPECT_EQ(ctx->state().peak_bytes(), need.state_bytes) << "variant " << variant;
      EXPECT_EQ(ctx->step().peak_bytes(), need.step_bytes) << "variant " << variant;
      EXPECT_EQ(ctx->state().block_count() + ctx->step().block_count(), 2u) << "variant " << variant;
    }
    ++variant;
  }
}

TEST(Memory, CategoriesAddUp) {
  const train::MemoryNeed need =
      train::measure_memory(small_run(), DeviceKind::kCpu, &cpu::backend().kernels, DType::kF32);
  size_t state = 0, step = 0;
  for (const auto& [name, bytes] : need.state_by_name) state += bytes;
  for (const auto& [name, bytes] : need.step_by_name) step += bytes;
  EXPECT_EQ(state, need.state_bytes);
  EXPECT_EQ(step, need.step_bytes);
}

// More heads and experts of the same total cost hold no more activations but for the routing (MoE keeps per routed row
// only its pre-activation and where it came from).
TEST(Memory, ActivationsDoNotGrowWithTheNumberOfExperts) {
  train::RunConfig few = small_run(), many = small_run();
  few.model.moe.capacity_factor = many.model.moe.capacity_factor = std::nullopt;
  many.model.moe.experts = 40;
  const auto activations = [](const train::RunConfig& config) {
    const train::MemoryNeed need =
        train::measure_memory(config, DeviceKind::kCpu, &cpu::backend().kernels, DType::kF32);
    size_t bytes = 0;
    for (const auto& [name, size] : need.step_by_name) {
      bytes += name.find("expert ") == 0 && name != "expert load" ? size : 0;
    }
    return bytes;
  };
  EXPECT_GT(activations(few), 0u);
  EXPECT_EQ(activations(few), activations(many));
}

TEST(Report, ShowsWhatWidthInvarianceTakes) {
  train::RunConfig config = small_run();
  const auto text = [&] {
    const auto need = train::measure_memory(config, DeviceKind::kCpu, &cpu::backend().kernels, DType::kF32);
    return describe_memory(config, need, DeviceKind::kCpu, DType::kF32);
  };
  EXPECT_NE(text().find("width_invariant would add"), std::string::npos) << text();
  config.parallel.width_invariant = true;
  EXPECT_NE(text().find("of it for width_invariant"), std::string::npos) << text();
}

TEST(Report, ShowsEveryPartThatTheModelHas) {
  const std::string text = describe_model(small_run());
  for (const char* part :
       {"embedding", "attention projections", "head and merge layers", "routers", "experts", "total"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(text.find("shared experts"), std::string::npos) << "a part the model lacks";
}

}  // namespace
}  // namespace mhmoe::plan
