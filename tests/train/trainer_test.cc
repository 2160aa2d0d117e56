#include "train/trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max<double>(largest, std::abs(a[i] - b[i]));
  return largest;
}

// Keeps the parameters' gradients of a step as they are before the update.
class GradientObserver final : public TensorObserver {
 public:
  GradientObserver(Context& ctx, const nn::ParameterStore& parameters) : ctx_(ctx) {
    parameters.visit(
        [&](const nn::Parameter& /*parameter*/, const nn::ParameterPart& part) { names_.insert("grad." + part.name); });
    ctx.set_observer(this);
  }
  ~GradientObserver() override { ctx_.set_observer(nullptr); }
  GradientObserver(const GradientObserver&) = delete;
  GradientObserver& operator=(const GradientObserver&) = delete;
  void record(const std::string& name, const Tensor& tensor) override {
    if (!names_.contains(name)) return;
    const std::vector<float> values = to_host(ctx_, tensor);
    gradients.insert(gradients.end(), values.begin(), values.end());
  }
  std::vector<float> gradients;

 private:
  Context& ctx_;
  std::set<std::string> names_;
};

std::vector<float> gradients_of_one_step(const RunConfig& config, const HostBatch& batch) {
  CpuTrainer run(config);
  const GradientObserver observer(*run.ctx, run.parameters());
  run.trainer->step(batch);
  return observer.gradients;
}

std::vector<float> weights_after(const RunConfig& config, int steps, DType compute = DType::kF32) {
  CpuTrainer run(config, compute);
  for (int i = 0; i < steps; ++i) run.trainer->step(random_batch(config, static_cast<uint64_t>(i)));
  return run.weights();
}

// Tiny models: a second thread would only wait.
class TrainerTest : public testing::Test {
 private:
  ThreadCount one_thread_{1};
};

TEST_F(TrainerTest, OverfitsOneBatch) {
  RunConfig config = tiny_config();
  config.train.learning_rate = {.peak = 2e-2, .final = 1e-3, .warmup_steps = 10, .decay = Decay::kCosine};
  config.train.steps = 250;
  config.model.moe.balance_loss_weight = 0.001;
  CpuTrainer run(config);
  const HostBatch batch = random_batch(config, 1);
  double loss = 0;
  for (int i = 0; i < config.train.steps; ++i) loss = run.trainer->step(batch).loss;
  EXPECT_LT(loss, 0.1);
}

TEST_F(TrainerTest, UniformLogitsCostTheLogarithmOfTheVocabulary) {
  CpuTrainer run(tiny_config());
  run.ctx->fill_zero(run.parameters().master());
  EXPECT_NEAR(run.trainer->step(random_batch(run.config, 1)).loss, std::log(32.0), 1e-6);
}

// With a router of zeros every expert has the probability 1/E, and E * sum of f_e / E is the sum of shares: 1.
TEST_F(TrainerTest, BalanceLossIsOneForAnUndecidedRouterAndNothingDropsWithoutCapacity) {
  RunConfig config = tiny_config();
  config.model.moe.capacity_factor.reset();
  CpuTrainer run(config);
  run.trainer->task().parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    if (parameter.kind != nn::ParameterKind::kRouter) return;
    run.ctx->fill_zero(nn::ParameterStore::part_of(parameter.master, part));
  });
  const MoeSummary moe = run.trainer->step(random_batch(config, 1)).moe;
  EXPECT_EQ(moe.dropped_fraction, 0);
  EXPECT_NEAR(moe.balance_loss, 1, 1e-6);
  EXPECT_GT(moe.load_max_over_mean, 1.5);  // ties go to the first experts
}

// Sums of the same products in another order: only rounding may differ. Dropless, and without balance loss, whose
// definition is a micro-batch's.
TEST_F(TrainerTest, MicroBatchesGiveTheGradientOfTheWholeBatch) {
  RunConfig whole = tiny_config();
  whole.model.moe.capacity_factor.reset();
  whole.model.moe.balance_loss_weight = 0;
  whole.train.micro_batch_sequences = 4;
  RunConfig parts = whole;
  parts.train.micro_batch_sequences = 1;  // with 0, 1, 2 and 0 targets that are not counted
  const HostBatch batch = random_batch(whole, 5);
  const std::vector<float> expected = gradients_of_one_step(whole, batch);
  ASSERT_FALSE(expected.empty());
  const double largest = std::abs(*std::ranges::max_element(expected, {}, [](float g) { return std::abs(g); }));
  EXPECT_GT(largest, 1e-3);
  EXPECT_LT(largest_difference(gradients_of_one_step(parts, batch), expected), 2e-6 * std::max(1.0, largest));
}

TEST_F(TrainerTest, LossIsTheMeanOverCountedTargets) {
  RunConfig config = tiny_config();
  config.model.moe.capacity_factor.reset();
  config.train.micro_batch_sequences = 1;
  config.train.batch_tokens = 8;
  const HostBatch batch = random_batch(tiny_config(), 5);
  double sum = 0;
  int64_t counted = 0;
  for (int64_t i = 0; i < batch.sequences; ++i) {
    HostBatch one(1, batch.length);
    std::copy_n(batch.tokens.begin() + i * batch.length, batch.length, one.tokens.begin());
    std::copy_n(batch.targets.begin() + i * batch.length, batch.length, one.targets.begin());
    const StepResult result = CpuTrainer(config).trainer->step(one);
    sum += result.loss * static_cast<double>(result.counted);
    counted += result.counted;
  }
  RunConfig whole = tiny_config();
  whole.model.moe.capacity_factor.reset();
  const StepResult result = CpuTrainer(whole).trainer->step(batch);
  EXPECT_EQ(result.counted, counted);
  EXPECT_EQ(counted, 32 - 3);
  EXPECT_NEAR(result.loss, sum / static_cast<double>(counted), 1e-5);
}

TEST_F(TrainerTest, RecomputationGivesTheSameBits) {
  RunConfig config = tiny_config();
  const std::vector<float> kept = weights_after(config, 3);
  config.train.recompute = Recompute::kBlock;
  EXPECT_EQ(weights_after(config, 3), kept);
}

TEST_F(TrainerTest, EqualRunsGiveEqualBits) {
  const ThreadCount threads(2);
  const RunConfig config = tiny_config();
  EXPECT_EQ(weights_after(config, 3), weights_after(config, 3));
  EXPECT_EQ(weights_after(config, 3, DType::kBF16), weights_after(config, 3, DType::kBF16));
}

TEST_F(TrainerTest, ThreadsDoNotChangeTheResultMuch) {
  const RunConfig config = tiny_config();
  const std::vector<float> one = weights_after(config, 3);
  const ThreadCount threads(3);
  EXPECT_LT(largest_difference(weights_after(config, 3), one), 1e-4);
}

TEST_F(TrainerTest, PrecisionsAgreeClosely) {
  CpuTrainer fp32(tiny_config());
  CpuTrainer bf16(tiny_config(), DType::kBF16);
  for (uint64_t i = 0; i < 5; ++i) {
    const HostBatch batch = random_batch(fp32.config, i);
    EXPECT_NEAR(fp32.trainer->step(batch).loss, bf16.trainer->step(batch).loss, 0.03);
  }
}

TEST_F(TrainerTest, SizingPassKnowsExactlyWhatStepsTake) {
  for (const bool dropless : {false, true}) {
    RunConfig config = tiny_config();
    if (dropless) config.model.moe.capacity_factor.reset();
    CpuTrainer run(config);
    for (uint64_t i = 0; i < 3; ++i) run.trainer->step(random_batch(config, i));
    EXPECT_EQ(run.ctx->state().block_count(), 1U);
    EXPECT_EQ(run.ctx->step().block_count(), 1U);
    EXPECT_EQ(run.ctx->step().used_bytes(), 0U);
    EXPECT_EQ(run.ctx->state().peak_bytes(), run.need.state_bytes);
    EXPECT_LE(run.ctx->step().peak_bytes(), run.need.step_bytes);
    const std::unique_ptr<Context> sizing = make_sizing_context(DeviceKind::kCpu, &cpu::backend().kernels);
    Trainer sized(*sizing, config, DType::kF32);
    sized.step(random_batch(config, 0));
    EXPECT_EQ(run.ctx->step().peak_bytes(), sizing->step().peak_bytes());
  }
}

TEST_F(TrainerTest, BadStepsChangeNothing) {
  CpuTrainer run(tiny_config());
  run.trainer->step(random_batch(run.config, 1));
  std::vector<float> weights = run.weights();
  weights[0] = std::numeric_limits<float>::infinity();  // of the embedding: every logit of token 0 is infinite
  run.ctx->upload(run.parameters().master(), weights.data());
  const std::vector<float> moments = to_host(*run.ctx, run.trainer->optimizer().moment2());
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(run.trainer->step(random_batch(run.config, 1)).refusal, Refusal::kNotFinite);
    EXPECT_EQ(run.trainer->refused_in_a_row(), i);
    EXPECT_EQ(run.weights(), weights);
    EXPECT_EQ(to_host(*run.ctx, run.trainer->optimizer().moment2()), moments);
  }
  EXPECT_EQ(run.trainer->state().updates, 1);
  EXPECT_EQ(run.trainer->state().steps_done, 4);
}

TEST_F(TrainerTest, BatchOfAnotherShapeIsRefused) {
  CpuTrainer run(tiny_config());
  EXPECT_THROW(run.trainer->step(HostBatch(3, 8)), Error);
  EXPECT_THROW(run.trainer->step(HostBatch(4, 7)), Error);
}

}  // namespace
}  // namespace mhmoe::train
