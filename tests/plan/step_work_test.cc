#include "plan/step_work.h"

#include <gtest/gtest.h>

#include <numeric>

#include "ops/adam.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/rms_norm.h"
#include "ops/routing.h"
#include "plan/small_run.h"
#include "train/flops.h"

namespace mhmoe::plan {
namespace {

// Slots of experts come out even: 2 x 24 tokens x 3 heads over 4 experts.
train::RunConfig even_run() {
  train::RunConfig config = small_run();
  config.model.moe.experts = 4;
  return config;
}

double flops_of(const std::vector<OpWork>& work) {
  return std::accumulate(work.begin(), work.end(), 0.0, [](double sum, const OpWork& row) {
    return sum + static_cast<double>(row.calls) * row.cost.flops;
  });
}

std::vector<train::RunConfig> variants() {
  std::vector<train::RunConfig> all(5, even_run());
  all[1].model.moe.every_n_layers = 0;
  all[2].model.moe.capacity_factor = std::nullopt;
  all[3].model.moe.heads = 1;
  all[4].model.moe.shared_expert_hidden_size = 32;
  all[4].model.ffn.activation = ops::Activation::kGelu;
  all[4].model.ffn.bias = true;
  all[4].model.tie_embeddings = false;
  return all;
}

// Beyond the model's own FLOPs a step computes attention's scores a second time, in the backward pass; with recompute
// also every block's forward pass.
TEST(StepWork, ProductsAddUpToTheModelsFlops) {
  for (train::RunConfig config : variants()) {
    const auto tokens = static_cast<double>(config.train.batch_tokens);
    const train::FlopsByPart forward = train::forward_flops_per_token(config.model, config.data.sequence_length);
    const double once = 3 * forward.total() + forward.attention / 2;
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      config.train.recompute = train::Recompute::kNone;
      EXPECT_NEAR(flops_of(work_of_step(config, DeviceKind::kCuda, compute)), tokens * once, 1);
      config.train.recompute = train::Recompute::kBlock;
      EXPECT_NEAR(flops_of(work_of_step(config, DeviceKind::kCuda, compute)),
                  tokens * (once + forward.total() - forward.lm_head), 1);
    }
  }
}

TEST(StepWork, UnevenSlotsCountInFull) {
  train::RunConfig config = even_run();
  config.model.moe.experts = 5;  // 2 x ceil(144 / 5) slots each: 290 in all, for 288 rows
  double grouped = 0;
  for (const OpWork& row : work_of_step(config, DeviceKind::kCuda, DType::kBF16)) {
    if (row.cost.op.starts_with("grouped_")) grouped += static_cast<double>(row.calls) * row.cost.flops;
  }
  // 2 micro-batches x 2 layers x (forward and two products backward) of rows x (gate, up, down).
  EXPECT_DOUBLE_EQ(grouped, 2.0 * 2 * 3 * 2 * 290 * 3 * 16 * 24);
}

// Sees what one call costs, in a sizing pass.
class CostOf final : public WorkObserver {
 public:
  void begin(const ops::OpCall& call) override { costs.push_back(cost_of(call)); }
  void begin_fill(const Tensor& dst) override { costs.push_back(cost_of_fill(dst)); }
  void begin_copy(const Tensor& dst, const Tensor& src) override { costs.push_back(cost_of_copy(dst, src)); }
  void end() override { ++ended; }

  std::vector<OpCost> costs;
  size_t ended = 0;
};

class OpCosts : public testing::Test {
 protected:
  OpCosts() : ctx_(make_sizing_context(DeviceKind::kCuda, nullptr)) { ctx_->set_work_observer(&seen_); }

  Tensor tensor(DType dtype, std::initializer_list<int64_t> dims) { return ctx_->state().allocate("t", dtype, dims); }
  Context& ctx() { return *ctx_; }
  // Of the only call since the last.
  OpCost cost() {
    EXPECT_EQ(seen_.costs.size(), 1u);
    EXPECT_EQ(seen_.ended, 1u);
    OpCost cost = seen_.costs.at(0);
    seen_.costs.clear();
    seen_.ended = 0;
    return cost;
  }

 private:
  CostOf seen_;
  std::unique_ptr<Context> ctx_;
};

TEST_F(OpCosts, AreTheTensorsBytesByHand) {
  const Tensor x = tensor(DType::kF32, {6, 8}), weight = tensor(DType::kF32, {8}), inverse = tensor(DType::kF32, {6});
  const Tensor y = tensor(DType::kBF16, {6, 8});
  ops::rms_norm_forward(ctx(), {.y = y, .inv_rms = inverse, .x = x, .weight = weight, .eps = 1e-5f});
  EXPECT_EQ(cost().bytes, 6 * 8 * (4 + 2) + 6 * 4 + 8 * 4);
  ops::rms_norm_backward(
      ctx(), {.grad_x = x, .grad_weight = weight, .grad_y = y, .x = x, .inv_rms = inverse, .weight = weight});
  EXPECT_EQ(cost().bytes, 6 * 8 * (2 * 4 + 2 + 4) + 6 * 4 + 8 * (2 * 4 + 4));

  const Tensor a = tensor(DType::kBF16, {6, 5}), b = tensor(DType::kBF16, {8, 5});
  ops::matmul(ctx(), {.out = x, .a = a, .b = b, .transpose_b = true, .addend = x});
  const OpCost product = cost();
  EXPECT_EQ(product.bytes, (6 * 5 + 8 * 5) * 2 + 2 * 6 * 8 * 4);
  EXPECT_EQ(product.flops, 2 * 6 * 8 * 5);
  EXPECT_EQ(product.product, DType::kBF16);
  EXPECT_EQ(product.shape, "6 x 8 x 5 nt bf16 -> f32, added");

  const Tensor rows = tensor(DType::kBF16, {12, 8}), assignment = tensor(DType::kI32, {12});
  ops::gather_rows(ctx(), {.out = rows, .x = x, .row_assignment = assignment, .k = 2});
  EXPECT_EQ(cost().bytes, 12 * 8 * 2 + 6 * 8 * 4 + 12 * 4) << "every row of x once";

  const Tensor flat = tensor(DType::kF32, {48}), copy = tensor(DType::kBF16, {48});
  const Tensor scalars = tensor(DType::kF32, {ops::kStepScalarCount});
  ops::AdamUpdate update{};
  update.master = update.moment1 = update.moment2 = update.grad = flat;
  update.scalars = scalars;
  update.copy = copy;
  ops::adam_update(ctx(), update);
  EXPECT_EQ(cost().bytes, 48 * (3 * 8 + 4 + 2));

  ctx().fill_zero(x);
  EXPECT_EQ(cost().bytes, 6 * 8 * 4);
  ctx().copy(x, tensor(DType::kF32, {6, 8}));
  EXPECT_EQ(cost().bytes, 2 * 6 * 8 * 4);
}

TEST(Floor, IsTheLongerOfMemoryAndProducts) {
  const Gpu& gpu = find_gpu("h100");
  EXPECT_DOUBLE_EQ(floor_seconds({.op = "copy", .shape = "", .bytes = 3.35e12}, gpu), 1);
  EXPECT_DOUBLE_EQ(
      floor_seconds({.op = "matmul", .shape = "", .bytes = 1, .flops = 989.5e12, .product = DType::kBF16}, gpu), 1);
  EXPECT_DOUBLE_EQ(
      floor_seconds({.op = "matmul", .shape = "", .bytes = 1, .flops = 67e12, .product = DType::kF32}, gpu), 1);
  EXPECT_THROW(find_gpu("h1000"), Error);
  EXPECT_EQ(gpu_of_device("cuda:0 NVIDIA H100 80GB HBM3"), &gpu);
  EXPECT_EQ(gpu_of_device("cpu (2 threads)"), nullptr);
}

TEST(Floor, OfAStepIsTheSumOfItsCalls) {
  const train::RunConfig config = even_run();
  const std::vector<OpWork> work = work_of_step(config, DeviceKind::kCuda, DType::kBF16);
  const StepFloor step = floor_of_step(work, config, find_gpu("a100"));
  double seconds = 0;
  for (const OpWork& row : work) seconds += static_cast<double>(row.calls) * floor_seconds(row.cost, find_gpu("a100"));
  EXPECT_DOUBLE_EQ(step.seconds, seconds);
  EXPECT_DOUBLE_EQ(step.tokens_per_second() * step.seconds, 96);
  EXPECT_DOUBLE_EQ(step.model_flops, 96 * train::training_flops_per_token(config.model, 24));
}

}  // namespace
}  // namespace mhmoe::plan
