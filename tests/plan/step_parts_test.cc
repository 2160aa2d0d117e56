#include "plan/step_parts.h"

#include <gtest/gtest.h>

#include <limits>

#include "cpu/backend.h"
#include "plan/bench.h"
#include "plan/small_run.h"
#include "plan/step_work.h"
#include "train/flops.h"

namespace mhmoe::plan {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Experts' slots come out even: 2 x 24 tokens x 3 heads over 4 experts.
train::RunConfig run_with_all_parts() {
  train::RunConfig config = small_run();
  config.model.moe.experts = 4;
  config.model.moe.shared_expert_hidden_size = 32;
  return config;
}

PartSeconds floors(const train::RunConfig& config, const Speeds& speeds) {
  return floors_by_part(config, DeviceKind::kCpu, DType::kF32, speeds);
}

// With memory that costs nothing and one FLOP a second, a part's floor is its FLOPs: those of its products, three for
// every one of the forward pass, and attention's scores once more in the backward pass.
TEST(StepParts, HaveTheFlopsOfTheirLayers) {
  const train::RunConfig config = run_with_all_parts();
  const train::FlopsByPart forward = train::forward_flops_per_token(config.model, config.data.sequence_length);
  const PartSeconds flops = floors(config, {.bytes_per_second = kInfinite, .bf16_flops = 1, .f32_flops = 1});
  const auto expect = [&](StepPart part, double a_token) {
    EXPECT_NEAR(flops[part], a_token * static_cast<double>(config.train.batch_tokens), 1) << to_string(part);
  };
  expect(StepPart::kAttention, 3 * forward.attention_projections + 3.5 * forward.attention);
  expect(StepPart::kFeedForward, 3 * (forward.dense_ffn + forward.shared_expert));
  expect(StepPart::kHeadAndMerge, 3 * forward.head_and_merge);
  expect(StepPart::kRouter, 3 * forward.router);
  expect(StepPart::kExperts, 3 * forward.experts);
  expect(StepPart::kLoss, 3 * forward.lm_head);
  for (const StepPart part : {StepPart::kOther, StepPart::kEmbedding, StepPart::kNorms, StepPart::kDispatch,
                              StepPart::kCombine, StepPart::kOptimizer}) {
    EXPECT_EQ(flops[part], 0) << to_string(part) << " has no products";
  }
}

TEST(StepParts, OfWorkWithoutProductsMoveTheirBytes) {
  const train::RunConfig config = run_with_all_parts();
  const PartSeconds bytes = floors(config, {.bytes_per_second = 1, .bf16_flops = kInfinite, .f32_flops = kInfinite});
  for (const StepPart part : kStepParts) EXPECT_GT(bytes[part], 0) << to_string(part);
  EXPECT_LT(bytes[StepPart::kOther], 1000) << "all but some statistics has a part";

  // Rows of 16 numbers: 144 sub-tokens a micro-batch, two experts each. To the experts: rows, and in backward rows and
  // upstream gradients; their gradients come back, as the results did.
  const double sub_tokens = 144 * 16 * 4, rows = 2 * sub_tokens, micro_batches = 2, layers = 2;
  EXPECT_GT(bytes[StepPart::kDispatch], micro_batches * layers * 3 * (sub_tokens + rows));
  EXPECT_LT(bytes[StepPart::kDispatch], micro_batches * layers * 4 * (sub_tokens + rows));
  EXPECT_GT(bytes[StepPart::kCombine], micro_batches * layers * 2 * (sub_tokens + rows));
  EXPECT_LT(bytes[StepPart::kCombine], micro_batches * layers * 4 * (sub_tokens + rows));
}

TEST(StepParts, FloorsAddUpToTheSteps) {
  const train::RunConfig config = run_with_all_parts();
  const Gpu& gpu = find_gpu("h100");
  const StepFloor step = floor_of_step(work_of_step(config, DeviceKind::kCpu, DType::kBF16), config, gpu);
  EXPECT_NEAR(floors_by_part(config, DeviceKind::kCpu, DType::kBF16, gpu).sum() / step.seconds, 1, 1e-9);
}

TEST(StepParts, OfADenseModelHaveNoRouting) {
  train::RunConfig config = small_run();
  config.model.moe.every_n_layers = 0;
  const PartSeconds bytes = floors(config, {.bytes_per_second = 1, .bf16_flops = kInfinite, .f32_flops = kInfinite});
  for (const StepPart part :
       {StepPart::kHeadAndMerge, StepPart::kRouter, StepPart::kDispatch, StepPart::kExperts, StepPart::kCombine}) {
    EXPECT_EQ(bytes[part], 0) << to_string(part);
  }
}

TEST(StepParts, EachIsTimed) {
  const train::RunConfig config = run_with_all_parts();
  const StepTimes times = time_steps(cpu::backend(), single_job(), config, DType::kF32, {.warmup = 1, .steps = 2});
  for (const StepPart part : kStepParts) EXPECT_GT(times.parts.ops[part], 0) << to_string(part);
  EXPECT_GT(times.parts.between_ops, 0);
  EXPECT_DOUBLE_EQ(times.parts.step(), times.parts.ops.sum() + times.parts.between_ops);
}

// With a factor of 1, an expert has at most its even share of rows.
TEST(Rows, AreLimitedByTheCapacity) {
  train::RunConfig config = run_with_all_parts();
  config.model.moe.capacity_factor = 1;
  const RowsPerExpert with =
      time_steps(cpu::backend(), single_job(), config, DType::kF32, {.warmup = 0, .steps = 1}).rows_per_expert;
  EXPECT_EQ(with.most, 2 * 144 / 4);
  config.model.moe.capacity_factor = std::nullopt;
  const RowsPerExpert all =
      time_steps(cpu::backend(), single_job(), config, DType::kF32, {.warmup = 0, .steps = 1}).rows_per_expert;
  EXPECT_GT(all.most, with.most);
  EXPECT_LE(all.least, all.median);
  EXPECT_LT(all.median, all.most);
}

}  // namespace
}  // namespace mhmoe::plan
